"""The process that asks the installed classes: how it is started and ended, and how it notes what is read."""

from __future__ import annotations

import ast
import copy
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from orchestrator.configs import installed, verify
from orchestrator.configs.installed.asked import Asked

SOURCES = sorted(Path(installed.__file__).parent.glob("*.py"))


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Return a function that makes a "Python" of a shell script; temporary folders are made where it is."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def make(script: str) -> str:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    yield make
    assert list((tmp_path / "temporary").iterdir()) == []  # whatever became of it


@pytest.mark.parametrize("script", ["exit 1", "echo no JSON", "echo '{}'"])
def test_a_python_that_says_nothing_is_no_problem(python, script):
    told = verify.start({"ds_config.json": "{}"}, python(script)).result(120)
    assert (told.versions, told.problems) == ({"deepspeed": None, "accelerate": None}, ())


@pytest.mark.parametrize("name", ["/no/such/python", "no-such-python"])
def test_a_python_that_is_not_there_is_no_problem(python, name):
    assert verify.start({}, name).result(120).versions == {"deepspeed": None, "accelerate": None}


def test_a_file_that_is_no_program_is_no_problem(python, tmp_path):
    path = Path(python(""))
    path.write_bytes(b"\x7fELF")
    assert verify.start({}, str(path)).result(120).deepspeed is None


def test_a_process_that_hangs_is_ended(python, tmp_path):
    running = verify.start({}, python(f"echo $$ > {tmp_path}/pid; exec sleep 600"))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        pass
    assert running.result(0.01).problems == ()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_abandoned_process_is_ended(python):
    verify.start({}, python("exec sleep 600")).close()


def test_it_gets_the_files_the_world_and_no_rank(python, monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("KEPT", "yes")
    script = f'echo "$@ $RANK$SLURM_PROCID$KEPT" > {tmp_path}/said; cat "$3/ds_config.json" > {tmp_path}/file'
    verify.start({"ds_config.json": "{ }"}, python(script), 12).result(120)
    module, name, _, world, environment = (tmp_path / "said").read_text().split()
    assert (module, name, world, environment) == ("-m", "installed", "12", "yes")
    assert (tmp_path / "file").read_text() == "{ }"


def test_what_it_says_becomes_problems(python):
    answer = {
        "deepspeed": "0.19.8",
        "accelerate": "1.15.0",
        "problems": [{"what": "no", "where": "deepspeed", "value": "1", "fix": "2"}],
        "dropped": ["gradient_cliping", "accelerate.yaml: deepspeed_config.zero_stag"],
        "meant": {"gradient_cliping": ["gradient_clipping"]},
    }
    told = verify.start({}, python(f"echo '{json.dumps(answer)}'")).result(120)
    assert [str(problem) for problem in told.problems] == ["deepspeed: no (got 1)\n  fix: 2"]
    assert [str(problem) for problem in told.warnings] == [
        "deepspeed: gradient_cliping is not read by DeepSpeed 0.19.8\n  fix: did you mean gradient_clipping?",
        "accelerate.yaml: deepspeed_config.zero_stag is not read by Accelerate 1.15.0\n  fix: remove it",
    ]
    assert told.seconds > 0


# -- the program ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_program_is_python_3_8_and_stands_alone(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), path.name, feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            first = name.partition(".")[0]
            assert first in {*sys.stdlib_module_names, "deepspeed", "accelerate", "yaml"}


def unread(config: dict, read) -> list[str]:
    asked = Asked(config, (), [])
    read(asked)
    return [".".join(path) for path, _ in asked.unread()]


@pytest.mark.parametrize(
    ("read", "left"),
    [
        (lambda c: None, ["a", "s"]),
        (lambda c: c.get("a"), ["s"]),
        (lambda c: (c["a"], c["s"]), []),  # the section went to somebody who reads it unasked
        (lambda c: (c["a"], c["s"]["x"]), ["s.y"]),
        (lambda c: (c["a"], "y" in c["s"], c["s"].get("z")), ["s.x", "s.y"]),
        (lambda c: (c["a"], "y" in c["s"].keys(), c["s"].get("x")), ["s.y"]),  # noqa: SIM118
        (lambda c: (c["a"], dict(**c["s"])), []),
        (lambda c: (c["a"], list(c["s"].items()), c["s"]["x"]), []),
        (lambda c: (c["a"], copy.copy(c["s"])), []),
        (lambda c: (copy.copy(c)["a"], c["s"]), []),  # a copy of the whole is read, not taken
    ],
)
def test_what_is_read_is_noted(read, left):
    assert unread({"a": 1, "s": {"x": 1, "y": 2}}, read) == left


def test_auto_is_hidden_and_still_noted():
    config = {"train_batch_size": "auto", "gradient_cliping": "auto"}
    asked = Asked(config, (), [])
    assert "train_batch_size" not in asked
    assert asked.get("train_batch_size", 7) == 7
    assert [path for path, _ in asked.unread()] == [("gradient_cliping",)]


def test_auto_stays_where_deepspeed_itself_reads_it():
    assert Asked({"pipeline": {"stages": "auto"}}, (), [])["pipeline"] == {"stages": "auto"}


def test_auto_keys_of_sections_that_are_taken_whole_are_told():
    asked = Asked(
        {"zero_optimization": {"stage3_typo": "auto"}, "optimizer": {"params": {"lr": "auto"}}}, (), []
    )
    dict(**asked["zero_optimization"])
    asked["optimizer"]["params"]
    assert list(asked.taken_autos()) == [("zero_optimization", "stage3_typo")]
