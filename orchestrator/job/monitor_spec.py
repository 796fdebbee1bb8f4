"""The section of the job file about watching the run: how often to measure, and what a hang is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from orchestrator.job.durations import parse_duration
from orchestrator.job.section import Section
from orchestrator.job.values import JobPath  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable

_SHORTEST_INTERVAL = 0.5  # seconds: below it an agent would spend its share of a core on measuring


def _seconds_or(*words: str, least: float) -> Callable[[Any], Any]:
    """Return a validator that takes one of `words`, or a duration of at least `least` seconds."""

    def check(value: Any) -> Any:
        if value in words:
            return value
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise ValueError(f"{error}; or {' or '.join(words)}") from None
        if seconds < least:
            raise ValueError(f"expected {least:g} seconds or more, or {' or '.join(words)}")
        return seconds

    return check


def _schema(*words: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "examples": [*words, "2m"]}]})


Interval = Annotated[
    float | Literal["auto"], BeforeValidator(_seconds_or("auto", least=_SHORTEST_INTERVAL)), _schema("auto")
]
HangAfter = Annotated[
    float | Literal["auto", "never"],
    BeforeValidator(_seconds_or("auto", "never", least=1)),
    _schema("auto", "never"),
]
StopAfter = Annotated[
    float | Literal["never"], BeforeValidator(_seconds_or("never", least=0)), _schema("never")
]


class HangSpec(Section):
    """What a hang is, and how long one may last."""

    after: HangAfter = Field(
        default="auto",
        description="Seconds without a log byte, a step or CPU use after which ranks that others wait for "
        "hang: auto takes 120 s or five times the 99th percentile of the step time, whichever is longer, and "
        "600 s before the first step; never switches it off. It is at least two sample_intervals. Where no "
        "rank tells a step or writes to its log for three times as long, it is a stall if some wait for "
        "others, however busy they are (as with NCCL).",
    )
    stop_after: StopAfter = Field(
        default=600.0,
        description="Seconds that a hang may still last, once it is known, before the run is ended as "
        "failed; never lets it be. A stall ends no run, but for ranks in collectives that do not match.",
    )


class MonitorSpec(Section):
    """How the run is watched."""

    sample_interval: Interval = Field(
        default="auto",
        description="Seconds between two measurements of every host: CPU, memory, disk, network, GPUs. auto "
        "takes 10 s, and longer beyond 100 hosts.",
    )
    hang: HangSpec = Field(default_factory=HangSpec, description="What counts as a hang, and what follows.")
    patterns: list[JobPath] = Field(
        default_factory=list,
        description="YAML files with patterns of your own for diagnose; they come before those it has.",
    )
