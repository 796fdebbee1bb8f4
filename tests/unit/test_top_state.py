"""What `top` makes of a run's files, without a screen."""

from __future__ import annotations

import json
import math

import pytest

from orchestrator.monitor.top import reading
from orchestrator.monitor.top.curve import draw_curve
from orchestrator.monitor.top.event_log import EventLog
from orchestrator.monitor.top.ranks import Ranks
from orchestrator.monitor.top.reading import Reader, sampled_steps
from orchestrator.monitor.top.series import Series
from orchestrator.monitor.top.snapshot import Mark
from orchestrator.monitor.top.words import duration, rank_set, short_number
from orchestrator.plan import PlannedHost
from orchestrator.rundir import RunDir, write_json
from orchestrator.states import State
from tests import samples
from tests.made_run import BEGAN, OOM, made_run


def append(path, *records) -> None:
    """Add lines to a file as its writer would."""
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def marks(run) -> dict[str, Mark]:
    return {host.name: host.mark for host in Reader(run).look().snapshot.hosts}


def step(number, rank=0, host="node-0", **values):
    base = {
        "time": BEGAN + 100 + number,
        "attempt": 1,
        "kind": "step",
        "host": host,
        "rank": rank,
        "step": number,
    }
    return base | values


def test_a_running_run(tmp_path):
    seen = Reader(made_run(tmp_path, over=False)).look().snapshot
    assert (seen.state, seen.attempt, seen.world_size) == (State.RUNNING, 1, 8)
    assert seen.counts() == {Mark.RUNNING: 4}
    assert (seen.step, seen.began, seen.ended) == (60, BEGAN + 1, None)
    assert seen.values["loss"] == seen.curves["loss"].last
    assert [point[0] for point in seen.curves["loss"].points] == list(range(1, 61))
    assert seen.problems == ()
    assert (seen.hosts[2].busy, seen.hosts[2].temperature) == (0.98, 64)


def test_the_host_of_the_first_failure_is_told_from_those_that_were_stopped(tmp_path):
    seen = Reader(made_run(tmp_path, failing=3)).look().snapshot
    assert seen.state is State.FAILED
    assert {host.name: host.mark for host in seen.hosts}["node-1"] is Mark.FAILED
    assert seen.counts() == {Mark.FAILED: 1, Mark.STOPPED: 3}
    assert OOM in seen.hosts[1].note
    assert next(event.text for event in seen.events if event.severity == 2).startswith("node-1 rank 3 failed")


def test_a_failure_shows_before_there_is_a_verdict(tmp_path):
    run = made_run(tmp_path, over=False)
    run.add_event("rank_exit", host="node-2", rank=4, exit_code=-9, signal=9, message="", host_time=BEGAN)
    run.add_event("ending", state="FAILED", reason="rank 4 ended")
    run.add_event("rank_exit", host="node-1", rank=2, exit_code=-15, signal=15, message="", host_time=BEGAN)
    run.add_event("host_ended", host="node-2", left=0)
    seen = marks(run)
    assert (seen["node-2"], seen["node-1"], seen["node-0"]) == (Mark.FAILED, Mark.STOPPED, Mark.RUNNING)
    assert "SIGKILL" in Reader(run).look().snapshot.hosts[2].note


def test_a_run_that_succeeded(tmp_path):
    seen = Reader(made_run(tmp_path)).look().snapshot
    assert (seen.state, seen.counts()) == (State.SUCCEEDED, {Mark.ENDED: 4})
    assert seen.ended == BEGAN + 92


def test_a_hang_names_ranks_and_places_and_goes_by(tmp_path):
    run = made_run(tmp_path, over=False)
    reader = Reader(run)
    reader.look()
    where = {"0": "train.py:9 main", "5": "data.py:57 readline"}
    run.add_event(
        "hang", ranks=[5], waiting=[0, 1, 2], hosts=["node-2"], silent=130, where=where, how="py-spy"
    )
    seen = reader.look().snapshot
    assert seen.hosts[2].mark is Mark.HANGING
    assert "rank 5 stuck at data.py:57 readline" in seen.hosts[2].note
    assert "HANG: rank 5 stuck at data.py:57 readline for 0:02:10; 3 ranks wait" in seen.events[-1].text
    run.add_event("hang_over", ranks=[5])
    assert reader.look().snapshot.counts() == {Mark.RUNNING: 4}


