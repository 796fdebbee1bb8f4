"""How the time of a run is told apart."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.report.goodput import KINDS, Course, Save, Tried, account


def steps(first: int, last: int, at: float, took: float = 1.0) -> dict[str, list[float]]:
    """Return times and numbers of steps of `took` seconds, the first of which begins at `at`."""
    numbers = list(range(first, last + 1))
    return {"times": [at + took * (i + 1) for i in range(len(numbers))], "steps": [float(n) for n in numbers]}


def spent(course: Course) -> dict[str, float]:
    """Return the seconds of the kinds that took any."""
    return {kind: round(seconds, 6) for kind, seconds in account(course).seconds.items() if seconds > 1e-9}


PLAIN = Course(0, 120, (Tried(1, 2, 118, **steps(1, 100, at=10)),))


def test_a_plain_run_starts_works_and_ends():
    assert spent(PLAIN) == {"startup": 10, "productive": 100, "other": 10}
    assert account(PLAIN).share == pytest.approx(100 / 120)


def test_steps_that_are_reported_now_and_then_count_from_the_first_on():
    every_tenth = Tried(1, 2, 118, times=[20, 30, 40], steps=[10, 20, 30])
    assert spent(Course(0, 120, (every_tenth,))) == {"startup": 10, "productive": 30, "other": 80}


def test_what_the_first_step_takes_longer_is_startup():
    compiled = Tried(1, 2, 118, times=[60, 61, 62, 63], steps=[1, 2, 3, 4])
    assert spent(Course(0, 63, (compiled,))) == {"startup": 59, "productive": 4}


def test_waiting_for_a_scheduler_is_queue_and_not_startup():
    queued = replace(PLAIN, attempts=(replace(PLAIN.attempts[0], queued=True),))
    assert spent(queued) == {"queue": 2, "startup": 8, "productive": 100, "other": 10}


def test_a_save_costs_what_it_slows_the_steps_down_by():
    times = [float(t) for t in (*range(11, 31), *range(45, 65))]  # the 21st step took 15 s and not 1
    slow = Tried(1, 2, 70, times=times, steps=[float(n) for n in range(1, 41)])
    course = Course(0, 70, (slow,), saves=(Save(31, 44, 20),))
    assert spent(course) == {"startup": 10, "productive": 40, "checkpoint": 14, "other": 6}
    in_the_background = replace(PLAIN, saves=(Save(30, 60, 20),))
    assert spent(in_the_background) == spent(PLAIN)


def test_a_file_server_whose_clock_is_off_by_a_step_changes_nothing():
    times = [float(t) for t in (*range(11, 31), *range(45, 65))]
    slow = Tried(1, 2, 70, times=times, steps=[float(n) for n in range(1, 41)])
    for off in (-1, 1):
        course = Course(0, 70, (slow,), saves=(Save(31 + off, 44 + off, 20),))
        assert spent(course)["checkpoint"] == 14


def seen_in_quarters(times: list[float]) -> list[float]:
    """Return the times of reports as they are known: a quarter of a second late at most."""
    return [math.ceil(time * 4) / 4 for time in times]


def test_steps_that_are_shorter_than_time_is_known_to_are_no_riddle():
    short = steps(1, 1000, at=10, took=0.06)
    known = Tried(1, 0, 80, seen_in_quarters(short["times"]), short["steps"])
    found = account(Course(0, 80, (known,), saves=(Save(30, 60, 500),))).seconds  # in the background
    assert found["productive"] == pytest.approx(60, abs=0.5)
    assert found["checkpoint"] == 0


def test_of_short_steps_too_a_save_that_stops_them_is_seen():
    before, after = steps(1, 400, at=10, took=0.06), steps(401, 800, at=44, took=0.06)  # 34 to 44
    times = seen_in_quarters([*before["times"], *after["times"]])
    known = Tried(1, 0, 80, times, [*before["steps"], *after["steps"]])
    found = account(Course(0, 80, (known,), saves=(Save(34.1, 44, 400),))).seconds
    assert found["checkpoint"] == pytest.approx(10, abs=0.5)
    assert found["productive"] == pytest.approx(48, abs=0.5)


def test_a_save_after_the_last_step_is_one_too():
    course = replace(PLAIN, saves=(Save(111, 116, 100),))
    assert spent(course) == {"startup": 10, "productive": 100, "checkpoint": 6, "other": 4}


def test_steps_that_are_made_again_are_lost():
    first = Tried(1, 0, 64, **steps(1, 50, at=10), failed=62)
    second = Tried(2, 70, 160, **steps(41, 100, at=90), resumed=40)
    course = Course(0, 160, (first, second))
    assert spent(course) == {"startup": 10, "productive": 40 + 60, "lost": 12, "restart": 26, "other": 2 + 10}


def test_without_a_word_on_what_it_resumed_from_the_next_attempts_first_step_tells():
    first = Tried(1, 0, 64, **steps(1, 50, at=10), failed=62)
    second = Tried(2, 70, 160, **steps(41, 100, at=90))
    assert spent(Course(0, 160, (first, second)))["lost"] == 12


def test_what_a_failed_run_made_after_its_last_checkpoint_is_lost():
    failed = replace(PLAIN.attempts[0], failed=111.0)
    course = Course(0, 120, (failed,), saves=(Save(60, 60.1, 50),), kept=False)
    assert spent(course) == {"startup": 10, "productive": 50, "lost": 51, "other": 9}
    nothing_saved = replace(course, saves=())
    assert spent(nothing_saved) == {"startup": 10, "lost": 101, "other": 9}
    without_a_number = replace(course, saves=(Save(60.5, 60.6),))
    assert spent(without_a_number) == spent(course)


def test_an_attempt_in_between_that_made_no_step_does_not_change_what_is_lost():
    first = Tried(1, 0, 64, **steps(1, 50, at=10), failed=60)
    nothing = Tried(2, 64, 80, failed=75)
    third = Tried(3, 80, 150, **steps(41, 90, at=90), resumed=40)
    found = spent(Course(0, 150, (first, nothing, third)))
    assert found["lost"] == 10
    assert found["restart"] == 11 + 10
    assert found["productive"] == 40 + 50


def test_a_hang_counts_from_its_last_sign_of_life_on_but_not_in_the_queue():
    course = replace(PLAIN, hangs=((70, 100),))
    assert spent(course)["hang"] == 30
    queued = replace(PLAIN, attempts=(replace(PLAIN.attempts[0], queued=True),), hangs=((0, 5),))
    assert spent(queued)["queue"] == 2
    assert spent(queued)["hang"] == 3


def test_a_run_that_goes_on_is_in_its_next_step():
    running = Course(0, 112, (Tried(1, 2, 112, **steps(1, 100, at=10), running=True),))
    assert spent(running) == {"startup": 10, "productive": 102}


def test_without_any_step_no_share_is_claimed():
    silent = account(Course(0, 50, (Tried(1, 5, 45),)))
    assert silent.share is None
    assert sum(silent.seconds.values()) == pytest.approx(50)
    assert spent(Course(0, 50)) == {"startup": 50}
    assert account(Course(50, 50)).wall == 0


@st.composite
def courses(draw: st.DrawFn) -> Course:
    """Any course at all, likely ones and such as no run can have."""
    time = st.floats(0, 1000)
    attempts = []
    for number in range(1, draw(st.integers(0, 4)) + 1):
        times = sorted(draw(st.lists(time, max_size=8)))
        attempts.append(
            Tried(
                number,
                *sorted((draw(time), draw(time))),
                times,
                [float(draw(st.integers(0, 50))) for _ in times],
                resumed=draw(st.none() | st.floats(0, 50)),
                failed=draw(st.none() | time),
                queued=draw(st.booleans()),
                running=draw(st.booleans()),
            )
        )
    save = st.builds(Save, time, time, st.none() | st.integers(0, 50))
    return Course(
        *sorted((draw(time), draw(time))),
        tuple(attempts),
        tuple(draw(st.lists(save, max_size=4))),
        tuple(draw(st.lists(st.tuples(time, time), max_size=3))),
        kept=draw(st.booleans()),
    )


@given(courses())
def test_every_second_is_of_one_kind(course):
    found = account(course)
    assert sum(found.seconds.values()) == pytest.approx(found.wall, abs=1e-6)
    assert set(found.seconds) == set(KINDS)
    assert all(segment.end >= segment.start for segment in found.segments)
    assert all(before.end == after.start for before, after in pairwise(found.segments))
    if found.segments:
        assert (found.segments[0].start, found.segments[-1].end) == (course.created, course.ended)
