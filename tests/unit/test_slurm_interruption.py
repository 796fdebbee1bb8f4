"""Why Slurm has queued a job again, from what it tells and what srun has printed (22.05, captured)."""

from __future__ import annotations

import pytest

from orchestrator.slurm import interruption
from orchestrator.slurm.words import JobInfo, JobState
from orchestrator.states import State

HEARD = {
    "srun: error: Node failure on node2\nsrun: Job step aborted": (
        State.FAILED,
        "Slurm declared node2 down, ended job 7 and queued it again",
        {"unclear": True, "host": "node2"},
    ),
    "slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-21T09:00:00 DUE TO PREEMPTION ***": (
        State.PREEMPTED,
        "Slurm preempted job 7 and queued it again",
        {},
    ),
    "": (State.PREEMPTED, "Slurm took the hosts of job 7 and queued it again", {"unclear": True}),
}


@pytest.mark.parametrize("info", [{"state": JobState.PENDING}, {"state": JobState.RUNNING, "restarts": 1}])
@pytest.mark.parametrize("heard", HEARD)
def test_only_srun_tells_why_a_job_waits_again(monkeypatch, info, heard):
    monkeypatch.setattr(interruption, "show_job", lambda _: JobInfo("7", "7", **info))
    *told, more = HEARD[heard]
    why = interruption.why_ending("7", 0, heard)
    assert why == interruption.Interruption(*told, requeued=True, **more)


def test_a_slurmctld_that_is_busy_is_asked_again(monkeypatch):
    answers = iter([None, JobInfo("7", "7", JobState.PENDING)])
    monkeypatch.setattr(interruption, "show_job", lambda _: next(answers))
    monkeypatch.setattr(interruption.time, "sleep", lambda _: None)
    assert interruption.why_ending("7", 0).requeued
