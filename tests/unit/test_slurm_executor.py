from __future__ import annotations

import pytest

from orchestrator.slurm.executor import foreign_variables, refusal


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
