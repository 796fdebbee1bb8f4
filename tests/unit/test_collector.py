"""The collector on files that grow, break and come back, and after it has been killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.collector.collect import Collector
from orchestrator.collector.files import CHUNK, Folder, on_network
from orchestrator.collector.intake import Intake, running
from orchestrator.collector.samples import parse_sample, records_of
from orchestrator.collector.tags import Tags
from orchestrator.collector.write import Metrics
from orchestrator.job.monitor_spec import HangSpec, MonitorSpec
from orchestrator.monitor.records import Records
from orchestrator.plan import LaunchPlan, MonitorPlan
from orchestrator.rundir import read_json, write_json
from orchestrator.states import State
from tests import samples
from tests.unit.test_checkpoints import NOW as SAVED_AT
from tests.unit.test_checkpoints import save

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir

HOST, NOW = "worker-0", 1_800_000_000.0
SAMPLE = {
    "time": NOW + 5,
    "host": {"cpu": 1.5, "cores": 8, "sent": 10},
    "ranks": {"0": {"cpu": 1.0, "memory": 5}, "1": {"cpu": 0.0}},
    "gpus": {"0": {"utilization": 0.5}},
    "faults": [
        {"what": "xid", "gpu": 0, "code": 79, "text": "fell off"},
        {"what": "oom_kill", "text": "Out of"},
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """Return a run on one host of two ranks whose attempt has begun."""
    made = samples.run_dir(tmp_path, "job-abcd", State.RUNNING, hosts=samples.pool(f"{HOST} slots=2\n"))
    made.add_event("attempt", attempt=1)
    return made


def _log(run: RunDir, name: str) -> Path:
    [host] = run.plan().hosts
    return run.attempt(1).logs / f"{host.file_name}.{name}"


def _add(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _intake(run: RunDir, saved: dict[str, Any] | None = None) -> Intake:
    return Intake(run, run.attempt(1), run.plan(), saved or {})


def _folder(path: Path, stays: dict[str, tuple[int, bool]] | None = None) -> Folder:
    folder = Folder(path, {"a": "a"}, stays or {})
    folder.scan()
    return folder


# -- files


def test_any_bytes_in_any_pieces_come_once_and_in_whole_lines(tmp_path):
    numbers = random.Random(7)
    data = b"".join(
        bytes(numbers.choices(b"ab\x1b\xff\x00", k=numbers.randrange(60)))
        + numbers.choice([b"\n", b"\r", b"\r\n"])
        for _ in range(3000)
    )
    path, got = tmp_path / "a.rank0.out", b""
    path.touch()
    file = _folder(tmp_path).files["a.rank0.out"]
    place = 0
    while place < len(data):
        size = numbers.choice([1, 10, 1000, 70_000])
        _add(path, data[place : place + size])
        place += size
        while new := file.new(1.0):
            assert new[-1:] in {b"\n", b"\r"}
            got += new
    assert got + file.last() == data


def test_a_line_of_ten_megabytes_is_passed_over_and_costs_no_memory(tmp_path):
    path = tmp_path / "a.rank0.err"
    path.write_bytes(b"before\n" + b"x" * 10_000_000 + b"\nafter\n")
    file = _folder(tmp_path).files["a.rank0.err"]
    pieces = iter(lambda: file.new(1.0), b"")
    assert b"".join(pieces) == b"before\nafter\n"
    assert file.offset == path.stat().st_size


def test_a_long_line_is_still_passed_over_after_a_restart(tmp_path):
    path = tmp_path / "a.rank0.err"
    path.write_bytes(b"x" * (2 * CHUNK))
    folder = _folder(tmp_path)
    assert folder.files["a.rank0.err"].new(1.0) == b""
    again = _folder(tmp_path, folder.stays()).files["a.rank0.err"]
    _add(path, b"step 1 loss 9\nstep 2 loss 1\n")
    assert again.new(1.0) == b"step 2 loss 1\n"


def test_a_file_that_was_emptied_is_read_from_its_new_start(tmp_path):
    path = tmp_path / "a.rank0.out"
    path.write_bytes(b"one\ntwo\n")
    file = _folder(tmp_path).files["a.rank0.out"]
    assert file.new(1.0) == b"one\ntwo\n"
    path.write_bytes(b"new\n")
    file.look_whether_cut()
    assert file.new(2.0) == b"new\n"


def test_only_files_of_the_attempts_hosts_are_taken_up_whenever_they_come(tmp_path):
    for name in ("a.log", "a.samples", "a.times", "b.samples", "a.rankx.out", "a.rank3.err", "notes.txt"):
        (tmp_path / name).touch()
    folder = _folder(tmp_path)
    assert sorted(folder.files) == ["a.rank3.err", "a.samples"]
    (tmp_path / "a.rank12.out").touch()
    folder.scan()
    assert folder.files["a.rank12.out"].rank == 12
    assert not on_network(Path("/proc"))


# -- intake


def test_steps_and_samples_become_records_on_our_clock(run):
    write_json(run.attempt(1).clocks_file, {run.plan().hosts[0].name: {"offset": 2.0, "uncertainty": 0.1}})
    line = b"step 1/9 loss 2.5\n"
    _add(_log(run, "rank0.out"), line)
    _add(_log(run, "times"), f"{NOW:.3f} 0.out {len(line)}\n".encode())
    _add(_log(run, "samples"), json.dumps(SAMPLE).encode() + b"\nhalf a li")
    intake = _intake(run)
    records = intake.sweep(NOW)
    assert records[0] == {
        "time": NOW - 2, "attempt": 1, "kind": "step", "host": run.plan().hosts[0].name, "rank": 0, "step": 1,
        "loss": 2.5,
    }  # fmt: skip
    assert [(r["kind"], r["time"]) for r in records[1:]] == [
        (k, NOW + 3) for k in ("host", "rank", "rank", "gpu")
    ]
    told = [(event["event"], event["time"]) for event in intake.events]
    assert told == [("first_step", NOW - 2), ("gpu_fault", NOW + 3), ("oom_kill", NOW + 3)]


def test_the_last_line_counts_at_the_end_even_without_its_end(run):
    _add(_log(run, "rank0.out"), b"step 1 loss 2.5\nstep 2 loss 2.4")
    intake = _intake(run)
    assert [record["step"] for record in intake.sweep(NOW)] == [1]
    assert [record["step"] for record in intake.rest(NOW)] == [2]
    assert intake.rest(NOW) == []


def test_at_the_end_all_is_taken_in_though_much_of_it_tells_nothing(run):
    _add(_log(run, "rank0.out"), b"nothing of a step\n" * 200_000 + b"the end\nstep 7 loss 2.5\n")
    metrics = Metrics(run)
    Collector(run, 1, metrics, {}).take_in()
    metrics.close()
    assert [record["step"] for record in Records(run.metrics_file).new()] == [7]


def test_at_the_end_a_log_that_has_just_come_is_taken_in(run):
    metrics = Metrics(run)
    run.attempt(1).logs.mkdir(parents=True, exist_ok=True)
    collector = Collector(run, 1, metrics, {})
    collector._once()
    _add(_log(run, "rank0.out"), b"step 7 loss 2.5\n")
    collector.take_in()
    metrics.close()
    assert [record["step"] for record in Records(run.metrics_file).new()] == [7]


def test_a_rank_is_active_when_it_writes_uses_cpu_or_starts(run):
    host = run.plan().hosts[0].name
    for rank in (0, 1):
        run.add_event("rank_start", host=host, rank=rank)
    _add(_log(run, "rank1.err"), b"no line yet")
    intake = _intake(run)
    intake.sweep(NOW)
    _add(_log(run, "samples"), json.dumps(SAMPLE).encode() + b"\n")
    intake.sweep(NOW + 10)
    assert [(r.rank, r.active) for r in running(intake.facts, 10, NOW + 10)] == [(0, NOW + 10), (1, NOW)]
    assert [r.known for r in running(intake.facts, 10, NOW + 50)] == [False, False]
    run.add_event("rank_exit", host=host, rank=0)
    intake.sweep(NOW + 60)
    assert [r.rank for r in running(intake.facts, 10, NOW + 60)] == [1]


def test_what_a_rank_says_when_it_is_asked_for_its_records_is_no_sign_of_life(run):
    """Torch 2.11's words, from a run on four GPUs: the silence would be over whenever somebody looks."""
    of = b"[rank0]:[E1121 20:29:21.626689916 ProcessGroupNCCL.cpp:1628] [PG ID 0 PG GUID 0 Rank 0] "
    said = [
        of + b"Dump signal received through pipe, triggering FR dump.",
        of + b"ProcessGroupNCCL preparing to dump debug info. Include stack trace: 1",
        of + b"ProcessGroupNCCL dumping nccl trace to /runs/a/attempt-1/dumps/a.rank0.fr.0",
        b"[rank0]:[I1121 20:58:52 FlightRecorder.cpp:13] Writing Flight Recorder debug info to a static file",
        b"[rank0]:[I1121 20:58:52 FlightRecorder.cpp:40] Finished writing Flight Recorder debug info to /r",
        of + b"Flight Recorder trace successfully dumped.",
    ]
    intake = _intake(run)
    _add(_log(run, "rank0.err"), b"\n" + b"\n".join(said) + b"\n")
    intake.sweep(100.0)
    assert (intake.facts.ranks[0].active, intake.facts.heard) == (0.0, 0.0)
    _add(_log(run, "rank0.err"), said[0] + b"\nmore\n")
    intake.sweep(101.0)
    assert (intake.facts.ranks[0].active, intake.facts.heard) == (101.0, 101.0)


