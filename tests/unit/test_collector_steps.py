"""From lines to records: bars and losses of one rank, thinning, times."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.collector.parse import parse
from orchestrator.collector.steps import Bar, Line, Tellers, by_epoch, candidates, spread
from orchestrator.collector.times import Index, search

BASE = {"attempt": 1, "host": "a"}


def _records(tellers: Tellers, rank: int, text: str, now: float = 100.0) -> list[dict]:
    found = tellers.wanted(rank, text.encode(), now)
    return tellers.records(rank, [(told, now) for told, _ in found], BASE)


def test_a_loss_without_a_step_gets_that_of_the_bar_before_it():
    bar = "  4%|4    | 20/500 [00:10<04:00,  2.00it/s]\r"
    records = _records(Tellers(1), 0, f"{bar}{{'loss': 2.5, 'epoch': 0.1}}\n")
    assert [(r["step"], r["loss"], r["step_time"]) for r in records] == [(20, 2.5, 0.5)]


def test_a_bar_over_something_else_is_no_step():
    files, steps = "100%|#| 40/40 [00:10<00:00, 4.00it/s]\r", "  4%|4| 20/500 [00:10<04:00,  2.00it/s]\r"
    tellers = Tellers(1)
    assert _records(tellers, 0, files) == []
    assert [r["step"] for r in _records(tellers, 0, f"{steps}{{'loss': 2.5}}\n")] == [20]
    after = _records(tellers, 0, "  5%|5| 30/500 [00:15<04:00,  2.00it/s]\r", 110.0)
    assert [r["step"] for r in after] == [30]


def test_a_loss_before_any_step_makes_no_record():
    assert _records(Tellers(1), 0, "{'loss': 2.5, 'epoch': 0.1}\n") == []


def test_all_lines_of_few_ranks_are_records_and_one_now_and_then_of_many():
    text = "".join(f"step {step} loss 1.5\n" for step in range(1, 11))
    few, many = Tellers(8), Tellers(1000)
    assert len(_records(few, 7, text)) == 10
    assert len(_records(many, 0, text)) == 10  # the lowest rank
    rounds = [_records(many, 7, text, 100.0 + second) for second in range(41)]
    assert [(second, found[0]["step"]) for second, found in enumerate(rounds) if found] == [(1, 10), (21, 10)]


def test_when_only_the_last_rank_tells_it_is_read_in_full():
    text = "step 1 loss 1.5\nstep 2 loss 1.4\n"
    tellers = Tellers(64)
    rounds = [_records(tellers, 63, text, 100.0 + second) for second in range(4)]
    assert [len(found) for found in rounds] == [0, 0, 1, 2]


def test_a_flood_of_lines_is_thinned_evenly_and_keeps_the_last():
    lines = [Line(b"%d" % number, number) for number in range(1000)]
    kept = [line.end for line in spread(lines, 100)]
    assert (len(kept), kept[-1], {b - a for a, b in itertools.pairwise(kept)}) == (100, 999, {10})


def test_lines_end_with_line_feeds_and_carriage_returns_and_know_where():
    data = b"a step\r\nother\rstep b\nlast step"
    found = candidates(data)
    assert [line.text for line in found] == [b"a step", b"step b", b"last step"]
    assert [data[: line.end][-2:] for line in found] == [b"\r\n", b"b\n", b"ep"]


def test_the_time_of_a_line_is_that_of_the_first_size_that_holds_it(tmp_path):
    (tmp_path / "a.times").write_text(
        "1.000 0.out 10\n1.500 1.out 99\n2.000 0.out 20\nbroken 0.out\n3.000 0.out 30\n"
    )
    index = Index(tmp_path / "a.times", "0.out")
    assert index.times([5, 10, 11], live=True) == [1.0, 1.0, 2.0]
    assert index.times([25, 31], live=True) == [3.0, None]
    with (tmp_path / "a.times").open("a") as file:
        file.write("4.000 0.out 40\n5.0")
    assert index.times([31], live=True) == [4.0]
    assert Index(tmp_path / "none.times", "log").times([1], live=False) == [None]


def test_the_index_is_passed_over_up_to_the_line_that_gave_the_last_time():
    block = b"1.000 0.out 10\n2.000 0.out 20\n"
    found: list[float | None] = []
    assert search(block, b" 0.out ", [15], found) == block.index(b"2.000")
    assert found == [2.0]


def test_every_line_that_is_told_of_can_be_parsed_alone():
    assert parse(candidates(b"x\nstep 3 loss 2\n")[0].text) is not None


def test_a_loss_gets_the_step_at_which_the_bar_stood_when_it_was_written():
    """A look at the files finds all of stderr before stdout: the bar is then far ahead of the first loss."""
    tellers = Tellers(1)
    bars = [
        (parse(f" 5%|#| {step}/500 [00:10<04:00,  1.00it/s]".encode()), 100.0 + step) for step in range(60)
    ]
    tellers.records(0, bars, BASE)
    losses = [(parse(f"{{'loss': 2.{step}}}".encode()), 100.0 + step) for step in (10, 20, 59)]
    assert [r["step"] for r in tellers.records(0, losses, BASE)] == [10, 20, 59]


@pytest.mark.parametrize(
    ("bar", "epoch", "step"),
    [
        (Bar(0.0, 50, 153, 0.05), 0.9604, 49),  # 403 samples in batches of 8: 101 half steps an epoch
        (Bar(0.0, 122, 153, 1.0), 1.647, 122),  # step 84: no bar runs ahead so far in half a second
        (Bar(0.0, 21, 153, 1.0), 0.4158, 21),
        (Bar(0.0, 80, 100, 1.0), 1.569, 80),  # max_steps ends in the second epoch of 51 steps
        (Bar(0.0, 0, 153, None), 0.1, 0),
        (Bar(0.0, 7, 153, 0.5), None, 7),
    ],
)
def test_the_epoch_of_a_line_tells_its_step_where_the_bar_leaves_a_doubt(bar, epoch, step):
    assert by_epoch(bar, epoch) == step
