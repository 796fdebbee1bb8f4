"""What of a log's bytes is shown, what is folded, which texts are looked for first, and moments."""

from __future__ import annotations

import re
import time
from datetime import datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.monitor.logs import Selection
from orchestrator.monitor.logs.fold import Folder, Line
from orchestrator.monitor.logs.memory import pass_over
from orchestrator.monitor.logs.moments import parse_moment
from orchestrator.monitor.logs.needles import across_lines, needles
from orchestrator.monitor.logs.search import Search
from orchestrator.monitor.logs.select import streams_of
from orchestrator.monitor.logs.text import Texts
from tests import samples

RED = "\x1b[31m"


@pytest.mark.parametrize(
    ("line", "plain", "coloured"),
    [
        (b"caf\xe9 \xf0\x9f\x99\x82", ["caf\ufffd \N{SLIGHTLY SMILING FACE}"], None),
        (b"windows\r\n", ["windows"], None),
        (b" 1%|#\r 2%|##\r\n", [" 2%|##"], None),
        (b"\rbar 99%\r          \r", ["bar 99%"], None),
        (b"\r\r\n", [""], None),
        (b"a\x1b[31mred\x1b[0m", ["ared"], ["a\x1b[31mred\x1b[0m\x1b[0m"]),
        (b"a\x1b[2Jb\x1b]0;title\x07c\x07\x08d", ["abc\x07\x08d"], ["abcd"]),
        (b"tab\tstays", ["tab\tstays"], None),
    ],
)
def test_a_line_is_shown_as_a_terminal_would_and_does_nothing_to_it(line, plain, coloured):
    assert Texts().of(line) == plain
    assert Texts(colours=True).of(line) == (coloured or plain)


@settings(max_examples=200)
@example([b"\x1b]0;never ended"])
@example([b"\xc2\x9b31m"])
@given(
    st.lists(
        st.sampled_from([b"\x1b", b"[", b"31m", b"2J", b"\r", b"\x9b", b"\xc2", b"]", b"\x07", b"a"]),
        max_size=12,
    )
)
def test_whatever_is_in_a_log_no_other_code_reaches_a_terminal(parts):
    line = b"".join(parts)
    for text in Texts(colours=True, bars=True).of(line):
        assert re.fullmatch(r"(?:\x1b\[[0-9;:]*m|[^\x00-\x08\x0a-\x1f\x7f-\x9f])*", text)
    assert all("\x1b" not in text for text in Texts().of(line))


def test_every_state_of_a_bar_is_shown_where_that_is_asked_for():
    assert Texts(bars=True).of(b"\r1%\r2%\r\n") == ["1%", "2%"]
    assert Texts(re.compile("1"), bars=True).of(b"\r1%\r2%\r\n") == ["1%"]
    assert list(Texts(bars=True).each(b"\r1%\r2%\nend\n")) == ["1%", "2%", "end"]


def test_a_pattern_never_sees_colours():
    found = Texts(re.compile("^loss: 3$"), colours=True).of(f"{RED}loss:\x1b[0m 3".encode())
    assert found == [f"{RED}loss:\x1b[0m 3\x1b[0m"]
    assert Texts(re.compile("31m")).of(f"{RED}x".encode()) == []


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("CUDA out of memory", {b"CUDA out of memory"}),
        ("loss|resumed", {b"loss", b"resumed"}),
        ("^step [0-9]+ loss$", {b"step "}),
        ("(?i)Error", {b"error"}),
        ("(?i)LOSS", {b"lo"}),  # s: Python finds the long s as well
        ("(ab|cd)?efg", {b"efg"}),
        ("(?:ab|cd)+", {b"ab", b"cd"}),
        ("x*", None),
        (r"\d+", None),
        ("ab|", None),
        ("(?i:abc)", None),
        ("\ufffdab", {b"ab"}),
        ("one|two|three|four|five|six|seven|eight|nine", None),
    ],
)
def test_texts_that_a_match_must_hold(pattern, wanted):
    found = needles(re.compile(pattern))
    assert (found and set(found)) == wanted


@pytest.mark.parametrize("pattern", [r"a(?!\s)", r"a\s*+$", r"\Aab", r"b\Z", "(?<!x)a", "(?>a+)b"])
def test_what_may_look_beyond_a_line_is_tried_line_by_line(pattern):
    assert across_lines(re.compile(pattern)) is None


BLOCK = "\n".join(
    [
        "aXb",
        "x a",
        "",
        "a\tb",
        "\u017ftep LO\u017fS",
        "step 12 loss 3",
        f"lo{RED}ss",
        "p\rq",
        "K kelvin",
        "end of it",
    ]
    * 3
)


@pytest.mark.parametrize(
    "block", [BLOCK, BLOCK.encode("ascii", "ignore").decode().replace(RED, "").replace("\r", "")]
)
@pytest.mark.parametrize(
    "pattern",
    [
        "loss",
        "(?i)loss",
        "a.b",
        r"a\s+b",
        "^$",
        r"\d+ .* \d$",
        "(?i)STEP",
        "[^a]",
        "^p|^q",
        "(?i)k k",
        "x*",
        r"\n",
        "of it$",
    ],
)
def test_a_block_gives_the_lines_that_match_by_themselves(block, pattern):
    data = block.encode()
    texts = Texts(re.compile(pattern))
    found = [data[start:end].removesuffix(b"\n") for start, end in Search(texts).spans(data, len(data))]
    assert found == [line for line in data.split(b"\n") if texts.of(line)]


