from __future__ import annotations

import pytest

from orchestrator import submit
from orchestrator.diagnose import diagnose
from orchestrator.errors import SubmitError
from orchestrator.monitor.overview import overview
from orchestrator.monitor.status import current_status
from orchestrator.slurm.executor import foreign_variables, refusal
from tests import samples


def test_variables_of_an_outer_job_and_of_site_defaults_are_foreign():
    environ = {
        "SLURM_JOB_ID": "1",
        "SBATCH_PARTITION": "x",
        "SRUN_CPUS_PER_TASK": "1",
        "PMIX_RANK": "0",
        "SLURM_CONF": "/etc/slurm.conf",
        "PATH": "/bin",
        "MY_SLURM_X": "1",
    }
    foreign = ["PMIX_RANK", "SBATCH_PARTITION", "SLURM_JOB_ID", "SRUN_CPUS_PER_TASK"]
    assert foreign_variables(environ) == foreign


FAILED = "Batch job submission failed: "
ACCOUNT = f"{FAILED}Invalid account or account/partition combination specified"
PARTITION = ("invalid partition specified: gone", f"{FAILED}Invalid partition name specified")
SAID = {  # by Slurm 22.05.8: what of it is told, and in which way out
    "\n".join(f"sbatch: error: {line}" for line in PARTITION): ("; ".join(PARTITION), "sinfo"),
    f"sbatch: error: {ACCOUNT}": (ACCOUNT, "sacctmgr"),
    "sbatch: error: Something new": ("Something new", ""),
}


@pytest.mark.parametrize("words", SAID)
def test_what_sbatch_said_is_told_once_with_a_way_out(words):
    said, fix = SAID[words]
    problem = refusal(words)
    assert problem.what == f"sbatch refused the job: {said}"
    assert fix in problem.fix


POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
REFUSED = {  # sbatch's last line: what it means, and where the way out leads
    PARTITION[1]: ("the cluster has no partition of that name", "Correct cluster.slurm.partition"),
    f"{FAILED}{POLICY}": ("the job is beyond a limit of its account or QOS", "Wait for other jobs"),
    f"{FAILED}Socket timed out on send/recv operation": ("may have taken the job", "Look at `squeue --me`"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_refused_run_is_diagnosed_with_sbatchs_words_what_they_mean_and_a_way_out(tmp_path, words):
    meaning, fix = REFUSED[words]
    run = samples.run_dir(tmp_path)
    submit.refuse(run, SubmitError(refusal(f"sbatch: error: {words}")))
    told = diagnose(run)
    assert (told.category, told.title) == ("refused", "Slurm did not take the job")
    assert told.summary.startswith(f"sbatch refused the job: {words} (")
    assert meaning in told.summary
    assert told.advice[0].startswith(fix)
    assert told.evidence[0].text == f"sbatch refused the job: {words}"
    status = current_status(run)
    assert (status["state"], status["reason"]) == ("FAILED", f"sbatch refused the job: {words}")
    assert overview(run, status)["diagnosis"] == {"category": "refused", "summary": told.summary}


def test_words_of_sbatch_that_are_not_known_are_told_as_they_are(tmp_path):
    run = samples.run_dir(tmp_path)
    submit.refuse(run, SubmitError(refusal("sbatch: error: Something new")))
    told = diagnose(run)
    assert (told.category, told.summary) == ("refused", "sbatch refused the job: Something new")
    assert len(told.advice) == 1
