"""Long series in few points, and axes."""

from __future__ import annotations

import json
import math
import random
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report.metrics import Metrics, wanted
from orchestrator.report.plot import Line, Plot, Ribbon, draw
from orchestrator.report.series import POINTS, Band, Curve, thin
from orchestrator.report.units import elapsed, lasted, ticks, time_ticks, value_words


@given(st.lists(st.floats(allow_nan=True), max_size=300), st.integers(3, 40))
def test_thinning_keeps_ends_peaks_and_what_is_no_number(values, limit):
    kept = thin(values, limit)
    assert kept == sorted(set(kept))
    assert len(kept) <= limit + 2 or len(values) <= limit
    numbers = [value for value in values if math.isfinite(value)]
    if values:
        assert {0, len(values) - 1} <= set(kept)
    if numbers:
        shown = [values[i] for i in kept if math.isfinite(values[i])]
        assert (min(shown), max(shown)) == (min(numbers), max(numbers))
    if len(numbers) < len(values):
        assert any(not math.isfinite(values[i]) for i in kept)


def record(step: int, rank: int = 0, **more: object) -> dict[str, object]:
    return {
        "time": 1000.0 + step,
        "attempt": 1,
        "kind": "step",
        "host": "n",
        "rank": rank,
        "step": step,
        **more,
    }


def test_a_long_curve_stays_small_and_keeps_its_one_peak():
    curve = Curve(limit=1000)
    for step in range(100_000):
        curve.add(record(step), 99.0 if step == 41_234 else 1 + step % 7 / 100)
    assert len(curve) < 1000
    found = curve.to_json()
    assert len(found["value"]) <= POINTS + 2
    assert max(found["value"]) == 99.0
    assert found["step"][found["value"].index(99.0)] == 41_234


def test_means_are_drawn_over_many_points_and_not_across_attempts():
    curve = Curve()
    for step in range(1000):
        curve.add(record(step, attempt=1 if step < 501 else 2), float(step % 2))
    smooth = curve.to_json()["smooth"]
    assert len(smooth["value"]) <= 122
    assert all(0.3 < value < 0.7 for value in smooth["value"][:-1])
    assert set(smooth["attempt"]) == {1, 2}
    short = Curve()
    short.add(record(1), 2.0)
    assert "smooth" not in short.to_json()


def test_the_rank_with_the_lowest_number_tells():
    curve = Curve()
    for rank, value in ((7, 1.0), (3, 2.0), (7, 3.0), (3, math.nan)):
        curve.add(record(1, rank), value)
    assert curve.to_json() == {
        "rank": 3,
        "attempt": [1, 1],
        "step": [1, 1],
        "time": [1001, 1001],
        "value": [2, None],
    }


@pytest.mark.parametrize(
    ("value", "last"), [(2.5, 2.5), (math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_a_last_value_that_is_no_number_is_not_passed_over(value, last):
    curve = Curve()
    assert curve.last is None
    for told in (3.0, value):
        curve.add(record(1), told)
    assert curve.last == last


def test_bands_hold_the_lowest_the_mean_and_the_highest_of_each_stretch():
    band = Band(0, 100, bins=10)
    for time, value in ((5, 1.0), (9, 3.0), (55, 7.0), (999, 2.0), (7, math.inf)):
        band.add(time, value)
    assert band.to_json() == {"time": [5, 55, 95], "low": [1, 7, 2], "mean": [2, 7, 2], "high": [3, 7, 2]}


def test_step_times_are_the_scripts_own_where_it_tells_them():
    told, untold = Metrics(1000, 2000), Metrics(1000, 2000)
    told.take(record(step, step_time=0.25) for step in range(1, 100))
    untold.take(record(step) for step in range(1, 100))
    assert told.step_seconds() == (0.25, 0.25)
    assert untold.step_seconds() == (1.0, 1.0)
    assert untold.step_times().to_json()["value"] == [1] * 98
    assert Metrics(0, 1).step_seconds() is None


def test_records_of_any_kind_are_taken():
    metrics = Metrics(1000, 2000)
    odd = [
        {},
        {"kind": "step"},
        {"kind": "gpu", "time": "x"},
        {"kind": "new", "time": 1.0},
        record(1, loss="NaN"),
    ]
    gpu = {
        "kind": "gpu",
        "time": 1001.0,
        "host": "n",
        "utilization": "Infinity",
        "memory": None,
        "throttled": "heat",
    }
    metrics.take([*odd, gpu, record(2, loss=True)])
    assert metrics.curves["loss"].to_json()["value"] == [None]
    assert metrics.hosts["n"].to_json() == {"throttled": 1}


def test_ranks_are_read_where_no_host_tells_and_half_a_line_is_left(tmp_path):
    file = tmp_path / "metrics.jsonl"
    told = [{"kind": kind, "time": 1.0, "host": "n"} for kind in ("rank", "host", "rank", "gpu")]
    file.write_text("".join(json.dumps(one) + "\n" for one in told) + '[1]\n{"kind": "gp')
    assert [one["kind"] for one in wanted(file)] == ["rank", "host", "gpu"]
    assert list(wanted(tmp_path / "none")) == []


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.booleans())
def test_ticks_are_round_few_and_inside(low, span, binary):
    found = ticks(low, low + span, 4, binary=binary)
    assert len(found) <= 10
    assert all(low - span / 1e6 - 1e-6 <= tick <= low + span * (1 + 1e-6) + 1e-6 for tick in found)


@pytest.mark.parametrize("seconds", [0.5, 3, 90, 4000, 90_000, 3e6, 1e8])
def test_times_have_some_ticks(seconds):
    found = time_ticks(seconds)
    assert 2 <= len(found) <= 6
    assert found[0] == 0
    assert found[-1] <= seconds * 1.001
    assert all(seconds / 2 <= tick <= seconds * 1.001 for tick in time_ticks(seconds, seconds / 2))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (42, "42 s"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (5400, "1 h 30"),
        (200_000, "2 d 7 h"),
    ],
)
def test_times_are_told_in_two_units(seconds, words):
    assert elapsed(seconds) == words
    assert lasted(seconds).startswith(words)


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (None, "", ""),
        (0.0003, "", "3e-4"),
        (2.18394, "", "2.184"),
        (258272.4, "", "258,272"),
        (0.0421, "seconds", "42.1 ms"),
        (61 * 2**30, "bytes", "61 GiB"),
        (4.2e9, "bytes_per_second", "4.2 GB/s"),
        (0.9512, "share", "95.1 %"),
        (64.4, "celsius", "64 °C"),
    ],
)
def test_values_have_the_unit_that_fits(value, unit, words):
    assert value_words(value, unit) == words


