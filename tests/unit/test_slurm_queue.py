"""Asking Slurm, on a real cluster; its commands are counted by a shim on the PATH that runs the real ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from orchestrator.slurm import cache, command, queue
from orchestrator.slurm.cache import Cache, Memory, Past
from orchestrator.slurm.words import JobInfo, JobState
from tests.samples import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600.0  # an age that no answer reaches here, however slow this machine is
STUBBORN = "trap '' TERM; while :; do sleep 0.2; done"
SHIM = '#!/bin/sh\necho "${0##*/}" >> "%s"\nexec "%s" "$@"\n'


class Commands:
    """Which of Slurm's commands were run."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self._log = folder / "log"
        folder.mkdir()
        for name in ("squeue", "scontrol", "sacct"):
            shim = folder / name
            shim.write_text(SHIM % (self._log, shutil.which(name)))
            shim.chmod(0o755)

    def run(self) -> list[str]:
        """Return the names of the commands that were run since the last time."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/orchestrate/slurm"


@pytest.fixture
def no_slurm(state, tmp_path, monkeypatch):
    """Leave no command to be found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return state


@pytest.fixture
def commands(tmp_path, monkeypatch):
    made = Commands(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    return made


@pytest.fixture
def slurm(slurm_bed, state, commands, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", slurm_bed.slurm.env["SLURM_CONF"])
    monkeypatch.setattr(command, "_SECONDS", 120.0)
    yield slurm_bed.slurm
    slurm_bed.slurm.cancel_all()


@pytest.fixture
def accounting(accounting_bed, state, commands, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", accounting_bed.slurm.env["SLURM_CONF"])
    monkeypatch.setattr(command, "_SECONDS", 120.0)
    yield accounting_bed.slurm
    accounting_bed.slurm.cancel_all()


def submit(cluster, *options: str, script: str = "sleep 600") -> str:
    argv = ["sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={script}"]
    return cluster.run(*argv, check=True).stdout.strip()


def await_state(job: str, *states: JobState, within: float = 120) -> JobInfo:
    deadline = time.monotonic() + within
    while (info := queue.show_job(job)) is None or info.state not in states:
        assert time.monotonic() < deadline, info
        time.sleep(0.1)
    return info


def while_completing(cluster, end: Callable[[str], object], look: Callable[[str], object], *options: str):
    """End a job that does not want to; return it, and what `look` says of it while it is COMPLETING.

    It is that for a few seconds (KillWait), which a busy machine may need for anything: then it is done anew.
    """
    for _ in range(5):
        job = submit(cluster, *options, script=STUBBORN)
        await_state(job, JobState.RUNNING)
        end(job)
        await_state(job, *set(JobState) - {JobState.RUNNING})
        said = look(job)
        if queue.show_job(job).state is JobState.COMPLETING:
            return job, said
        cluster.cancel_all()
    raise AssertionError(f"{job} was not seen COMPLETING: {said}")


# -- one query


def test_one_squeue_tells_about_all_jobs_of_the_user(slurm, commands):
    plain, array = submit(slurm, "--hold"), submit(slurm, "--hold", "--array=1-200:3%2")
    before = time.time()
    answer = queue.look_up([plain, f"{array}_100", f"{array}_101", "99999999"])
    assert set(answer.jobs) == {plain, f"{array}_100"}
    assert answer.jobs[plain].reason == "JobHeldUser"
    assert answer.error == ""
    assert before <= answer.asked <= time.time()
    assert commands.run() == ["squeue", "sacct"]


def test_nobody_asks_twice_within_the_time(slurm, commands):
    job = submit(slurm, "--hold")
    first = queue.look_up([job, "99999999"])
    commands.run()
    later = submit(slurm, "--hold")
    second = queue.look_up([job, later, "99999999"], max_age=HOUR)
    assert second.asked == first.asked
    assert set(second.jobs) == {job}  # the later one is newer than the answer, and not lost
    assert commands.run() == []
    assert set(queue.look_up([later], max_age=0).jobs) == {later}
    assert commands.run() == ["squeue"]


def test_processes_that_ask_at_once_share_one_query(slurm, commands):
    job = submit(slurm, "--hold")
    program = f"from orchestrator.slurm.queue import look_up; print(*look_up(['{job}'], max_age={HOUR}).jobs)"

    def ask(_):
        return subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ask, range(6))) == {f"{job}\n"}
    assert commands.run() == ["squeue"]


def test_what_the_user_has_set_for_squeue_changes_nothing(slurm, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "%H:%M")
    job = submit(slurm, "--hold", "--job-name=a|b c")
    info = queue.look_up([job]).jobs[job]
    assert (info.state, info.name) == (JobState.PENDING, "a|b c")
    assert abs(info.submitted - time.time()) < 60


# -- a controller that is away


def test_without_a_controller_the_last_answer_stands(slurm, commands):
    job = submit(slurm, "--hold")
    first = queue.look_up([job])
    slurm.stop_controller()
    try:
        second = queue.look_up([job], max_age=0)
        commands.run()
        third = queue.look_up([job], max_age=HOUR)
        assert commands.run() == []  # a failure is not tried again at once either
    finally:
        slurm.start_controller()
    assert second.jobs == first.jobs
    assert second.asked == first.asked
    assert "slurm" in second.error.lower()
    assert third == second
    back = queue.look_up([job], max_age=0)
    assert (back.error, set(back.jobs)) == ("", {job})


def test_a_job_is_over_only_where_the_controller_says_so(slurm):
    held, array = submit(slurm, "--hold"), submit(slurm, "--hold", "--array=0-1")
    jobs = [held, f"{array}_0", f"{array}_1", "999999"]
    slurm.run("scancel", f"{array}_1", check=True)
    assert [queue.is_over(job) for job in jobs] == [False, False, True, True]
    slurm.stop_controller()
    try:
        assert not queue.is_over("999999")
    finally:
        slurm.start_controller()


def test_where_slurm_is_not_installed_that_is_said(no_slurm):
    answer = queue.look_up(["1"])
    assert answer.jobs == {}
    assert answer.asked == 0
    assert "squeue cannot be run here" in answer.error
    assert queue.show_job("1") is None
    assert queue.base_state("1") is None


def test_a_squeue_that_hangs_is_given_up(state, commands, monkeypatch):
    (commands.folder / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(command, "_SECONDS", 0.2)
    assert "did not answer" in queue.look_up([]).error


# -- how a job ends that is COMPLETING


def test_a_cancelled_job_is_told_from_one_that_is_queued_again(slurm):
    _, said = while_completing(
        slurm,
        lambda job: slurm.run("scontrol", "requeue", job),
        lambda job: (queue.show_job(job).restarts, queue.base_state(job)),
    )
    assert said == (1, JobState.PENDING)
    cancelled, said = while_completing(
        slurm,
        lambda job: slurm.run("scancel", job),
        lambda job: (queue.base_state(job, script_lives=True), queue.base_state(job)),
    )
    assert said == (JobState.CANCELLED, JobState.COMPLETING)
    await_state(cancelled, JobState.CANCELLED)
    assert queue.base_state(cancelled) is JobState.CANCELLED


def test_a_preempted_job_is_told_by_its_partition(slurm):
    whole = ("--nodes=2", "--exclusive")
    for options, state in (
        (("--partition=cancelled", *whole), JobState.PREEMPTED),
        (whole, JobState.PENDING),
    ):
        _, said = while_completing(
            slurm,
            lambda _: submit(slurm, "--partition=urgent", *whole),
            lambda job: (queue.show_job(job).preempted, queue.base_state(job)),
            *options,
        )
        assert said == (True, state)
        slurm.cancel_all()


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"reason": "TimeLimit"}, JobState.TIMEOUT),
        ({"reason": "NodeDown"}, JobState.NODE_FAIL),
        ({"reason": "RaisedSignal:9(Killed)"}, JobState.FAILED),
        ({"preempted": True}, JobState.PREEMPTED),
        ({"ended": None}, JobState.PENDING),
        ({"ended": 2000.0, "preempted": True}, JobState.PENDING),
        ({}, None),
    ],
)
def test_what_is_concluded_from_a_completing_job(changes, state):
    info = JobInfo("1", "1", JobState.COMPLETING, **{"ended": 900.0, **changes})
    assert queue._concluded(info, now=901.0) is state