def test_a_rank_that_is_looked_at_is_active_again_after_some_measurements(run):
    """Its stacks are taken and its records are written: that uses CPU and moves data."""
    intake = _intake(run)
    intake.facts.suspected = True
    for second in range(4):
        sample = {"time": 100.0 + second, "ranks": {"0": {"cpu": 0.9}}, "host": {}}
        _add(_log(run, "samples"), json.dumps(sample).encode() + b"\n")
        intake.sweep(100.0 + second)
        assert intake.facts.ranks[0].active == (0.0 if second < 2 else 100.0 + second)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[1]", b'{"time": 1, "ranks": [1]}', b'{"time": 1, "ranks": {"x": {}}}']
)
def test_a_broken_sample_is_left_out(line):
    sample = parse_sample(line, 0.0)
    assert sample is None or records_of(sample, "a", 1) == []


# -- metrics.jsonl


def test_numbers_that_json_has_not_are_told_as_words(run):
    metrics = Metrics(run)
    metrics.add([{"loss": float("nan"), "a": float("inf"), "b": float("-inf"), "c": 1.5}])
    metrics.close()
    line = run.metrics_file.read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "loss": "NaN",
        "a": "Infinity",
        "b": "-Infinity",
        "c": 1.5,
    }


def test_what_was_written_after_the_last_save_is_written_again(run):
    metrics = Metrics(run)
    metrics.add([{"n": 1}])
    metrics.save({"attempt": 1, "files": {"x": [5, False]}})
    metrics.add([{"n": 2}])
    metrics.close()  # as if it had been killed
    again = Metrics(run)
    assert again.saved["files"] == {"x": [5, False]}
    again.add([{"n": 2}, {"n": 3}])
    again.close()
    assert [record["n"] for record in Records(run.metrics_file).new()] == [1, 2, 3]


