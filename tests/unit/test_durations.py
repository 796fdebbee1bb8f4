from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.job.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("90s", 90),
        ("2h30m", 9000),
        ("2h 30m", 9000),
        ("1.5h", 5400),
        ("1d", 86400),
        ("1D2H", 93600),
        ("00:02:30", 150),
        ("48:00:00", 172800),
        ("2-01:00:00", 176400),
        ("1e3", 1000),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "h", "2:30", "1:60:00", "30m2h", "5x", "nan", "inf", True, None, [1], "1-2"]
)
def test_no_durations(text):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


@given(st.text())
@example("1" * 400)
def test_a_text_is_a_duration_or_a_value_error(text):
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert isinstance(seconds, float)
