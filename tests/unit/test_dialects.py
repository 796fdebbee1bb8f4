from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import FilterError
from orchestrator.hosts import Host, HostPool, parse_hostfile
from orchestrator.hosts.dialects import deepspeed_filter, pdsh_list, slurm_nodelist
from orchestrator.hosts.filters import apply_filters

POOL = parse_hostfile("worker-[0-2] slots=4\nfe80::1 slots=2\n", "hosts")


def pick(include):
    return apply_filters(POOL, include=include)


@pytest.mark.parametrize(
    ("selected", "expected"),
    [
        (POOL, ""),
        (pick("worker-1@worker-0"), "worker-0@worker-1"),
        (pick("worker-0:0,1,2,3"), "worker-0"),
        (pick("worker-2:3,1@worker-0"), "worker-0@worker-2:1,3"),
    ],
)
def test_deepspeed_filter(selected, expected):
    assert deepspeed_filter(POOL, selected) == expected


def test_deepspeed_has_no_way_to_name_an_ipv6_host():
    with pytest.raises(FilterError, match="cannot name this host") as caught:
        deepspeed_filter(POOL, pick("worker-0@[fe80::1]"))
    assert caught.value.problems[0].value == "fe80::1"


@given(st.lists(st.sets(st.integers(0, 3)), min_size=1, max_size=6).filter(any))
def test_a_deepspeed_filter_chooses_what_it_was_made_from(picked):
    pool = HostPool(tuple(Host(f"n{index}", (0, 1, 2, 3)) for index in range(len(picked))))
    hosts = (Host(f"n{index}", tuple(sorted(slots))) for index, slots in enumerate(picked) if slots)
    selected = HostPool(tuple(hosts))
    assert apply_filters(pool, include=deepspeed_filter(pool, selected)) == selected


def test_pdsh_list_is_in_rank_order():
    assert (
        pdsh_list(parse_hostfile("b slots=1\na[2,1] slots=1\nfe80::1 slots=1", "hosts")) == "b,a2,a1,fe80::1"
    )


def test_pdsh_cannot_name_an_address_that_starts_with_a_single_colon_group():
    with pytest.raises(FilterError, match="pdsh reads 2001: as a way to connect"):
        pdsh_list(parse_hostfile("a slots=1\n2001:db8::1 slots=1", "hosts"))


@pytest.mark.skipif(shutil.which("pdsh") is None, reason="needs pdsh")
def test_pdsh_itself_reads_the_list_as_the_same_hosts_and_node_ranks():
    pool = parse_hostfile("node[10,2] slots=1\nw_1.x slots=1\nfe80::1 slots=1\n10.0.0.7 slots=1", "hosts")
    command = ["pdsh", "-N", "-R", "exec", "-w", pdsh_list(pool), "echo", "%n", "%h"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == sorted(f"{i} {host.name}" for i, host in enumerate(pool.hosts))


def test_slurm_nodelist_is_folded():
    pool = parse_hostfile("node[001-128] slots=8\nlogin slots=1\ngpu[1-2].x slots=1", "hosts")
    assert slurm_nodelist(pool) == "node[001-128],login,gpu1.x,gpu2.x"


@pytest.mark.skipif(shutil.which("scontrol") is None, reason="needs Slurm's scontrol")
def test_slurm_itself_reads_the_nodelist_as_the_same_hosts(tmp_path):
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        f"ClusterName=c\nSlurmctldHost=localhost\nNodeName=n\nAuthType=auth/none\nPluginDir={tmp_path}\n"
    )
    pool = parse_hostfile(
        "n[8-11,008-011,1] slots=1\nr1n[1-3]-ib slots=1\n10.0.0.[9-12] slots=1\nn slots=1", "hosts"
    )
    done = subprocess.run(
        ["scontrol", "show", "hostnames", slurm_nodelist(pool)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SLURM_CONF": str(conf)},
    )
    assert sorted(done.stdout.split()) == sorted(host.name for host in pool.hosts)
