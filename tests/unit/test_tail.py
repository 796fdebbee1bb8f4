from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.monitor.tail import Tail


def test_a_file_that_is_not_there_yet_has_no_lines(tmp_path):
    tail = Tail(tmp_path / "log")
    assert list(tail.lines()) == list(tail.lines(last=True)) == []
    tail.path.write_text("one\n")
    assert list(tail.lines()) == ["one"]


def test_an_unfinished_line_waits_until_it_is_finished_or_the_last(tmp_path):
    tail = Tail(tmp_path / "log")
    tail.path.write_text("one\ntw")
    assert list(tail.lines()) == ["one"]
    assert list(tail.lines()) == []
    with tail.path.open("a") as file:
        file.write("o\nthree")
    assert list(tail.lines(last=True)) == ["two", "three"]
    assert list(tail.lines(last=True)) == []


def test_carriage_returns_end_lines_and_broken_text_is_shown(tmp_path):
    tail = Tail(tmp_path / "log")
    tail.path.write_bytes(b"10%\r20%\r\n\ncaf\xe9 \xf0\x9f\x99\x82\n")
    assert list(tail.lines()) == ["10%", "20%", "", "caf\ufffd \N{SLIGHTLY SMILING FACE}"]


def test_a_line_without_end_is_not_kept_in_memory(tmp_path):
    tail = Tail(tmp_path / "log")
    tail.path.write_bytes(b"x" * 3_000_000)
    assert "".join(tail.lines()) == "x" * 3_000_000
    assert list(tail.lines(last=True)) == []


TEXT = st.text(alphabet="ab\n\r\u20ac", max_size=40)


@settings(max_examples=50)
@example("a\r\nb", [2])
@example("a\r\n\r\n", [2, 3])
@given(TEXT, st.lists(st.integers(0, 40), max_size=5))
def test_the_lines_are_the_same_however_the_file_grew(tmp_path_factory, text, cuts):
    path = tmp_path_factory.mktemp("tail") / "log"
    tail, data, lines = Tail(path), text.encode(), []
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        path.write_bytes(data[:cut])
        lines += tail.lines()
    lines += tail.lines(last=True)
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert lines == (expected if expected[-1] else expected[:-1])
