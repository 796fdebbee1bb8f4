"""Whatever has `--json` prints JSON with it, and nothing else, on every way through the command."""

from __future__ import annotations

import json
from pathlib import Path

import click as click_module
import pytest
import yaml

from orchestrator.cli.main import cli
from orchestrator.rundir import RunDir
from tests.samples import click
from tests.shards import save_tag

OTHERWISE = {
    *("init", "export", "render"),  # write files or print them as they are
    *("schema", "completion"),  # print JSON, and a shell's script
    *("supervise", "top"),  # a process, and a screen
    "compare",
}
JOB = {
    "name": "tiny",
    "cluster": {"backend": "local", "nodes": 2, "slots": 2},
    "train": {"script": "train.py", "checkpoint_dir": "{run_dir}/saved", "resume_args": ["{resume_tag}"]},
    "deepspeed": {"zero_stage": 3, "micro_batch_per_gpu": 4, "gradient_accumulation_steps": 2},
    "notify": [{"command": ["true"]}],
}


def commands(group, path=()):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if isinstance(command, click_module.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), {option for one in command.params for option in one.opts}


def test_every_command_that_tells_something_tells_it_to_scripts_too():
    without = {name for name, options in commands(cli) if "--json" not in options}
    assert without <= OTHERWISE


@pytest.fixture
def run(here) -> RunDir:
    """Return a run that has ended, with a checkpoint."""
    (here / "job.yaml").write_text(yaml.safe_dump(JOB))
    (here / "sweep.yaml").write_text(yaml.safe_dump(JOB | {"matrix": {"train.env.LR": ["1", "2"]}}))
    done = click("submit", "job.yaml", "--no-start", "--json")
    made = RunDir(Path(json.loads(done.stdout)["run_dir"]))
    made.write_verdict({"state": "SUCCEEDED", "summary": "", "ended": 1.0})
    save_tag(made.path / "saved")
    return made


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["submit", "job.yaml", "--dry-run"], {"dry_run": True, "name": "tiny", "nodes": 2, "ranks": 4}),
        (["submit", "sweep.yaml", "--dry-run"], {"dry_run": True, "name": "tiny"}),
        (["submit", "sweep.yaml", "--no-start"], {}),
        (["plan", "job.yaml", "--quick"], {}),
        (["hosts", "job.yaml"], {}),
        (["notify", "job.yaml"], None),
        (["resume", "RUN", "--dry-run"], {"dry_run": True, "converts": False, "saved_by_ranks": 4}),
        (["resume", "RUN", "--nodes", "1", "--dry-run"], {"dry_run": True, "converts": True, "ranks": 2}),
        (["resume", "RUN", "--no-start"], {}),
        (["checkpoint", "list", "RUN"], {}),
        (["checkpoint", "reshape", "RUN", "--dry-run"], {"dry_run": True, "ranks": 4}),
        (["checkpoint", "prune", "RUN", "--keep-last", "1", "--dry-run"], {"dry_run": True}),
        (["list"], None),
        (["list", "--name", "none"], None),
        (["status", "RUN"], {"state": "SUCCEEDED", "nodes": 2, "ranks": 4}),
        (["cancel", "RUN"], {"state": "SUCCEEDED"}),
        (["login", "--status"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_output_is_json_and_nothing_else(run, words, known):
    done = click(*(run.run_id if word == "RUN" else word for word in words), "--json")
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert isinstance(told, list) if known is None else told.items() >= known.items()


def test_a_dry_run_of_a_sweep_names_its_points(run):
    told = json.loads(click("submit", "sweep.yaml", "--dry-run", "--json").stdout)
    assert [point["label"] for point in told["points"]] == ["LR=1", "LR=2"]


@pytest.mark.parametrize("words", [["submit", "job.yaml"], ["resume", "RUN"]])
def test_what_follows_is_not_json(run, words):
    before = sorted(run.path.parent.iterdir())
    done = click(*(run.run_id if word == "RUN" else word for word in words), "--json", "--follow")
    assert isinstance(done.exception, click_module.UsageError)
    assert sorted(run.path.parent.iterdir()) == before
