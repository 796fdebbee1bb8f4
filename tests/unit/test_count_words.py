"""Reading a model's configuration where it cannot be read: what the user is told. No torch is needed."""

from __future__ import annotations

import json
import sys

import pytest

from orchestrator.errors import JobFileError
from orchestrator.huggingface import start_count
from orchestrator.huggingface.read import config_source
from orchestrator.job import ModelSpec


def python(folder, *, says="", complains="", code=0):
    """Write a Python of the job's own that answers so, whatever it is asked; return its path."""
    path = folder / "python"
    lines = [f"#!{sys.executable}", "import sys", f"sys.stdout.write({says!r})"]
    path.write_text("\n".join([*lines, f"sys.stderr.write({complains!r})", f"sys.exit({code})"]))
    path.chmod(0o755)
    return str(path)


def problem(spec, program, folder, **limits):
    with pytest.raises(JobFileError) as caught:
        start_count(spec, program, folder).result(**limits)
    return caught.value.problems[0]


MODEL = ModelSpec(config="org/model")


def test_its_own_words_are_shown_with_what_to_do(tmp_path):
    told = {"what": "no such model", "where": "model.config", "value": "org/model", "fix": "look again"}
    found = problem(MODEL, python(tmp_path, says=json.dumps({"problem": told}), code=1), tmp_path)
    assert vars(found) == told


def test_a_crash_is_told_with_its_last_words(tmp_path):
    found = problem(MODEL, python(tmp_path, complains="Traceback\nBoom: out of luck\n\n", code=1), tmp_path)
    assert "Boom: out of luck" in found.what
    assert "model.parameters" in found.fix


def test_a_python_that_is_not_here_is_named(tmp_path):
    found = problem(MODEL, "/opt/gone/python", tmp_path)
    assert (found.where, found.value) == ("train.python", "/opt/gone/python")


def test_a_hub_that_does_not_answer_is_given_up(tmp_path):
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    found = problem(MODEL, str(path), tmp_path, timeout=0.1)
    assert "took more than" in found.what


def test_without_transformers_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "transformers.py").write_text("raise ImportError('No module named transformers')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = problem(MODEL, None, tmp_path)
    assert "No module named transformers" in found.what
    assert found.fix.startswith("install torch and transformers")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("org/model", "org/model"),
        ("here", "{base}/here"),  # there is such a folder
        ("./gone", "{base}/gone"),  # there is none, but no name on the hub begins so
        ("/models/llama/config.json", "/models/llama/config.json"),
    ],
)
def test_a_path_starts_at_the_job_file_and_anything_else_is_a_name(tmp_path, word, expected):
    (tmp_path / "here").mkdir()
    assert config_source(word, tmp_path) == expected.format(base=tmp_path)


def test_what_the_job_file_says_goes_before_what_is_counted(tmp_path):
    counted = {"parameters": 100, "trainable": 100, "largest_layer": 30, "hidden_size": 8, "layers": 2}
    counted |= {"tensors": [70, 30], "model_type": "llama", "transformers": "5.23.0", "max_positions": 64}
    program = python(tmp_path, says=json.dumps({"shape": counted}))
    spec = ModelSpec(config="org/model", sequence_length=16, layers=3, trainable_parameters=30)
    shape = start_count(spec, program, tmp_path).result()
    assert (shape.parameters, shape.trainable, shape.layers, shape.sequence_length) == (100, 30, 3, 16)
    assert (shape.tensors, shape.source) == ((70, 30), "org/model (llama, transformers 5.23.0)")
