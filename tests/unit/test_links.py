"""Rounds of the network's measurement, and what slow pairs say."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.preflight import judge_links, links
from orchestrator.preflight.programs.pairwise import environment
from orchestrator.preflight.slow_links import analyse

NOISE = (0.88, 1.12)


def names(count: int) -> list[str]:
    return [f"node{number}" for number in range(1, count + 1)]


@given(st.integers(0, 40))
def test_all_rounds_have_every_pair_once_and_no_host_twice(count):
    rounds = links.schedule(names(count), most=count)
    for pairs in rounds:
        hosts = [host for pair in pairs for host in pair]
        assert len(hosts) == len(set(hosts)) >= count - 1
    met = Counter(frozenset(pair) for pairs in rounds for pair in pairs)
    assert met == dict.fromkeys(map(frozenset, combinations(names(count), 2)), 1)


@given(st.integers(2, 200))
def test_many_hosts_have_as_many_rounds_as_tell_a_host_from_a_link(count):
    rounds = links.schedule(names(count))
    assert len(rounds) == links.rounds_for(count)
    met = Counter(frozenset(pair) for pairs in rounds for pair in pairs)
    assert set(met.values()) == {1}
    of_a_host = Counter(host for pair in met for host in pair)
    assert len(of_a_host) == count
    assert len(joined(met)) == count
    assert min(of_a_host.values()) >= min(count - 1, 6)


def joined(pairs) -> set[str]:
    """Return the hosts that pairs join with the first one."""
    found = {"node1"}
    for _ in range(len(pairs)):
        more = {host for pair in pairs if found & pair for host in pair}
        if more <= found:
            break
        found |= more
    return found


def test_1000_hosts_have_a_dozen_rounds():
    assert links.rounds_for(1000) == 12
    assert links.longest(1000) < 300


@given(st.integers(1, 30), st.integers(1, 12))
def test_both_of_a_pair_have_the_same_meeting_and_one_leads(count, rounds):
    peers = [links.Peer(name, f"10.0.0.{i}", 29000 + i) for i, name in enumerate(names(count))]
    asked = links.requests(peers, links.Measurement("t"), rounds=rounds)
    for name, request in asked.items():
        assert json.loads(json.dumps(request)) == request
        for each in request["rounds"]:
            other = asked[each["peer"]]
            (same,) = [one for one in other["rounds"] if one["meeting"] == each["meeting"]]
            assert same["peer"] == name
            assert same["leads"] != each["leads"]
            assert (each["address"], each["port"]) == (other["address"], other["port"])
    leaders = [request["name"] for request in asked.values() if request["all"] and request["all"]["leads"]]
    assert leaders == (names(1) if count > 2 else [])


@st.composite
def matrices(draw, least=3):
    """Bandwidths of pairs with noise; all pairs, or those of a large check's rounds."""
    count = draw(st.integers(least, 26))
    rounds = links.schedule(names(count))
    usual = draw(st.floats(1e6, 1e11))
    noise = random.Random(draw(st.integers(0, 2**32)))
    return count, {pair: usual * noise.uniform(*NOISE) for pairs in rounds for pair in pairs}


@given(matrices(least=1))
def test_noise_is_no_finding(case):
    found = analyse(case[1])
    assert (found.hosts, found.links, found.groups) == ({}, {}, ())


@given(matrices(), st.data(), st.floats(2.0, 1000.0))
def test_a_slow_host_is_found_and_nobody_else(case, data, factor):
    count, speeds = case
    host = data.draw(st.sampled_from(names(count)))
    speeds = {pair: speed / factor if host in pair else speed for pair, speed in speeds.items()}
    found = analyse(speeds)
    assert set(found.hosts) == {host}
    assert found.links == {}
    assert found.groups == ()
    assert found.usual / found.hosts[host][0] == pytest.approx(factor, rel=0.3)


@given(matrices(), st.data(), st.floats(2.0, 1000.0))
def test_a_slow_link_is_found_and_no_host_blamed(case, data, factor):
    _, speeds = case
    pair = data.draw(st.sampled_from(sorted(speeds)))
    found = analyse({**speeds, pair: speeds[pair] / factor})
    assert found.hosts == {}
    assert set(found.links) == {pair}