@pytest.mark.parametrize(("version", "state"), [("22.05.8", None), ("23.11", JobState.CANCELLED)])
def test_later_versions_tell_the_base_state_as_json(version, state, commands):
    file = ROOT / f"tests/data/slurm/job-{version}.json"
    (commands.folder / "scontrol").write_text(f"#!/bin/sh\ncat {file}\n")
    assert queue._from_json("39") is state


# -- accounting


def test_what_squeue_has_forgotten_accounting_knows(accounting, commands):
    ended, open_one = submit(accounting, script="exit 3"), submit(accounting, "--hold")
    await_state(ended, JobState.FAILED)
    words = ("sacct", "--noheader", "--allocations", "--format=state", f"--jobs={ended}")
    while "FAILED" not in accounting.run(*words).stdout:  # slurmctld tells slurmdbd of it later
        time.sleep(0.1)
    heard = time.time() + 1
    Cache().path.parent.mkdir(parents=True)
    Cache().write(Memory(tried=heard, asked=heard))  # squeue has answered and knew neither
    time.sleep(1)
    commands.run()
    answer = queue.look_up([ended, open_one, "99999999"], max_age=HOUR)
    assert {job: info.state for job, info in answer.jobs.items()} == {ended: JobState.FAILED}
    assert (answer.jobs[ended].exit_code, answer.jobs[ended].source) == (3, "sacct")
    assert commands.run() == ["sacct"]
    assert queue.look_up([ended, open_one, "99999999"], max_age=HOUR) == answer
    assert commands.run() == []


