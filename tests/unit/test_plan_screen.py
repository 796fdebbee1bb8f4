"""The screen of `orchestrate plan` and what it is made of: pure functions of values."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from orchestrator.estimate import Hardware, ModelShape, Settings, World, suggest
from orchestrator.forecast import estimates
from orchestrator.forecast.draw import draw
from orchestrator.forecast.draw_estimates import memory_lines, traffic_lines
from orchestrator.forecast.draw_hosts import batch_line, groups_line, groups_on, hosts_lines
from orchestrator.forecast.draw_suggestions import suggestion_lines
from orchestrator.forecast.estimates import stage_name
from orchestrator.forecast.make import Wanted, make_plan
from orchestrator.forecast.words import bar, columns, count, memory, seconds, volume
from orchestrator.job import load_job
from tests import samples

GOLDEN = samples.ROOT / "tests/golden"
JOBS = sorted(path.stem for path in (GOLDEN / "plans").glob("*.yaml"))
SHAPE = ModelShape(10**9, 10**9, 10**8, 2048, 24, 16, 50000, 1024)
ZEROPP = Settings(stage=3, micro_batch=2, hpz=8, quantized_weights=True, quantized_gradients=True)
WORLD = World(4, 8)


class _Screen(SingleFileSnapshotExtension):
    """One screen a job, in tests/golden/test_plan_screen."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"

    @classmethod
    def dirname(cls, *, test_location) -> str:
        return str(GOLDEN / "test_plan_screen")


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Return a function that plans a golden job; no process is started."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / "plans", tmp_path, dirs_exist_ok=True)
    (tmp_path / "train.py").touch()

    def make(name: str, **wanted: bool):
        return make_plan(load_job(Path(f"{name}.yaml")), {}, Wanted(quick=True, **wanted))

    return make


@pytest.mark.parametrize("name", JOBS)
def test_screens_are_as_they_were(planned, snapshot, name):
    screen = "".join(f"{line}\n" for line in draw(planned(name, suggest=name == "zeropp")))
    assert screen == snapshot(extension_class=_Screen)


@pytest.mark.parametrize("name", JOBS)
def test_the_document_is_numbers_and_text(planned, name):
    plan = planned(name, suggest=True)
    told = json.loads(json.dumps(plan.to_json()))
    assert told["world_size"] == plan.pool.world_size == sum(len(host["slots"]) for host in told["hosts"])
    assert {type(value) for value in told["estimates"]["memory"]["gpu"].values()} <= {
        int,
        bool,
        list,
        type(None),
    }
    assert [found["severity"] for found in told["findings"]].count("error") == (5 if name == "errors" else 0)
    assert sum(variant["own"] for variant in told["estimates"]["traffic"]) == 1


def test_what_is_drawn_fits_a_hundred_columns(planned):
    for name in JOBS:
        plan = planned(name, suggest=True)
        wide = [line for line in draw(plan) if len(line) > 100 and plan.job_file not in line]
        assert wide == []


# -- hosts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "size", "expected"),
    [
        (range(8), 8, "[0 1 2 3 4 5 6 7]"),
        (range(8, 16), 4, "[8 9 10 11][12 13 14 15]"),
        (range(8), 3, "[0 1 2][3 4 5][6 7…"),
        (range(8, 16), 3, "…8][9 10 11][12 13 14][15…"),
        (range(4, 8), 16, "…4 5 6 7…"),
        (range(79992, 80000), 8, "[79992-79999]"),
        (range(32, 64), 2, "[32-33][34-35] … [62-63]"),
    ],
)
def test_hpz_groups_are_drawn_with_their_ends(ranks, size, expected):
    assert groups_on(ranks, size, 80000) == expected


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(2, 9))
def test_every_rank_is_drawn_once_and_every_group_opened_and_closed_once(slots, size):
    world = sum(slots)
    firsts = [sum(slots[:i]) for i in range(len(slots))]
    drawn = [groups_on(range(a, a + n), size, world) for a, n in zip(firsts, slots, strict=True)]
    assert [int(rank) for text in drawn for rank in re.findall(r"\d+", text)] == list(range(world))
    groups = -(-world // size)
    assert [sum(text.count(end) for text in drawn) for end in "[]"] == [groups, groups]


def test_many_hosts_are_first_ones_and_the_last():
    pool = samples.pool("".join(f"w{i} slots=4\n" for i in range(1, 1001)))
    lines = list(hosts_lines(pool, 4))
    assert lines[0] == "1,000 hosts x 4 slots (0-3): w[1-1000], master w1"
    assert [line.split()[0] for line in lines[2:]] == ["w1", "w2", "w3", "w4", "…", "w1000"]
    assert lines[-1].split() == ["w1000", "3996-3999", "[3996", "3997", "3998", "3999]"]


def test_hosts_of_different_kinds_have_a_line_each():
    pool = samples.pool("".join(f"n{i} slots={i}\n" for i in range(1, 6)))
    lines = list(hosts_lines(pool, 1))
    assert lines[:3] == [
        "1 host x 1 slot (0): n1, master n1",
        "1 host x 2 slots (0-1): n2",
        "1 host x 3 slots (0-2): n3",
    ]
    assert lines[3].startswith("… and 2 hosts with other slots")


def test_names_that_do_not_fold_are_cut():
    pool = samples.pool("".join(f"host{i}.cluster.example.org slots=1\n" for i in range(9)))
    first = next(hosts_lines(pool, 1))
    assert "host0.cluster.example.org, host1.cluster.example.org, … host8.cluster.example.org" in first


def test_groups_in_words():
    pool = samples.pool("a slots=4\nb slots=4\n")
    assert groups_line(pool, 2, 8) == "data parallel over all ranks; 4 hpZ groups of 2, 2 on each host"
    assert groups_line(pool, 8, 4) == "data parallel over 4 groups of ranks; 1 hpZ group of 8, across hosts"
    assert groups_line(pool, 3, None) == "3 hpZ groups of 3, across hosts"


def test_batch_arithmetic():
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 3,
        "train_batch_size": 48,
    }
    line = batch_line(config, 8, 100)
    assert line == "micro-batch 2 x 3 accumulation steps x 8 ranks = 48 samples, 4,800 tokens"
    auto = {"train_micro_batch_size_per_gpu": "auto", "train_batch_size": 48}
    assert batch_line(auto, 8, None) == "micro-batch auto, global 48: the script decides"
    assert batch_line({}, 8, None) == "the script decides"


