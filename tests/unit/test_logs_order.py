"""Logs as one, by time: against a plain reading of the same files, for logs that grew at random."""

from __future__ import annotations

import dataclasses
import random
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as hypothesis

from orchestrator.monitor.logs import Selection
from orchestrator.monitor.logs.index import BackwardIndex, TimeIndex, first_line_since, last_time, size_before
from orchestrator.monitor.logs.merge import begin, merged, sources_of
from orchestrator.monitor.logs.reader import Reader, blocks_backwards, last_line_end, last_lines
from orchestrator.monitor.logs.search import Search
from orchestrator.monitor.logs.select import streams_of
from orchestrator.monitor.logs.source import Source
from orchestrator.monitor.logs.text import Texts
from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = range(4)
OFFSETS = {"node1": 0.0, "node2": 90.0}  # node2's clock is ahead


class Grown:
    """A run whose logs grew at random, and what is true of it: (time, place, line) as they came."""

    def __init__(self, root: Path, seed: int, *, steps: int = 120, quiet: float = 0.0) -> None:
        self.numbers = random.Random(seed)
        self.run = samples.run_dir(root / str(seed), "grown-aaaa", State.RUNNING)
        self.attempt = self.run.attempt(1)
        write_json(self.attempt.clocks_file, {host: {"offset": off} for host, off in OFFSETS.items()})
        self.streams = streams_of(self.run.plan(), self.attempt, Selection())
        self.lines: list[tuple[float, int, str]] = []
        self._rest = dict.fromkeys((stream.place for stream in self.streams), "")
        for step in range(steps):
            chosen = [stream for stream in self.streams if self.numbers.random() > quiet]
            self._grow(1000.0 + step, sorted(chosen, key=lambda stream: stream.turn))

    def _grow(self, now: float, streams: list) -> None:
        for stream in streams:
            text = "".join(self.numbers.choices(["ab", "needle", "c" * 50, "\n", "\n", "é"], k=6))
            with stream.path.open("a") as file:
                file.write(text)
            with stream.index.open("a") as file:
                file.write(f"{now + stream.clock:.3f} {stream.name} {stream.path.stat().st_size}\n")
            *lines, self._rest[stream.place] = (self._rest[stream.place] + text).split("\n")
            self.lines += [(now, stream.place, line) for line in lines]

    def shown(self, selection: Selection, *, chunk: int = 4096) -> list[tuple[float | None, int, str]]:
        """Return what is shown of finished lines."""
        search = Search(Texts(selection.pattern))
        sources = [Source(stream, chunk) for stream in self.streams]
        begin(sources, search, selection, whole=True)
        return [
            (piece.time, piece.stream.place, line)
            for piece in merged(sources, search, selection, last=False)
            for line in piece.data.decode().removesuffix("\n").split("\n")
        ]


@pytest.fixture(params=SEEDS)
def grown(request, tmp_path) -> Grown:
    return Grown(tmp_path, request.param, quiet=request.param % 3 * 0.4)


def test_lines_of_all_logs_are_in_the_order_in_which_they_came(grown):
    assert grown.shown(Selection()) == grown.lines
    assert [line for *_, line in grown.shown(Selection(), chunk=1 << 18)] == [
        line for *_, line in grown.lines
    ]


@pytest.mark.parametrize("pattern", ["needle", "needle|é", "^$", "(?i)NEEDLEc+$", "[ab]{5}", "c(?!c|n)"])
def test_a_pattern_finds_what_it_finds_line_by_line(grown, pattern):
    wanted = Selection(pattern=re.compile(pattern))
    assert grown.shown(wanted) == [line for line in grown.lines if re.search(pattern, line[2])]


@pytest.mark.parametrize("count", [0, 1, 7, 150, 10_000])
@pytest.mark.parametrize("pattern", [None, "needle"])
def test_the_tail_is_the_end_of_everything(grown, count, pattern):
    wanted = Selection(pattern=pattern and re.compile(pattern))
    everything = grown.shown(wanted)
    assert (
        grown.shown(dataclasses.replace(wanted, tail=count)) == everything[max(0, len(everything) - count) :]
    )


@pytest.mark.parametrize(
    ("since", "until"), [(1060.0, None), (None, 1059.5), (1030.5, 1080.0), (1200.0, None)]
)
def test_times_bound_what_is_shown(grown, since, until):
    def is_wanted(time: float) -> bool:
        return (since is None or time >= since) and (until is None or time <= until)

    for stream in grown.streams:  # as old as its last line: nothing came later
        os_times(stream.path, 1119.0)
    bounded = Selection(since=since, until=until)
    expected = [line for line in grown.lines if is_wanted(line[0])]
    assert grown.shown(bounded) == expected
    assert grown.shown(dataclasses.replace(bounded, tail=9)) == expected[-9:]


def os_times(path: Path, when: float) -> None:
    import os

    if path.exists():
        os.utime(path, (when, when))


