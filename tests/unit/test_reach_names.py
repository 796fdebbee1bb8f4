"""Which models and data sets a job names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.preflight.names import Asset, names_in_job


def spec(*args: str, config: str | None = None):
    return SimpleNamespace(
        train=SimpleNamespace(args=list(args)),
        model=None if config is None else SimpleNamespace(config=config),
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--model_name_or_path", "bigscience/T0_3B"], [Asset("bigscience/T0_3B", "model", "train.args[1]")]),
        (["--model-name-or-path=gpt2"], [Asset("gpt2", "model", "train.args[0]")]),
        (["--model", "org/name"], [Asset("org/name", "model", "train.args[1]")]),
        (["--model", "tiny"], []),  # a kind of model of the script's own
        (["--model_name_or_path", "/data/llama"], [Asset("/data/llama", "model", "train.args[1]")]),
        (["--dataset_name", "/data/set"], [Asset("/data/set", "path", "train.args[1]")]),
        (["--model_name_or_path", "{checkpoint_dir}"], []),
        (["--train_file", "train.json"], [Asset("train.json", "path", "train.args[1]")]),
        (["--data_path", "s3://bucket/x"], []),
        (["--model_name_or_path"], []),
        (["--model_name_or_path", "--fp16"], []),
        (
            ["--model_revision", "v1", "--model_name_or_path", "a/b", "--dataset_name", "c/d"],
            [Asset("a/b", "model", "train.args[3]", "v1"), Asset("c/d", "dataset", "train.args[5]")],
        ),
    ],
)
def test_names_in_arguments(args, expected):
    assert list(names_in_job(spec(*args))) == expected


def test_a_models_config_is_asked_for_without_weights_and_each_name_once():
    assert names_in_job(spec(config="org/name")) == (Asset("org/name", "config", "model.config"),)
    assert names_in_job(spec(config="conf/config.json")) == ()
    both = names_in_job(spec("--model_name_or_path", "org/name", config="org/name"))
    assert both == (Asset("org/name", "model", "train.args[1]"),)


def test_a_word_that_may_be_the_scripts_own_is_not_sure():
    words = ["--tokenizer", "bpe", "--model_name", "tiny", "--dataset_name", "org/set", "--train_file", "x"]
    found = names_in_job(spec(*words, "--model_name_or_path", "gpt2"))
    assert [each.name for each in found if not each.sure] == ["bpe", "tiny"]
