"""What squeue, scontrol and sacct print about jobs, as values.

Nothing here raises on any text: Slurm's words differ between versions and sites, and one that is not known
must not cost the caller what else it could have told. Samples of every version are in tests/data/slurm.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from orchestrator.hosts.ranges import RangeSyntaxError, expand_numbers
from orchestrator.slurm.words import JobInfo, JobState, job_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SEPARATOR = "\x1f"  # job names and nodelists may hold any character that can be seen
_END = "\x1e"  # not the line break: a job name may hold one
_QUEUE_FIELDS = (
    "JobID",
    "JobArrayID",
    "State",
    "Reason",
    "NodeList",
    "StartTime",
    "SubmitTime",
    "EndTime",
    "exit_code",
    "RestartCnt",
    "PreemptTime",
    "Name",
)
SQUEUE_FORMAT = ",".join(f"{name}:{_SEPARATOR}" for name in _QUEUE_FIELDS[:-1]) + f",Name:{_END}"
"""For `squeue --Format`. A suffix without a size gives each field the room it needs (22.05 to 26.05)."""

SACCT_FIELDS = "JobID,JobIDRaw,State,Reason,NodeList,Start,Submit,End,ExitCode,JobName"
SACCT_DELIMITER = _SEPARATOR
"""For `sacct --parsable2 --delimiter`. Restarts are told from 24.11 on, and are not asked for."""


def parse_squeue(text: str) -> list[JobInfo]:
    """Parse what `squeue --noheader --Format=SQUEUE_FORMAT` prints; pending arrays are taken apart."""
    records = (record.lstrip("\n").split(_SEPARATOR) for record in text.split(_END))
    found = [_from_squeue(record) for record in records if len(record) >= len(_QUEUE_FIELDS)]
    return [element for info in found for element in _elements(info)]


def _from_squeue(record: list[str]) -> JobInfo:
    first, shown, state, reason, nodes, start, submitted, ended, code, restarts, preempted = record[:11]
    number = first.rpartition("\n")[2]  # behind the line `CLUSTER: NAME` that SLURM_CLUSTERS causes
    known = job_state(state)
    exit_code, signal = _exit(code, known)
    return JobInfo(
        job_id=shown,
        number=number,
        state=known,
        raw=state,
        reason=_word(reason),
        nodes=_word(nodes),
        start=_time(start),
        submitted=_time(submitted),
        ended=_ended(ended, known),
        exit_code=exit_code,
        signal=signal,
        restarts=_number(restarts),
        preempted=known is JobState.PREEMPTED or _time(preempted) is not None,
        name=_SEPARATOR.join(record[11:]),
        source="squeue",
    )


def parse_scontrol(text: str) -> list[JobInfo]:
    """Parse what `scontrol show job`, with or without `-o`, prints: one record or several."""
    starts = [match.start() for match in _RECORD.finditer(text)]
    records = (text[start:end] for start, end in pairwise([*starts, len(text)]))
    return [element for record in records for element in _elements(_from_scontrol(record))]


_RECORD = re.compile(r"^JobId=", re.MULTILINE)
_AFTER_NAME = re.compile(
    r"\s+(?:SLUID=\S+\s+)?(?:HetJobIdSet=\S+\s+)?UserId=[^\n]*?\([0-9]+\) GroupId="  # SLUID: 26.05, detailed
)
_FREE_TEXT = re.compile(r"\s(?:Command|WorkDir)=")  # whatever comes after it may hold `JobState=` as well
_PAIR = re.compile(r"(?:^|\s)([A-Za-z_:/]+)=(\S*)")


def _from_scontrol(record: str) -> JobInfo:
    ids, name, body = _parts_of_record(record)
    fields = _pairs(body)
    state = fields.get("JobState", "")
    known = job_state(state)
    exit_code, signal = _exit(fields.get("ExitCode", ""), known)
    return JobInfo(
        job_id=_shown_id(ids),
        number=ids.get("JobId", ""),
        state=known,
        raw=state,
        reason=_word(fields.get("Reason", "")),
        nodes=_word(fields.get("NodeList", "")),
        start=_time(fields.get("StartTime", "")),
        submitted=_time(fields.get("SubmitTime", "")),
        ended=_ended(fields.get("EndTime", ""), known),
        exit_code=exit_code,
        signal=signal,
        restarts=_number(fields.get("Restarts", "")),
        preempted=known is JobState.PREEMPTED or _time(fields.get("PreemptTime", "")) is not None,
        name=name,
        source="scontrol",
    )


def _parts_of_record(record: str) -> tuple[dict[str, str], str, str]:
    """Return ids, name and the rest: the name is free text, and ends where the owner is told."""
    owner = _AFTER_NAME.search(record)
    head, body = (record[: owner.start()], record[owner.start() :]) if owner else (record, record)
    ids, _, name = head.partition(" JobName=")
    return _pairs(ids), name if owner else name.split("\n")[0], _FREE_TEXT.split(body, maxsplit=1)[0]


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in _PAIR.findall(text):
        found.setdefault(key, value)
    return found


def _shown_id(ids: dict[str, str]) -> str:
    if "ArrayTaskId" in ids:
        task = ids["ArrayTaskId"]
        return f"{ids.get('ArrayJobId', '')}_{task if task.isdigit() else f'[{task}]'}"
    if "HetJobId" in ids:
        return f"{ids['HetJobId']}+{ids.get('HetJobOffset', '0')}"
    return ids.get("JobId", "")


def parse_sacct(text: str) -> list[JobInfo]:
    """Parse `sacct --noheader --parsable2 --delimiter=… --format=SACCT_FIELDS`; steps go into their job."""
    rows = [line.split(SACCT_DELIMITER) for line in text.split("\n")]
    whole = [row for row in rows if len(row) >= len(SACCT_FIELDS.split(","))]
    out_of_memory = {_job_of(row[0]) for row in whole if "." in row[0] and _ran_out_of_memory(row[2])}
    found = [_from_sacct(row, row[0] in out_of_memory) for row in whole if "." not in row[0]]
    return [element for info in found for element in _elements(info)]


def _job_of(step: str) -> str:
    return step.partition(".")[0]


def _ran_out_of_memory(word: str) -> bool:
    return job_state(word) is JobState.OUT_OF_MEMORY


def _from_sacct(row: list[str], step_out_of_memory: bool) -> JobInfo:
    shown, number, state, reason, nodes, start, submitted, ended, code = row[:9]
    known = job_state(state)
    if known is JobState.FAILED and step_out_of_memory:
        known = JobState.OUT_OF_MEMORY  # of the job itself sacct says only that it failed
    exit_code, signal = _exit(code, known)
    return JobInfo(
        job_id=shown,
        number=number,
        state=known,
        raw=state,
        reason=_word(reason),
        nodes=_word(nodes),
        start=_time(start),
        submitted=_time(submitted),
        ended=_ended(ended, known),
        exit_code=exit_code,
        signal=signal,
        preempted=known is JobState.PREEMPTED,
        name=SACCT_DELIMITER.join(row[9:]),
        source="sacct",
    )


_GROUP = re.compile(r"([0-9]+)_\[([^\]]*)\]")
_STEPS = re.compile(r"([0-9]{1,9})-([0-9]{1,9}):([0-9]{1,9})")


def _elements(info: JobInfo) -> Iterator[JobInfo]:
    """Yield an array's waiting elements, which Slurm prints as one: `123_[4-9%2]`."""
    group = _GROUP.fullmatch(info.job_id)
    tasks = _tasks(group[2]) if group else []
    if group is None or not tasks:
        yield info
        return
    for task in tasks:
        yield replace(info, job_id=f"{group[1]}_{task}")


