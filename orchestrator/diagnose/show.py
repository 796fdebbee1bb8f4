"""A diagnosis for a person at a terminal: the sentence, the lines it rests on, what to try."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import coloured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.diagnose.model import Diagnosis, Evidence, Suspect
    from orchestrator.rundir import RunDir

_CANDIDATES = 8


def screen(run: RunDir, told: Diagnosis, *, width: int = 100) -> Iterator[str]:
    """Yield the lines that show a diagnosis.

    Args:
        run: the run, for the folder that the files are in.
        told: the diagnosis.
        width: columns of the terminal.
    """
    yield from _wrapped(told.summary, width)
    yield from _candidates(told)
    yield from _why(run, told, width)


def _candidates(told: Diagnosis) -> Iterator[str]:
    if told.undetermined and len(told.candidates) > 1:
        yield from map(_candidate, told.candidates[:_CANDIDATES])
        if len(told.candidates) > _CANDIDATES:
            yield f"  and {len(told.candidates) - _CANDIDATES} more"


def _why(run: RunDir, told: Diagnosis, width: int) -> Iterator[str]:
    if told.evidence:
        yield ""
        yield _head("evidence", f"in {run.path}")
        for one in told.evidence:
            yield from _evidence(one, width)
    if told.advice:
        yield ""
        yield _head("what to try", told.title)
        for advice in told.advice:
            yield from _wrapped(advice, width, "  - ", "    ")


def end_of_run(
    run: RunDir, status: dict[str, Any], told: Diagnosis | None, *, width: int = 100
) -> Iterator[str]:
    """Yield how a run ended, for the terminal that followed it.

    Args:
        run: the run.
        status: its state, and its verdict's own sentence as `reason`.
        told: its diagnosis, if one could be made.
        width: columns of the terminal.
    """
    state = coloured(status["state"])
    if told is None or not told.category:
        yield f"{state}  {status['reason']}"
        return
    first, *others = _wrapped(f"{status['state']}  {told.summary}", width)
    yield first.replace(str(status["state"]), state, 1)
    yield from others
    yield from _candidates(told)
    yield from _why(run, told, width)
    yield ""


def _head(word: str, more: str) -> str:
    return f"{click.style(word, bold=True)}  {click.style(more, dim=True)}".rstrip()


def _candidate(suspect: Suspect) -> str:
    who = suspect.host if suspect.rank is None else f"rank {suspect.rank} on {suspect.host}"
    at = time.strftime("%H:%M:%S", time.localtime(suspect.time)) if suspect.time else "        "
    said = suspect.message.splitlines()[0][:100] if suspect.message else ""
    return f"  {at}  {who}  {said}".rstrip()


def _evidence(one: Evidence, width: int) -> Iterator[str]:
    at = "" if one.time is None else f"  {time.strftime('%H:%M:%S', time.localtime(one.time))}"
    yield f"  {click.style(one.place, fg='cyan')}{click.style(at, dim=True)}"
    yield from _wrapped(one.text, width, "    ", "    ")


def _wrapped(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    """Return a sentence in lines; words such as paths and commands are not cut."""
    return textwrap.wrap(
        text,
        max(40, width),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