def test_a_straggler_is_slow_until_it_keeps_up(tmp_path):
    run = made_run(tmp_path, over=False, slow=1)
    told = {"host": "node-1", "what": "clock"}
    run.add_event("straggler", **told, value=1200, typical=1980, unit="MHz", words="GPU clock 1200 MHz")
    seen = Reader(run).look().snapshot
    assert (seen.hosts[1].mark, seen.hosts[1].note) == (Mark.SLOW, "GPU clock 1200 MHz")
    assert [one.rank for one in seen.slowest[:2]] == [2, 3]
    assert seen.slowest[0].why == "GPU clock 1200 MHz; throttled: thermal"
    run.add_event("straggler_over", **told)
    assert marks(run)["node-1"] is Mark.RUNNING


def test_faults_of_a_host(tmp_path):
    run = made_run(tmp_path, over=False)
    run.add_event("gpu_fault", host="node-3", gpu=5, what="xid", code=79, text="fallen off the bus")
    run.add_event("oom_kill", host="node-0", text="Killed process 41 (python)")
    seen = Reader(run).look().snapshot
    assert (seen.hosts[3].mark, seen.hosts[3].note) == (Mark.FAULT, "GPU 5: xid 79")
    assert "Killed process 41" in seen.hosts[0].note


@pytest.mark.parametrize("code", [13, 31, 43, 45])
def test_what_a_script_did_on_a_gpu_makes_no_fault_of_its_host(tmp_path, code):
    run = made_run(tmp_path, over=False)
    run.add_event("gpu_fault", host="node-3", gpu=5, what="xid", code=code, text=f"Xid {code}")
    seen = Reader(run).look().snapshot
    assert seen.hosts[3].mark is Mark.RUNNING
    assert f"GPU 5: xid {code}, of the script and not of the GPU" in seen.hosts[3].note
    assert seen.events[-1].severity == 1
    run.add_event("gpu_fault", host="node-3", gpu=5, what="xid", code=79, text="fallen off the bus")
    seen = Reader(run).look().snapshot
    assert (seen.hosts[3].mark, seen.events[-1].severity) == (Mark.FAULT, 2)


def test_a_rank_has_the_gpu_that_its_host_says_and_not_the_one_of_its_slot():
    ranks = Ranks([PlannedHost("n1", 0, (0, 1), 0, (0, 1))])
    for rank, gpu, clock in ((0, 3, 1200), (1, 0, 1980)):
        ranks.take({"kind": "rank", "host": "n1", "rank": rank, "gpu": gpu})
        ranks.take({"kind": "gpu", "host": "n1", "gpu": gpu, "clock": clock})
    ranks.take({"kind": "gpu", "host": "n1", "gpu": 1, "clock": 300})  # another job's
    assert [(one.rank, one.why) for one in ranks.slowest(2)] == [(0, "clock 1200 of 1590 MHz"), (1, "")]


def test_a_slow_clock_shows_before_anybody_names_it(tmp_path):
    seen = Reader(made_run(tmp_path, over=False, slow=1)).look().snapshot
    assert [one.rank for one in seen.slowest[:2]] == [2, 3]
    assert seen.slowest[0].why == "clock 1200 of 1980 MHz; throttled: thermal"


def test_slow_ranks_by_what_they_tell(tmp_path):
    run = made_run(tmp_path, over=False)
    told = [step(61, rank, f"node-{rank // 2}", step_time=2.0 if rank == 6 else 1.0) for rank in range(8)]
    append(run.metrics_file, *told, step(62, 0, step_time=1.0), step(64, 1, step_time=1.0))
    slowest = Reader(run).look().snapshot.slowest
    assert slowest[0].rank == 6
    assert slowest[0].why.startswith("step 2 s, typical 1 s")
    assert "3 steps behind" in slowest[0].why


