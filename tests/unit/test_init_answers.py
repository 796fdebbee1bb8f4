"""How an answer is read, and what is said of a wrong one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.init.document import Settings, check_answer, read_settings, review
from orchestrator.init.flow import complete, parse_answer, shown
from orchestrator.init.machine import Machine, Partition
from orchestrator.init.questions import QUESTIONS

BARE = Machine(Path("/nowhere/my project"), cpus=8)
SLURM = replace(BARE, partitions=(Partition("gpu", 16, "h100:8", "2-00:00:00", 96),))


def question(key: str):
    return next(each for each in QUESTIONS if each.key == key)


@pytest.mark.parametrize(
    ("key", "typed", "answer"),
    [
        ("train.args", "--lr 1e-4 'a b'", ["--lr", "1e-4", "a b"]),
        ("cluster.nodes", "8", 8),
        ("cluster.nodes", "-", None),
        ("cluster.nodes", "[", "["),
        ("deepspeed.gradient_clipping", "1e-1", 0.1),
        ("deepspeed.moe_layer_cls_names", "A, B,", ["A", "B"]),
        ("name", "-", "-"),
        ("train.python", "010", "010"),
    ],
)
def test_answers_are_read_as_typed(key, typed, answer):
    assert parse_answer(question(key), typed) == answer


def test_choices_are_named():
    each = question("cluster.backend")
    choices = each.choices({}, BARE)
    assert parse_answer(each, "Slurm", choices) == parse_answer(each, "SLURM", choices) == "slurm"
    assert shown(each, "slurm", choices) == "Slurm"
    with pytest.raises(ValueError, match="expected one of this machine, Slurm"):
        parse_answer(each, "cloud", choices)


def test_an_unclosed_quote_is_told():
    with pytest.raises(ValueError, match="no closing quotation"):
        parse_answer(question("train.args"), "it's")


@pytest.mark.parametrize(
    ("key", "answer", "expected"),
    [
        ("cluster.nodes", "two", "a whole number"),
        ("cluster.nodes", 0, "1 or more"),
        ("cluster.slots", -1, "1 or more"),
        ("deepspeed.gradient_clipping", -1.0, "0 or more"),
        ("deepspeed.micro_batch_per_gpu", 1.5, "whole number"),
        ("time_limit", "1:30", "may mean hours or minutes"),
        ("name", "x" * 101, "101 characters"),
        ("model.sequence_length", "long", "whole number"),
    ],
)
def test_a_wrong_answer_gets_the_models_own_error(key, answer, expected):
    so_far = complete({"model.config": "7B"}, BARE)
    so_far.pop(key)
    found = check_answer(question(key), answer, so_far, Settings({}, {}), BARE)
    assert expected in str(found.wrong[0])


def test_a_wrong_slurm_time_gets_slurms_error():
    found = check_answer(question("cluster.slurm.time"), "1h", {}, Settings({}, {}), SLURM)
    assert "HH:MM:SS" in str(found.wrong[0])


def test_more_hosts_than_the_hostfile_has_are_told_at_once(tmp_path):
    (tmp_path / "hosts").write_text("a slots=4\nb slots=4\n")
    here = replace(BARE, folder=tmp_path, hostfiles=("hosts",))
    so_far = {"name": "x", "cluster.backend": "ssh", "cluster.hostfile": "hosts"}
    nodes = next(each for each in QUESTIONS if each.key == "cluster.nodes")
    found = check_answer(nodes, 3, so_far, Settings({}, {}), here)
    assert "only 2 hosts" in str(found.wrong[0])
    assert check_answer(nodes, 2, so_far, Settings({}, {}), here).wrong == ()


def test_a_review_calls_the_file_by_its_name(tmp_path):
    found = review("cluster: {backend: local}\ntrain: {scrip: x}\n", tmp_path, "jobs/mine.yaml", {})
    assert {problem.where.partition(":")[0] for problem in found.wrong} == {"jobs/mine.yaml"}


def test_settings_are_answers_and_other_keys():
    found = read_settings(
        [
            "cluster.nodes=3",
            "train.args=[--lr, 1e-4, yes]",
            "train.python=010",
            "train.env.A=on",
            "model.config=",
        ]
    )
    assert found.answers == {
        "cluster.nodes": 3,
        "train.args": ["--lr", "1e-4", "yes"],
        "train.python": "010",
        "model.config": None,
    }
    assert found.others == {"train.env.A": "on"}
