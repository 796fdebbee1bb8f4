from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.hosts import Host, HostPool
from orchestrator.plan import PLACEHOLDERS, LaunchPlan, SshPlan, file_name, plan_hosts
from tests import samples

MIXED = samples.pool("node1 slots=2\nme@fd00::2 slots=3 address=10.0.0.2 port=2222\nnode3 slots=1\n")


def test_a_plan_comes_back_from_its_json():
    plan = samples.plan(
        MIXED,
        backend="ssh",
        args=("a", samples.ODD, ""),
        setup=("module load x",),
        env={"A": samples.ODD},
        secrets=("TOKEN",),
        deepspeed={"zero_optimization": {"stage": 3, "nested": [1, None, True, 0.5]}},
        ssh=SshPlan(user="me", options={"Compression": "yes"}, fanout=64),
        shared_disk=False,
        time_limit=90.5,
        module="pkg.train",
        script=None,
    )
    assert LaunchPlan.from_json(plan.to_json()) == plan


def test_a_plan_from_before_a_key_that_has_a_default_is_read():
    data = json.loads(samples.plan().to_json())
    del data["keep"], data["zero3_init"]
    assert LaunchPlan.from_json(json.dumps(data)) == samples.plan()


@pytest.mark.parametrize("change", [{"new_key": 1}, {"lease": ...}])
def test_a_plan_of_another_version_is_refused(change):
    data = json.loads(samples.plan().to_json()) | change
    data = {key: value for key, value in data.items() if value is not ...}
    with pytest.raises(ValueError, match="not a launch plan of this version"):
        LaunchPlan.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '"plan"'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own words will do
        LaunchPlan.from_json(text)


def test_ten_thousand_hosts_come_back_and_keep_their_ranks():
    hosts = HostPool(tuple(Host(f"node{number}", tuple(range(8))) for number in range(10_000)))
    plan = samples.plan(hosts, backend="pdsh")
    again = LaunchPlan.from_json(plan.to_json())
    assert again == plan
    assert (again.world_size, again.hosts[-1].ranks) == (80_000, range(79_992, 80_000))


def test_ranks_follow_the_hosts_and_their_slots():
    hosts = plan_hosts(HostPool((Host("a", (1, 3)), Host("b", (0,)), Host("c", (5, 6, 7)))), simulated=False)
    assert [(host.index, host.ranks) for host in hosts] == [(0, range(2)), (1, range(2, 3)), (2, range(3, 6))]
    assert [host.devices for host in hosts] == [(1, 3), (0,), (5, 6, 7)]


def test_simulated_hosts_share_the_machines_devices():
    hosts = plan_hosts(HostPool((Host("a", (0, 1)), Host("b", (1, 3)), Host("c", (0,)))), simulated=True)
    assert [host.devices for host in hosts] == [(0, 1), (3, 5), (6,)]
    assert [host.slots for host in hosts] == [(0, 1), (1, 3), (0,)]


@pytest.mark.parametrize(
    ("name", "alias", "ssh_address"),
    [
        ("node1", "node1", None),
        ("Node_1.example-x.org", "Node_1.example-x.org", None),
        ("fd00:10::1", "host-1", "fd00:10::1"),
        ("fe80::4%eth0", "host-1", "fe80::4%eth0"),
        ("-oProxyCommand=x", "host-1", "-oProxyCommand=x"),
        (".hidden", "host-1", ".hidden"),
        ("ünï", "host-1", "ünï"),
        ("node1\n", "host-1", "node1\n"),
    ],
)
def test_programs_get_a_plain_name_and_the_address_beside_it(name, alias, ssh_address):
    host = plan_hosts(HostPool((Host("a", (0,)), Host(name, (0,)))), simulated=False)[1]
    assert (host.alias, host.ssh_address) == (alias, ssh_address)


def test_a_hostfiles_address_goes_before_the_name():
    assert (MIXED.hosts[1].name, MIXED.hosts[1].user) == ("fd00::2", "me")
    host = plan_hosts(MIXED, simulated=False)[1]
    assert (host.alias, host.ssh_address, host.user, host.port) == ("host-1", "10.0.0.2", "me", 2222)


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_two_hosts_share_a_file_name(one, other):
    try:
        one.encode(), other.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate: no hostfile, which is UTF-8, holds one
    assert (file_name(one) == file_name(other)) == (one == other)


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_file_names_are_plain(name):
    shown = file_name(name)
    assert set(shown) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-%")
    assert not shown.startswith(".")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("fd00::1", "fd00%3A%3A1"),
        ("../x", "%2E.%2Fx"),
        ("..", "%2E."),
        ("~", "%7E"),
        ("100%", "100%25"),
        ("a.b-c_d", "a.b-c_d"),
    ],
)
def test_odd_host_names_as_file_names(name, shown):
    assert file_name(name) == shown


def test_placeholders_are_replaced_anywhere():
    args = (*("{" + name + "}" for name in PLACEHOLDERS), "a{run_id}b{run_id}", "{{run_id}}")
    rendered = "/shared/runs/job-abcd/attempt-2/rendered"
    plan = samples.plan(args=args, checkpoint_dir="/scratch/c", resume_tag="global_step8")
    assert plan.command(2)[3:] == [
        f"{rendered}/ds_config.json",
        f"{rendered}/accelerate.yaml",
        "/shared/runs/job-abcd",
        "job-abcd",
        f"{rendered}/hostfile",
        "/scratch/c",
        "global_step8",
        "ajob-abcdbjob-abcd",
        "{job-abcd}",
    ]


def test_other_braces_stay():
    args = ("{", "}", "{}", "{run_id", "{RUN_ID}", "{ run_id }", "{run_id!r}", "{0}", '{"lr": 1}', "${run}")
    assert samples.plan(args=args).command(1)[3:] == list(args)


def test_a_placeholder_in_a_value_is_not_filled_again():
    plan = samples.plan(run_dir="/runs/{hostfile}", run_id="{run_dir}", args=("{run_dir}", "{run_id}"))
    assert plan.command(1)[3:] == ["/runs/{hostfile}", "{run_dir}"]


def test_a_script_or_a_module_is_run_unbuffered_from_the_workdir_or_its_copy():
    assert samples.plan().command(1) == ["python3", "-u", "train.py"]
    assert samples.plan(script=None, module="pkg.train").command(1) == ["python3", "-u", "-m", "pkg.train"]
    assert samples.plan().train_dir == "/shared/project"
    assert samples.plan(snapshot=True).train_dir == "/shared/runs/job-abcd/workdir"


def test_arguments_for_resuming_are_added_only_when_there_is_a_tag():
    plan = samples.plan(args=("--x",), resume_args=("--resume", "{resume_tag}"))
    assert plan.command(1)[3:] == ["--x"]
    resuming = dataclasses.replace(plan, resume_tag="global_step8")
    assert resuming.command(2)[3:] == ["--x", "--resume", "global_step8"]


def test_the_script_is_told_of_its_run_and_its_checkpoint():
    fresh = samples.plan().environment(1)
    assert fresh == {"ORCHESTRATE_RUN_ID": "job-abcd", "ORCHESTRATE_ATTEMPT": "1"}
    resuming = samples.plan(checkpoint_dir="/scratch/c", resume_tag="global_step8").environment(2)
    assert resuming["ORCHESTRATE_ATTEMPT"] == "2"
    assert resuming["ORCHESTRATE_CHECKPOINT_DIR"] == "/scratch/c"
    assert resuming["ORCHESTRATE_RESUME_TAG"] == "global_step8"
