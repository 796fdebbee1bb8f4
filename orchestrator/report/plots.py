"""Which plots a report has, from the series of its document."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.report.plot import Drawn, Line, Plot, Ribbon, draw

if TYPE_CHECKING:
    from collections.abc import Iterator


def plots(document: dict[str, Any]) -> list[Drawn]:
    """Return a run's plots; those for which it has no values are left out."""
    span = _span(document)
    timed = (replace(plot, span=span) for plot in (*_speed(document), *_machines(document)))
    found = [draw(plot) for plot in (*_learning(document), *timed)]
    return [one for one in found if one is not None]


def _span(document: dict[str, Any]) -> tuple[float, float] | None:
    """Return from when to when (seconds since submit) a run had hosts: before, there is nothing to show."""
    began = [attempt["began"] for attempt in document["attempts"]]
    start, end = min(began, default=0.0) - document["created"], document["ended"] - document["created"]
    return (start, end) if began and end > start else None


def _learning(document: dict[str, Any]) -> Iterator[Plot]:
    curves = document["series"]["curves"]
    evaluated = "eval_loss" in curves
    lines = curve_lines(curves.get("loss"), "training" if evaluated else "", "c0")
    lines += curve_lines(curves.get("eval_loss"), "evaluation", "c1")
    yield Plot("Loss", lines, note=_nan_words(curves.get("loss")))
    for name, title in (
        ("grad_norm", "Gradient norm"),
        ("learning_rate", "Learning rate"),
        ("loss_scale", "Loss scale"),
    ):
        floor = 0.0 if name == "learning_rate" else None
        yield Plot(
            title, curve_lines(curves.get(name), "", "c0"), floor=floor, note=_nan_words(curves.get(name))
        )


def _nan_words(curve: dict[str, Any] | None) -> str:
    """Return from which step on a value was no number; "" where all are."""
    if curve is None:
        return ""
    at = next((step for step, y in zip(curve["step"], curve["value"], strict=True) if y is None), None)
    return "" if at is None else f"no number (NaN, infinite) at step {at:,}"


def _speed(document: dict[str, Any]) -> Iterator[Plot]:
    curves, bands = document["series"]["curves"], document["series"]["bands"]
    for name, title in (
        ("tokens_per_second", "Tokens per second"),
        ("samples_per_second", "Samples per second"),
        ("tflops", "TFLOPS per GPU"),
        ("mfu", "Model FLOPs utilisation"),
    ):
        lines = curve_lines(curves.get(name), "", "c0", document["created"])
        yield Plot(title, lines, across="time", floor=0.0, unit="share" if name == "mfu" else "")
    band = bands.get("step.step_time")
    if band is not None:
        yield _banded(document, "Step time", band, "seconds", note="mean of all ranks, and their range")
        return
    lines = curve_lines(curves.get("step_time"), "", "c0", document["created"])
    yield Plot("Step time", lines, (), "seconds", "time", floor=0.0, note="by the times of its reports")


def _machines(document: dict[str, Any]) -> Iterator[Plot]:
    bands = document["series"]["bands"]
    for name, title, unit in (
        ("gpu.utilization", "GPU utilisation", "share"),
        ("gpu.memory", "GPU memory", "bytes"),
        ("gpu.temperature", "GPU temperature", "celsius"),
        ("gpu.power", "GPU power", "watts"),
        ("host.cpu", "CPU cores in use on a host", ""),
        ("host.memory", "Memory of a host", "bytes"),
    ):
        if name in bands:
            many = "GPUs" if name.startswith("gpu") else "hosts"
            yield _banded(document, title, bands[name], unit, note=f"mean of all {many}, and their range")
    if "host.memory" not in bands and "rank.memory" in bands:
        yield _banded(
            document, "Memory of a rank", bands["rank.memory"], "bytes", note="mean of all, and range"
        )
    if "host.sent" in bands:
        yield _network(document, bands)


def _banded(document: dict[str, Any], title: str, band: dict[str, Any], unit: str, note: str) -> Plot:
    x = _since(document, band["time"])
    ribbon = Ribbon(x, band["low"], band["high"])
    return Plot(title, [Line("", x, band["mean"])], [ribbon], unit, "time", floor=0.0, note=note)


def _network(document: dict[str, Any], bands: dict[str, Any]) -> Plot:
    lines = [
        Line(words, _since(document, bands[name]["time"]), bands[name]["mean"], style)
        for name, words, style in (("host.sent", "sent", "c0"), ("host.received", "received", "c1"))
        if name in bands
    ]
    return Plot(
        "Network of a host", lines, (), "bytes_per_second", "time", floor=0.0, note="mean of all hosts"
    )


def _since(document: dict[str, Any], times: list[Any]) -> list[float | None]:
    return [None if time is None else time - document["created"] for time in times]


def curve_lines(
    curve: dict[str, Any] | None, name: str, style: str, since: float | None = None
) -> list[Line]:
    """Return the lines of a curve: all of its points, faint where their means are drawn over them.

    Args:
        curve: of a document's `series.curves`; None gives no lines.
        name: what to call it; "" where it is the only one.
        style: class of its colour.
        since: epoch seconds from which time is counted, for a plot over time; None for one over steps.
    """
    if curve is None:
        return []
    points = Line(name, _across(curve, since), curve["value"], style, curve["attempt"])
    smooth = curve.get("smooth")
    if smooth is None:
        return [points]
    means = Line("", _across(smooth, since), smooth["value"], style, smooth["attempt"], silent=True)
    return [replace(points, style=f"{style} raw"), means]


def _across(curve: dict[str, Any], since: float | None) -> list[float | None]:
    if since is None:
        steps: list[float | None] = curve["step"]
        return steps
    return [None if time is None else time - since for time in curve["time"]]