def test_without_locks_the_first_writer_stops_when_another_has_begun(run, monkeypatch):
    def refuses(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("fcntl.flock", refuses)
    first = Metrics(run)
    first.save({"attempt": 1})
    first.add([{"n": 1}])
    first.save({"attempt": 1})
    second = Metrics(run)
    second.save({"attempt": 1})
    first.add([{"n": "lost"}])
    first.save({"attempt": "lost"})
    second.add([{"n": 2}])
    assert [record["n"] for record in Records(run.metrics_file).new()] == [1, 2]
    assert read_json(run.metrics_state_file)["attempt"] == 1
    first.close()
    second.close()


def test_a_full_disk_leaves_no_half_line(run):
    metrics = Metrics(run)
    metrics.add([{"n": 1}])
    os.close(metrics._handle)
    metrics._handle = os.open("/dev/full", os.O_WRONLY)
    metrics.add([{"n": 2}])
    os.close(metrics._handle)
    assert run.metrics_file.read_text() == '{"n": 1}\n'


# -- the process


def _collector(run: RunDir) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "orchestrator.collector", str(run.path), "1"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _until(done: Any) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_is_lost_or_twice_when_it_is_killed_again_and_again(run):
    for name in ("rank0.out", "rank1.out"):
        _log(run, name).touch()
    steps = 0
    for _ in range(4):
        process = _collector(run)
        before = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
        for _ in range(5):
            steps += 1
            _add(_log(run, "rank0.out"), f"step {steps} loss 1.5\n".encode())
            _add(_log(run, "rank1.out"), f"\rstep {steps} loss 1.5".encode())
        _until(lambda at=before: run.metrics_file.exists() and run.metrics_file.stat().st_size > at)
        process.kill()
        process.communicate()
    last = _collector(run)
    out, _ = last.communicate(b"end\n")
    assert last.returncode == 0
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "taken_in"
    told = [(record["rank"], record["step"]) for record in Records(run.metrics_file).new()]
    assert sorted(told) == [(rank, step) for rank in (0, 1) for step in range(1, steps + 1)]


def test_a_line_is_not_torn_when_only_the_supervisor_is_gone(run):
    _add(_log(run, "rank0.out"), b"step 1 loss 1.5\nstep 2 loss 1.")
    _collector(run).communicate()  # its standard input ends without a word
    _add(_log(run, "rank0.out"), b"25\n")
    _collector(run).communicate(b"end\n")
    assert [(r["step"], r["loss"]) for r in Records(run.metrics_file).new()] == [(1, 1.5), (2, 1.25)]


def test_the_next_attempt_takes_in_what_the_one_before_left(run):
    _add(_log(run, "rank0.out"), b"step 1 loss 1.5\n")
    _collector(run).communicate(b"end\n")
    _add(_log(run, "rank0.out"), b"step 2 loss 1.4\n")
    second = run.attempt(2)
    second.logs.mkdir(parents=True)
    (second.logs / _log(run, "rank0.out").name).write_bytes(b"step 3 loss 1.3\n")
    command = [sys.executable, "-m", "orchestrator.collector", str(run.path), "2"]
    subprocess.run(command, input=b"end\n", stdout=subprocess.DEVNULL, check=True)
    told = [(record["attempt"], record["step"]) for record in Records(run.metrics_file).new()]
    assert told == [(1, 1), (1, 2), (2, 3)]


def _collect(run: RunDir, number: int) -> list[tuple[int, int]]:
    """Take an attempt in to its end; return attempt and step of every record there is then."""
    command = [sys.executable, "-m", "orchestrator.collector", str(run.path), str(number)]
    subprocess.run(command, input=b"end\n", stdout=subprocess.DEVNULL, check=True)
    return [(record["attempt"], record["step"]) for record in Records(run.metrics_file).new()]


@pytest.mark.parametrize("harm", ["no state", "half a state", "metrics cut", "metrics gone"])
def test_what_does_not_fit_together_any_more_is_taken_in_anew(run, harm):
    for number in (1, 2):
        logs = run.attempt(number).logs
        logs.mkdir(parents=True, exist_ok=True)
        (logs / _log(run, "rank0.out").name).write_bytes(b"step %d loss 1.5\nstep 9 loss 1\n" % number)
        _collect(run, number)
    if harm == "metrics gone":
        run.metrics_file.unlink()
    elif harm == "metrics cut":
        os.truncate(run.metrics_file, run.metrics_file.stat().st_size - 3)
    else:
        run.metrics_state_file.write_text("" if harm == "no state" else '{"size": 5, "files"')
    third = run.attempt(3).logs
    third.mkdir(parents=True)
    (third / _log(run, "rank0.out").name).write_bytes(b"step 3 loss 1.5\n")
    assert _collect(run, 3) == [(1, 1), (1, 9), (2, 2), (2, 9), (3, 3)]


def test_a_second_collector_waits_for_the_first_to_be_gone(run):
    first = _collector(run)
    _until((run.path / ".metrics.json").exists)
    second = _collector(run)
    _add(_log(run, "rank0.out"), b"step 1 loss 1.5\n")
    first.communicate(b"end\n")
    second.communicate(b"end\n")
    assert [record["step"] for record in Records(run.metrics_file).new()] == [1]


# -- checkpoints


def test_checkpoints_that_become_complete_are_told_once(tmp_path):
    save(tmp_path, "global_step10", ranks=2, at=SAVED_AT)
    tags = Tags(tmp_path, None)
    assert tags.told is None
    assert tags._look()
    save(tmp_path, "global_step20", ranks=2, at=SAVED_AT + 100)
    assert tags._look()
    assert tags._look()
    assert tags.told == ["global_step10", "global_step20"]
    event = tags.found.get_nowait()
    assert (event["event"], event["tag"], event["step"]) == ("checkpoint", "global_step20", 20)
    assert event["began"] <= event["ended"]
    assert tags.found.empty()
    again = Tags(tmp_path, tags.told)
    assert again._look()
    assert again.found.empty()


# -- the job file


@pytest.mark.parametrize(
    ("value", "seconds"), [("auto", "auto"), (2, 2.0), ("2m", 120.0), ("never", "never")]
)
def test_hang_after_takes_durations_and_words(value, seconds):
    assert HangSpec.model_validate({"after": value}).after == seconds


@pytest.mark.parametrize(
    ("section", "values"),
    [(HangSpec, {"after": "sometimes"}), (HangSpec, {"after": 0}), (HangSpec, {"stop_after": "auto"}),
     (MonitorSpec, {"sample_interval": 0.1}), (MonitorSpec, {"sample_interval": "never"})],
)  # fmt: skip
def test_what_the_monitor_section_refuses(section, values):
    with pytest.raises(ValueError, match="expected"):
        section.model_validate(values)


def test_the_plan_keeps_the_section_and_reads_a_plan_without_one():
    monitor = MonitorPlan(5.0, "never", 60.0, ("/x/own.yaml",))
    plan = samples.plan(monitor=monitor)
    assert LaunchPlan.from_json(plan.to_json()).monitor == monitor
    old = json.loads(plan.to_json())
    del old["monitor"]
    assert LaunchPlan.from_json(json.dumps(old)).monitor == MonitorPlan()


@pytest.mark.parametrize(("hosts", "seconds"), [(1, 10), (100, 10), (1000, 100)])
def test_large_runs_are_measured_less_often(hosts, seconds):
    assert MonitorPlan().interval(hosts) == seconds
    assert MonitorPlan(sample_interval=2.0).interval(hosts) == 2
