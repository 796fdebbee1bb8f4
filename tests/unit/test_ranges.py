from __future__ import annotations

import pytest
from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.hosts.ranges import RangeSyntaxError, expand_names, expand_numbers, fold_names, fold_numbers


def test_ranges_keep_the_order_written_and_the_last_bracket_runs_fastest():
    assert expand_names("n[3,1]") == ["n3", "n1"]
    assert expand_names("r[1-2]n[08-10].x")[:4] == ["r1n08.x", "r1n09.x", "r1n10.x", "r2n08.x"]


@pytest.mark.parametrize(
    "text", ["n[8-11]", "n[008-011]", "n[1-4,7].cluster", "r[1-2]n[01-03]", "10.0.0.[9-12]", "n[0-0]", "n"]
)
def test_ranges_mean_what_they_mean_to_clustershell(text):
    assert expand_names(text) == list(NodeSet(text, resolver=RESOLVER_NOGROUP))


@pytest.mark.parametrize("body", ["", "1-", "-1", "1--2", "1,,2", " 1", "1-2/2", "\u0661", "9" * 16])
def test_malformed_numbers_are_refused(body):
    with pytest.raises(RangeSyntaxError):
        expand_numbers(body)


@given(st.sets(st.integers(0, 300)))
def test_folded_numbers_expand_to_themselves(numbers):
    folded = fold_numbers(sorted(numbers))
    assert [int(number) for number in (expand_numbers(folded) if folded else [])] == sorted(numbers)


stems = st.sampled_from(["n", "node-", "rack1-n", "10.0.0.", "a.b", "n0"])
irregular = st.builds(
    "{}{:0{}d}{}".format, stems, st.integers(0, 120), st.integers(1, 4), st.sampled_from(["", ".x"])
)


@given(st.lists(irregular | stems, unique=True, min_size=1))
def test_folded_names_expand_to_the_same_set_for_clustershell_and_for_us(names):
    names = [name.rstrip(".-") for name in names]
    folded = fold_names(dict.fromkeys(names))
    assert set(NodeSet(folded, resolver=RESOLVER_NOGROUP)) == set(names)
    assert "]." not in folded


def test_folding_keeps_widths_apart_and_joins_runs():
    assert fold_names(f"node{i:03d}" for i in range(1, 129)) == "node[001-128]"
    assert fold_names(f"n{i}" for i in range(8, 12)) == "n[8-11]"
    assert fold_names(f"n{i:02d}" for i in range(8, 102)) == "n[08-99,100-101]"
    assert fold_names(["n1", "n01", "n2", "n02"]) == "n[1-2,01-02]"
    assert fold_names(["login", "b7", "a2", "a1", "a3"]) == "login,b7,a[1-3]"
    assert fold_names(["a", "a1", "a2"]) == "a,a[1-2]"
    assert fold_names(["s1234567890123456", "s1234567890123457"]) == "s1234567890123456,s1234567890123457"


def test_ten_thousand_irregular_names_fold_without_losing_one():
    names = [f"n{i * 7919 % 1_000_003}-{i % 97}" for i in range(10_000)]
    names += [f"gpu{i * 31}.cluster" for i in range(2_000)]
    assert set(NodeSet(fold_names(names[:500]), resolver=RESOLVER_NOGROUP)) == set(names[:500])
    plain = [part for part in fold_names(names).split(",") if part.endswith(".cluster")]
    assert len(plain) == 2_000