# -- estimates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "own", "many"),
    [
        ({}, "all of ZeRO++", 5),
        ({"hpz": 1}, "ZeRO-3 + qwZ + qgZ", 6),
        ({"quantized_weights": False, "quantized_gradients": False}, "+ hpZ", 5),
        ({"stage": 2}, "ZeRO-2 + hpZ 8 + qwZ + qgZ", 6),
        ({"stage": 2, "hpz": 1, "quantized_weights": False, "quantized_gradients": False}, "ZeRO-2", 6),
    ],
)
def test_the_jobs_own_settings_are_among_those_compared(changes, own, many):
    from dataclasses import replace

    made = estimates(SHAPE, replace(ZEROPP, **changes), WORLD, Hardware())
    assert made.own.name == own
    assert len(made.variants) == len({variant.name for variant in made.variants}) == many


def test_traffic_is_compared_without_times_when_the_link_is_not_known():
    unknown = list(traffic_lines(estimates(SHAPE, ZEROPP, WORLD, Hardware())))
    assert "step" not in unknown[0]
    assert sum(line.startswith("> ") for line in unknown[:-1]) == 1
    known = list(traffic_lines(estimates(SHAPE, ZEROPP, WORLD, Hardware(link=1e9))))
    assert "on the link" in known[0]
    assert "link 8 Gbit/s" in known[-1]
    alone = list(traffic_lines(estimates(SHAPE, ZEROPP, World(1, 8), Hardware(link=1e9))))
    assert alone == ["one host: nothing crosses a network"]


def test_what_does_not_fit_says_by_how_much():
    need = estimates(SHAPE, ZEROPP, WORLD, Hardware()).gpu.total
    said = {}
    for name, has in (("small", need // 2), ("tight", need + 1), ("large", 4 * need)):
        made = estimates(SHAPE, ZEROPP, WORLD, Hardware(gpu_memory=has))
        said[name] = next(line for line in memory_lines(made) if line.startswith("GPU"))
        assert made.fits_gpu == (name != "small")
    assert f"does not fit: {memory(need - need // 2)} too much" in said["small"]
    assert "tight" in said["tight"]
    assert said["large"].endswith("  fits")


def test_the_parts_outside_of_the_peak_are_in_brackets():
    made = estimates(
        ModelShape(10**9, 10**9, 10**6, 64, 1, 1, 10, 8),
        Settings(stage=0, micro_batch=1),
        World(1, 2),
        Hardware(),
    )
    lines = list(memory_lines(made))
    in_step = made.gpu.update > made.gpu.backward
    assert any("gradients in fp32" in line for line in lines) == in_step
    assert any(line.startswith("activations") and "(" in line for line in lines) == in_step
    assert any(f"in {'step' if in_step else 'backward'})" in line for line in lines)


def test_names_of_settings():
    assert stage_name(ZEROPP) == "ZeRO-3 + hpZ 8 + qwZ + qgZ"
    assert stage_name(Settings()) == "data parallel"


# -- words --------------------------------------------------------------------------------------------


def test_numbers_as_people_read_them():
    assert [memory(x) for x in (0, 2**20, 2**30, 81559 * 2**20, 2**40)] == [
        "0.00 GiB",
        "1 MiB",
        "1.00 GiB",
        "79.65 GiB",
        "1,024 GiB",
    ]
    assert [volume(x) for x in (0, 999, 1500, 12.34e9, 999.7e9, 1e15)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "12.3 GB",
        "1000 GB",
        "1 PB",
    ]
    assert [seconds(x) for x in (0.0842, 2.19, 119, 2640, 28440, 42 * 86400)] == [
        "84.2 ms",
        "2.19 s",
        "119 s",
        "44 min",
        "7.9 h",
        "42 d",
    ]
    assert [count(x) for x in (12, 1200, 7.24e9, 405e9)] == ["12", "1.20k", "7.24B", "405B"]


def test_bars_never_leave_their_brackets():
    assert bar(1, 2, 8) == "[####----]"
    assert bar(3, 2, 8) == "[#######!]"
    assert bar(2, 2, 8) == "[########]"
    assert columns([["a", "1"], ["bbb", "22"]], right=frozenset({1})) == ["a     1", "bbb  22"]


def test_recomputation_is_named_where_activations_do_not_fit():
    eager = Settings(stage=3, micro_batch=64)
    for has, named in ((2**30, True), (2**50, False)):
        lines = list(memory_lines(estimates(SHAPE, eager, WORLD, Hardware(gpu_memory=has))))
        assert any("with recomputation" in line for line in lines) == named


def test_where_nothing_fits_the_memory_that_is_missing_is_told(planned):
    made = planned("zeropp", suggest=True)
    small = suggest(SHAPE, ZEROPP, WORLD, Hardware(gpu_memory=10**9, host_memory=10**9))
    lines = list(suggestion_lines(small, made.estimates))
    assert lines[0] == "nothing fits"
    assert all("needs" in line for line in lines[1:])
