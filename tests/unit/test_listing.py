"""`list`, `status` and how far a run has come."""

from __future__ import annotations

import json
import time

import pytest

from orchestrator.cli.output import fitted
from orchestrator.monitor.overview import overview
from orchestrator.monitor.progress import lines_from_end, newest, progress
from orchestrator.monitor.status import current_status
from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples
from tests.made_run import made_run


@pytest.fixture
def runs(here):
    """Return three runs: one goes on, one has failed, one has succeeded two days ago."""
    going = samples.run_dir(here / "runs", "lr-a", State.RUNNING)
    failed = made_run(here / "runs", failing=3, run_id="lr-b")
    done = made_run(here / "runs", run_id="wide-c", steps=20)
    for run, name, age in ((going, "lr", 60), (failed, "lr", 7200), (done, "wide", 2 * 86400)):
        write_json(
            run.record_file, run.record() | {"name": name, "created": time.time() - age, "started": 1.0}
        )
    return going, failed, done


def listed(*words: str) -> list[dict]:
    return json.loads(samples.click("list", "--json", *words).stdout)


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ([], ["wide-c", "lr-b", "lr-a"]),
        (["--state", "failed"], ["lr-b"]),
        (["--state", "active"], ["lr-a"]),
        (["--state", "ended"], ["wide-c", "lr-b"]),
        (["--state", "SUCCEEDED,failed", "-n", "1"], ["lr-b"]),
        (["--state", "succeeded", "-n", "1"], ["wide-c"]),
        (["--name", "wide"], ["wide-c"]),
        (["--name", "lr*"], ["lr-b", "lr-a"]),
        (["--name", "?-c"], []),
        (["--since", "1h"], ["lr-a"]),
        (["--since", "1d", "--state", "failed"], ["lr-b"]),
    ],
    ids=" ".join,
)
def test_list_is_filtered(runs, words, ids):
    assert [entry["run_id"] for entry in listed(*words)] == ids


@pytest.mark.parametrize("words", [["--state", "broken"], ["--since", "soon"]])
def test_a_filter_that_is_none_is_told(runs, words):
    assert "Invalid value" in samples.click("list", *words).exception.format_message()


def test_list_tells_where_each_run_has_got_to(runs):
    write_json(runs[1].diagnosis_file, {"category": "cuda-oom", "summary": "rank 3 ran out of memory"})
    by_id = {entry["run_id"]: entry for entry in listed()}
    failed = by_id["lr-b"]
    assert (failed["nodes"], failed["ranks"], failed["backend"]) == (4, 8, "local")
    assert failed["progress"]["step"] == 60
    assert failed["seconds"] == pytest.approx(failed["ended"] - 1.0)
    assert failed["diagnosis"] == {"category": "cuda-oom", "summary": "rank 3 ran out of memory"}
    assert by_id["lr-a"]["progress"] == {}
    assert by_id["lr-a"]["seconds"] > 0
    rows = {line.split()[0]: line for line in samples.click("list").stdout.splitlines()}
    assert "rank 3 ran out of memory" in rows["lr-b"]
    assert rows["lr-b"].split()[1:4] == ["FAILED", "4", "60"]


def test_a_run_of_another_version_is_listed_with_what_is_known(runs):
    runs[0].plan_file.write_text("{}")
    [entry] = listed("--state", "active")
    assert (entry["run_id"], entry["nodes"]) == ("lr-a", None)


def test_status_tells_progress_diagnosis_and_last_events(runs):
    write_json(runs[1].diagnosis_file, {"category": "cuda-oom", "summary": "rank 3 ran out of memory"})
    said = samples.click("status", "lr-b").stdout
    assert "reached    step 60, loss" in said
    assert "diagnosis  rank 3 ran out of memory" in said
    assert said.splitlines()[-1].endswith("7 other ranks were stopped because of it")
    told = json.loads(samples.click("status", "lr-b", "--json").stdout)
    assert told["diagnosis"]["category"] == "cuda-oom"
    assert told["events"][-1]["event"] == "verdict"
    known = overview(runs[1], current_status(runs[1]))
    assert {key: told[key] for key in known if key != "diagnosis"} == {
        key: value for key, value in known.items() if key != "diagnosis"
    }


# -- how far a run has come -------------------------------------------------------------------------


def step(number: int, rank: int = 0, **figures: float) -> dict:
    return {
        "time": float(number),
        "attempt": 1,
        "kind": "step",
        "host": "h",
        "rank": rank,
        "step": number,
        **figures,
    }


def test_what_one_line_does_not_tell_another_does():
    records = [step(3, tokens_per_second=9.0), step(3, loss=2.0), step(2, loss=3.0, grad_norm=1.0)]
    assert newest(records) == {
        "step": 3,
        "time": 3.0,
        "attempt": 1,
        "rank": 0,
        "loss": 2.0,
        "grad_norm": 1.0,
        "tokens_per_second": 9.0,
    }


def test_the_first_rank_counts_and_only_the_last_attempt():
    late = step(5) | {"attempt": 2}
    assert newest([late, step(9, loss=1.0)])["step"] == 5
    assert "loss" not in newest([late, step(9, loss=1.0)])
    assert newest([step(9, rank=3, loss=7.0), step(8, rank=1, loss=2.0)])["loss"] == 2.0
    assert newest([]) == {}


def test_the_end_of_a_long_file_is_enough(tmp_path):
    run = samples.run_dir(tmp_path)
    assert progress(run) == {}
    sample = json.dumps({"time": 1.0, "kind": "host", "host": "h", "cpu": 1.0, "words": "x" * 900}) + "\n"
    lines = [json.dumps(step(number, loss=1.0)) + "\n" for number in range(5)]
    run.metrics_file.write_text("".join(lines) + sample * 2000 + '{"kind": "step", "step": 99')
    assert progress(run)["step"] == 4


@pytest.mark.parametrize(
    "text", ["", "a", "a\n", "a\nb", "a\nb\n", "\n", "\n\na\n\n", "a" * 40 + "\nb\n", "a\n" + "b" * 40]
)
@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_lines_come_whole_and_backwards(tmp_path, monkeypatch, text, block):
    monkeypatch.setattr("orchestrator.monitor.progress._BLOCK", block)
    (tmp_path / "file").write_text(text)
    whole = text.encode().split(b"\n")[:-1]
    assert list(lines_from_end(tmp_path / "file")) == whole[::-1]


def test_no_more_than_the_end_is_read(tmp_path):
    (tmp_path / "file").write_text("".join(f"{number:03}\n" for number in range(100)))
    assert list(lines_from_end(tmp_path / "file", 10)) == [b"099", b"098"]
    assert list(lines_from_end(tmp_path / "gone")) == []


# -- the screen -------------------------------------------------------------------------------------


def test_a_narrow_screen_loses_columns_before_rows_wrap():
    head, rows = ["run", "hosts", "submitted", "reason"], [["a" * 20, "4", "2 min ago", "r" * 99]]
    wide, narrow, tiny = (fitted(head, rows, width, ("submitted", "hosts")) for width in (200, 70, 20))
    assert wide == (head, rows)
    assert narrow[0] == ["run", "hosts", "reason"]
    assert narrow[1][0][-1].endswith("…")
    assert sum(map(len, narrow[1][0])) + 9 <= 70
    assert tiny[0] == ["run", "reason"]
    assert len(tiny[1][0][-1]) == 8
