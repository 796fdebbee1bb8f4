"""`orchestrate logs --grep` over gigabytes of logs, beside `grep -r` of the same files.

The logs are those of a run of 16 hosts with 8 ranks each, with the lists of times that agents write, so that
what is found is printed by time, which grep does not do. The files are read once before, so both search in
the page cache; the disk would be the same for both. A few gigabytes are measured, since the speed does not
depend on the size (`--gigabytes 10` to see). Patterns are a rare text, one of two, one that ignores case, one
that a line in a thousand has, and, with `--all`, one in which no text is certain.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import bench
from tests.made_run import BEGAN, made_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.rundir import RunDir

_HOSTS, _SLOTS = 16, 8
_GOAL = 0.5
_LINES = 1000  # of one block of text, which the logs repeat
_PATTERNS = {
    "rare": "CUDA out of memory",
    "either": "Watchdog caught|out of memory",
    "ignoring case": "(?i)cuda out of memory",
    "a line in 1,000": "saved checkpoint",
}
_SLOW = {"without a text": "[0-9]{7}|[A-Z]{5}"}


def lengthen(run: RunDir, size: int) -> None:
    """Fill the ranks' logs up to `size` bytes together, with a time for every 64 KiB or so."""
    logs = run.attempt(1).logs
    block = _block()
    for host in run.plan().hosts:
        times = []
        for rank in host.ranks:
            file = logs / f"{host.file_name}.rank{rank}.out"
            repeats = max(1, size // (_HOSTS * _SLOTS) // len(block))
            with file.open("wb") as stream:
                for _ in range(repeats):
                    stream.write(block)
                stream.write(b"torch.OutOfMemoryError: CUDA out of memory.\n")
            times += [(BEGAN + 30 + n, f"{rank}.out {n * len(block)}") for n in range(1, repeats + 1)]
            times.append((BEGAN + 31 + repeats, f"{rank}.out {file.stat().st_size}"))
        index = logs / f"{host.file_name}.times"
        index.write_text("".join(f"{time:.3f} {what}\n" for time, what in sorted(times)))


def _block() -> bytes:
    numbers = random.Random(1)
    lines = [
        f"step {step}/200000 loss {numbers.uniform(2, 5):.4f} lr 3.00e-04 grad_norm {numbers.random():.3f} "
        f"tokens/s {numbers.randint(8000, 8300)} step_time {numbers.uniform(0.9, 1.1):.2f}s\n"
        for step in range(_LINES - 1)
    ]
    return "".join([*lines, "saved checkpoint global_step1000\n"]).encode()


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("logs_grep", __doc__, rounds=3)
    parser.add_argument("--gigabytes", type=float, default=2.5, help="of logs (%(default)s)")
    parser.add_argument(
        "--all", action="store_true", help="also a pattern for which no text can be looked for"
    )
    args = parser.parse_args()
    patterns = _PATTERNS | (_SLOW if args.all else {})
    bench.need("grep", bench.program("orchestrate"))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        run = made_run(Path(name), hosts=_HOSTS, slots=_SLOTS, steps=1)
        lengthen(run, int(args.gigabytes * 1e9))
        samples = bench.alternate(_contenders(run, patterns), args.rounds)
        size = sum(file.stat().st_size for file in run.attempt(1).logs.iterdir())
    report = bench.Report(
        "logs_grep",
        f"{size / 1e9:.1f} GB of logs of {_HOSTS} x {_SLOTS} ranks, in the page cache",
        samples,
        versions=bench.versions("click", grep=["grep", "--version"]),
        load_before=load,
    )
    for what in _PATTERNS:
        ratio = report.ratio((f"grep -r: {what}", "s"), (f"logs --grep: {what}", "s"))
        report.goal(f"speed of `logs --grep` / `grep -r`: {what}", ratio, _GOAL, at_least=True)
    bench.finish(report, args.json)


def _contenders(run: RunDir, patterns: Mapping[str, str]):
    logs, program = str(run.attempt(1).logs), bench.program("orchestrate")
    found = {}
    for what, pattern in patterns.items():
        found[f"grep -r: {what}"] = _runner("grep", *_grep_words(pattern), logs)
        found[f"logs --grep: {what}"] = _runner(program, "logs", str(run.path), "--grep", pattern)
    return found


def _grep_words(pattern: str) -> list[str]:
    """Return grep's options and pattern: -E is its fastest for all of these."""
    plain = pattern.removeprefix("(?i)")
    return ["-rE", "-e", plain] if plain == pattern else ["-rEi", "-e", plain]


def _runner(*argv: str):
    """Return a function that runs a command into a file: with /dev/null grep ends at the first match."""

    def run() -> bench.Figures:
        with tempfile.TemporaryFile() as output:
            started = time.perf_counter()
            process = subprocess.Popen(argv, stdout=output, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"`{' '.join(argv)}` ended with {process.returncode}; run it to see why")
            cpu = usage.ru_utime + usage.ru_stime
            written = os.fstat(output.fileno()).st_size / 1e6
            return {"s": seconds, "CPU s": cpu, "peak MB": usage.ru_maxrss / 1024, "output MB": written}

    return run


if __name__ == "__main__":
    main()
