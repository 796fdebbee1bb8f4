from __future__ import annotations

import json

import pytest

from orchestrator.diagnose.__main__ import main
from orchestrator.errors import JobFileError
from orchestrator.supervisor.diagnosing import write_diagnosis
from tests.made_run import made_run
from tests.samples import click


@pytest.fixture
def failed(tmp_path):
    return made_run(tmp_path, failing=3)


def test_the_command_says_what_failed_and_what_to_try(failed):
    result = click("diagnose", str(failed.path))
    assert result.return_value == 0
    words = [
        "job-made",
        "FAILED",
        "rank 3 on node-1 (GPU 3) failed first",
        "node-1.rank3.err:3",
        "what to try",
    ]
    assert [word for word in words if word not in result.output] == []


def test_scripts_get_one_json_object(failed):
    told = json.loads(click("diagnose", str(failed.path), "--json").output)
    assert (told["category"], told["rank"], told["stopped"], told["attempt"]) == ("cuda_oom", 3, 7, 1)
    assert {"file", "line", "time", "text"} == set(told["evidence"][0])


def test_an_attempt_that_is_not_there_is_told(failed):
    result = click("diagnose", str(failed.path), "--attempt", "3")
    assert "there is no attempt 3; there is 1" in str(result.exception)
    assert click("diagnose", str(failed.path), "--attempt", "1").return_value == 0


def test_patterns_of_the_users_own_are_used_and_checked(failed, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("patterns: [{category: quota, match: CUDA, say: mine}]\n")
    words = ("diagnose", str(failed.path), "--json", "--patterns", str(mine))
    assert json.loads(click(*words).output)["category"] == "quota"
    mine.write_text("patterns: [{category: gone, match: CUDA}]\n")
    assert isinstance(click(*words).exception, JobFileError)


def test_the_supervisor_has_the_diagnosis_written(failed):
    write_diagnosis(failed)
    assert json.loads(failed.diagnosis_file.read_text())["category"] == "cuda_oom"


def test_a_run_that_cannot_be_diagnosed_hurts_nobody(failed, capfd):
    failed.plan_file.write_text("{")
    (failed.path / "attempt-1/verdict.json").write_text("{")
    failed.verdict_file.write_text('{"state": "FAILED", "candidates": [{}]}')
    write_diagnosis(failed)
    assert not failed.diagnosis_file.exists()
    with pytest.raises(KeyError):
        main(str(failed.path))