def test_what_nobody_told_the_time_of_comes_where_the_list_ends(tmp_path):
    grown = Grown(tmp_path, 1, steps=4)
    stream = grown.streams[1]
    assert stream.name == "0.out"
    with stream.path.open("a") as file:
        file.write("\nlast words\n")
    shown = grown.shown(Selection())
    assert (None, stream.place, "last words") in shown
    after = shown[shown.index((None, stream.place, "last words")) :]
    assert {time for time, *_ in after} <= {None, 1003.0}


def test_a_host_without_a_list_comes_first_and_has_no_times(tmp_path):
    grown = Grown(tmp_path, 2, steps=4)
    grown.attempt.logs.joinpath("node2.times").unlink()
    theirs = [line for line in grown.lines if line[1] >= grown.streams[5].place]
    shown = grown.shown(Selection())
    assert [(time, place) for time, place, _ in shown[: len(theirs)]] == [
        (None, place) for _, place, _ in sorted(theirs, key=lambda line: line[1])
    ]
    assert shown[len(theirs) :] == [line for line in grown.lines if line[1] < grown.streams[5].place]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_list_is_read_right_from_anywhere(tmp_path, seed):
    numbers = random.Random(seed)
    path, sizes, entries = tmp_path / "times", {"log": 0, "0.out": 0, "10.out": 0}, []
    for step in range(700):
        name = numbers.choices(list(sizes), weights=[1, 20, 5])[0]
        sizes[name] += numbers.randint(1, 50)
        entries.append((1000 + step / 4, name, sizes[name]))
    path.write_text("".join(f"{time:.3f} {name} {size}\n" for time, name, size in entries) + "torn 0.ou")
    for name, end in sizes.items():
        mine = [(time, size) for time, other, size in entries if other == name]
        index, backwards = TimeIndex(path, name, 64), BackwardIndex(path, name, 64)
        for size in sorted(numbers.randint(1, end) for _ in range(40)):
            assert index.at(size) == next(entry for entry in mine if entry[1] >= size)
        assert index.at(end + 1)[0] is None
        assert backwards.at(end + 1) is None
        for size in sorted((numbers.randint(1, end) for _ in range(40)), reverse=True):
            assert backwards.at(size) == next(time for time, at in mine if at >= size)
        when = numbers.choice(entries)[0]
        offset = first_line_since(path, when)
        assert float(path.read_bytes()[offset:].split()[0]) == when
        assert size_before(path, name, offset) == max([size for time, size in mine if time < when], default=0)
    assert last_time(path) == entries[-1][0]
    assert first_line_since(path, 0.0) == 0


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"one", b"a\nb\n", b"x" * 300 + b"\ny\n\nz", b"ab\n" * 99 + b"c"]
)
def test_blocks_hold_whole_lines_both_ways(tmp_path, data):
    path = tmp_path / "log"
    path.write_bytes(data)
    forwards = [(offset, block[:size]) for offset, block, size in Reader(path, 16).blocks(last=True)]
    backwards = list(blocks_backwards(path, len(data), 16))[::-1]
    for blocks in (forwards, backwards):
        assert b"".join(block for _, block in blocks) == data
        assert all(block.endswith(b"\n") for _, block in blocks[:-1])
        assert all(data[offset : offset + len(block)] == block for offset, block in blocks)
    finished = data[: data.rfind(b"\n") + 1]
    assert b"".join(block[:size] for _, block, size in Reader(path, 16).blocks(last=False)) == finished
    assert last_line_end(path) == len(finished)
    assert list(last_lines(path))[::-1] == (data.removesuffix(b"\n").split(b"\n") if data else [])


TEXT = hypothesis.text(alphabet="ab\n\r\u20ac", max_size=40)


@settings(max_examples=50)
@example("a\r\nb", [2])
@example("a\r\n\r\n", [2, 3])
@given(TEXT, hypothesis.lists(hypothesis.integers(0, 40), max_size=5))
def test_the_lines_are_the_same_however_the_file_grew(tmp_path_factory, text, cuts):
    path = tmp_path_factory.mktemp("grown") / "log"
    reader, data, texts, lines = Reader(path, 16), text.encode(), Texts(bars=True), []
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        path.write_bytes(data[:cut])
        for _, block, size in reader.blocks(last=False):
            lines += texts.each(block[:size])
    for _, block, size in reader.blocks(last=True):
        lines += texts.each(block[:size])
    assert lines == [state for line in re.findall(rb"[^\n]*\n|[^\n]+", data) for state in texts.of(line)]


def test_a_line_of_many_megabytes_is_one_line_and_what_is_longer_is_cut(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 10_000_000 + b"\n" + b"y" * 40_000_000)
    sizes = [size for *_, size in Reader(path, 1 << 16).blocks(last=True)]
    assert sizes[0] == 10_000_001
    assert sum(sizes) == path.stat().st_size
    assert max(sizes) < 20_000_000


def test_thousands_of_logs_take_bounded_memory(tmp_path):
    streams = [Grown(tmp_path, 0, steps=1).streams[0]] * 17_000
    assert sum(source.reader.chunk for source in sources_of(streams)) <= 17_000 * 4096
    assert sources_of(streams[:1])[0].reader.chunk <= 1 << 18
