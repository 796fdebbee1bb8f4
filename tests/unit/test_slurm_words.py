"""Slurm's words: every sample of every version, and any text at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.slurm import printed, words
from orchestrator.slurm.words import JobInfo, JobState, explain_reason, job_state, never_starts

SAMPLES = Path(__file__).parent.parent / "data/slurm"
ENDED = {"exit_code": 0, "restarts": 0, "nodes": "node2"}


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


def by_id(jobs: list[JobInfo]) -> dict[str, JobInfo]:
    return {info.job_id: info for info in jobs}


def facts(info: JobInfo, names) -> dict[str, object]:
    return {name: getattr(info, name) for name in names}


# -- states


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("RUNNING", JobState.RUNNING),
        ("running", JobState.RUNNING),
        ("CANCELLED by 1000", JobState.CANCELLED),
        ("CANCELLED+", JobState.CANCELLED),
        (" OUT_OF_MEMORY ", JobState.OUT_OF_MEMORY),
        ("OOM", JobState.OUT_OF_MEMORY),
        ("PD", JobState.PENDING),
        ("cg", JobState.COMPLETING),
        ("SPECIAL_EXIT", JobState.SPECIAL_EXIT),
        ("", JobState.UNKNOWN),
        ("?", JobState.UNKNOWN),
        ("HIBERNATING", JobState.UNKNOWN),
    ],
)
def test_a_word_is_a_state_or_unknown(word, state):
    assert job_state(word) is state


def test_a_state_is_one_of_over_waiting_running_or_unknown():
    for state in JobState:
        told = [state.is_over, state.is_waiting, state.is_running]
        assert told.count(True) == (0 if state is JobState.UNKNOWN else 1), state
    assert JobState.PREEMPTED.is_over
    assert JobState.REQUEUE_HOLD.is_waiting
    assert JobState.COMPLETING.is_running


def test_an_unknown_state_keeps_its_word():
    record = sample("squeue-23.02.txt").replace("FAILED", "HIBERNATING")
    info = by_id(printed.parse_squeue(record))["7"]
    assert (info.state, info.raw) == (JobState.UNKNOWN, "HIBERNATING")


# -- squeue

SQUEUE = {
    "33": {"state": JobState.COMPLETED, "ended": 1795245599.0, **ENDED},
    "30": {"state": JobState.FAILED, "reason": "NonZeroExitCode", "exit_code": 3, "signal": None},
    "31": {"state": JobState.FAILED, "exit_code": 0, "signal": 9},
    "32": {"state": JobState.CANCELLED, "reason": "", "exit_code": 3},
    "24": {"state": JobState.TIMEOUT, "reason": "TimeLimit", "preempted": False},
    "39": {"state": JobState.COMPLETING, "ended": 1795245668.0, "restarts": 0},
    "40": {"state": JobState.COMPLETING, "ended": None, "restarts": 1},
    "29": {"state": JobState.PENDING, "start": 1795249195.0, "ended": None, "exit_code": None},
    "28": {"state": JobState.PENDING, "start": None, "reason": "Dependency", "nodes": ""},
    "36": {"name": "two\nlines", "reason": "JobHeldUser", "submitted": 1795245595.0},
    "25": {"state": JobState.RUNNING, "name": "resnet 50", "ended": None, "nodes": "node1"},
    "27_1": {"state": JobState.RUNNING, "number": "38"},
    "27_3": {"state": JobState.PENDING, "number": "27", "reason": "JobArrayTaskLimit"},
    "26_9": {"state": JobState.PENDING, "reason": "JobHeldUser", "name": "sweep"},
    "37_600": {"state": JobState.PENDING},
    "42+1": {"number": "43", "name": "het2"},
}


@pytest.mark.parametrize("job", SQUEUE)
def test_squeue_22_05(job):
    info = by_id(printed.parse_squeue(sample("squeue-22.05.8.txt")))[job]
    assert facts(info, SQUEUE[job]) == SQUEUE[job]
    assert info.source == "squeue"


def test_squeue_takes_waiting_arrays_apart():
    jobs = by_id(printed.parse_squeue(sample("squeue-22.05.8.txt")))
    assert {job for job in jobs if job.startswith("26_")} == {f"26_{task}" for task in range(4, 10)}
    long = {int(job[3:]) for job in jobs if job.startswith("37_")}
    assert long == {*range(0, 401, 3), 500, 502, 504, 506, *range(600, 621)}


def test_squeue_from_23_02_prints_exit_codes_as_scontrol_does():
    jobs = by_id(printed.parse_squeue(sample("squeue-23.02.txt")))
    assert (jobs["7"].exit_code, jobs["7"].signal) == (3, None)
    assert (jobs["9"].exit_code, jobs["9"].signal) == (0, 15)
    assert jobs["8_2"].exit_code is None


def test_squeue_of_several_clusters():
    jobs = by_id(printed.parse_squeue(sample("squeue-clusters-25.11.txt")))
    assert {job: info.number for job, info in jobs.items()} == {"7": "7", "8": "8"}


# -- scontrol

SCONTROL = {
    "22.05.8": {
        "25": {"state": JobState.RUNNING, "name": "resnet 50", "restarts": 0, "start": 1795245596.0},
        "30": {"state": JobState.FAILED, "exit_code": 3, "ended": 1795245597.0},
        "40": {"state": JobState.COMPLETING, "restarts": 1, "ended": None},
        "39": {"state": JobState.COMPLETING, "ended": 1795245668.0},
        "36": {"name": "two\nlines"},
        "26_4": {"number": "26", "reason": "JobHeldUser"},
        "27_1": {"number": "38", "state": JobState.RUNNING, "nodes": "node1"},
        "42+0": {"name": "het"},
        "42+1": {"name": "het2", "number": "43"},
    },
    "oneline-22.05.8": {
        "25": {"state": JobState.RUNNING, "name": "resnet 50", "restarts": 0},
        "26_9": {"number": "26", "name": "sweep"},
        "40": {"state": JobState.COMPLETING, "restarts": 1},
    },
    "23.02": {
        "407851": {
            "state": JobState.PENDING,
            "name": "zero 3",
            "reason": "ReqNodeNotAvail,_Reserved_for_maintenance",
            "restarts": 1,
            "nodes": "",
        }
    },
    "23.11": {
        "2468": {
            "state": JobState.FAILED,
            "signal": 9,
            "reason": "RaisedSignal:9(Killed)",
            "preempted": False,
        }
    },
    "24.05": {"13772882": {"state": JobState.COMPLETING, "nodes": "gpu[03,07]", "restarts": 0}},
    "24.11": {"184330_7": {"number": "184337", "restarts": 2, "preempted": True, "exit_code": None}},
    "25.05": {"8601779_40": {"state": JobState.PENDING, "reason": "QOSMaxGRESPerUser", "start": None}},
    "25.11": {"3640369": {"state": JobState.RUNNING, "reason": "Prolog", "restarts": 0, "name": "zero3"}},
}


@pytest.mark.parametrize(
    ("version", "job"), [(version, job) for version in SCONTROL for job in SCONTROL[version]]
)
def test_scontrol(version, job):
    info = by_id(printed.parse_scontrol(sample(f"scontrol-{version}.txt")))[job]
    expected = SCONTROL[version][job]
    assert facts(info, expected) == expected
    assert info.source == "scontrol"


def test_every_version_is_sampled():
    versions = {name for name in SCONTROL if name[0].isdigit()}
    assert versions == {"22.05.8", "23.02", "23.11", "24.05", "24.11", "25.05", "25.11"}


def test_an_array_with_steps_is_taken_apart():
    jobs = by_id(printed.parse_scontrol(sample("scontrol-25.05.txt")))
    assert set(jobs) == {f"8601779_{task}" for task in (8, 16, 24, 32, 40)}


def test_free_text_does_not_pass_for_a_field():
    """Job 25 has the comment `lr=0.1 JobState=FAILED`; here its name says such things too."""
    text = sample("scontrol-22.05.8.txt").replace("JobName=resnet 50", "JobName=a JobState=FAILED UserId=x")
    info = by_id(printed.parse_scontrol(text))["25"]
    assert (info.state, info.name) == (JobState.RUNNING, "a JobState=FAILED UserId=x")


def test_times_may_be_written_out(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    written = printed.parse_scontrol(sample("scontrol-isotime-22.05.8.txt"))[0]
    counted = by_id(printed.parse_scontrol(sample("scontrol-22.05.8.txt")))[written.job_id]
    assert written == counted


# -- sacct

SACCT = {
    "1": {"state": JobState.COMPLETED, "exit_code": 0, "ended": 1795245801.0, "nodes": "node1"},
    "2": {"state": JobState.FAILED, "exit_code": 3, "signal": None},
    "3": {"state": JobState.CANCELLED, "raw": "CANCELLED by 0", "name": "cancel|led", "exit_code": 0},
    "5": {"state": JobState.FAILED, "exit_code": 9},
    "6": {"state": JobState.PENDING, "reason": "BeginTime", "nodes": "", "start": None},
    "4_1": {"number": "7", "state": JobState.RUNNING, "ended": None},
    "4_6": {"number": "4", "state": JobState.PENDING},
    "8": {"state": JobState.CANCELLED, "restarts": None},
}


@pytest.mark.parametrize("job", SACCT)
def test_sacct_22_05(job):
    jobs = by_id(printed.parse_sacct(sample("sacct-22.05.8.txt")))
    assert facts(jobs[job], SACCT[job]) == SACCT[job]
    assert not [shown for shown in jobs if "." in shown]


def test_a_step_that_ran_out_of_memory_tells_why_its_job_failed():
    text = sample("sacct-22.05.8.txt")
    step = "2.0\x1f2.0\x1fFAILED"
    assert step in text
    jobs = by_id(printed.parse_sacct(text.replace(step, "2.0\x1f2.0\x1fOUT_OF_MEMORY")))
    assert jobs["2"].state is JobState.OUT_OF_MEMORY
    assert jobs["5"].state is JobState.FAILED


# -- any text

ALPHABET = st.sampled_from(
    [*"JobId=1[]-,:%._+ \n\x1e\x1f", "JobId=", "UserId=a(1) GroupId=", "9" * 20, "٣", "é"]
)
TEXTS = st.text() | st.lists(ALPHABET).map("".join)


@given(TEXTS, st.sampled_from([printed.parse_squeue, printed.parse_scontrol, printed.parse_sacct]))
def test_parsers_take_any_text(text, parse):
    assert all(isinstance(info, JobInfo) for info in parse(text))


@given(st.lists(TEXTS, min_size=12, max_size=12))
def test_squeue_takes_any_field(fields):
    for info in printed.parse_squeue("\x1f".join(fields) + "\x1e"):
        assert isinstance(dataclasses.asdict(info)["state"], JobState)


@given(st.data())
def test_scontrol_takes_damaged_records(data):
    text = sample("scontrol-22.05.8.txt")
    start = data.draw(st.integers(0, len(text)))
    printed.parse_scontrol(text[:start] + data.draw(TEXTS) + text[start:])


@given(TEXTS)
def test_words_take_any_text(text):
    assert isinstance(job_state(text), JobState)
    assert isinstance(never_starts(text), bool)
    assert text == "" or explain_reason(text)


# -- reasons


@pytest.mark.parametrize(
    ("reason", "told", "never"),
    [
        ("Priority", "waiting behind jobs of higher priority", False),
        ("(Resources)", "waiting for nodes to become free", False),
        ("DependencyNeverSatisfied", "it will never start", True),
        ("PartitionTimeLimit", "its time limit is longer than its partition allows", True),
        ("QOSMaxGRESPerUser", "its QOS: GPUs or other generic resources of all your jobs", False),
        (
            "QOSMaxGRESPerJob",
            "asks for more (GPUs or other generic resources) than its QOS allows a job",
            True,
        ),
        ("AssocGrpCpuLimit", "a limit of your account: CPUs of all jobs it counts", False),
        ("AssocMaxJobsLimit", "your account: the number of your jobs", False),
        ("QOSMaxWallDurationPerJobLimit", "more (run time) than its QOS allows a job", True),
        ("QOSMinCpuNotSatisfied", "less than its QOS requires (CPUs)", True),
        ("QOSGrpBillingRunMinutes", "billing units x time of all jobs it counts", False),
        ("ReqNodeNotAvail, UnavailableNodes:node[1-2]", "reserved (UnavailableNodes:node[1-2])", False),
        ("ReqNodeNotAvail,_Reserved_for_maintenance", "reserved (Reserved_for_maintenance)", False),
        ("launch_failed_requeued_held", "could not be launched", True),
        ("JobHeldUser", "scontrol release", True),
        ("Reservation maint_3 was deleted", "Reservation maint_3 was deleted", True),
        ("SomethingNew", "SomethingNew", False),
    ],
)
def test_reasons_in_plain_language(reason, told, never):
    assert told in explain_reason(reason)
    assert never_starts(reason) is never


def test_importing_needs_nothing_heavy(python):
    heavy = "{'submitit', 'pydantic', 'jinja2', 'yaml', 'torch', 'paramiko'} & set(sys.modules)"
    program = f"import sys, orchestrator.slurm.queue; print(sorted({heavy}))"
    assert python(program).stdout.read() == "[]\n"
    assert words.__all__ == sorted(words.__all__)