def test_accounting_tells_how_a_completing_job_ends(accounting):
    def told(job: str) -> JobState | None:
        """Return its state once slurmdbd has heard of the end too."""
        while (state := queue.base_state(job)) is JobState.COMPLETING:
            time.sleep(0.1)
        return state

    _, said = while_completing(accounting, lambda job: accounting.run("scancel", job), told)
    assert said is JobState.CANCELLED


def test_disabled_accounting_is_not_asked_again_and_again(slurm, commands):
    assert queue.look_up(["99999999"]).error == ""
    assert commands.run() == ["squeue", "sacct"]
    queue.look_up(["99999998"], max_age=0)
    assert commands.run() == ["squeue"]


def test_accounting_that_fails_is_told(no_slurm):
    no_slurm.mkdir(parents=True)
    Cache().write(Memory(tried=time.time(), asked=time.time()))
    answer = queue.look_up(["7"])
    assert "sacct cannot be run here" in answer.error
    assert queue.look_up([]).error == ""  # nothing was missing


# -- the file


def test_two_clusters_have_two_files(state, tmp_path, monkeypatch):
    keys = set()
    for name, port in (("alpha", 1), ("beta", 1), ("beta", 2)):
        conf = tmp_path / f"{name}-{port}.conf"
        conf.write_text(f"ClusterName={name}\nSlurmctldPort={port}\n")
        monkeypatch.setenv("SLURM_CONF", str(conf))
        keys.add(cache.cluster_key())
        assert cache.cluster_key().startswith(name)
    assert len(keys) == 3


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 0}', '{"version": 1, "past": {"1": 2}}']
)
def test_a_file_that_is_not_ours_is_left_alone(no_slurm, text):
    no_slurm.mkdir(parents=True)
    Cache().path.write_text(text)
    assert Cache().read() == Memory()


def test_what_is_kept_comes_back(no_slurm):
    no_slurm.mkdir(parents=True)
    info = JobInfo("7", "7", JobState.FAILED, raw="FAILED", exit_code=3, name="ü|\x1f")
    memory = Memory(1.0, 2.0, "text\x1e", "error", {"7": Past(3.0, info), "8": Past(4.0, None)}, "past", 5.0)
    Cache().write(memory)
    assert Cache().read() == memory
    assert Cache().path.stat().st_mode & 0o777 == 0o600


def test_a_home_that_cannot_be_written_to_costs_only_the_sharing(no_slurm):
    no_slurm.parent.parent.mkdir(exist_ok=True)
    no_slurm.parent.write_text("a file where the folder should be")
    assert "squeue cannot be run here" in queue.look_up(["7"]).error


def test_a_clock_that_was_set_back_does_not_stop_the_asking(no_slurm):
    no_slurm.mkdir(parents=True)
    Cache().write(Memory(tried=time.time() + 3600, asked=time.time() + 3600))
    assert "squeue cannot be run here" in queue.look_up([]).error
