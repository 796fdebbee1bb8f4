"""The event stream in words; what every host or rank tells alike becomes one line with a count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.top.snapshot import EventLine
from orchestrator.monitor.top.words import duration, ended_how, one_line, rank_set, short_number
from orchestrator.monitor.xids import fault_words, of_program

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 500  # lines kept
_FIRST_FAILURES = 20  # ranks that failed on their own get a line each, until there are as many


@dataclass
class _Fold:
    """A line that stands for many events."""

    time: float
    words: str
    hosts: dict[str, None] = field(default_factory=dict)
    ranks: list[int] = field(default_factory=list)
    _line: EventLine | None = None

    def take(self, hosts: tuple[str, ...], ranks: list[int]) -> None:
        """Let it stand for one event more."""
        self.hosts.update(dict.fromkeys(hosts))
        self.ranks += ranks
        self._line = None

    def line(self) -> EventLine:
        """Return it as it reads now."""
        self._line = self._line or self._made()
        return self._line

    def _made(self) -> EventLine:
        names = tuple(self.hosts)
        where = names[0] if len(names) == 1 else f"{len(names)} hosts"
        subject = where
        if self.ranks:
            plural = "rank" if len(self.ranks) == 1 else "ranks"
            subject = f"{where} {plural} {rank_set(self.ranks)}"
        return EventLine(self.time, f"{subject}: {self.words}", 0, names)


class EventLog:
    """Lines of the event stream, oldest first.

    Folds of one phase of an attempt gather what its hosts tell in any order; what tells of the whole run
    (`start`, `ending`, ...) begins the next phase.
    """

    def __init__(self) -> None:
        self._entries: list[EventLine | _Fold] = []
        self._folds: dict[str, _Fold] = {}
        self._ending = False
        self._failures = 0

    def lines(self) -> tuple[EventLine, ...]:
        """Return the lines as they read now."""
        return tuple(entry.line() if isinstance(entry, _Fold) else entry for entry in self._entries)

    def add(self, event: dict[str, Any]) -> None:
        """Take one event of `events.jsonl`, of whatever version."""
        name = str(event.get("event", "?"))
        when = float(event.get("time") or 0.0)
        if name == "ending":
            self._ending = True
        elif name == "attempt":
            self._ending, self._failures = False, 0
        folded = self._folded(name, event)
        if folded is not None:
            self._fold(when, folded, event)
            return
        severity, text = in_words(name, event)
        hosts = _hosts(event)
        self._entries.append(EventLine(when, one_line(text), severity, hosts))
        if not hosts:
            self._folds.clear()
        self._trim()

    def _folded(self, name: str, event: dict[str, Any]) -> str | None:
        """Return the words for an event that shares a line with others like it, or None."""
        if name in _ROUTINE:
            return _ROUTINE[name]
        if name in ("launcher_exit", "command_exit"):
            return f"{name.partition('_')[0]} ended with {event.get('code')}"
        if name != "rank_exit":
            return None
        if event.get("exit_code") and not self._ending and self._failures < _FIRST_FAILURES:
            self._failures += 1
            return None
        return f"ended, {ended_how(event)}"

    def _fold(self, when: float, words: str, event: dict[str, Any]) -> None:
        fold = self._folds.get(words)
        if fold is None:
            fold = self._folds[words] = _Fold(when, words)
            self._entries.append(fold)
            self._trim()
        fold.take(_hosts(event), _ranks(event))

    def _trim(self) -> None:
        if len(self._entries) > _MOST + 50:
            del self._entries[:50]


_ROUTINE = {
    "host_ready": "ready",
    "launcher_started": "launcher started",
    "rank_start": "started",
    "sigterm": "told to end (SIGTERM)",
    "host_ended": "nothing of the run is left",
}


def _hosts(event: dict[str, Any]) -> tuple[str, ...]:
    """Return the hosts an event is about; of the supervisor's own events, `host` is where it runs."""
    if event.get("event") == "supervisor":
        return ()
    found = event.get("hosts")
    if isinstance(found, list):
        return tuple(map(str, found))
    return (str(event["host"]),) if event.get("host") else ()


def _ranks(event: dict[str, Any]) -> list[int]:
    found = event.get("ranks")
    if isinstance(found, list):
        return [rank for rank in found if isinstance(rank, int)]
    return [event["rank"]] if isinstance(event.get("rank"), int) else []


