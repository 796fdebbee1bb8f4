from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import JobFileError
from orchestrator.job import load_job

SMALL = "cluster: {backend: slurm, nodes: 2, slots: 8}\ntrain: {script: train.py}\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads a small Slurm job with some settings."""
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(SMALL, encoding="utf-8")
    return lambda *settings: load_job(Path("job.yaml"), settings).spec.cluster


@pytest.fixture
def problems(load):
    """Return a function that loads a wrong Slurm job and returns its problems as text."""

    def found(*settings: str) -> list[str]:
        with pytest.raises(JobFileError) as caught:
            load(*settings)
        return [str(problem) for problem in caught.value.problems]

    return found


def test_values_arrive_as_typed(load):
    slurm = load(
        "cluster.slurm={time: 1:30:00, mem: 0, gpus_per_node: 8, begin: 16:00, array: 0-9, switches: 2,"
        " mail_type: [end, fail], nice: 0, dependency: 12, extra: {hold: '', comment2: 010}}",
    ).slurm
    assert slurm is not None
    assert (slurm.time, slurm.mem, slurm.gpus_per_node, slurm.begin) == ("1:30:00", "0", "8", "16:00")
    assert (slurm.array, slurm.switches, slurm.mail_type, slurm.dependency) == ("0-9", "2", "END,FAIL", "12")
    assert slurm.extra == {"hold": "", "comment2": "010"}
    assert (slurm.requeue, slurm.signal_before, slurm.srun_args) == (True, 120, [])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("time=2h", "time: expected a time as sbatch has it: minutes, MM:SS"),
        ("time=[1]", "time: expected a text"),
        (
            "mem=1.5G",
            "mem: expected whole MiB or a number with K, M, G or T, for example 500G; 0 is all of it",
        ),
        ("gres='gpu:'", "gres: expected name:count or name:type:count"),
        ("gpus_per_node=8.0", "gpus_per_node: expected a number of GPUs or type:number"),
        ("cpus_per_task=0", "cpus_per_task: expected 1 or more (got 0)"),
        ("partition=a b", "partition: expected a name, or several with commas and no spaces"),
        ("account=-x", "account: a leading '-' would be read as an option"),
        ("exclusive=always", "exclusive: expected true or false, user, mcs or topo"),
        ("nodelist=n[1-", "nodelist: expected host names as Slurm has them"),
        ("array=9-0", "array: the range 9-0 runs backwards"),
        ("dependency='afterok:'", "dependency: names no job to wait for"),
        ("begin=soon", "begin: expected a start as sbatch has it"),
        ("mail_type=[END, never]", "mail_type: no mail is sent for NEVER"),
        ("mail_type=[]", "mail_type: expected a text"),
        ("nice=3000000000", "nice: expected 2.14748e+09 or less"),
        ("segment=two", "segment: expected a whole number"),
        ("switches=0", "switches: expected a number of switches"),
        ("licenses=a b", "licenses: expected licences"),
        ("requeue=maybe", "requeue: expected true or false"),
        ("signal_before=70000", "signal_before: expected 65535 or less"),
        ("srun_args=--mpi=none", "srun_args: expected a list"),
        (
            'extra={--hold: ""}',
            "extra.--hold: is no name of an option (letters, digits and -, without dashes",
        ),
        ('extra={hold: "a\\nb"}', "extra.hold: expected one line of printable characters"),
        ("nods=2", "nods: unknown key"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(problems, setting, message):
    (problem,) = problems(f"cluster.slurm.{setting}")
    assert f"cluster.slurm.{message}" in problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["cluster.nodes="], "cluster: Slurm has to be told how many hosts to give"),
        (
            ["cluster.slots="],
            "cluster: neither cluster.slots nor a number of GPUs says how many ranks a host has",
        ),
        (["cluster.slurm.gpus_per_node=4"], "cluster.slots: is more than the 4 GPUs of each host"),
        (["cluster.slurm.gres=gpu:h100:4"], "cluster.slots: is more than the 4 GPUs of each host"),
        (
            ["cluster.slurm={gpus_per_node: 8, gres: gpu:4}"],
            "cluster.slurm.gpus_per_node: asks for other GPUs than gres: gpu:4",
        ),
        (
            ["cluster.slurm={gpus_per_node: h100:8, gres: gpu:8}"],
            "cluster.slurm.gpus_per_node: asks for other GPUs than gres: gpu:8",
        ),
        (
            ["cluster.include=a@b", "cluster.slurm.nodelist=a"],
            "cluster.slurm.nodelist: cluster.include is given too, and both become --nodelist",
        ),
        (
            ["cluster.exclude=a", "cluster.slurm.exclude=a"],
            "cluster.slurm.exclude: cluster.exclude is given too, and both become --exclude",
        ),
        (
            ["cluster.slurm.nodelist=n[1-3]"],
            "cluster.slurm.nodelist: names 3 hosts, and cluster.nodes asks for 2",
        ),
        (["cluster.shared_disk=false"], "cluster.shared_disk: Slurm's hosts have to see the run directory"),
        (
            ["grace=3m", "cluster.slurm.time=60"],
            "cluster.slurm.signal_before: Slurm would end the run 120 seconds later, and ranks have 180",
        ),
        (
            ["cluster.slurm.time=2"],
            "cluster.slurm.time: the run would be told to save 120 seconds before a limit of 120 seconds",
        ),
        (
            ["cluster.slurm={time: 60, signal_before: 1h}"],
            "cluster.slurm.signal_before: the run would be told to save 3600 seconds before",
        ),
        (
            ["cluster.slurm.extra.nodes=3"],
            "extra.nodes: --nodes is set from another key\n  fix: use cluster.nodes",
        ),
        (["cluster.slurm.extra.job-name=x"], "--job-name is set from another key\n  fix: use name"),
        (['cluster.slurm.extra.no-requeue=""'], "fix: use cluster.slurm.requeue: false"),
        (["cluster.slurm.extra.output=x"], "--output is for the run itself to set\n  fix: remove it"),
        (["cluster.slurm.extra.ntasks=3"], "--ntasks is for the run itself to set"),
        (
            ["cluster.slurm.extra.time=3"],
            "has a key of its own, which is checked\n  fix: use cluster.slurm.time",
        ),
        (["cluster.slurm.extra.mail-type=END"], "fix: use cluster.slurm.mail_type"),
        (["cluster.slurm.extra.gpus_per_node=8"], "fix: use cluster.slurm.gpus_per_node"),
        (
            ["cluster.slurm={mem: 0, extra: {mem-per-cpu: 4G}}"],
            "extra.mem-per-cpu: Slurm takes it or mem, not both",
        ),
        (
            ["cluster.slurm.srun_args=[--ntasks=3]"],
            "srun_args.0: --ntasks is set from the plan: one task on each host",
        ),
        (["cluster.backend=local"], None),
        (
            ["cluster.backend=local", "cluster.slurm.qos=x"],
            "cluster.slurm: the backend is local, which asks no Slurm for anything",
        ),
    ],
)
def test_keys_that_cannot_stand_together(load, problems, settings, message):
    if message is None:
        assert load(*settings)
        return
    (problem,) = problems(*settings)
    assert message in problem
    assert "fix: " in problem


@pytest.mark.parametrize(
    "settings",
    [
        ["cluster.slurm={gpus_per_node: 8, gres: gpu:8}"],
        ["cluster.slurm={gpus_per_node: 8, gres: shard:2}"],
        ["cluster.slots=", "cluster.slurm.gpus_per_node=h100:8"],
        ["cluster.slurm={time: UNLIMITED}", "time_limit=30d"],
        ["cluster.slurm={time: 1, signal_before: 0}"],
        ["time_limit=1h", "cluster.slurm.time=60"],
        ["cluster.nodes=", "cluster.include=a@b:0"],
        ["cluster.slurm.nodelist=n1"],
        ["cluster.slurm={extra: {mem-per-cpu: 4G, wckey: x}}"],
        ["cluster.slurm.srun_args=[--mpi=pmix, --cpu-bind, none]"],
        ["cluster.slurm.extra.wait-all-nodes=1"],
    ],
)
def test_keys_that_go_together(load, settings):
    assert load(*settings)
