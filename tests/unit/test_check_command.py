"""What `orchestrate check` refuses before it asks any host."""

from __future__ import annotations

import click
import pytest

from orchestrator.cli.check import _chosen
from tests.samples import click as run


@pytest.mark.parametrize("words", [["--only", "disk", "--skip", "disk"], ["--only", ","], ["--only", ""]])
def test_a_choice_that_leaves_nothing_is_refused(here, words):
    result = run("check", "job.yaml", *words)
    assert isinstance(result.exception, click.UsageError)
    assert "nothing is left to check after --only" in result.exception.message
    assert "gpus" in result.exception.message  # what there is to choose from


def test_what_has_an_option_of_its_own_can_stand_alone():
    assert _chosen("disk", "disk", ("links",)) == ("links",)
    assert _chosen("links,disk", None, ("links",)) == ("links", "disk")
    assert "links" not in _chosen(None, "gpus", ())


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_a_time_limit_that_is_none_is_refused(here, seconds):
    result = run("check", "job.yaml", f"--timeout={seconds}")
    assert isinstance(result.exception, click.BadParameter)
    assert "between 0 and 86400" in result.exception.message
