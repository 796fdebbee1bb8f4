"""The settings that fit, as a table: the fastest first, the job's own among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.estimate import traffic
from orchestrator.forecast.estimates import stage_name
from orchestrator.forecast.style import plain
from orchestrator.forecast.words import columns, seconds, volume, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.estimate import Candidate, Settings, Suggestions
    from orchestrator.forecast.estimates import Estimates
    from orchestrator.forecast.style import Style

_SHOWN = 8
_NOTE = 86  # columns of a note
_RIGHT = frozenset({0, 3, 4, 5, 6})
_HEAD = ["", "settings", "batch", "GPU GiB", "host GiB", "sent", "step"]


def suggestion_lines(suggestions: Suggestions, made: Estimates, style: Style = plain) -> Iterator[str]:
    """Yield the ranking; what changes the training's numbers says so.

    Args:
        suggestions: what fits.
        made: the job's own figures, to stand beside them.
        style: the looks of the job's own row.
    """
    ranked = suggestions.ranked
    if not ranked:
        yield style("nothing fits", "bad")
        yield from _dropped(suggestions)
        return
    rows = [_row(f"{place}", each, made) for place, each in enumerate(ranked[:_SHOWN], 1)]
    own = next((place for place, each in enumerate(ranked) if not each.changed), None)
    if own is None or own >= _SHOWN:
        rows.append(_own_row(made, "" if own is None else f"{own + 1}"))
        own = len(rows) - 1
    lines = columns([_HEAD, *rows], right=_RIGHT)
    yield lines[0]
    for place, line in enumerate(lines[1:]):
        yield style(f"> {line}", "mark") if place == own else f"  {line}"
    if len(ranked) > _SHOWN:
        yield f"… and {len(ranked) - _SHOWN} more that fit; --json has them all"
    yield from _told(ranked)


def _row(place: str, candidate: Candidate, made: Estimates) -> list[str]:
    time = candidate.time.total
    return [
        place,
        settings_name(candidate.settings) + (" *" if candidate.lossy else ""),
        _batch(candidate.settings),
        _gib(candidate.gpu.total),
        _gib(candidate.host.total),
        volume(traffic(made.shape, candidate.settings, made.world).ring.total),
        "?" if time is None else seconds(time),
    ]


def _own_row(made: Estimates, place: str) -> list[str]:
    time = made.own.time.total
    misfit = made.fits_gpu is False or made.fits_host is False
    return [
        place,
        settings_name(made.settings) + (", does not fit" if misfit else ""),
        _batch(made.settings),
        _gib(made.gpu.total),
        _gib(made.host.total),
        volume(made.own.traffic.ring.total),
        "?" if time is None else seconds(time),
    ]


def settings_name(settings: Settings) -> str:
    """Return stage, ZeRO++ features and offload of settings in few words."""
    moved = {settings.offload_optimizer: "optimizer", settings.offload_param: "weights"}
    if settings.offload_optimizer == settings.offload_param:
        moved = {settings.offload_param: "all"}
    parts = [f"{what} on {where}" for where, what in moved.items() if where != "none"]
    stage = stage_name(settings).replace(f" {settings.hpz}", "").replace(" +", "")
    return ", ".join([stage, *parts])


def _batch(settings: Settings) -> str:
    """Return micro-batch and accumulation steps."""
    return "?" if settings.micro_batch is None else f"{settings.micro_batch} x {settings.accumulation}"


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f}"


def _told(ranked: tuple[Candidate, ...]) -> Iterator[str]:
    yield "> the job file; batch: micro-batch x accumulation; sent: by a host to others in a step"
    times = [candidate.time.total or 0 for candidate in ranked[:_SHOWN]]
    if times != sorted(times):
        yield "steps that differ by 2 % or less count as equal: then what is simpler comes first"
    if any(candidate.lossy for candidate in ranked[:_SHOWN]):
        yield "* weights or gradients travel in fewer bits, which changes the numbers a little"
    best = ranked[0]
    if not best.changed:
        yield "nothing is predicted to be faster than what the job file says"
        return
    yield f"to take the first (--suggest --write{' --lossy' * bool(best.new_losses)} does it):"
    yield from (f"  {key}: {yaml_value(value)}" for key, value in best.fields().items())
    yield from (line for note in best.notes for line in wrapped(f"  ({note})", _NOTE, "   "))


def _dropped(suggestions: Suggestions) -> Iterator[str]:
    """Yield why the settings that need least do not fit; the most of offload comes last."""
    short = [each for each in suggestions.dropped if each.reason.startswith("needs")]
    for each in (short or suggestions.dropped)[-3:]:
        yield f"{settings_name(each.settings)}: {each.reason}"


def yaml_value(value: object) -> str:
    """Return a suggested value as YAML writes it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
