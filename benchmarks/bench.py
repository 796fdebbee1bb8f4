"""What every comparison shares: alternating runs, medians and spreads, tables, versions.

Peers are measured in the same run, on the same hosts, in turns: what slows the machine for a while slows
all of them. A ratio is the ratio of medians; the range beside it is that of the ratios of single rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
Figures = dict[str, float]
"""What one run of one contender gave, by name. Seconds, unless the name says otherwise."""


class Summary(NamedTuple):
    """The median of some runs and how far they lie apart."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """Return `median (low-high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def summarise(values: Sequence[float]) -> Summary:
    """Return median, minimum and maximum."""
    return Summary(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Goal:
    """A figure that is to stay below (or, with `at_least`, above) a limit."""

    what: str
    figure: Summary
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Say whether the median is on the right side of the limit."""
        return self.figure.median >= self.limit if self.at_least else self.figure.median <= self.limit


@dataclass
class Report:
    """One comparison: what was measured and what came out.

    Attributes:
        name: of the benchmark, as in `python -m benchmarks.NAME`.
        setting: what was compared, in a sentence or two.
        samples: contender -> its runs, in the order of the rounds.
        goals: the figures that count.
        versions: of everything that took part.
        layout: `figures` for a line a figure, `rows` for a line a contender with its figures side by side.
        raw: what the figures were made from, where that is more than the samples.
    """

    name: str
    setting: str
    samples: dict[str, list[Figures]]
    goals: list[Goal] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])
    layout: Literal["figures", "rows"] = "figures"
    raw: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def values(self, contender: str, figure: str) -> list[float]:
        """Return one figure of every run of a contender that has it."""
        return [run[figure] for run in self.samples[contender] if figure in run]

    def ratio(self, ours: tuple[str, str], theirs: tuple[str, str]) -> Summary:
        """Return the ratio of two medians, with the range of the single rounds' ratios."""
        top, bottom = self.values(*ours), self.values(*theirs)
        rounds = [a / b for a, b in zip(top, bottom, strict=True)]
        return Summary(statistics.median(top) / statistics.median(bottom), min(rounds), max(rounds))

    def goal(self, what: str, figure: Summary, limit: float, *, at_least: bool = False) -> None:
        """Add a goal."""
        self.goals.append(Goal(what, figure, limit, at_least))

    def print(self) -> None:
        """Print setting, figures, goals and versions as plain text."""
        print(f"\n{self.name}: {self.setting}\n")
        print_table(*table(self.layout, self.samples))
        if self.goals:
            print()
            print_table(["goal", "limit", "measured", ""], [_goal_row(goal) for goal in self.goals])
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        print(f"\n{machine_line()}; load before the first run {self.load_before:.2f}\n{versions}")

    def to_json(self) -> dict[str, Any]:
        """Return everything, with the raw figures."""
        goals = [asdict(goal) | {"figure": goal.figure._asdict(), "met": goal.met} for goal in self.goals]
        machine = {"line": machine_line(), "cpus": os.cpu_count(), "load_before": self.load_before}
        document = {"name": self.name, "setting": self.setting, "date": time.strftime("%Y-%m-%d %H:%M")}
        return (
            document
            | {
                "machine": machine,
                "versions": self.versions,
                "goals": goals,
                "layout": self.layout,
                "samples": self.samples,
            }
            | ({"raw": self.raw} if self.raw else {})
        )


def table(layout: str, samples: Mapping[str, Sequence[Figures]]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of all figures."""
    if layout == "rows":
        names = [*dict.fromkeys(name for runs in samples.values() for run in runs for name in run)]
        return ["contender", *names], [
            [contender, *(_medians(runs, name) for name in names)] for contender, runs in samples.items()
        ]
    return ["contender", "figure", "median (min-max)", "runs"], [
        [contender, figure, summarise(values).text(3), str(len(values))]
        for contender, runs in samples.items()
        for figure in dict.fromkeys(name for run in runs for name in run)
        if (values := [run[figure] for run in runs if figure in run])
    ]


def _medians(runs: Sequence[Figures], figure: str) -> str:
    values = [run[figure] for run in runs if figure in run]
    return f"{statistics.median(values):.4g}" if values else ""


def _goal_row(goal: Goal) -> list[str]:
    sign = ">=" if goal.at_least else "<="
    verdict = "met" if goal.met else "MISSED"
    return [goal.what, f"{sign} {goal.limit:g}", goal.figure.text(), verdict]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns."""
    table = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def alternate(
    contenders: Mapping[str, Callable[[], Figures]], rounds: int, warm_ups: int = 1
) -> dict[str, list[Figures]]:
    """Run every contender once a round, every second round in reverse order.

    Args:
        contenders: name -> a function that runs it once.
        rounds: how many rounds count.
        warm_ups: rounds before those, which fill the page cache and do not count.
    """
    samples: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(-warm_ups, rounds):
        order = list(contenders)[:: -1 if number % 2 else 1]
        for name in order:
            figures = contenders[name]()
            said = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            print(f"{'warm-up' if number < 0 else f'round {number + 1}'}  {name}: {said}", file=sys.stderr)
            if number >= 0:
                samples[name].append(figures)
    return samples


def timed(argv: Sequence[str], **options: Any) -> float:
    """Run a command that must succeed and return its seconds; its output is thrown away.

    Raises:
        SystemExit: it failed.
    """
    started = time.perf_counter()
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, **options)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr.decode().strip()}")
    return seconds


def arguments(module: str, description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return the grammar that all comparisons share; also make the environment a neutral one.

    An installed package has its bytecode beside it. A checkout has it after the first run (the warm-up),
    unless a variable forbids that: then ours alone would be compiled anew at every start.
    """
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        os.environ.pop(name, None)
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="runs of each contender (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures into this file")
    return parser


def finish(report: Report, file: Path | None) -> None:
    """Print a report, and write it where a file was asked for."""
    report.print()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(report.to_json(), indent=1) + "\n")


def need(*programs: str) -> None:
    """End with a word of explanation where a program is not installed, or a testbed cannot be had.

    Raises:
        SystemExit: something is missing.
    """
    absent = [program for program in programs if not Path(program).exists() and shutil.which(program) is None]
    if absent:
        raise SystemExit(f"this comparison needs {', '.join(absent)}; see benchmarks/README.md")


def need_testbed() -> None:
    """End with a word of explanation where no testbed can be had.

    Raises:
        SystemExit: not root, or tools are missing.
    """
    from tests.testbed import missing  # noqa: PLC0415 - most comparisons need no testbed

    if (why := missing()) is not None:
        raise SystemExit(f"this comparison runs on the testbed of tests/testbed: {why}")


def measured(argv: Sequence[str]) -> Figures:
    """Run a command that must succeed; return its seconds and its peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"`{' '.join(argv)}` ended with {process.returncode}; run it to see why")
    return {"s": seconds, "peak MB": usage.ru_maxrss / 1024}


def write_hosts(folder: Path, hosts: int, slots: int) -> Path:
    """Write a hostfile with a line a host; return it."""
    path = folder / f"hostfile-{hosts}"
    path.write_text("".join(f"worker-{index} slots={slots}\n" for index in range(hosts)))
    return path


def program(name: str) -> str:
    """Return a program that is installed beside this python, such as `orchestrate` or `deepspeed`."""
    return str(Path(sys.executable).parent / name)


def versions(*packages: str, **commands: Sequence[str]) -> dict[str, str]:
    """Return the versions of this python, of packages, and the first line of commands' output."""
    found = {"python": platform.python_version()}
    found |= {name: metadata.version(name) for name in packages}
    for name, argv in commands.items():
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        line = (done.stdout + done.stderr).strip().split("\n")[0]
        found[name] = line.removeprefix(name).strip("- ").partition(",")[0]
    return found


def machine_line() -> str:
    """Return the processor, how many of it, and the kernel."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    return f"{os.cpu_count()} CPUs ({model}), Linux {platform.release()}"
