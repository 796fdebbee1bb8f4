"""Asking Slurm about jobs: one squeue for all jobs of the user, shared by all of the user's processes.

A controller that is down or restarting is no error here: the caller gets what was last heard, when that was,
and what went wrong.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.slurm.cache import Cache, Memory, Past
from orchestrator.slurm.command import run
from orchestrator.slurm.printed import (
    SACCT_DELIMITER,
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)
from orchestrator.slurm.words import JobInfo, JobState, job_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_AGE = 10.0
"""Seconds: how old an answer may be, and so how seldom squeue is run, whoever asks."""

_DISABLED_SECONDS = 600.0  # a site does not turn its accounting on from one minute to the next
_FAILED_SECONDS = 60.0  # slurmdbd may be restarting
_NOT_FOUND_SECONDS = 60.0
_SKEW_SECONDS = 30.0  # between this host's clock and slurmctld's; no time limit is shorter than 60 s
_JOB_ID = re.compile(r"[0-9]{1,15}(?:[_+][0-9]{1,15})?")
_UNKNOWN_JOB = re.compile("Invalid job id|^Job [0-9_+]+ not found")  # the second of an array's element
_MAX_IDS = 5000  # Linux takes 128 KiB a word
_SQUEUE = ("squeue", "--states=all", "--noheader", f"--Format={SQUEUE_FORMAT}")
_SACCT = (
    "sacct",
    "--noheader",
    "--parsable2",
    f"--delimiter={SACCT_DELIMITER}",
    f"--format={SACCT_FIELDS}",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What Slurm says about some jobs.

    Attributes:
        jobs: what is known, by the id that was asked for; ids that Slurm does not know are absent.
        asked: when squeue answered, epoch seconds, 0 for never: a job that was submitted later is absent
            without being lost.
        error: why a command failed; the answer is then an old one, or lacks jobs that have ended.
    """

    jobs: dict[str, JobInfo]
    asked: float
    error: str = ""


def look_up(job_ids: Iterable[str], *, max_age: float = MAX_AGE) -> Answer:
    """Return what Slurm knows about these jobs; of those it has forgotten, what its accounting knows.

    Args:
        job_ids: `123`, `123_4` of an array, `123+1` of a heterogeneous job. Of an array itself, `123` is
            what Slurm counts under that number: its waiting elements, or the last of them.
        max_age: seconds that an answer may be old.
    """
    wanted = tuple(dict.fromkeys(job_ids))
    cache = Cache()
    memory = cache.read()
    is_due = _is_due(memory, max_age)
    known = {} if is_due else _index(memory.queue)
    if is_due or _unasked(memory, wanted, known, max_age):
        with cache.locked() as is_ours:
            memory = cache.read()  # somebody else may have asked meanwhile
            known = _ask(memory, wanted, max_age) if is_ours else _index(memory.queue)
            if is_ours:
                cache.write(memory)
    missing = [job for job in wanted if job not in known]
    known |= {job: info for job in missing if (info := _ended(memory, job)) is not None}
    errors = [memory.error, memory.past_error if missing else ""]
    jobs = {job: known[job] for job in wanted if job in known}
    return Answer(jobs, memory.asked, "; ".join(filter(None, errors)))


def show_job(job_id: str) -> JobInfo | None:
    """Return what slurmctld knows about one job at this moment; None if it knows none, or does not answer."""
    if _JOB_ID.fullmatch(job_id) is None:
        return None
    info, _ = _shown(job_id)
    if info is None or info.state is not JobState.COMPLETING or info.preempted:
        return info
    # 22.05: of a job that was preempted and is queued again scontrol prints no PreemptTime, squeue does.
    queued, _ = run(*_SQUEUE, f"--jobs={info.number}")
    preempted = any(other.preempted for other in parse_squeue(queued) if other.number == info.number)
    return replace(info, preempted=preempted)


def is_over(job_id: str) -> bool:
    """Tell whether slurmctld says that a job is over or that it knows none; False where it does not answer.

    Of an array's element that was cancelled while it waited it keeps nothing.
    """
    info, error = _shown(job_id)
    return info.state.is_over if info is not None else _UNKNOWN_JOB.search(error) is not None


def _shown(job_id: str) -> tuple[JobInfo | None, str]:
    """Return what scontrol prints of a job, and its error or an empty text."""
    printed, error = run("scontrol", "show", "job", job_id)
    found = parse_scontrol(printed)
    return next((info for info in found if job_id in (info.job_id, info.number)), None), error


def base_state(job_id: str, *, script_lives: bool = False) -> JobState | None:
    """Return how a job that Slurm calls COMPLETING ends: PENDING if it is queued again.

    Slurm prints COMPLETING in place of the state below it until every node is free. Versions up to 23.02 tell
    that state nowhere else, so it is concluded from what they print beside it.

    Args:
        job_id: the job.
        script_lives: the batch script still runs (it is the one who asks). A job that ends all the same,
            without any other reason, was cancelled.

    Returns:
        The state, COMPLETING if it cannot be told, None if Slurm does not know the job or does not answer.
    """
    info = show_job(job_id)
    if info is None:
        return None
    if info.state is not JobState.COMPLETING:
        return info.state
    concluded = _concluded(info, time.time())
    if concluded is not None:
        return concluded
    told = _from_json(job_id) or _from_accounting(job_id)
    if told is not None:
        return told
    return JobState.CANCELLED if script_lives else JobState.COMPLETING


