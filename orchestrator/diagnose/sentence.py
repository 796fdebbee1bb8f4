"""The one sentence of a diagnosis, in the order in which a person asks: who, when, what, the others."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from orchestrator.diagnose.choose import BY_STATE, TIMED_OUT
from orchestrator.monitor.flight import named
from orchestrator.states import State
from orchestrator.verdict.judge import signal_name
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.diagnose.choose import Found
    from orchestrator.diagnose.gather import Case
    from orchestrator.diagnose.model import Suspect
    from orchestrator.monitor.flight import Finding

_LONGEST = 200  # characters of what a rank said
_NAMED = 6  # candidates


def short(said: str) -> str:
    """Return the first line of what was said, cut to a readable length."""
    line = next((line.strip() for line in said.splitlines() if line.strip()), "")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def sentence(
    case: Case, found: Found, first: Suspect | None, candidates: tuple[Suspect, ...], message: str
) -> str:
    """Return the diagnosis in one sentence."""
    if found.category == "straggler" and found.text is not None:
        return "; ".join(line.text for line in found.text.lines[:_NAMED])
    if found.hang is not None:
        return _of_hang(case, found, first, candidates) + _recorded(found)
    if found.flight is not None and found.category in TIMED_OUT:
        return _of_records(case, found.flight, first, candidates)
    if not found.category or case.state != State.FAILED or not case.suspects:
        return _without_suspect(case, found, message)
    if first is not None:
        what = _what(found, first, message)
        said = f"{_name(first)} failed first{_when(case, first)}: {what}{_recorded(found)}"
        return f"{said}{_others(case)}{_why_not_again(case)}"
    return _undetermined(case, candidates, message)


def _undetermined(case: Case, candidates: tuple[Suspect, ...], message: str) -> str:
    if len(candidates) == 1:
        who = f"undetermined what failed first; {_name(candidates[0])} gave up{_when(case, candidates[0])}"
        return f"{who}: {message}{_others(case)}"
    names = _listed([_name(one) for one in candidates])
    who = f"undetermined: the evidence cannot tell which failed first of {names}{_when(case, None)}"
    return f"{who}: {message}{_others(case)}"


def _doing(case: Case) -> str:
    reason = _reason(case)
    return f"{case.state}: {reason}" if reason else f"the run is {case.state}"


def _reason(case: Case) -> str:
    """Return what `status` says of a run without a verdict: what it waits for, what can still be done."""
    from orchestrator.monitor.status import current_status  # noqa: PLC0415 - it would import us

    return str(current_status(case.run)["reason"])


def _without_suspect(case: Case, found: Found, message: str) -> str:
    if not found.category:
        return case.summary or _doing(case)
    if case.state == State.SUCCEEDED:
        return f"{case.summary}, but its loss was no number any more at step {case.step}"
    if not case.summary:
        return (_reason(case) if case.state == State.LOST else "") or message
    if found.category in BY_STATE.values() or not message or message.lower() in case.summary.lower():
        return case.summary
    return f"{case.summary} ({message})"


def _of_hang(case: Case, found: Found, first: Suspect | None, candidates: tuple[Suspect, ...]) -> str:
    data = found.hang.data if found.hang is not None else {}
    if data.get("words"):  # ranks that were busy
        return str(data["words"])
    waiting = len(data.get("waiting") or ())
    who = _name(first) if first else f"ranks {_listed([str(one.rank) for one in candidates])}"
    over = State(case.state).is_final if case.state in State.__members__ else False
    verb = "hung" if over else "hangs" if first else "hang"
    when = _when(case, first) if over else _when(case, first).replace(" at ", " since ", 1)
    where, whom = (f", in {first.message}" if first and first.message else ""), "it" if first else "them"
    wait = "waited" if over else "wait" if waiting != 1 else "waits"
    others = f", while {counted(waiting, 'other rank')} {wait} for {whom}" if waiting else ""
    return f"{who} {verb}{when}{where}{others}"


def _recorded(found: Found) -> str:
    """Return what the flight recorders tell of a hang, where the hang's own words do not tell it."""
    data = found.hang.data if found.hang is not None else {}
    told = (data.get("flight") or {}).get("words") or ("" if found.flight is None else found.flight.words)
    return f" ({told})" if told and told not in str(data.get("words", "")) else ""


def _of_records(case: Case, finding: Finding, first: Suspect | None, candidates: tuple[Suspect, ...]) -> str:
    """Return who did not come to a collective that timed out: the first to give up is not who is to blame."""
    who = _name(first) if first else f"ranks {_listed([str(one.rank) for one in candidates])}"
    since = f" since {time.strftime('%H:%M:%S', time.localtime(finding.since))}" if finding.since else ""
    step = f", step {case.step}" if case.step is not None else ""
    if finding.kind == "behind":
        what = f"did not join {finding.what}{step}"
    else:
        what = f"{'was' if first else 'were'} in {finding.instead} and not in {finding.what}{step}"
    return f"{who} {what}; {named(finding.waiting)} waited in it{since} and timed out"


def _name(suspect: Suspect) -> str:
    if suspect.rank is None:
        return suspect.host
    gpu = "" if suspect.gpu is None else f" (GPU {suspect.gpu})"
    return f"rank {suspect.rank} on {suspect.host}{gpu}"


def _when(case: Case, suspect: Suspect | None) -> str:
    moment = suspect.time if suspect is not None else None
    at = f" at {time.strftime('%H:%M:%S', time.localtime(moment))}" if moment else ""
    step = f", step {case.step}" if case.step is not None else ""
    return at + step


def _what(found: Found, first: Suspect, message: str) -> str:
    """Return what happened to the first failure, with the way it ended where that says something."""
    how = _how(first)
    if found.category == "killed" and how:
        return f"{how}, {message}" if found.pattern is not None and found.pattern.say else how
    return f"{message} ({how})" if how and found.pattern is None and how not in message else message


def _how(suspect: Suspect) -> str:
    if suspect.signal:
        return f"killed by {signal_name(suspect.signal)}"
    code = suspect.exit_code
    if code is None:
        return ""
    if 128 < code < 128 + signal.NSIG:
        return f"exit code {code}: {signal_name(code - 128)}"
    return f"exit code {code}"


def _others(case: Case) -> str:
    count = case.stopped
    if not count:
        return ""
    return f"; {count} {'rank was' if count == 1 else 'ranks were'} stopped because of it"


def _why_not_again(case: Case) -> str:
    _, mark, why = case.summary.partition("; not started again: ")
    return f"{mark}{why}" if why else ""


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
