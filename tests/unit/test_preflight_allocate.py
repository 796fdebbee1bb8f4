"""What salloc is asked for."""

from __future__ import annotations

import yaml

from orchestrator.job import load_job
from orchestrator.preflight.allocate import salloc_command


def test_the_hosts_of_the_job_for_minutes_and_nothing_of_its_script(tmp_path):
    slurm = {
        "gpus_per_node": 4,
        "partition": "gpu",
        "account": "me",
        "time": "2-00:00:00",
        "begin": "now+1hour",
    }
    slurm |= {"mail_user": "a@b.c", "mail_type": "END", "extra": {"hold": "", "clusters": "big"}}
    job = {
        "name": "big one",
        "cluster": {"backend": "slurm", "nodes": 2, "slurm": slurm},
        "train": {"script": "t.py"},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    words = salloc_command(load_job(path), ["check", "job.yaml", "--json"])
    assert words[:6] == [
        "salloc",
        "--partition=gpu",
        "--account=me",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=4",
    ]
    assert {"--clusters=big", "--time=10", "--job-name=check big one"} <= set(words)
    assert "--time=30" in salloc_command(load_job(path), ["check", "job.yaml", "--build-ops"])
    assert not [word for word in words if word.startswith(("--mail", "--begin", "--hold", "--time=2"))]
    assert words[-7:] == [
        "-m",
        "orchestrator",
        "check",
        "job.yaml",
        "--json",
        "--in-allocation",
        "--from-login",
    ]
