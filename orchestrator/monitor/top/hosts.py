"""What each host is doing, from events, samples and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.top.snapshot import HostView, Mark
from orchestrator.monitor.top.words import ended_how, one_line
from orchestrator.monitor.xids import fault_words, of_program

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.plan import PlannedHost

_STEPS = {"host_ready": Mark.READY, "launcher_started": Mark.RUNNING}
_ROLES = {"cause": Mark.FAILED, "candidate": Mark.FAILED, "failed": Mark.FAILED, "unknown": Mark.FAILED}


@dataclass
class _Host:
    plan: PlannedHost
    base: Mark = Mark.WAITING
    note: str = ""
    hanging: str = ""
    fault: str = ""
    mistake: str = ""
    silent: bool = False
    slow: dict[str, str] = field(default_factory=dict)
    busy: dict[int, float] = field(default_factory=dict)
    hot: dict[int, float] = field(default_factory=dict)
    cpu_share: float | None = None
    memory: float | None = None

    def mark(self) -> tuple[Mark, str]:
        """Return the mark to show and why."""
        if self.base in (Mark.FAILED, Mark.ENDED, Mark.STOPPED):
            return self.base, self.note or self.fault or self.mistake
        if self.silent:
            return Mark.UNKNOWN, "its supervisor is gone"
        if self.hanging:
            return Mark.HANGING, self.hanging
        if self.fault:
            return Mark.FAULT, self.fault
        if self.slow:
            return Mark.SLOW, "; ".join(self.slow.values())
        return self.base, self.note or self.mistake

    def view(self) -> HostView:
        """Return the host as the grid shows it."""
        mark, note = self.mark()
        busy = sum(self.busy.values()) / len(self.busy) if self.busy else self.cpu_share
        hottest = max(self.hot.values(), default=None)
        return HostView(
            self.plan.name, self.plan.file_name, self.plan.index, self.plan.ranks, mark, note,
            busy, hottest, self.memory,
        )  # fmt: skip


class Hosts:
    """The hosts of one attempt; views are made anew only for those of which something was heard.

    Args:
        planned: the hosts of the attempt's plan.
    """

    def __init__(self, planned: Iterable[PlannedHost]) -> None:
        self._hosts = {host.name: _Host(host) for host in planned}
        self._of_rank = {rank: one for one in self._hosts.values() for rank in one.plan.ranks}
        self._views = {name: host.view() for name, host in self._hosts.items()}
        self._changed: set[str] = set()
        self._ending = False

    def views(self) -> tuple[HostView, ...]:
        """Return every host, in the plan's order."""
        for name in self._changed:
            self._views[name] = self._hosts[name].view()
        self._changed.clear()
        return tuple(self._views.values())

    def take_event(self, event: dict[str, Any]) -> None:
        """Learn from one event."""
        name = event.get("event")
        if name == "ending":
            self._ending = True
        elif name in ("hang", "hang_over", "stall", "stall_over"):
            self._take_hang(event, over=name.endswith("_over"))
        host = self._hosts.get(str(event.get("host")))
        if host is not None and name is not None:
            self._take(host, str(name), event)
            self._changed.add(host.plan.name)

    def _take(self, host: _Host, name: str, event: dict[str, Any]) -> None:
        if name in _STEPS and host.base in (Mark.WAITING, Mark.READY):
            host.base = _STEPS[name]
        elif name == "host_failed":
            host.base, host.note = Mark.FAILED, one_line(event.get("why", ""))
        elif name == "rank_exit":
            self._rank_ended(host, event)
        elif name == "host_ended" and host.base is not Mark.FAILED:
            host.base = Mark.STOPPED if self._ending and host.base is not Mark.ENDED else Mark.ENDED
        elif name == "straggler":
            host.slow[str(event.get("what"))] = one_line(event.get("words") or event.get("what") or "slow")
        elif name == "straggler_over":
            host.slow.pop(str(event.get("what")), None)
        elif name == "gpu_fault":
            said = one_line(fault_words(event))
            host.fault, host.mistake = (host.fault, said) if of_program(event) else (said, host.mistake)
        elif name == "oom_kill":
            host.fault = one_line(f"out of memory: {event.get('text') or ''}")

    def _rank_ended(self, host: _Host, event: dict[str, Any]) -> None:
        if not event.get("exit_code") and not event.get("signal"):
            host.base = host.base if host.base is Mark.FAILED else Mark.ENDED
        elif self._ending:
            host.base = host.base if host.base is Mark.FAILED else Mark.STOPPED
        elif host.base is not Mark.FAILED:
            said = event.get("message")
            host.base = Mark.FAILED
            host.note = one_line(f"rank {event.get('rank')} {ended_how(event)}{f': {said}' if said else ''}")

    def _take_hang(self, event: dict[str, Any], *, over: bool) -> None:
        places = event.get("where") or {}
        ranks = [rank for rank in event.get("ranks") or () if isinstance(rank, int)]
        stuck = {rank: self._of_rank[rank] for rank in ranks if rank in self._of_rank}
        if over and not ranks:
            stuck = dict(self._of_rank)
        for rank, host in stuck.items():
            place = places.get(str(rank))
            host.hanging = "" if over else f"rank {rank} stuck{f' at {place}' if place else ''}"
            self._changed.add(host.plan.name)

    def take_silence(self, *, silent: bool) -> None:
        """Learn whether nobody tells of hosts any more, which may be taken up again."""
        for name, host in self._hosts.items():
            if host.silent != silent:
                host.silent = silent
                self._changed.add(name)

    def take_sample(self, record: dict[str, Any]) -> None:
        """Learn from one record of kind `gpu` or `host`."""
        host = self._hosts.get(record.get("host", ""))
        if host is None:
            return
        if record["kind"] == "gpu":
            _note_gpu(host, record)
        else:
            host.cpu_share = _share(record.get("cpu"), record.get("cores"))
            host.memory = _share(record.get("memory"), record.get("memory_total"))
        self._changed.add(host.plan.name)

    def take_cause(self, name: str, why: str) -> None:
        """Show the host that a diagnosis names as failed: what hung has no exit code to tell it."""
        host = self._hosts.get(name)
        if host is not None and host.base in (Mark.STOPPED, Mark.ENDED):
            host.base, host.note = Mark.FAILED, why
            self._changed.add(name)

    def take_verdict(self, hosts: Iterable[dict[str, Any]]) -> None:
        """Let the verdict's word on each host go before what events told."""
        for told in hosts:
            host = self._hosts.get(str(told.get("name")))
            if host is not None:
                host.base, host.note = _from_verdict(told)
                self._changed.add(host.plan.name)
        for name, host in self._hosts.items():
            if not host.base.is_over:  # a verdict that Slurm's words alone have led to knows no hosts
                host.base = Mark.STOPPED
                self._changed.add(name)


def _note_gpu(host: _Host, record: dict[str, Any]) -> None:
    gpu = record.get("gpu", 0)
    if isinstance(record.get("utilization"), int | float):
        host.busy[gpu] = float(record["utilization"])
    if isinstance(record.get("temperature"), int | float):
        host.hot[gpu] = float(record["temperature"])


def _share(part: object, whole: object) -> float | None:
    if isinstance(part, int | float) and isinstance(whole, int | float) and whole > 0:
        return part / whole
    return None


def _from_verdict(told: dict[str, Any]) -> tuple[Mark, str]:
    ranks = told.get("ranks") or []
    for rank in ranks:
        if rank.get("role") in _ROLES:
            said = rank.get("message")
            words = f"rank {rank.get('rank')} {rank['role']}, {ended_how(rank)}{f': {said}' if said else ''}"
            return Mark.FAILED, one_line(words)
    if told.get("state") == "failed":
        return Mark.FAILED, one_line(told.get("message") or "")
    fine = all(rank.get("role") == "ok" for rank in ranks)
    return (Mark.ENDED if fine else Mark.STOPPED), one_line(told.get("message") or "")
