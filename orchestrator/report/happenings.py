"""What happened in a run, in words, from its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.forecast.words import seconds, volume
from orchestrator.hosts.ranges import fold_names, fold_numbers
from orchestrator.monitor.xids import fault_words, of_program
from orchestrator.report.units import lasted
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MOST = 400  # events of a kind that are told, the first and the last of them


def happenings(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `time`, `kind`, `mark` and `words` of what a reader should know of, in order of time.

    `mark` is `bad`, `good`, `mark` (of note) or "".
    """
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        told = _TOLD.get(str(event.get("event")))
        if told is not None:
            mark, words = told
            when = event.get("ended") or event["time"]  # a checkpoint is looked for every now and then
            said = {"time": when, "kind": event["event"], "mark": mark, "words": words(event)}
            by_kind.setdefault(event["event"], []).append(_judged(event, said))
    found = [one for of_kind in by_kind.values() for one in _bounded(of_kind)]
    return sorted(found, key=lambda one: float(one["time"]))


def said_of_hosts(events: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what was told of each host that others have not: slow, faults of GPUs, no memory; each once."""
    found: dict[str, list[str]] = {}
    for event in events:
        words = _OF_A_HOST.get(str(event.get("event")))
        told = found.setdefault(str(event["host"]), []) if words and event.get("host") else None
        if words is not None and told is not None and (said := words(event)) not in told:
            told.append(said)
    return found


def _judged(event: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    if event["event"] in ("verdict", "ending"):
        return said | {"mark": "good" if event.get("state") == "SUCCEEDED" else "bad"}
    if event["event"] == "gpu_fault" and of_program(event):
        return said | {"mark": "mark"}
    return said


def _bounded(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(found) <= _MOST:
        return found
    left = {**found[_MOST // 2], "words": f"… {len(found) - _MOST:,} more of this kind are left out"}
    return [*found[: _MOST // 2], left, *found[-_MOST // 2 :]]


def _hang(event: dict[str, Any]) -> str:
    if event.get("words"):  # ranks that were busy
        return f"hang: {event['words']}"
    where = event.get("where") or {}
    stuck_at = [(rank, where[str(rank)]) for rank in event.get("ranks") or () if str(rank) in where]
    places = ", ".join(f"rank {rank} at {place}" for rank, place in stuck_at[:4])
    stuck = f"hang: {_ranks(event.get('ranks'))} silent for {lasted(float(event.get('silent') or 0))}"
    waiting = event.get("waiting")
    others = f", {counted(len(waiting), 'rank')} waiting" if waiting else ""
    recorded = str((event.get("flight") or {}).get("words", ""))
    return "; ".join(filter(None, (f"{stuck}{others}", places, recorded)))


def _ranks(ranks: Any) -> str:
    found = list(ranks or [])
    if not found:
        return "ranks"
    return f"rank{'s' if len(found) > 1 else ''} {fold_numbers(sorted(map(int, found)))}"


def _straggler(event: dict[str, Any]) -> str:
    words = event.get("words")
    return f"{event.get('host')} is slow: {words}" if words else f"{event.get('host')} is slow"


def _save(event: dict[str, Any]) -> str:
    took = float(event.get("ended") or 0) - float(event.get("began") or event.get("ended") or 0)
    return f"checkpoint {event.get('tag')} complete" + (f" after {seconds(took)}" if took > 0 else "")


def _pruned(event: dict[str, Any]) -> str:
    return f"old checkpoints deleted: {', '.join(event.get('tags') or ())}, {volume(event.get('bytes') or 0)}"


def _fault(event: dict[str, Any]) -> str:
    said = f" ({event['text']})" if event.get("text") else ""
    return f"{event.get('host')}, {fault_words(event)}{said}"


def _versions(event: dict[str, Any]) -> str:
    parts = [f"{version} on {fold_names(hosts)}" for version, hosts in (event.get("hosts") or {}).items()]
    return f"{event.get('package')} differs between hosts: {'; '.join(parts)}"


def _value(name: str, head: str = "") -> Callable[[dict[str, Any]], str]:
    return lambda event: f"{head}{event.get(name) or ''}".rstrip(": ")


_OF_A_HOST: dict[str, Callable[[dict[str, Any]], str]] = {
    "straggler": lambda event: f"slow: {event.get('words') or event.get('what')}",
    "gpu_fault": fault_words,
    "oom_kill": lambda _: "the kernel killed for memory",
}
_TOLD: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "attempt": ("", lambda event: f"attempt {event.get('attempt')} begins"),
    "supervisor": ("", lambda event: f"supervisor started on {event.get('host')}"),
    "start": ("", _value("master", "all hosts are ready; ranks start, master at ")),
    "first_step": ("good", lambda event: f"first step of attempt {event.get('attempt')}"),
    "checkpoint": ("good", _save),
    "hang": ("bad", _hang),
    "stall": ("bad", lambda event: f"stall: {event.get('words', '')}"),
    "stall_over": ("good", lambda _: "the stall is over"),
    "hang_over": ("good", lambda _: "the hang is over"),
    "straggler": ("mark", _straggler),
    "straggler_over": ("", lambda event: f"{event.get('host')} is as fast as the others again"),
    "gpu_fault": ("bad", _fault),
    "oom_kill": ("bad", lambda event: f"{event.get('host')}: killed for memory: {event.get('text')}"),
    "host_failed": ("bad", lambda event: f"{event.get('host')}: {event.get('why')}"),
    "ending": ("bad", _value("reason", "the attempt ends: ")),
    "interruption": ("mark", _value("reason", "interrupted by the scheduler: ")),
    "requeue": ("mark", _value("reason", "queued again: ")),
    "retry": ("mark", _value("reason", "started again: ")),
    "versions_differ": ("mark", _versions),
    "reshape": ("", lambda _: "the checkpoint is being made to fit the ranks"),
    "reshaped": ("", lambda _: "the checkpoint fits the ranks"),
    "set_aside": ("", lambda event: f"checkpoint {event.get('tag')} was set aside as {event.get('name')}"),
    "pruned": ("", _pruned),
    "not_pruned": ("mark", lambda event: f"old checkpoints kept: {'; '.join(event.get('reasons') or ())}"),
    "verdict": ("", lambda event: f"{event.get('state')}: {event.get('summary')}"),
}  # fmt: skip
