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
    ),
    "slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-21T09:00:00 DUE TO PREEMPTION ***": (
        State.PREEMPTED,
        "Slurm preempted job 7 and queued it again",
    ),
    "": (State.PREEMPTED, "Slurm took the hosts of job 7 and queued it again"),
}


@pytest.mark.parametrize("info", [{"state": JobState.PENDING}, {"state": JobState.RUNNING, "restarts": 1}])
@pytest.mark.parametrize("heard", HEARD)
def test_only_srun_tells_why_a_job_waits_again(monkeypatch, info, heard):
    monkeypatch.setattr(interruption, "show_job", lambda _: JobInfo("7", "7", **info))
    why = interruption.why_ending("7", 0, heard)
    assert why == interruption.Interruption(*HEARD[heard], requeued=True)