def test_values_are_those_of_the_lowest_rank_that_tells_them(tmp_path):
    run = made_run(tmp_path, over=False)
    append(run.metrics_file, step(61, 3, loss=9.0, mfu=0.4), step(61, 0, loss=2.0), step(62, 5, loss=9.0))
    seen = Reader(run).look().snapshot
    assert (seen.values["loss"], seen.values["mfu"], seen.step) == (2.0, 0.4, 61)


def test_a_loss_that_is_no_number_is_told_and_not_drawn(tmp_path):
    run = made_run(tmp_path, over=False)
    append(run.metrics_file, step(61, loss="NaN"))
    seen = Reader(run).look().snapshot
    assert math.isnan(seen.values["loss"])
    assert len(seen.curves["loss"].points) == 60


def test_another_attempt_has_its_own_hosts_and_goes_back_in_steps(tmp_path):
    run = made_run(tmp_path, over=False)
    reader = Reader(run)
    reader.look()
    there = run.attempt(2)
    there.path.mkdir()
    there.plan_file.write_text(samples.plan(samples.pool("node-9 slots=2\n")).to_json())
    run.add_event("attempt", attempt=2)
    append(run.metrics_file, step(41, loss=1.0, host="node-9") | {"attempt": 2})
    seen = reader.look().snapshot
    assert (seen.attempt, [host.name for host in seen.hosts]) == (2, ["node-9"])
    assert seen.curves["loss"].points[-1] == (41, 1.0)
    assert seen.hosts[0].mark is Mark.WAITING


def test_what_is_not_there_yet_is_no_problem(tmp_path):
    run = samples.run_dir(tmp_path, state=State.PENDING)
    seen = Reader(run).look().snapshot
    assert (seen.state, seen.problems, seen.curves) == (State.PENDING, (), {})
    assert seen.counts() == {Mark.WAITING: 2}
    assert Reader(RunDir(tmp_path / "none")).look().snapshot.hosts == ()


def test_files_that_cannot_be_read_are_named(tmp_path):
    run = made_run(tmp_path, over=False)
    run.metrics_file.unlink()
    run.metrics_file.mkdir()
    run.plan_file.write_text("{}")
    seen = Reader(run).look("node-0").snapshot
    assert any("metrics.jsonl: Is a directory" in problem for problem in seen.problems)
    assert any(problem.startswith("plan.json: not a launch plan") for problem in seen.problems)


def test_odd_lines_break_nothing(tmp_path):
    run = made_run(tmp_path, over=False)
    with run.events_file.open("ab") as file:
        file.write(
            b'\xff\xfe\n[1]\n{"event": 5}\n{"time": null, "event": "hang"}\n{"event": "straggler"}\n{"time"'
        )
    append(
        run.metrics_file,
        {"kind": "gpu"},
        {"kind": "step", "rank": "x", "step": "y", "loss": True},
        {"kind": 3},
    )
    run.add_event("host_failed", host="node-0", why="its power")
    seen = Reader(run).look().snapshot
    assert (seen.problems, seen.step) == ((), 60)


def test_each_byte_is_read_once(tmp_path):
    run = made_run(tmp_path, over=False)
    reader = Reader(run)
    first = reader.look().snapshot
    again = reader.look().snapshot
    assert again.curves == first.curves
    assert again.hosts[0] is first.hosts[0]
    append(run.metrics_file, step(61, loss=2.0))
    assert reader.look().snapshot.step == 61


def test_of_a_long_file_the_beginning_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_WHOLE", 4096)
    monkeypatch.setattr(reading, "_PIECE", 2048)
    run = made_run(tmp_path, over=False, steps=400)
    seen = Reader(run).look().snapshot
    steps = [number for number, _ in seen.curves["loss"].points]
    assert steps[-1] == 400
    assert steps[0] < 20
    assert len(steps) < 400
    assert all(record["kind"] == "step" for record in sampled_steps(run.metrics_file, 30_000))