def _tasks(text: str) -> list[str]:
    """Return the ids of `0-9:3,12%4`; none when the text is cut short or cannot be read."""
    try:
        return [task for piece in text.partition("%")[0].split(",") for task in _task_range(piece)]
    except RangeSyntaxError:
        return []


def _task_range(piece: str) -> Iterable[str]:
    steps = _STEPS.fullmatch(piece)
    if steps is None:
        return expand_numbers(piece)
    first, last, step = (int(number) for number in steps.groups())
    return expand_numbers(f"{first}-{last}")[:: max(step, 1)]


def _word(text: str) -> str:
    return "" if text in _NOTHING else text


_NOTHING = frozenset(
    {"", "None", "(null)", "N/A", "NONE", "Unknown", "None assigned", "NOT_SET", "UNLIMITED"}
)


def _number(text: str) -> int | None:
    return int(text) if _DIGITS.fullmatch(text) else None


_DIGITS = re.compile(r"[0-9]{1,15}")


def _time(text: str) -> float | None:
    """Return epoch seconds of `%s` or of an ISO time, which is of this host's zone when it names none."""
    number = _number(text)
    if number is not None:
        return float(number) or None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _ended(text: str, state: JobState) -> float | None:
    """Return the end; of a job that still runs Slurm prints when its time limit would end it."""
    return _time(text) if state.is_over or state is JobState.COMPLETING else None


def _exit(text: str, state: JobState) -> tuple[int | None, int | None]:
    """Return exit code and signal of `3:0`, or of the wait status that squeue prints up to 22.05."""
    code, colon, signal = text.partition(":")
    first, second = _number(code), _number(signal)
    if first is None or not (state.is_over or state is JobState.COMPLETING):
        return None, None
    if not colon:
        first, second = first >> 8 & 0xFF, first & 0x7F
    return first, second or None