def in_words(name: str, event: dict[str, Any]) -> tuple[int, str]:
    """Return severity and text of an event that has a line of its own."""
    teller = _TELLERS.get(name)
    if teller is None:
        details = " ".join(f"{key} {value}" for key, value in event.items() if key not in ("time", "event"))
        return 0, f"{name.replace('_', ' ')} {details}".strip()
    severity, tell = teller
    return min(severity, 1) if name == "gpu_fault" and of_program(event) else severity, tell(event)


def _rank_exit(event: dict[str, Any]) -> str:
    said = event.get("message")
    head = f"{event.get('host')} rank {event.get('rank')} failed, {ended_how(event)}"
    return f"{head}: {said}" if said else head


def _hang(event: dict[str, Any]) -> str:
    if event.get("words"):  # ranks that are busy
        return f"HANG: {event['words']}"
    ranks, places = _ranks(event), event.get("where") or {}
    told = next((places[str(rank)] for rank in ranks if str(rank) in places), "")
    who = f"rank{'' if len(ranks) == 1 else 's'} {rank_set(ranks)} stuck{f' at {told}' if told else ''}"
    waiting, silent = len(event.get("waiting") or ()), float(event.get("silent") or 0)
    wait = f"{waiting} ranks wait" if waiting != 1 else "1 rank waits"
    return f"HANG: {who} for {duration(silent)}; {wait}"


def _straggler(event: dict[str, Any]) -> str:
    said = event.get("words") or f"{event.get('what')} {event.get('value')}, typical {event.get('typical')}"
    return f"{event.get('host')} is slow: {said}"


def _gpu_fault(event: dict[str, Any]) -> str:
    said = f" ({event['text']})" if event.get("text") else ""
    return f"{event.get('host')} {fault_words(event)}{said}"


def _checkpoint(event: dict[str, Any]) -> str:
    seconds = float(event.get("ended") or 0) - float(event.get("began") or event.get("ended") or 0)
    took = f", {short_number(seconds)} s" if seconds > 0 else ""
    return f"checkpoint {event.get('tag')} complete (step {event.get('step')}{took})"


def _notified(event: dict[str, Any]) -> str:
    whom = f"{event.get('to')} of the {event.get('what')}"
    return f"told {whom}" if event.get("ok") else f"could not tell {whom}: {event.get('why')}"


def _verdict(event: dict[str, Any]) -> str:
    return f"{event.get('state')}: {event.get('summary') or ''}"


_TELLERS: dict[str, tuple[int, Callable[[dict[str, Any]], str]]] = {
    "supervisor": (0, lambda e: f"supervisor started on {e.get('host')}, pid {e.get('pid')}"),
    "attempt": (1, lambda e: f"attempt {e.get('attempt')} begins"),
    "start": (0, lambda e: f"all hosts start; master {e.get('master')} port {e.get('port')}"),
    "first_step": (1, lambda e: f"first step reported: {e.get('step')}"),
    "rank_exit": (2, _rank_exit),
    "host_failed": (2, lambda e: f"{e.get('host')} failed: {e.get('why')}"),
    "hang": (2, _hang),
    "stall": (2, lambda e: f"STALL: {e.get('words')}"),
    "stall_over": (1, lambda _: "the stall is over"),
    "hang_over": (1, lambda e: f"the hang is over {rank_set(_ranks(e))}".strip()),
    "straggler": (1, _straggler),
    "straggler_over": (0, lambda e: f"{e.get('host')} keeps up again ({e.get('what')})"),
    "gpu_fault": (2, _gpu_fault),
    "oom_kill": (2, lambda e: f"{e.get('host')}: out of memory: {e.get('text')}"),
    "checkpoint": (1, _checkpoint),
    "notified": (0, _notified),
    "ending": (1, lambda e: f"ending: {e.get('reason') or e.get('state')}"),
    "interruption": (1, lambda e: f"interrupted: {e.get('words') or e.get('reason') or e.get('what') or ''}"),
    "requeue": (1, lambda e: f"queued again: {e.get('reason')}"),
    "retry": (1, lambda e: f"another try: {e.get('reason')}"),
    "verdict": (1, _verdict),
}  # fmt: skip
