"""Keys that a version of DeepSpeed removed or renamed are named with that version."""

from __future__ import annotations

import pytest

from orchestrator.configs.versions import (
    ADDED,
    OPTIMIZERS,
    REMOVED,
    RENAMED,
    changing,
    removed,
    renamed,
    version_numbers,
)


def config(*keys: str) -> dict:
    """Return a configuration that has these dotted keys."""
    made: dict = {}
    for key in keys:
        *sections, last = key.split(".")
        inner = made
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = True
    return made


def earlier(version: str) -> str:
    """Return a version shortly before: of 0.19.7, 0.19.6; of 0.10.0, 0.9.9."""
    major, minor, patch = version_numbers(version)
    return f"{major}.{minor}.{patch - 1}" if patch else f"{major}.{minor - 1}.9"


@pytest.mark.parametrize("key", REMOVED)
def test_a_removed_key_is_named_from_that_version_on(key):
    change = REMOVED[key]
    (problem,) = removed(config(key), change.version)
    assert problem.what.startswith(f"{key} was removed in DeepSpeed {change.version}: {change.version} ")
    assert problem.fix == change.fix
    assert len(list(removed(config(key)))) == 1  # the newest is assumed
    before = earlier(change.version)
    assert list(removed(config(key), before)) == []
    (told,) = changing(config(key), before)
    assert told.what.startswith(f"{key} works in DeepSpeed {before}; {change.version} ")
    assert list(changing(config(key))) == []


@pytest.mark.parametrize("key", RENAMED)
def test_an_old_name_is_told_but_not_refused(key):
    (problem,) = renamed(config(key), "0.19.8")
    assert problem.what.startswith(f"{key} is an old name since DeepSpeed {RENAMED[key].version}")
    assert list(removed(config(key), "0.19.8")) == []


@pytest.mark.parametrize("key", ADDED)
def test_a_key_that_is_too_new_is_named_with_the_version_that_has_it(key):
    change = ADDED[key]
    assert [*removed(config(key), change.version), *removed(config(key))] == []
    (problem,) = removed(config(key), earlier(change.version))
    assert problem.what == (
        f"{key} came with DeepSpeed {change.version}: {earlier(change.version)} refuses it"
    )
    assert problem.fix == f"install deepspeed {change.version} or newer"


@pytest.mark.parametrize("kind", ["OneBitAdam", "ZeroOneAdam", "onebitlamb"])
def test_an_optimizer_that_was_removed_is_told(kind):
    (problem,) = removed({"optimizer": {"type": kind}})
    assert (problem.value, problem.where) == (kind, "deepspeed.optimizer.type")
    assert list(removed({"optimizer": {"type": kind}}, earlier(OPTIMIZERS[kind.lower()].version))) == []
    assert list(removed({"optimizer": {"type": "AdamW"}})) == []


def test_all_of_them_are_told():
    every = config(*REMOVED)
    assert len(list(removed(every, "0.19.8"))) == len(REMOVED)
    told = [problem.what.split()[0] for problem in removed(every, "0.19.7")]
    assert "zero_optimization.mics_shard_size" in told
    assert "elasticity" not in told


def test_what_is_refused_and_what_is_ignored_read_differently():
    (refused,) = removed(config("nebula"), "0.19.8+cu124")
    assert str(refused) == (
        "deepspeed: nebula was removed in DeepSpeed 0.19.7: 0.19.8+cu124 refuses it\n"
        "  fix: remove it; checkpoint.writer writes in the background"
    )
    (ignored,) = removed(config("fp32_allreduce"))
    assert ignored.what == "fp32_allreduce was removed in DeepSpeed 0.5.8: 0.19.8 does not read it"


@pytest.mark.parametrize("harmless", [{}, {"zero_optimization": True}, {"zero_optimization": {"stage": 3}}])
def test_other_keys_are_left_alone(harmless):
    assert [*removed(harmless), *renamed(harmless)] == []


@pytest.mark.parametrize(
    ("older", "newer"), [("0.9.5", "0.10.0"), ("0.19.7", "0.19.8"), ("0.19.8", "0.19.8.1"), ("", "0.1")]
)
def test_versions_are_compared_as_numbers(older, newer):
    assert version_numbers(older) < version_numbers(newer)


def test_what_follows_the_numbers_of_a_version_is_left_out():
    assert version_numbers("0.19.8+cu124") == version_numbers("0.19.8rc1") == (0, 19, 8)
