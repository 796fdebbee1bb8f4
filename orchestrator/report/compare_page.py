"""The page, and the table of a terminal, that show several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.report.page import environment, state_view
from orchestrator.report.plot import Drawn, Line, Plot, draw
from orchestrator.report.plots import curve_lines
from orchestrator.report.spent import shares
from orchestrator.report.units import lasted, value_words
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIGURES = (
    ("last step", "last_step", ""),
    ("last loss", "last_loss", ""),
    ("lowest loss", "lowest_loss", ""),
    ("tokens/s", "tokens_per_second", ""),
    ("samples/s", "samples_per_second", ""),
    ("TFLOPS per GPU", "tflops", ""),
    ("step time, median", "step_seconds", "seconds"),
    ("step time, 99 %", "step_seconds_p99", "seconds"),
)
_CURVES = (
    ("loss", "Loss", "", None),
    ("eval_loss", "Evaluation loss", "", None),
    ("grad_norm", "Gradient norm", "", None),
    ("learning_rate", "Learning rate", "", 0.0),
    ("tokens_per_second", "Tokens per second", "", 0.0),
    ("samples_per_second", "Samples per second", "", 0.0),
    ("step_time", "Step time", "seconds", 0.0),
    ("tflops", "TFLOPS per GPU", "", 0.0),
)
_BANDS = (
    ("gpu.utilization", "GPU utilisation", "share"),
    ("gpu.memory", "GPU memory", "bytes"),
    ("host.memory", "Memory of a host", "bytes"),
)


def compare_page(found: dict[str, Any]) -> str:
    """Return the page of several runs.

    Args:
        found: of `orchestrator.report.compare`.
    """
    names = run_names(found["runs"])
    runs = [
        {
            "name": name,
            "style": f"c{i}",
            "state": state_view(run["state"]),
            "run": run,
            "shares": shares(run["goodput"]),
        }
        for i, (name, run) in enumerate(zip(names, found["runs"], strict=True))
    ]
    values = {
        "d": found,
        "runs": runs,
        "figures": list(figures(found["runs"])),
        "plots": [plot for plot in _plots(found["runs"], names) if plot is not None],
        "differences": found["differences"],
    }
    text: str = environment().get_template("compare.html.j2").render(values)
    return text


def run_names(runs: list[dict[str, Any]]) -> list[str]:
    """Return what to call each run: its id, numbered where one id is there twice."""
    ids = [run["run_id"] for run in runs]
    return [name if ids.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(ids)]


def figures(runs: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each figure that a run has, and its value in every run."""
    yield "state", [run["state"] for run in runs]
    yield "time", [lasted(run["goodput"]["wall"]) for run in runs]
    yield "ranks", [f"{run['ran']['ranks']} on {counted(run['ran']['hosts'], 'host')}" for run in runs]
    if any(run["goodput"]["share"] is not None for run in runs):
        yield "goodput", [value_words(run["goodput"]["share"], "share") for run in runs]
    for words, name, unit in _FIGURES:
        if any(name in run["figures"] for run in runs):
            yield words, [value_words(run["figures"].get(name), unit) for run in runs]


def terminal_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table for a terminal: figures, then differences."""
    head = ["", *run_names(found["runs"])]
    rows = [[name, *values] for name, values in figures(found["runs"])]
    rows += [[one["key"], *map(_cut, one["values"])] for one in found["differences"]]
    return head, rows


def _cut(words: str | None, width: int = 36) -> str:
    if words is None:
        return "-"
    flat = " ".join(words.split())
    return flat if len(flat) <= width else f"{flat[: width - 1]}…"


def _plots(runs: list[dict[str, Any]], names: list[str]) -> Iterator[Drawn | None]:
    for key, title, unit, floor in _CURVES:
        lines = [
            line
            for i, run in enumerate(runs)
            for line in curve_lines(run["series"]["curves"].get(key), names[i], f"c{i}")
        ]
        yield draw(Plot(title, lines, unit=unit, floor=floor))
    for key, title, unit in _BANDS:
        lines = [
            Line(names[i], [t - run["created"] for t in band["time"]], band["mean"], f"c{i}")
            for i, run in enumerate(runs)
            if (band := run["series"]["bands"].get(key)) is not None
        ]
        yield draw(Plot(title, lines, unit=unit, across="time", floor=0.0, note="mean"))
