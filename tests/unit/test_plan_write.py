"""`orchestrate plan --suggest --write`: what is suggested, and what of it goes into the job file."""

from __future__ import annotations

import json

import pytest

from orchestrator.job import load_job
from tests.planned import HARDWARE, JOB
from tests.samples import click, orchestrate


def test_suggestions_have_the_jobs_own_settings_among_them(job):
    job(HARDWARE)
    output = click("plan", "job.yaml", "--quick", "--suggest").output
    table = output.partition("Suggested")[2]
    assert table.count("\n            > ") == 2  # its row, and what > means
    assert "--suggest --write" in table


def suggested() -> list[dict]:
    """Return what is suggested for job.yaml, the best first."""
    output = click("plan", "job.yaml", "--quick", "--suggest", "--json").output
    return json.loads(output)["suggestions"]["ranked"]


def test_write_sets_the_best_and_keeps_every_comment(job):
    path = job(HARDWARE)
    best = suggested()[0]
    assert best["fields"]
    result = click("plan", "job.yaml", "--quick", "--suggest", "--write", "--lossy")
    assert result.return_value == 0
    text = path.read_text()
    assert "# our first job" in text
    assert "  zero_stage: 3   # weights too" in text
    fields = load_job(path).spec.deepspeed.model_dump()
    assert {
        f"deepspeed.{key}": value for key, value in fields.items() if f"deepspeed.{key}" in best["fields"]
    } == best["fields"]
    changed = [line[1:] for line in result.output.splitlines() if line.startswith("+ ")]
    assert changed
    assert set(changed) <= set(text.splitlines())
    again = click("plan", "job.yaml", "--quick", "--suggest", "--write")  # what it says already is no news
    assert "has the best settings already" in again.output
    assert path.read_text() == text


def test_what_contradicts_a_config_file_is_not_written(job):
    path = job(HARDWARE, base=JOB.replace("precision: bf16", "precision: bf16\n  config_file: ds.json"))
    (path.parent / "ds.json").write_text('{"zero_optimization": {"zero_hpz_partition_size": 1}}')
    before = path.read_text()
    done = orchestrate("plan", "job.yaml", "--quick", "--suggest", "--write", "--lossy", cwd=path.parent)
    assert done.returncode == 2
    assert "contradict something else in the job file" in done.stderr
    assert "ds.json" in done.stderr
    assert path.read_text() == before


def test_nothing_is_written_where_nobody_can_tell_what_fits(job):
    path = job("model: {parameters: 7B}\n" + HARDWARE, model=False)
    before = path.read_text()
    done = orchestrate("plan", "job.yaml", "--quick", "--suggest", "--write", cwd=path.parent)
    assert done.returncode == 2
    assert "model.hidden_size" in done.stderr
    assert path.read_text() == before


def test_what_changes_the_numbers_is_written_only_if_that_is_asked_for(job):
    path = job(HARDWARE)
    ranked = suggested()
    assert ranked[0]["lossy"]
    exact = next(each for each in ranked if not each["lossy"])
    result = click("plan", "job.yaml", "--quick", "--suggest", "--write")
    assert "--suggest --write --lossy does it" in result.output
    assert "left out what is predicted to be faster: " in result.output
    assert "gathered in 8 bits" in result.output
    written = load_job(path).spec.deepspeed
    assert (written.quantized_weights, written.quantized_gradients) == (None, None)
    fields = {key.removeprefix("deepspeed."): value for key, value in exact["fields"].items()}
    assert {key: getattr(written, key) for key in fields} == fields


def test_a_job_that_quantizes_already_may_go_on_doing_so(job):
    path = job(HARDWARE, base=JOB + "  quantized_weights: true\n  quantized_gradients: true\n")
    result = click("plan", "job.yaml", "--quick", "--suggest", "--write")
    assert "left out" not in result.output
    assert load_job(path).spec.deepspeed.quantized_weights


@pytest.mark.parametrize(
    "words",
    [["--write"], ["--suggest", "--write", "--set", "cluster.nodes=1"], ["--suggest", "--lossy"]],
)
def test_write_changes_the_file_and_so_needs_suggestions_for_it(job, words):
    job()
    done = orchestrate("plan", "job.yaml", *words, cwd=job().parent)
    assert done.returncode == 2
    assert "--write" in done.stderr
