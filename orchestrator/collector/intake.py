"""What is new in an attempt's files, as records, events and what is known of every rank and host."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.collector import hang
from orchestrator.collector.files import CHUNK, Folder, LogFile
from orchestrator.collector.samples import faults_of, parse_sample, records_of
from orchestrator.collector.steps import Tellers
from orchestrator.collector.times import Index
from orchestrator.monitor.records import Records
from orchestrator.rundir import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.collector.samples import Sample
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir, RunDir

_SCAN_SECONDS, _CUT_SECONDS, _CLOCK_SECONDS = 0.5, 5.0, 5.0
_STEP_TIMES = 1000
_SHORT = 2  # measurements that a dump may take
# torch 2.11; the first is an error, the others come with TORCH_CPP_LOG_LEVEL=INFO
_OF_A_DUMP = re.compile(
    rb"preparing to dump debug info|Dump signal received through pipe|dumping nccl trace to|"
    rb"Flight Recorder (?:debug info|trace successfully)"
)
_CHUNKS = 16  # of one file in one sweep: 1 MiB, so that no file keeps the others waiting


@dataclass(slots=True)
class Seen:
    """What is known of one rank; times are epoch seconds of this machine, 0.0 for never.

    Attributes:
        active: when it last did anything that can be seen.
        sampled: when a measurement of it last came.
        cpu: cores in use by the last one.
        step_time: what it said that its last step took, seconds.
        told: its last step, and when that was told.
        runs: it has started and not ended.
        busy: how many measurements in a row have shown that it, or its host, does something.
    """

    host: str
    active: float = 0.0
    sampled: float = 0.0
    cpu: float = 0.0
    step_time: float | None = None
    told: tuple[int, float] | None = None
    runs: bool = False
    busy: int = 0


@dataclass
class Facts:
    """What the rules are asked about.

    Attributes:
        ranks: by rank.
        samples: the last measurement of every host.
        stepped: when any rank last told of a step it had not told before, epoch seconds of this machine.
        step_times: the last ones told, seconds.
        heard: when a rank last told a step, wrote to its log, started or ended, epoch seconds; 0.0 for never.
        longest: the longest time without any of these since the first step, seconds.
        moved: when a host last moved data, epoch seconds; 0.0 for never.
        suspected: it has been told that ranks are silent.
    """

    ranks: dict[int, Seen]
    samples: dict[str, Sample] = field(default_factory=dict)
    stepped: float = 0.0
    step_times: list[float] = field(default_factory=list)
    heard: float = 0.0
    longest: float = 0.0
    moved: float = 0.0
    suspected: bool = False

    def hear(self, now: float) -> None:
        """Note that a rank has given a sign that the run goes on."""
        if self.stepped:
            self.longest = max(self.longest, now - self.heard)
        self.heard = now


class Intake:
    """Reads what is new.

    Args:
        run_dir: the run.
        attempt: the attempt whose files are read.
        plan: its plan.
        saved: what `state` returned in an earlier process; empty for none.
    """

    def __init__(self, run_dir: RunDir, attempt: AttemptDir, plan: LaunchPlan, saved: dict[str, Any]) -> None:
        stays = {name: (int(at[0]), bool(at[1])) for name, at in saved.get("files", {}).items()}
        names = {host.file_name: host.name for host in plan.hosts}
        self._attempt, self._number = attempt, attempt.number
        self._folder = Folder(attempt.logs, names, stays)
        self._file_names = {host: name for name, host in names.items()}
        self._tellers = Tellers(plan.world_size)
        self._indexes: dict[str, Index] = {}
        self._clocks: dict[str, float] = {}
        self._told = Records(run_dir.events_file)
        # Simulated hosts share one machine's disk and network.
        self._counts_moving = plan.backend != "local" or len(plan.hosts) == 1
        self._next = dict.fromkeys(("scan", "cut", "clock"), 0.0)
        self._first_told = bool(saved.get("first_step"))
        self.facts = Facts({rank: Seen(host.name) for host in plan.hosts for rank in host.ranks})
        self.events: list[dict[str, Any]] = []

    def state(self) -> dict[str, Any]:
        """Return where to go on."""
        return {"attempt": self._number, "files": self._folder.stays(), "first_step": self._first_told}

    def sweep(self, now: float) -> list[dict[str, Any]]:
        """Return the records of all that is new; events are added to `events`."""
        self._look_around(now)
        records: list[dict[str, Any]] = []
        for file in self._folder.files.values():
            said = []
            for _ in range(_CHUNKS):
                data = file.new(now)
                if not data:
                    break
                records += self._take(file, data, now)
                said.append(is_sign_of_life(data))
            if file.grew == now and (any(said) or not said) and file.rank in self.facts.ranks:
                self.facts.ranks[file.rank].active = now
                self.facts.hear(now)
        records.sort(key=_order)  # a rank's losses and its bar are in two files
        return records

    def scan_again(self) -> None:
        """Have the next sweep see which files there are, however lately one has: at the end, all count."""
        self._next["scan"] = 0.0

    def grew(self, now: float) -> bool:
        """Tell whether the sweep of that time found anything; true before the first (0.0)."""
        return not now or any(file.grew == now for file in self._folder.files.values())

    def rest(self, now: float) -> list[dict[str, Any]]:
        """Return the records of the lines that have no end, when nothing more will come."""
        return [
            record
            for file in self._folder.files.values()
            if (data := file.last())
            for record in self._take(file, data, now)
        ]

    def _due(self, what: str, now: float, pause: float) -> bool:
        if 0 < self._next[what] - now <= pause:  # more than that: the clock was set back
            return False
        self._next[what] = now + pause
        return True

    def _look_around(self, now: float) -> None:
        if self._due("scan", now, _SCAN_SECONDS):
            self._folder.scan()
            self._hear(now)
        if self._due("cut", now, _CUT_SECONDS):
            for file in self._folder.files.values():
                file.look_whether_cut()
        if self._due("clock", now, _CLOCK_SECONDS):
            clocks = read_json(self._attempt.clocks_file) or {}
            self._clocks = {host: float(of.get("offset", 0.0)) for host, of in clocks.items()}

    def _hear(self, now: float) -> None:
        """Learn from the run's events which ranks run."""
        for event in self._new_events():
            what, seen = event.get("event"), self.facts.ranks.get(event.get("rank", -1))
            if what == "attempt":
                for each in self.facts.ranks.values():
                    each.runs = False
            elif seen is not None and what in {"rank_start", "rank_exit"}:
                seen.runs = what == "rank_start"
                seen.active = max(seen.active, now)
                self.facts.heard = now

    def _new_events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with contextlib.suppress(OSError):  # a file server that fails now may answer later
            found.extend(self._told.new())
        return found

    def _take(self, file: LogFile, data: bytes, now: float) -> list[dict[str, Any]]:
        if file.stream == "samples":
            return [record for line in data.splitlines() for record in self._sample(file.host, line, now)]
        if file.rank is None:
            return []
        found = self._tellers.wanted(file.rank, data, now)
        if not found:
            return []
        start = file.offset - len(data)
        times = self._times(file, [start + end for _, end in found], len(data) < CHUNK // 2, now)
        base = {"attempt": self._number, "host": file.host}
        told = ((line, when) for (line, _), when in zip(found, times, strict=True))
        records = self._tellers.records(file.rank, told, base)
        self._learn_steps(records, now)
        return records

    def _times(self, file: LogFile, ends: list[int], live: bool, now: float) -> list[float]:
        """Return when lines were written, on the supervisor's clock; now, where nothing tells."""
        if file.name not in self._indexes:
            path = self._attempt.logs / f"{self._file_names[file.host]}.times"
            self._indexes[file.name] = Index(path, f"{file.rank}.{file.stream}")
        offset = self._clocks.get(file.host, 0.0)
        found = self._indexes[file.name].times(ends, live=live)
        return [now if when is None else when - offset for when in found]

    def _learn_steps(self, records: Iterable[dict[str, Any]], now: float) -> None:
        for record in records:
            self.facts.stepped = now
            step_time = self._step_time(record)
            if step_time is not None:
                self.facts.step_times.append(step_time)
                del self.facts.step_times[:-_STEP_TIMES]
            if not self._first_told:
                self._first_told = True
                told = {"attempt": self._number, "step": record["step"], "time": record["time"]}
                self.events.append({"event": "first_step", **told})

    def _step_time(self, record: dict[str, Any]) -> float | None:
        """Return what a step took: what its rank says, else what its times say; None where neither tells."""
        seen = self.facts.ranks[record["rank"]]
        told: float | None = record.get("step_time")
        step, when = int(record["step"]), float(record["time"])
        before, seen.told = seen.told, (step, when)
        seen.step_time = told
        if told is None and before is not None and step > before[0]:
            return max(0.0, (when - before[1]) / (step - before[0]))
        return told

    def _sample(self, host: str, line: bytes, now: float) -> list[dict[str, Any]]:
        sample = parse_sample(line, self._clocks.get(host, 0.0))
        if sample is None:
            return []
        self.facts.samples[host] = sample
        self.events += faults_of(sample, host)
        moved = sum(sample.host.get(name, 0.0) for name in ("sent", "received", "read", "written"))
        moving = self._counts_moving and moved >= hang.MOVING
        if moving:
            self.facts.moved = now
        for rank, of in sample.ranks.items():
            seen = self.facts.ranks.get(rank)
            if seen is None or seen.host != host:
                continue
            if "cpu" in of:  # the first measurement has nothing to compare with
                seen.sampled, seen.cpu = now, of["cpu"]
            seen.busy = seen.busy + 1 if moving or seen.cpu >= hang.IDLE else 0
            # Once ranks hang, their stacks and records are taken, which moves data and uses their CPU.
            if seen.busy > (_SHORT if self.facts.suspected else 0):
                seen.active = now
        return records_of(sample, host, self._number)


def is_sign_of_life(data: bytes) -> bool:
    """Tell whether a rank has said more than that it writes its flight recorder's file, as it was told to."""
    return any(line.strip() and not _OF_A_DUMP.search(line) for line in data.splitlines())


def _order(record: dict[str, Any]) -> tuple[float, int]:
    return record["time"], record.get("step", 0)


def oldest_known(interval: float, now: float) -> float:
    """Return when a rank must have been measured for its measurements to be coming, epoch seconds."""
    return now - 3 * interval - 5


def running(facts: Facts, interval: float, now: float) -> list[hang.Rank]:
    """Return the ranks that run, as the hang rule takes them.

    Args:
        facts: what is known.
        interval: seconds between two measurements.
        now: epoch seconds.
    """
    oldest = oldest_known(interval, now)
    return [
        hang.Rank(rank, seen.host, seen.active, seen.sampled >= oldest, seen.sampled)
        for rank, seen in facts.ranks.items()
        if seen.runs
    ]