def points(path: str) -> list[tuple[str, float, float]]:
    return [(pen, float(x), float(y)) for pen, x, y in re.findall(r"([ML])([\d.e+-]+) ([\d.e+-]+)", path)]


def test_a_line_is_where_its_axes_say():
    drawn = draw(Plot("Loss", [Line("", [0, 50, 100], [0.0, 10.0, 5.0])], floor=0.0))
    assert drawn is not None
    (_, x, y), _, (_, last_x, last_y) = points(drawn.paths[0]["d"])
    assert (x, y, last_x) == (0, 1000, 1000)
    five = next(at for at, words in drawn.y_ticks if words == "5")
    assert last_y == pytest.approx(1000 - 10 * five, abs=1)
    assert [words for _, words in drawn.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert drawn.words == "Loss: between 0 and 10"


def test_a_line_is_interrupted_where_a_value_is_missing_and_between_attempts():
    line = Line("", [1, 2, 3, 4, 5], [1.0, None, 3.0, 4.0, 5.0], apart=[1, 1, 1, 2, 2])
    drawn = draw(Plot("Loss", [line]))
    assert drawn is not None
    assert [pen for pen, _, _ in points(drawn.paths[0]["d"])] == ["M", "M", "M", "L"]
    assert drawn.paths[0]["d"].count("h0") == 2  # a point alone is a dot


def test_a_range_of_many_decades_is_drawn_by_them():
    values = [10.0**power for power in range(-3, 4)]
    drawn = draw(Plot("Gradient norm", [Line("", list(range(7)), values)]))
    assert drawn is not None
    assert drawn.note == "by decades"
    heights = [y for _, _, y in points(drawn.paths[0]["d"])]
    assert len({round(before - after) for before, after in pairwise(heights)}) == 1


def test_nothing_is_drawn_of_nothing_and_something_of_one_value():
    assert draw(Plot("Loss", [Line("", [], [])])) is None
    assert draw(Plot("Loss", [Line("", [1], [None])])) is None
    assert draw(Plot("Loss", [Line("", [1], [2.5])])) is not None
    assert draw(Plot("Zero", [Line("", [1, 2], [0.0, 0.0])], floor=0.0)) is not None


def test_a_ribbon_is_drawn_where_values_differ():
    numbers = random.Random(1)
    x = list(range(20))
    low = [numbers.random() for _ in x]
    high = [value + 1 for value in low]
    drawn = draw(Plot("Power", [Line("", x, low)], [Ribbon(x, low, high)]))
    assert drawn is not None
    assert [path["style"] for path in drawn.paths] == ["ribbon c0", "c0"]
    flat = draw(Plot("Power", [Line("", x, low)], [Ribbon(x, low, low)]))
    assert flat is not None
    assert len(flat.paths) == 1