def test_a_text_that_all_lines_hold_in_vain_is_given_up_for_a_search_of_the_whole():
    data = b"loss 3.25\n" * 2000 + b"loss 7.25\n"
    search = Search(Texts(re.compile("loss [789]")))
    for _ in range(3):
        assert list(search.spans(data, len(data))) == [(len(data) - 10, len(data))]
    assert not search.passes_over


def test_what_holds_no_text_is_passed_over_up_to_a_line_that_may(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"nothing\n" * 100_000 + b"a needle\n" + b"nothing\n" * 100_000)
    offset = pass_over(path, 0, [b"needle"])
    assert 0 < offset <= 800_000
    assert offset % 8 == 0
    assert pass_over(path, offset, [b"needle"]) == offset
    assert pass_over(path, 800_009, [b"needle"]) == path.stat().st_size
    assert pass_over(tmp_path / "missing", 5, [b"needle"]) == 5


def folded(*lines: tuple[float, int, str], window: float = 1.0) -> list[str]:
    """Return what is shown of lines: when, index of the stream (see below), text."""
    plan = samples.plan(samples.pool("node1 slots=4\nnode2 slots=4\n"))
    made = samples.RunDir(samples.ROOT).attempt(1)
    hosts = streams_of(plan, made, Selection(kinds=frozenset({"log"})))
    streams = {stream.rank: stream for stream in streams_of(plan, made, Selection(kinds=frozenset({"out"})))}
    streams |= {-1: hosts[0], -2: hosts[1]}
    folder = Folder(window)
    groups = [
        group for when, rank, text in lines for group in folder.add(Line(when, when, streams[rank], text))
    ]
    return [f"{group.prefix} {group.text}" for group in (*groups, *folder.until(float("inf")))]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["same"] * 8, ["[0-7] same"]),
        ([f"[rank{n}]: CUDA out of memory" for n in range(4)], ["[0-3] [rank*]: CUDA out of memory"]),
        (["loss 1", "loss 2"], ["node1:0 loss 1", "node1:1 loss 2"]),
        ([f"pid {n} at 0x7f{n}a, 10.0.0.{n}:29500" for n in (1, 2)], ["[0-1] pid * at *, *"]),
        (["12:00:01.5 start", "12:00:02 start"], ["[0-1] 12:00:01.5 start"]),
        ([f"W1121 16:58:2{n} Watchdog" for n in (1, 2)], ["[0-1] W1121 16:58:21 Watchdog"]),
        (["on node1", "on node1", "x", "x", "on node2"], ["[0-1,4] on *", "[2-3] x"]),
        (["node1:77:78 [0] NCCL INFO x", "node1:99:98 [1] NCCL INFO x"], ["[0-1] node1:* NCCL INFO x"]),
        (["GPU 1 has", "GPU 2 has"], ["[0-1] GPU * has"]),
        (["version 2.1", "version 2.2"], ["node1:0 version 2.1", "node1:1 version 2.2"]),
    ],
)
def test_lines_alike_of_many_ranks_are_one(texts, shown):
    assert folded(*((0.0, rank, text) for rank, text in enumerate(texts))) == shown


def test_a_rank_that_says_it_twice_is_shown_twice():
    lines = [(0.0, rank, "again") for rank in (0, 0, 1, 1, 2)]
    assert folded(*lines) == ["[0-2] again", "[0-1] again"]


def test_lines_that_are_far_apart_are_not_folded():
    assert folded((0.0, 0, "x"), (0.5, 1, "x"), (5.0, 2, "x")) == ["[0-1] x", "node1:2 x"]


def test_hosts_own_logs_are_folded_by_host_and_not_with_ranks():
    assert folded((0.0, -1, "agent 5"), (0.0, -2, "agent 5"), (0.0, 0, "agent 5")) == [
        "node[1-2] agent 5",
        "node1:0 agent 5",
    ]


def test_no_more_than_some_thousand_lines_are_held():
    lines = [(0.0, 0, f"line {n}") for n in range(5000)]
    folder_lines = folded(*lines, window=float("inf"))
    assert folder_lines == [f"node1:0 line {n}" for n in range(5000)]


NOON = datetime(2026, 11, 21, 12, 0).timestamp()  # noqa: DTZ001 - local time is what is read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOON - 600),
        ("1h30m", NOON - 5400),
        ("11:59", NOON - 60),
        ("11:59:30", NOON - 30),
        ("12:01", NOON - 86400 + 60),  # not today yet
        ("2026-11-21", NOON - 43200),
        ("2026-11-21T11:00", NOON - 3600),
        ("2026-11-21 11:00:00.5", NOON - 3599.5),
        ("2026-11-21T12:00:00+00:00", None),
        ("@12.5", 12.5),
    ],
)
def test_moments_as_people_write_them(text, expected):
    if expected is None:
        expected = NOON - time.mktime(time.gmtime(NOON)) + time.mktime(time.localtime(NOON))
        expected = datetime.fromisoformat(text).timestamp()
    assert parse_moment(text, NOON) == expected


@pytest.mark.parametrize("text", ["", "soon", "25:00", "10", "10x", "@noon", "2026-13-01", "99:99"])
def test_what_is_no_moment_is_told(text):
    with pytest.raises(ValueError, match="expected 10m"):
        parse_moment(text, NOON)
