from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from click.testing import CliRunner

from orchestrator.cli.hosts import hosts_command
from orchestrator.errors import FilterError, HostfileError, JobFileError
from orchestrator.hosts.pool import full_pool, resolve_pool
from orchestrator.job import ClusterSpec


@pytest.fixture
def hostfile(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("bob@a slots=4\nb slots=4 address=10.0.0.2\nc slots=2 port=2222\n")
    return path


def resolved(**cluster):
    return {host.name: host.slots for host in resolve_pool(ClusterSpec(**cluster)).hosts}


def run(*arguments):
    return CliRunner().invoke(hosts_command, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({}, {"host-0": (0,)}),
        ({"nodes": 2, "slots": 2}, {"host-0": (0, 1), "host-1": (0, 1)}),
        ({"nodes": 2, "slots": 2, "include": "host-1:0"}, {"host-1": (0,)}),
        ({"nodes": 2, "exclude": "host-0"}, {"host-1": (0,)}),
    ],
)
def test_local_hosts_are_made_up(cluster, expected):
    assert resolved(backend="local", **cluster) == expected


def test_local_hosts_can_come_from_a_hostfile(hostfile):
    assert list(resolved(backend="local", hostfile=hostfile)) == ["a", "b", "c"]


@pytest.mark.parametrize("backend", ["pdsh", "ssh"])
def test_filters_come_before_nodes_and_slots(backend, hostfile):
    cluster = {"backend": backend, "hostfile": hostfile, "exclude": "a@b:0"}
    assert resolved(**cluster) == {"b": (1, 2, 3), "c": (0, 1)}
    assert resolved(**cluster, nodes=1) == {"b": (1, 2, 3)}
    assert resolved(**cluster, slots=2) == {"b": (1, 2), "c": (0, 1)}
    assert len(full_pool(ClusterSpec(**cluster, nodes=1)).hosts) == 3


def test_a_missing_hostfile_never_becomes_a_local_run(tmp_path):
    with pytest.raises(HostfileError, match="does not exist"):
        resolved(backend="pdsh", hostfile=tmp_path / "none")


def test_more_nodes_or_slots_than_there_are_is_an_error(hostfile):
    with pytest.raises(JobFileError, match=r"cluster\.nodes: only 3 hosts"):
        resolved(backend="ssh", hostfile=hostfile, nodes=4)
    with pytest.raises(JobFileError, match=r"cluster\.slots: host c has 2 slots \(got 3\)"):
        resolved(backend="ssh", hostfile=hostfile, slots=3)
    with pytest.raises(JobFileError, match="and 2 more hosts have too few"):
        resolved(backend="ssh", hostfile=hostfile, slots=5)


def test_a_wrong_filter_is_an_error(hostfile):
    with pytest.raises(FilterError, match="host 'd' is not in the hostfile"):
        resolved(backend="ssh", hostfile=hostfile, include="d")


def test_slurm_hosts_are_not_known_before_the_job_runs():
    with pytest.raises(JobFileError, match="once Slurm has given them"):
        resolve_pool(ClusterSpec.model_construct(backend="slurm"))


def test_hosts_command_prints_a_plain_table_in_a_pipe(hostfile):
    done = run("--hostfile", hostfile, "--include", "a:0,1@c")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "node  host  slots  ranks  user  port",
        "0     a     0-1    0..1   bob",
        "1     c     0-1    2..3         2222",
        "",
        "hosts      2, 4 ranks, master a",
        "deepspeed  --include=a:0,1@c",
        "pdsh       -w a,c",
        "slurm      --nodelist=a,c",
    ]


def test_hosts_command_prints_json(hostfile):
    done = run("--hostfile", hostfile, "--exclude", "a@b:1,2,3", "--json")
    assert json.loads(done.stdout) == {
        "hosts": [
            {"name": "b", "slots": [0], "first_rank": 0, "address": "10.0.0.2", "user": None, "port": None},
            {"name": "c", "slots": [0, 1], "first_rank": 1, "address": None, "user": None, "port": 2222},
        ],
        "world_size": 3,
        "master": "b",
        "dialects": {"deepspeed": "b:0@c", "pdsh": "b,c", "slurm": "b,c"},
    }


def test_hosts_command_says_what_a_tool_has_no_words_for(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("2001:db8::1 slots=1\nb slots=1\n")
    done = run("--hostfile", path, "--include", "[2001:db8::1]", "--json")
    assert json.loads(done.stdout)["dialects"] == {"deepspeed": None, "pdsh": None, "slurm": "2001:db8::1"}
    assert "DeepSpeed filter cannot name this host" in done.stderr
    assert "pdsh reads 2001:" in done.stderr


def test_hosts_command_reads_a_job_file_and_options_replace_its_filter(tmp_path, hostfile):
    job = tmp_path / "job.yaml"
    job.write_text(
        "cluster: {backend: ssh, hostfile: hosts, include: 'a@b', slots: 2}\ntrain: {script: t.py}\n"
    )
    assert [host["name"] for host in json.loads(run(job, "--json").stdout)["hosts"]] == ["a", "b"]
    shown = json.loads(run(job, "--exclude", "a", "--json").stdout)
    assert [(host["name"], host["slots"]) for host in shown["hosts"]] == [("b", [0, 1]), ("c", [0, 1])]


def test_hosts_command_needs_a_job_or_a_hostfile():
    done = run()
    assert done.exit_code == 2
    assert "give a job file or --hostfile" in done.output


def test_hosts_command_draws_a_table_on_a_terminal(hostfile):
    ours, theirs = pty.openpty()
    code = "from orchestrator.cli.hosts import hosts_command; hosts_command()"
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    env.pop("NO_COLOR", None)
    command = [sys.executable, "-c", code, "--hostfile", str(hostfile)]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=theirs, env=env, check=True)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)
    assert "\x1b[1m" in shown
    assert "10.0.0.2" in shown
