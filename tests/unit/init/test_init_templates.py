"""Templates of `orchestrate init`: each is a job that can start, and is copied as it is."""

from __future__ import annotations

import sys

import pytest
import yaml

from orchestrator.init.templates import folder, templates
from orchestrator.job import load_job
from orchestrator.prepare import prepare

COMMAND = [sys.executable, "-m", "orchestrator", "init"]
TEMPLATES = {template.name: template for template in templates()}


def test_the_list_names_every_template(run):
    done = run("--list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(TEMPLATES)
    for line in done.stdout.splitlines():
        assert len(line.split()) > 5
        assert len(line) <= 120


def test_an_unknown_template_is_an_error_with_a_near_name(run):
    done = run("--from", "slurm_zero")
    assert done.returncode == 2
    assert "slurm_zeropp" in done.stderr


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_a_job_that_can_start(run, work, name):
    (work / "train.py").touch()
    done = run("--from", name)
    assert done.returncode == 0, done.stderr
    assert "before it can start" not in done.stdout, done.stdout
    assert (work / "job.yaml").read_text() == TEMPLATES[name].path.read_text()
    job = load_job(work / "job.yaml")
    prepared = prepare(job, {})
    rendered = {file.path: file.text for file in prepared.files}
    assert any(path.endswith("ds_config.json") for path in rendered)
    assert job.spec.model is not None
    assert job.spec.hardware is not None


def test_a_template_takes_settings_and_keeps_its_comments(run, work):
    done = run("my.yaml", "--from", "zeropp", "--set", "deepspeed.hpz=4", "--set", "name=mine")
    assert done.returncode == 0, done.stderr
    job = load_job(work / "my.yaml").spec
    assert (job.name, job.deepspeed.hpz) == ("mine", 4)
    assert "# qwZ: weights are gathered in 8 bits" in (work / "my.yaml").read_text()
    assert "orchestrate plan my.yaml" in done.stdout


def test_a_users_own_hostfile_stays(run, work):
    (work / "hostfile").write_text("mine slots=8\n")
    assert "stays as it is" in run("--from", "zeropp").stdout
    assert (work / "hostfile").read_text() == "mine slots=8\n"


def test_templates_name_what_is_in_their_folder():
    folders = {path.name for path in folder().iterdir() if path.is_dir()}
    assert folders <= set(TEMPLATES)
    for template in TEMPLATES.values():
        text = template.path.read_text()
        data = yaml.safe_load(text)
        said = {str(data["cluster"].get("hostfile")), str(data["deepspeed"].get("config_file"))} - {"None"}
        assert said == {path.name for path in template.others}