def test_the_log_of_a_host_is_in_the_order_of_time(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_LOG_SECONDS", 0.0)
    run = made_run(tmp_path, over=False, failing=1)
    reader = Reader(run)
    lines = reader.look("node-0").log
    assert [line.time for line in lines] == sorted(line.time for line in lines)
    assert lines[-1].time == BEGAN + 90
    assert (lines[-1].source, lines[-1].text[:22]) == ("1.err", "torch.OutOfMemoryError")
    with (run.attempt(1).logs / "node-0.log").open("ab") as file:
        file.write(b"\x1b[31mred\x1b[0m caf\xe9\ttab\r\n\x07half")
    lines = reader.look("node-0").log
    assert (lines[-1].source, lines[-1].text) == ("log", "red caf�        tab")
    assert {line.source for line in reader.look("node-1").log} == {"log", "2.out", "3.out"}
    assert reader.look("no-such-host").log == ()


def test_a_long_log_is_read_from_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_LOG_SECONDS", 0.0)
    run = made_run(tmp_path, over=False)
    log = run.attempt(1).logs / "node-0.log"
    log.write_bytes(b"first\n" + b"x" * 3_000_000 + b"\nlast\n")
    reader = Reader(run)
    assert "last" in [line.text for line in reader.look("node-0").log if line.source == "log"]
    with log.open("ab") as file:
        file.write(b"y" * 3_000_000 + b"\nnow\n")
    texts = [line.text for line in reader.look("node-0").log if line.source == "log"]
    assert texts[-1] == "now"
    assert max(map(len, texts)) <= 4096


def test_what_all_hosts_tell_alike_is_one_line():
    log = EventLog()
    log.add({"time": 1, "event": "attempt", "attempt": 1})
    for host in range(1000):
        log.add({"time": 2, "event": "host_ready", "host": f"n{host}"})
        log.add({"time": 3, "event": "rank_start", "host": f"n{host}", "rank": host})
    texts = [line.text for line in log.lines()]
    assert texts == ["attempt 1 begins", "1000 hosts: ready", "1000 hosts ranks 0-999: started"]
    log.add({"time": 4, "event": "attempt", "attempt": 2})
    log.add({"time": 5, "event": "host_ready", "host": "n1"})
    assert log.lines()[-1].text == "n1: ready"


def test_failures_without_end_do_not_fill_the_stream():
    log = EventLog()
    for rank in range(8000):
        log.add({"time": 2, "event": "rank_exit", "host": "n", "rank": rank, "exit_code": 1, "signal": None})
    assert len(log.lines()) == 21
    assert log.lines()[-1].text == "n ranks 20-7999: ended, exit code 1"


def test_an_event_of_a_later_version_is_shown_as_it_is():
    log = EventLog()
    log.add({"time": 1, "event": "gpu_moved", "host": "n1", "to": 3})
    assert log.lines()[0].text == "gpu moved host n1 to 3"


def test_a_series_stays_small_and_keeps_its_shape():
    series = Series()
    for number in range(100_000):
        series.add(number, float(number))
    points = series.points()
    assert len(points) <= 2048
    assert all(abs(value - number) < 100 for number, value in points)
    series.add(500, 7.0)
    assert max(number for number, _ in series.points()) <= 500


@pytest.mark.parametrize("width", [1, 9, 20, 73])
@pytest.mark.parametrize("height", [1, 2, 5])
def test_a_curve_fills_its_place_exactly(width, height):
    for points in ([(1.0, 2.0)], [(float(x), -1e9 * x) for x in range(500)]):
        lines = draw_curve(points, width, height)
        assert [len(line) for line in lines] == [width] * height


def test_a_falling_curve_falls():
    lines = draw_curve([(1, 10.0), (2, 0.0)], 20, 5)
    inner = [line[7:] for line in lines[:-1]]
    assert inner[0][0] != "\u2800"
    assert inner[-1][-1] != "\u2800"
    assert inner[0][-1] == inner[-1][0] == "\u2800"
    assert lines[0].strip().startswith("10")
    assert lines[-1].split() == ["step", "1", "2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.305, "2.31"), (12_345, "12.3k"), (3e-4, "3e-4"), (1.5e-5, "1.5e-5"), (0, "0"), (999_999, "1M"),
     (math.nan, "NaN"), (-math.inf, "-inf"), (1e15, "1e+03T")],
)  # fmt: skip
def test_short_numbers(value, text):
    assert short_number(value) == text


