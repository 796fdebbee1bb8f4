"""Diagnoses of runs in which ranks waited for another: not who gives up first is to blame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.diagnose import diagnose
from orchestrator.rundir import write_json
from tests.made_run import OOM, made_run

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir


FLIGHT = Path(__file__).parents[1] / "data/flight"
TIMED_OUT = (
    "[rank3]:[E1121 20:30:31 ProcessGroupNCCL.cpp:697] [Rank 3] Watchdog caught collective "
    "operation timeout: WorkNCCL(SeqNum=2, OpType=ALLREDUCE, NumelIn=4194304, NumelOut=4194304, "
    "Timeout(ms)=15000) ran for 15089 milliseconds before timing out.\n"
)


def timed_out(tmp_path: Path, records: str) -> RunDir:
    """Return a run whose rank 3 gave up waiting, with what flight recorders wrote on 4 GPUs."""
    run = made_run(tmp_path, hosts=2, slots=2, failing=3)
    verdict = json.loads(run.verdict_file.read_text().replace(OOM, TIMED_OUT.strip()))
    for file in (run.verdict_file, run.attempt(1).verdict_file):
        write_json(file, verdict)
    (run.attempt(1).logs / "node-1.rank3.err").write_text(TIMED_OUT)
    for path in (FLIGHT / records).glob("*.fr.*"):
        shutil.copy(path, run.attempt(1).dumps)
    return run


def test_of_a_time_out_the_rank_that_did_not_come_is_named_and_not_the_one_that_gave_up(tmp_path):
    told = diagnose(timed_out(tmp_path, "nccl-behind"))
    assert (told.category, told.undetermined, told.first.rank, told.first.gpu) == (
        "collective_timeout", False, 2, 2,
    )  # fmt: skip
    assert told.summary.startswith(
        "rank 2 on node-1 (GPU 2) did not join all_reduce #2 (cuda_ways.py:37 reduce_), step 60; "
        "ranks 0-1,3 waited in it since "
    )
    assert told.evidence[0].text.startswith("rank 2 did not join all_reduce #2")
    assert any("Of rank 2 nothing was heard" in one for one in told.advice)


def test_of_a_time_out_the_rank_in_another_collective_is_named(tmp_path):
    told = diagnose(timed_out(tmp_path, "nccl-differs"))
    assert told.first.rank == 2
    assert told.summary.startswith(
        "rank 2 on node-1 (GPU 2) was in broadcast (cuda_ways.py:142 way_nccl_differ) and not in all_reduce"
    )


def test_a_stall_that_lasts_is_told_in_its_own_words(tmp_path):
    run = made_run(tmp_path, hosts=2, slots=2, over=False)
    words = "no step for 14 min (usually 2 s): ranks 0-2 wait in all_reduce (train.py:57)"
    run.add_event("stall", ranks=[3], waiting=[0, 1, 2], where={"3": "data.py:12 tokenize"}, words=words)
    told = diagnose(run)
    assert (told.category, told.summary, told.first.rank) == ("hang", words, 3)
    run.add_event("stall_over")
    assert diagnose(run).category == ""