@given(matrices(least=8), st.data())
def test_two_slow_hosts_and_a_slow_link_of_others_are_told_apart(case, data):
    count, speeds = case
    hosts = data.draw(st.permutations(names(count)))[:2]
    clean = [pair for pair in speeds if not set(pair) & set(hosts)]
    link = data.draw(st.sampled_from(clean))
    speeds = {pair: s / 5 if set(pair) & set(hosts) else s for pair, s in speeds.items()}
    found = analyse({**speeds, link: speeds[link] / 4})
    assert set(found.hosts) == set(hosts)
    assert set(found.links) == {link}


@given(st.integers(2, 6), st.integers(2, 6), st.floats(2.0, 10.0))
def test_little_room_between_two_switches_is_no_hosts_fault(left, right, factor):
    hosts = names(left + right)
    inside = set(hosts[:left])
    speeds = {
        (a, b): 1e9 if (a in inside) == (b in inside) else 1e9 / factor for a, b in combinations(hosts, 2)
    }
    found = analyse(speeds)
    assert (found.hosts, found.links) == ({}, {})
    assert found.groups == (tuple(hosts[:left]), tuple(hosts[left:]))


def test_of_three_hosts_the_slow_one_is_found():
    found = analyse({("a", "b"): 1e8, ("a", "c"): 1.1e8, ("b", "c"): 1e9})
    assert found.hosts == {"a": (1.05e8, 2, 2)}


def test_two_hosts_alone_have_nothing_to_be_compared_with():
    assert analyse({("a", "b"): 1.0}).hosts == {}


# -- findings


def pair(peer: str, speed: float, how: str = "nccl") -> dict[str, object]:
    return {"check": "links", "pair": {"peer": peer, "bandwidth": speed, "how": how, "round": 0}}


def failed(peer: str, why: str = "Connection refused") -> dict[str, object]:
    return {"check": "links", "failed": {"kind": "pair", "peer": peer, "why": why, "absent": True}}


def case(told: dict[str, list[dict[str, object]]], link: float | None = None):
    hosts = [SimpleNamespace(name=name, extra=lines) for name, lines in told.items()]
    hardware = None if link is None else SimpleNamespace(link=link)
    return SimpleNamespace(hosts=hosts, spec=SimpleNamespace(hardware=hardware))


def told_by(speeds: dict[tuple[str, str], float]) -> dict[str, list[dict[str, object]]]:
    told = {name: [] for name in sorted({host for pair in speeds for host in pair})}
    for (a, b), speed in speeds.items():
        told[a].append(pair(b, speed * 1.01))
        told[b].append(pair(a, speed))
    return told


def levels(found) -> dict[str, str]:
    return {each.host: each.level for each in found}


def test_a_slow_host_is_bad_and_told_with_numbers():
    speeds = {p: 1e9 if "d" in p else 12.5e9 for p in combinations("abcd", 2)}
    found = list(judge_links.links(case(told_by(speeds))))
    assert levels(found) == {"a": "ok", "b": "ok", "c": "ok", "d": "bad"}
    (slow,) = [each for each in found if each.level == "bad"]
    assert slow.what == (
        "its network is 12.5 times slower in 3 of its 3 pairs: "
        "1 GB/s (8 Gbit/s), median 12.5 GB/s (100 Gbit/s)"
    )


def test_a_slow_link_is_a_warning_for_both_ends():
    speeds = {p: 1e9 if p == ("a", "b") else 12.5e9 for p in combinations("abcd", 2)}
    found = list(judge_links.links(case(told_by(speeds))))
    assert levels(found) == {"a": "warn", "b": "warn", "c": "ok", "d": "ok"}
    assert "the link to b is 12.5 times slower" in found[0].what


