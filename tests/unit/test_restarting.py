"""Whether a run starts again, decided on values: a scheduler that only remembers what it was asked."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from orchestrator.agent.main import TOLD_TO_END
from orchestrator.plan import SlurmPlan
from orchestrator.states import State
from orchestrator.supervisor.restarting import Restarting
from orchestrator.supervisor.scheduler import FixedHosts, Interruption
from orchestrator.verdict.evidence import HostEnd, RankEnd
from orchestrator.verdict.judge import Verdict
from tests import samples
from tests.shards import save_tag


@dataclasses.dataclass
class Given:
    """A scheduler of values."""

    key: str = "7/0"
    restarts: int = 0
    why: Interruption | None = None
    refuses: str = ""
    asked: list[list[str]] = dataclasses.field(default_factory=list)

    async def interruption(self, heard):
        return self.why

    async def requeue(self, without):
        self.asked.append(list(without))
        return self.refuses


def host(name="node1", failure="", *, lost=False, **rank) -> HostEnd:
    end = RankEnd(0, 0, name, **{"exit_code": 0, "signal": None, "time": 1.0, **rank})
    return HostEnd(name, (end,), failure, lost=lost)


@pytest.fixture
def decide(tmp_path):
    """Return a function that takes a verdict through `explained` and `decide`."""

    def run(verdict, scheduler, *, near_limit=False, **plan):
        asked = SlurmPlan({}, 120, True, ())
        made = samples.run_dir(tmp_path, backend="slurm", slurm=asked, **plan)
        restarting = Restarting(made, made.plan(), scheduler)
        restarting.near_limit = near_limit

        async def both():
            return await restarting.decide(await restarting.explained(verdict, 1), 1)

        return asyncio.run(both()), made

    return run


def test_a_failure_of_the_script_is_final(decide):
    scheduler = Given(why=Interruption(State.CANCELLED, "not asked"))
    failed = Verdict(State.FAILED, "rank 0 raised", hosts=(host(exit_code=1),))
    assert decide(failed, scheduler)[0] == failed
    assert scheduler.asked == []


def test_a_rank_killed_by_the_oom_killer_is_still_named(decide):
    killed = Verdict(State.FAILED, "rank 0 killed by SIGKILL", hosts=(host(exit_code=None, signal=9),))
    assert decide(killed, Given(why=None))[0] == killed


def test_a_cancelled_job_is_no_failure_of_its_ranks(decide):
    killed = Verdict(State.FAILED, "rank 0 killed by SIGTERM", hosts=(host(exit_code=None, signal=15),))
    verdict, _ = decide(killed, Given(why=Interruption(State.CANCELLED, "Slurm job 7 was cancelled")))
    assert (verdict.state, verdict.summary) == (State.CANCELLED, "Slurm job 7 was cancelled")


def test_hosts_that_were_told_to_end_have_not_failed(decide):
    told = Verdict(State.FAILED, "told", hosts=(host(failure=TOLD_TO_END),))
    verdict, _ = decide(told, Given(why=Interruption(State.CANCELLED, "cancelled")))
    assert [one.failure for one in verdict.hosts] == [""]


def test_what_slurm_has_queued_again_gets_no_verdict(decide):
    told = Verdict(State.FAILED, "told", hosts=(host(failure=TOLD_TO_END),))
    scheduler = Given(why=Interruption(State.PREEMPTED, "preempted", requeued=True))
    verdict, made = decide(told, scheduler)
    assert verdict is None
    assert scheduler.asked == []
    assert made.status()["state"] is State.PENDING


def test_a_preemption_with_grace_asks_to_be_queued_again(decide):
    told = Verdict(State.FAILED, "told", hosts=(host(failure=TOLD_TO_END),))
    scheduler = Given(why=Interruption(State.PREEMPTED, "preempted", may_requeue=True))
    assert decide(told, scheduler)[0] is None
    assert scheduler.asked == [[]]


def test_a_lost_host_is_left_out_of_the_next_try(decide):
    lost = Verdict(State.FAILED, "lost", hosts=(host(), host("node2", "lost: no word", lost=True)))
    scheduler = Given()
    assert decide(lost, scheduler)[0] is None
    assert scheduler.asked == [["node2"]]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            Interruption(
                State.FAILED, "Slurm declared node2 down", requeued=True, unclear=True, host="node2"
            ),
            "queued again: node2 is lost",
        ),
        (
            Interruption(State.PREEMPTED, "Slurm took the hosts", requeued=True, unclear=True),
            "queued again: node2 is lost",
        ),
        (Interruption(State.PREEMPTED, "preempted", requeued=True), "queued again: preempted"),
    ],
)
def test_a_host_that_we_lost_stays_named_when_slurm_notices_it_too(decide, found, told):
    lost = Verdict(State.FAILED, "node2 is lost", hosts=(host(), host("node2", "lost: no word", lost=True)))
    verdict, made = decide(lost, Given(why=found))
    assert verdict is None
    assert made.status()["reason"] == told


def test_a_host_that_slurm_declares_down_is_the_first_failure(tmp_path):
    made = samples.run_dir(tmp_path, backend="slurm", slurm=SlurmPlan({}, 120, True, ()))
    why = Interruption(State.FAILED, "Slurm declared node2 down", requeued=True, unclear=True, host="node2")
    told = Verdict(State.FAILED, "told", hosts=(host(failure=TOLD_TO_END),))
    verdict = asyncio.run(Restarting(made, made.plan(), Given(why=why)).explained(told, 1))
    assert (verdict.state, verdict.first_failure.host, verdict.undetermined) == (State.FAILED, "node2", False)


def test_the_limit_of_restarts_is_told(decide):
    lost = Verdict(State.FAILED, "lost", hosts=(host("node2", "lost: no word", lost=True),))
    verdict, _ = decide(lost, Given(restarts=2), max_restarts=2)
    assert verdict.summary == "lost; not started again: max_restarts is 2"


@pytest.mark.parametrize(("limit", "again"), [(1, True), (0, False)])
def test_a_time_limit_is_no_failure_and_does_not_count(tmp_path, limit, again):
    """Each of these restarts followed a new checkpoint, so it cannot go on like that for ever."""
    saved = {"checkpoint_dir": str(tmp_path / "saved"), "max_restarts": limit}
    made = samples.run_dir(tmp_path, backend="slurm", slurm=SlurmPlan({}, 120, True, ()), **saved)
    for number in (1, 2):
        made.attempt(number).path.mkdir(exist_ok=True)
        made.attempt(number).verdict_file.write_text('{"state": "TIMEOUT"}')
    restarting = Restarting(made, made.plan(), Given(restarts=2))
    save_tag(tmp_path / "saved")
    assert (restarting.too_many() is None) is again
    restarting.near_limit = True
    near = Verdict(State.TIMEOUT, "the time limit is near")
    assert (asyncio.run(restarting.decide(near, 3)) is None) is again
    lost = Verdict(State.FAILED, "lost", hosts=(host("node2", "lost: no word", lost=True),))
    verdict = asyncio.run(Restarting(made, made.plan(), Given(restarts=3)).decide(lost, 3))
    assert verdict.summary == f"lost; not started again: max_restarts is {limit}"


def test_a_refused_requeue_is_told(decide):
    lost = Verdict(State.FAILED, "lost", hosts=(host("node2", "lost: no word", lost=True),))
    verdict, _ = decide(lost, Given(refuses="Job is not requeueable"))
    assert verdict.summary == "lost; not started again: Job is not requeueable"


def test_more_time_is_asked_for_only_with_something_to_go_on_from(decide, tmp_path):
    out = Verdict(State.TIMEOUT, "near", hosts=(host(),))
    verdict, _ = decide(out, Given(), near_limit=True)
    assert "train.checkpoint_dir is not set" in verdict.summary
    (tmp_path / "saved").mkdir()


@pytest.mark.parametrize("told", ["global_step4", "global_step4_universal"])
def test_what_the_attempt_went_on_from_is_nothing_new(decide, tmp_path, told):
    save_tag(tmp_path / "saved")
    verdict = Verdict(State.TIMEOUT, "the time limit is near")
    saved = {"checkpoint_dir": str(tmp_path / "saved"), "resume_tag": told}
    again, _ = decide(verdict, Given(), near_limit=True, **saved)
    assert "no complete checkpoint has come" in again.summary


def test_the_jobs_own_time_limit_is_final(decide):
    out = Verdict(State.TIMEOUT, "the time limit of 5 s ran out", hosts=(host(),))
    assert decide(out, Given())[0] == out


def test_fixed_hosts_are_never_asked(decide):
    lost = Verdict(State.FAILED, "lost", hosts=(host("node2", "lost: no word", lost=True),))
    assert decide(lost, FixedHosts())[0] == lost


def test_too_many_restarts_end_the_run_with_the_last_reason(tmp_path):
    made = samples.run_dir(tmp_path, max_restarts=1)
    made.attempt(1).verdict_file.write_text('{"summary": "preempted"}')
    found = Restarting(made, made.plan(), Given(restarts=2)).too_many()
    assert found.summary == "queued again 2 times, and max_restarts is 1; the last attempt: preempted"
    assert Restarting(made, made.plan(), Given(restarts=1)).too_many() is None