def test_sets_of_ranks_and_durations():
    assert rank_set([3, 1, 2, 8, 2]) == "1-3,8"
    assert rank_set(list(range(0, 40, 2))) == "0,2,4,6,8,10,…"
    assert duration(3_000) == "0:50:00"
    assert duration(200_000) == "2d 07:33:20"


def test_the_diagnosis_is_read_when_it_comes(tmp_path):
    run = made_run(tmp_path, failing=1)
    reader = Reader(run)
    assert reader.look().snapshot.diagnosis is None
    write_json(run.diagnosis_file, {"summary": "rank 1 failed", "category": "cuda_oom"})
    assert (reader.look().snapshot.diagnosis or {})["category"] == "cuda_oom"


def test_hosts_of_a_run_that_is_lost_are_unknown(tmp_path):
    run = made_run(tmp_path, over=False)
    write_json(run.record_file, {"supervisor": samples.supervisor_record(2**22)})
    seen = Reader(run).look().snapshot
    assert (seen.state, seen.counts()) == (State.LOST, {Mark.UNKNOWN: 4})


def test_a_run_that_is_taken_over_has_hosts_again(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_STATUS_SECONDS", 0.0)
    run = made_run(tmp_path, over=False)
    own = run.record()
    write_json(run.record_file, {"supervisor": samples.supervisor_record(2**22)})
    reader = Reader(run)
    assert reader.look().snapshot.counts() == {Mark.UNKNOWN: 4}
    write_json(run.record_file, own)
    assert reader.look().snapshot.counts() == {Mark.RUNNING: 4}


def test_a_verdict_without_hosts_ends_them_all_the_same(tmp_path):
    run = made_run(tmp_path, over=False)
    run.write_verdict({"state": "TIMEOUT", "summary": "its time was over", "ended": BEGAN + 99, "hosts": []})
    seen = Reader(run).look().snapshot
    assert (seen.state, seen.counts(), seen.ended) == (State.TIMEOUT, {Mark.STOPPED: 4}, BEGAN + 99)


def test_the_host_that_a_diagnosis_names_is_shown_as_failed(tmp_path):
    run = made_run(tmp_path, over=False)
    run.write_verdict({"state": "FAILED", "summary": "rank 5 hangs", "ended": BEGAN + 99, "hosts": []})
    told = {"category": "hang", "title": "ranks hang", "host": "node-2", "rank": 5, "undetermined": False}
    write_json(run.diagnosis_file, told)
    seen = Reader(run).look().snapshot
    assert (seen.hosts[2].mark, seen.hosts[2].note) == (Mark.FAILED, "rank 5: ranks hang")
    assert seen.counts() == {Mark.FAILED: 1, Mark.STOPPED: 3}
    write_json(run.diagnosis_file, told | {"undetermined": True})
    assert Reader(run).look().snapshot.counts() == {Mark.STOPPED: 4}


def test_times_of_a_log_are_those_of_our_clock(tmp_path):
    run = made_run(tmp_path, over=False)
    write_json(run.attempt(1).clocks_file, {"node-0": {"offset": 100.0, "uncertainty": 0.1}})
    reader = Reader(run)
    assert reader.look("node-0").log[-1].time == BEGAN - 10
    assert reader.look("node-1").log[-1].time == BEGAN + 90
