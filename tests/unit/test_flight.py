"""What flight recorders tell: real ones (NCCL of torch 2.11 on 4 GPUs, gloo of torch 2.13) and made ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from orchestrator.monitor.flight import examine, read_all
from orchestrator.monitor.flight_file import Record, read
from tests.flight_records import dump, entry

REAL = Path(__file__).parents[1] / "data/flight"


def records(of: dict[int, list[dict[str, Any]]], tmp_path: Path, **groups: list[int]) -> dict[int, Record]:
    """Return the records of ranks that have joined what is given, read from files."""
    for rank, entries in of.items():
        (tmp_path / f"a.rank{rank}.fr.{rank}").write_bytes(dump(entries, len(of), groups))
    return read_all(tmp_path)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            "nccl-behind",
            "rank 2 did not join all_reduce #2 (cuda_ways.py:37 reduce_), in which ranks 0-1,3 wait",
        ),
        (
            "nccl-differs",
            (
                "rank 2 is in broadcast (cuda_ways.py:142 way_nccl_differ) where ranks 0-1,3 wait in "
                "all_reduce #2 (cuda_ways.py:37 reduce_)"
            ),
        ),
        (
            "gloo-differs",
            (
                "rank 1 is in broadcast (train.py:13) where ranks 0,2 wait in all_reduce #6 (train.py:15); "
                "rank 3 joined neither"
            ),
        ),
    ],
)
def test_real_records_tell_who_holds_up_the_others(case, words):
    found = examine(read_all(REAL / case), 4)
    assert found.words == words
    assert found.since == pytest.approx(1795292950, abs=1000)
    assert found.never_resolves == (found.kind == "differs")


def test_ranks_that_have_completed_all_wait_for_nobody(tmp_path):
    done = [entry(1), entry(2)]
    assert examine(records({0: done, 1: done}, tmp_path), 2) is None


def test_those_of_whom_nothing_is_known_are_not_blamed(tmp_path):
    found = records({0: [entry(1, done=False)], 1: [entry(1, done=False)]}, tmp_path)
    assert examine(found, 4) is None


def test_sizes_that_are_not_the_same_are_told(tmp_path):
    found = records({rank: [entry(1, size=4 + (rank == 2), done=False)] for rank in range(3)}, tmp_path)
    words = examine(found, 3).words
    assert words.startswith(
        "rank 2 is in all_reduce (train.py:1 step) of 5 Float (not 4 Float) where ranks 0-1"
    )


def test_gathers_may_have_unlike_sizes(tmp_path):
    found = records(
        {rank: [entry(1, "all_gather", size=rank + 1, done=False)] for rank in range(2)}, tmp_path
    )
    assert examine(found, 2) is None


def test_the_root_of_a_chain_is_blamed_and_not_who_waits_for_it(tmp_path):
    """Rank 1 has not joined 0's collective, as it waits in another group for rank 2, which is elsewhere."""
    pair = {"group": ("tp", "tensor parallel")}
    found = records(
        {0: [entry(1, done=False)], 1: [entry(1, done=False, **pair)], 2: []}, tmp_path, tp=[1, 2]
    )
    told = examine(found, 3)
    assert (told.kind, told.culprits) == ("behind", (2,))
    assert told.group in {"default_pg", "tensor parallel"}


def test_ranks_that_wait_for_one_another_in_two_groups_never_come_on(tmp_path):
    pair = {"group": ("tp", "tensor parallel")}
    found = records({0: [entry(1, done=False, **pair)], 1: [entry(1, done=False)]}, tmp_path, tp=[0, 1])
    told = examine(found, 2)
    assert (told.kind, told.never_resolves) == ("cycle", True)
    assert told.words.endswith("they wait for one another")
    assert "of group 'tensor parallel'" in told.words


def test_who_waits_for_a_message_is_not_to_blame(tmp_path):
    receives = entry(0, "recv 1<-0", done=False, p2p=True)
    found = records({0: [entry(1, done=False)], 1: [receives]}, tmp_path)
    assert found[1].waits == (0,)
    assert examine(found, 2) is None


def test_parts_of_one_collective_are_one(tmp_path):
    parts = [entry(3, "all_gather", done=False), entry(3, "reduce_scatter", done=False)]
    found = records({0: parts, 1: parts[:1]}, tmp_path)
    assert examine(found, 2).kind == "differs"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        pickle.dumps(Path("x")),
        pickle.dumps({"entries": [{}]}),
        pickle.dumps([1]),
        b"{",
        b"\x80\x02}",
    ],
)
def test_what_is_no_record_is_passed_over(tmp_path, content):
    (tmp_path / "a.rank0.fr.0").write_bytes(content)
    assert read_all(tmp_path) in ({}, {0: Record(0)})


def test_nothing_of_a_file_is_run(tmp_path):
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "run",))

    file = tmp_path / "a.rank0.fr.0"
    file.write_bytes(pickle.dumps({"entries": [], "x": Bomb()}))
    assert read(file, 0) is None
    assert not (tmp_path / "run").exists()


def test_of_several_in_one_file_the_last_whole_one_counts(tmp_path):
    """A host without the shared disk sends what is new; the file at this end only grows."""
    first, second = dump([entry(1)], 1), dump([entry(1), entry(2)], 1)
    file = tmp_path / "a.rank0.fr.0"
    file.write_bytes(first + second + second[:-20])
    assert read(file, 0).tracks["0", "default_pg"].last == 2