def test_a_dead_host_is_named_and_those_that_waited_for_it_are_not():
    told = told_by(dict.fromkeys(combinations("abc", 2), 1e9))
    for name in "abc":
        told[name].append(failed("d"))
    found = list(judge_links.links(case({**told, "d": []})))
    assert levels(found) == {"a": "ok", "b": "ok", "c": "ok", "d": "bad"}
    assert found[0].what == "answered none of [a-c]: Connection refused" or "a,b,c" in found[0].what


def test_two_hosts_that_only_do_not_reach_each_other_cost_one_of_them():
    speeds = {p: 1e9 for p in combinations("abcd", 2) if p != ("a", "b")}
    told = told_by(speeds)
    told["a"].append(failed("b", "timed out"))
    told["b"].append(failed("a", "no answer"))
    found = list(judge_links.links(case(told)))
    assert sorted(levels(found).values()) == ["bad", "ok", "ok", "ok"]


def test_a_host_whose_port_is_taken_is_told_once():
    told = told_by(dict.fromkeys(combinations("abc", 2), 1e9))
    told["a"].append(failed("d"))
    told["d"] = [{"check": "links", "failed": {"kind": "host", "why": "port 29511 is in use here"}}]
    found = [each for each in judge_links.links(case(told)) if each.level == "bad"]
    assert [(each.host, each.what) for each in found] == [
        ("d", "could not measure: port 29511 is in use here")
    ]


def test_nccl_far_below_the_declared_link_is_told():
    told = told_by(dict.fromkeys(combinations("abc", 2), 1e9))
    assert "hardware.link says 50 GB/s" in next(judge_links.links(case(told, 50e9))).what
    assert {each.level for each in judge_links.links(case(told, 1.2e9))} == {"ok"}


def test_pairs_that_work_and_all_hosts_that_do_not_are_told():
    told = told_by(dict.fromkeys(combinations("abc", 2), 1e9))
    told["b"].append(
        {"check": "links", "failed": {"kind": "all", "absent": False, "why": "Connection reset"}}
    )
    found = list(judge_links.links(case(told)))
    assert levels(found) == {"a": "warn", "b": "ok", "c": "ok"}
    assert found[0].what == "no all-reduce of all hosts together: Connection reset"
    told["b"][-1]["failed"]["absent"] = True  # its leader is dead, which is told already
    assert set(levels(judge_links.links(case(told))).values()) == {"ok"}


def test_the_users_own_interface_wins_as_in_a_run():
    peer = links.Peer("a", "127.0.0.1")
    asked = links.requests([peer], links.Measurement("t", {"NCCL_IB_DISABLE": "1"}))["a"]
    found = environment(asked, {})
    assert (found["GLOO_SOCKET_IFNAME"], found["NCCL_SOCKET_IFNAME"]) == ("lo", "=lo")
    assert found["NCCL_IB_DISABLE"] == "1"
    assert environment({**asked, "interface": "ib0"}, {})["GLOO_SOCKET_IFNAME"] == "ib0"
    given = {"NCCL_SOCKET_IFNAME": "eth1", "OMP_NUM_THREADS": "8"}
    assert not {"NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS"} & set(environment(asked, given))


def test_facts_name_the_way_and_what_all_hosts_reach():
    told = told_by(dict.fromkeys(combinations("abc", 2), 1e9))
    for lines, speed in zip(told.values(), (3e8, 2e8, 4e8), strict=True):
        lines.append({"check": "links", "all": {"bandwidth": speed, "hosts": 3}})
    told["a"].insert(
        0, {"check": "links", "can": "tcp", "why": "ModuleNotFoundError: No module named 'torch'"}
    )
    text = judge_links.facts(case(told))["links"]
    assert text.startswith("3 pairs: median 1 GB/s (8 Gbit/s), slowest 1 GB/s (8 Gbit/s) (nccl)")
    assert "3 hosts together: 200 MB/s (1.6e+03 Mbit/s)" in text or "3 hosts together: 200 MB/s" in text
    assert text.endswith("plain TCP where there is no torch: a")


def test_nothing_measured_says_nothing():
    assert list(judge_links.links(case({"a": [], "b": [{"check": "other"}]}))) == []
    assert judge_links.facts(case({"a": []})) == {}
