from __future__ import annotations

import json
import os
import threading
import time

import pytest

from orchestrator.rundir import RunDir, read_json, write_json, write_text
from orchestrator.states import State
from tests import samples


def test_attempts_are_in_the_order_of_their_numbers(tmp_path):
    run = RunDir(tmp_path)
    for name in ("attempt-10", "attempt-2", "attempt-1", "attempt-x", "attempt-"):
        (tmp_path / name).mkdir()
    (tmp_path / "attempt-3").touch()
    assert [attempt.number for attempt in run.attempts()] == [1, 2, 10]


def test_the_plan_is_read_back(tmp_path):
    run = samples.run_dir(tmp_path)
    assert run.plan() == samples.plan(run_dir=str(run.path))
    run.plan_file.write_text("{}")
    with pytest.raises(ValueError, match="not a launch plan"):
        run.plan()
    run.plan_file.unlink()
    with pytest.raises(FileNotFoundError):
        run.plan()


def test_the_status_is_the_files_word_and_then_the_verdicts(tmp_path):
    run = samples.run_dir(tmp_path, state=State.RUNNING)
    assert run.status()["state"] is State.RUNNING
    run.write_verdict({"state": "FAILED", "summary": "why", "ended": 5.0})
    assert run.status() == {"state": State.FAILED, "since": 5.0, "reason": "why"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"state": "DANCING"}', '{"state": null}'])
def test_a_status_that_cannot_be_read_is_no_exception(tmp_path, text):
    run = RunDir(tmp_path)
    run.status_file.write_text(text)
    assert run.status()["state"] in (State.CREATED, State.UNKNOWN)
    run.verdict_file.write_text('{"state": "NEW WORD"}')
    assert run.status()["state"] is State.UNKNOWN


def test_a_directory_with_nothing_in_it_is_a_run_that_was_created(tmp_path):
    assert RunDir(tmp_path).status()["state"] is State.CREATED
    assert RunDir(tmp_path).record() == {}
    assert RunDir(tmp_path / "gone").attempts() == []


def test_the_mode_of_a_secret_holds_from_the_start_and_over_a_looser_umask(tmp_path):
    before = os.umask(0)
    try:
        write_text(tmp_path / "secrets.env", "x", 0o600)
        write_text(tmp_path / "node.sh", "x", 0o755)
    finally:
        os.umask(before)
    assert (tmp_path / "secrets.env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "node.sh").stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.sh", "secrets.env"]


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path, stop, seen = tmp_path / "status.json", threading.Event(), []
    write_json(path, {"n": 0, "pad": "x" * 50_000})

    def read() -> None:
        while not stop.is_set():
            seen.append(json.loads(path.read_text()))

    reader = threading.Thread(target=read)
    reader.start()
    while not seen:
        time.sleep(0.001)
    for number in range(100):
        write_json(path, {"n": number, "pad": "x" * 50_000})
    stop.set()
    reader.join()
    assert all(len(value["pad"]) == 50_000 for value in seen)


def test_odd_text_survives_and_what_is_no_object_reads_as_none(tmp_path):
    write_json(tmp_path / "a.json", {"reason": samples.ODD})
    assert read_json(tmp_path / "a.json") == {"reason": samples.ODD}
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    assert read_json(tmp_path / "b.json") is read_json(tmp_path / "gone.json") is None


def test_the_verdict_has_its_place_on_the_disk(tmp_path):
    run = RunDir(tmp_path)
    run.reserve(1 << 20)
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_blocks * 512 >= 1 << 20
    run.write_verdict({"state": "FAILED"})
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]


def test_events_are_one_object_a_line(tmp_path):
    run = RunDir(tmp_path)
    run.add_event("one", text="two\nlines ü")
    run.add_event("two")
    lines = [json.loads(line) for line in run.events_file.read_text().splitlines()]
    assert [(line["event"], line.get("text")) for line in lines] == [("one", "two\nlines ü"), ("two", None)]


def test_words_that_cannot_be_written_do_not_end_the_run(tmp_path):
    run = RunDir(tmp_path / "gone")
    run.write_status(State.RUNNING)
    run.add_event("x")
    run.reserve(10)
    assert not run.path.exists()
