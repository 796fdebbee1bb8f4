"""The corpus of real failures is told right: whoever failed first is never wrong, and what it was seldom."""

from __future__ import annotations

import pytest

from tests.failures import Case, Score, cases, score, shares


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    return [score(case) for case in cases()]


def test_nobody_is_named_who_did_not_fail_first(scores):
    wrong = [(one.case.name, one.told.summary) for one in scores if one.named_wrong]
    assert wrong == []


def test_the_first_failure_is_nearly_always_named_and_its_kind_right(scores):
    named, right = shares(scores)
    told = {one.case.name: one.told.category for one in scores if not one.category_right}
    assert len(scores) >= 60
    assert named >= 0.95, [one.case.name for one in scores if one.named is False]
    assert right >= 0.95, told


def test_every_failure_is_told_with_lines_to_look_at_and_what_to_try(scores):
    for one in scores:
        assert one.told.summary, one.case.name
        assert one.told.advice, one.case.name
        assert all("{" not in advice.replace("${", "") for advice in one.told.advice), one.told.advice
        places = [line.place for line in one.told.evidence]
        assert places or one.told.state != "FAILED", one.case.name
        assert len(places) == len(set(places)), (one.case.name, places)


def test_every_category_of_the_issue_is_in_the_corpus(scores):
    wanted = {
        *(
            "cuda_oom",
            "host_oom",
            "collective_timeout",
            "connection_refused",
            "wrong_interface",
            "port_in_use",
        ),
        *("gpu_fault", "import_error", "version_mismatch", "bad_arguments", "assertion", "nan_loss"),
        *("disk_full", "quota", "permission", "missing_file", "host_lost", "ssh_lost", "time_limit"),
        *("cancelled", "killed", "hang", "preempted"),
    }
    assert wanted - {one.case.expected["category"] for one in scores} == set()


def test_a_case_that_is_told_wrong_would_be_seen():
    right = next(case for case in cases() if case.expected.get("first", {}).get("rank") == 2)
    other = Case(right.name, {**right.expected, "first": {"rank": 1}, "category": "quota"})
    told = score(right).told
    assert (Score(right, told).named_wrong, Score(right, told).category_right) == (False, True)
    assert (Score(other, told).named_wrong, Score(other, told).category_right) == (True, False)
