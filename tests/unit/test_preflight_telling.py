"""How a check tells what it found: lines of hosts, folded values, the table, JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.preflight.findings import Report, fold_values, read_answers, reference, size_text
from orchestrator.preflight.judging import JUDGES, judge, probes_for
from orchestrator.preflight.probes.catalogue import PROBES
from orchestrator.preflight.table import table_lines
from tests.checked import case


def test_lines_of_a_host():
    lines = [
        "Welcome to the cluster",
        'ORCH-CHECK {"probe":"a","data":{"x":1},"seconds":0.1}',
        'ORCH-CHECK {"probe":"b","error":"OSError: no"}',
        'ORCH-CHECK {"probe":"c","da',
        "ORCH-CHECK 7",
        'ORCH-CHECK {"link":"h1"}',
    ]
    assert read_answers(lines) == ({"a": {"x": 1}}, {"b": "OSError: no"}, [{"link": "h1"}])


def test_values_are_folded_with_outliers_named():
    hosts = [f"node{i}" for i in range(1, 33)]
    same = dict.fromkeys(hosts, "2.13.0")
    assert fold_values(same, hosts) == "2.13.0 on all 32 hosts"
    assert fold_values(same | {"node7": "2.12.1"}, hosts) == "2.13.0 on 31 hosts, 2.12.1 on node7"
    assert fold_values({"a": "1"}, ["a"]) == "1 on a"
    assert fold_values({}, hosts) == ""


@given(st.dictionaries(st.text(min_size=1), st.sampled_from("abc"), min_size=1))
def test_the_usual_value_is_one_that_no_other_outnumbers(values):
    counts = [sum(other == value for other in values.values()) for value in values.values()]
    usual = reference(values)
    assert sum(value == usual for value in values.values()) == max(counts)


def test_sizes():
    assert [size_text(n) for n in (0, 1023, 1024, 20 << 20, 3 << 39)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "20 MiB",
        "1.5 TiB",
    ]


def test_every_check_gets_its_probes():
    assert set(probes_for(tuple(JUDGES))) == set(PROBES) - {"sweep"}
    assert probes_for(("login", "clock")) == ()


def shown(report: Report) -> list[str]:
    import click

    return [click.unstyle(line) for line in table_lines(report)]


def test_the_table_folds_hosts_and_names_bad_ones():
    report = judge(case(32, gpus={"count": 0, "gpus": []}), ("login", "gpus"))
    lines = shown(report)
    assert lines[:3] == [
        "hosts    login  gpus",
        "h[0-30]  ok     ok",
        "h31      ok     BAD",
    ]
    assert "BAD   h31: gpus: no GPU is visible here" in lines
    assert lines[-1].startswith("1 of 32 hosts would fail a run")


def test_the_report_for_scripts_is_json():
    document = json.loads(json.dumps(judge(case(2, seen=False), ("shared",)).to_json()))
    assert (document["ok"], document["bad"], document["checks"]) == (False, ["h1"], ["login", "shared"])
    assert document["hosts"]["h1"] == {"login": "ok", "shared": "bad"}
    assert document["findings"][0]["fix"]