# -- the queue


def _is_due(memory: Memory, max_age: float) -> bool:
    return not 0 <= time.time() - memory.tried < max_age  # a clock may have been set back


def _ask(memory: Memory, wanted: tuple[str, ...], max_age: float) -> dict[str, JobInfo]:
    """Ask what has not been asked for some time; return what squeue knows."""
    if _is_due(memory, max_age):
        _ask_squeue(memory)
    known = _index(memory.queue)
    if missing := _unasked(memory, wanted, known, max_age):
        _ask_sacct(memory, missing)
    return known


def _ask_squeue(memory: Memory) -> None:
    asked = time.time()
    printed, memory.error = run(*_SQUEUE, "--me")
    if not memory.error:
        memory.asked, memory.queue = asked, printed
    memory.tried = time.time()


def _index(printed: str) -> dict[str, JobInfo]:
    """Return the jobs by the id that is shown, and by their number where that is no other job's id."""
    jobs = parse_squeue(printed)
    return {info.number: info for info in jobs} | {info.job_id: info for info in jobs}


# -- accounting, for what squeue has forgotten (MinJobAge, 300 s by default)


def _unasked(memory: Memory, wanted: Iterable[str], known: dict[str, JobInfo], max_age: float) -> list[str]:
    """Return the jobs that accounting is to be asked about now."""
    now = time.time()
    if now < memory.past_off_until:
        return []
    candidates = (job for job in wanted if job not in known and _JOB_ID.fullmatch(job))
    return [job for job in candidates if not _is_settled(memory.past.get(job), now, max_age)]


def _is_settled(past: Past | None, now: float, max_age: float) -> bool:
    if past is None:
        return False
    if past.info is None:
        return 0 <= now - past.asked < _NOT_FOUND_SECONDS
    return past.info.state.is_over or 0 <= now - past.asked < max_age


def _ask_sacct(memory: Memory, jobs: list[str]) -> None:
    asked = time.time()
    parts = [run(*_SACCT, f"--jobs={','.join(some)}") for some in _batches(jobs)]
    if error := next((error for _, error in parts if error), ""):
        disabled = "storage is disabled" in error  # 22.05: "Slurm accounting storage is disabled"
        memory.past_error = "" if disabled else error
        memory.past_off_until = time.time() + (_DISABLED_SECONDS if disabled else _FAILED_SECONDS)
        return
    memory.past_error = ""
    known = parse_sacct("".join(printed for printed, _ in parts))
    found = {name: info for info in known for name in (info.number, info.job_id)}
    memory.past |= {job: Past(asked, found.get(job)) for job in jobs}


def _batches(jobs: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(jobs), _MAX_IDS):
        yield jobs[start : start + _MAX_IDS]


def _ended(memory: Memory, job: str) -> JobInfo | None:
    """Return what accounting knows of a job that squeue does not know.

    That it runs is worth nothing then, unless squeue was asked before it was submitted: accounting keeps such
    jobs for ever when slurmctld could not tell it of their end.
    """
    past = memory.past.get(job)
    if past is None or past.info is None:
        return None
    is_newer = (past.info.submitted or 0.0) >= memory.asked
    return past.info if past.info.state.is_over or is_newer else None


# -- the state below COMPLETING


def _concluded(info: JobInfo, now: float) -> JobState | None:
    """Conclude how a COMPLETING job ends from what 22.05 prints about it; None for what looks the same.

    Tried on 22.05: a job that is queued again has no end, or one to come; a preempted one that is not has a
    PreemptTime; a cancelled one looks as one that has ended well.
    """
    if info.ended is None or info.ended > now + _SKEW_SECONDS:
        return JobState.PENDING
    if info.preempted:
        return JobState.PREEMPTED
    word = info.reason.partition(":")[0]  # RaisedSignal:9(Killed)
    return _REASON_STATES.get(word)


_REASON_STATES = {
    "TimeLimit": JobState.TIMEOUT,
    "NodeDown": JobState.NODE_FAIL,
    "NonZeroExitCode": JobState.FAILED,
    "RaisedSignal": JobState.FAILED,
    "JobLaunchFailure": JobState.FAILED,
    "OutOfMemory": JobState.OUT_OF_MEMORY,
    "DeadLine": JobState.DEADLINE,
}


def _from_json(job_id: str) -> JobState | None:
    """Return the base state of a job as `--json` tells it: from 23.11 on a list of base state and flags."""
    printed, error = run("scontrol", "--json", "show", "job", job_id)
    if error:
        return None
    try:
        words: Any = json.loads(printed)["jobs"][0]["job_state"]
    except (ValueError, LookupError, TypeError):
        return None
    states = [job_state(str(word)) for word in words] if isinstance(words, list) else []
    return next((state for state in states if state.is_over or state is JobState.PENDING), None)


def _from_accounting(job_id: str) -> JobState | None:
    memory = Memory()
    _ask_sacct(memory, [job_id])
    past = memory.past.get(job_id)
    state = past.info.state if past and past.info else None
    return state if state is not None and state.is_over else None
