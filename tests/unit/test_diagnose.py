from __future__ import annotations

import dataclasses
import json
import threading
import time

import pytest

from orchestrator.diagnose import Diagnosis, diagnose, read_diagnosis
from orchestrator.diagnose.facts import facts_of
from orchestrator.diagnose.gather import gather, gpu_of
from orchestrator.diagnose.patterns import load
from orchestrator.diagnose.show import end_of_run, screen
from orchestrator.errors import JobFileError
from orchestrator.monitor.follow import follow_run
from orchestrator.plan import PlannedHost
from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples
from tests.made_run import made_run

SENTENCE = "rank 3 on node-1 (GPU 3) failed first at {at}, step 60: CUDA out of memory"


@pytest.fixture
def failed(tmp_path):
    """A run of four hosts with two ranks each, whose rank 3 ran out of GPU memory."""
    return made_run(tmp_path, failing=3)


def test_the_sentence_says_who_when_what_and_what_of_the_others(failed):
    told = diagnose(failed)
    at = time.strftime("%H:%M:%S", time.localtime(told.first.time))
    assert told.summary.startswith(SENTENCE.format(at=at))
    assert told.summary.endswith("; 7 ranks were stopped because of it")
    assert (told.category, told.step, told.stopped, told.undetermined) == ("cuda_oom", 60, 7, False)


def test_each_line_of_evidence_says_where_it_stands_and_when_it_came(failed):
    first, frame = diagnose(failed).evidence
    log = failed.path / first.file
    assert log.read_text().splitlines()[first.line - 1] == first.text
    assert (first.place, frame.place) == (f"{first.file}:3", f"{first.file}:2")
    assert first.time == diagnose(failed).first.time
    assert frame.text == 'File "train.py", line 10, in main'


def test_a_diagnosis_is_read_back_as_it_was_written(failed):
    told = diagnose(failed)
    write_json(failed.diagnosis_file, told.to_json())
    assert read_diagnosis(failed) == told
    top = json.loads(failed.diagnosis_file.read_text())
    assert (top["host"], top["rank"], top["gpu"], top["state"]) == ("node-1", 3, 3, "FAILED")
    failed.diagnosis_file.write_text('{"of": "another version"}')
    assert read_diagnosis(failed) == told


def test_a_run_that_went_well_or_goes_on_has_nothing_to_diagnose(tmp_path):
    well, going = made_run(tmp_path, run_id="well"), made_run(tmp_path, run_id="going", over=False)
    assert (diagnose(well).category, diagnose(well).evidence, diagnose(well).advice) == ("", (), ())
    assert diagnose(well).summary == "all 8 ranks on 4 hosts ended with 0"
    assert diagnose(going).category == ""
    assert read_diagnosis(going) is None


def test_of_a_run_that_waits_what_slurm_says_now_is_told(tmp_path, monkeypatch):
    run = samples.run_dir(tmp_path)
    run.write_status(State.PENDING, "handed to Slurm")
    now = {"state": State.PENDING, "since": 1.0, "reason": "waiting for nodes to become free"}
    monkeypatch.setattr("orchestrator.monitor.status.current_status", lambda _: now)
    assert diagnose(run).summary == "PENDING: waiting for nodes to become free"


def test_a_run_that_went_well_with_a_loss_that_is_no_number_is_told(tmp_path):
    run = made_run(tmp_path)
    record = {"time": 1_790_000_999.0, "attempt": 1, "kind": "step", "host": "node-0", "rank": 0, "step": 61}
    with run.metrics_file.open("a") as file:
        file.write(json.dumps({**record, "loss": "NaN"}) + "\n")
    told = diagnose(run)
    assert told.category == "nan_loss"
    assert told.summary.endswith("but its loss was no number any more at step 61")


def add_event(run, **event):
    with run.events_file.open("a") as file:
        file.write(json.dumps({"time": 1_790_000_100.0, **event}) + "\n")


HANG = {
    "event": "hang", "ranks": [5], "waiting": [0, 1, 2, 3, 4, 6, 7], "hosts": ["node-2"], "silent": 130.0,
    "since": 1_790_000_095.0, "where": {"5": "data.py:57 readline"}, "dumps": ["node-2.rank5.txt"],
}  # fmt: skip


def test_a_hang_names_who_is_stuck_and_where(tmp_path):
    run = made_run(tmp_path, over=False)
    add_event(run, **HANG)
    told = diagnose(run)
    assert (told.category, told.first.rank, told.first.host, told.first.gpu) == ("hang", 5, "node-2", 5)
    assert "rank 5 on node-2 (GPU 5) hangs" in told.summary
    assert ", in data.py:57 readline, while 7 other ranks wait for it" in told.summary
    assert [line.file for line in told.evidence] == ["events.jsonl", "attempt-1/dumps/node-2.rank5.txt"]
    add_event(run, event="hang_over")
    assert diagnose(run).category == ""


def test_a_slow_host_of_a_run_that_goes_on_is_told_with_its_figures(tmp_path):
    run = made_run(tmp_path, over=False)
    words = "node-2: step time 1.9 s, the others 1.0 s"
    add_event(run, event="straggler", host="node-2", what="step_time", value=1.9, typical=1.0, words=words)
    told = diagnose(run)
    assert (told.category, told.summary, told.evidence[0].text) == ("straggler", words, words)
    add_event(run, event="straggler_over", host="node-2", what="step_time")
    assert diagnose(run).category == ""


def test_a_fault_of_another_host_or_of_another_time_explains_nothing(failed):
    log = failed.path / "attempt-1/logs/node-1.rank3.err"
    log.write_text("RuntimeError: CUDA error: unknown error\n")
    verdict = failed.verdict()
    for cause in (verdict["first_failure"], *verdict["candidates"]):
        cause["message"] = "RuntimeError: CUDA error: unknown error"
    write_json(failed.verdict_file, verdict)
    fault = {"event": "gpu_fault", "what": "xid", "code": 79, "text": "GPU has fallen off the bus", "gpu": 3}
    add_event(failed, **fault, host="node-2")
    add_event(failed, **fault, host="node-1", time=1_780_000_000.0)
    assert diagnose(failed).category == "gpu_fault"  # by "unknown error" alone: likely
    assert diagnose(failed).patterns == ("gpu-unavailable",)
    add_event(failed, **fault, host="node-1")
    assert diagnose(failed).patterns in (("gpu-event",), ("fallen-off",))


def test_that_others_lost_a_rank_is_no_reason_for_one_that_said_its_own(failed):
    """The launcher's log holds the words of all its ranks."""
    verdict = failed.verdict()
    for cause in (verdict["first_failure"], *verdict["candidates"]):
        cause["message"] = "no such file: rows.csv; give one that is there"
    write_json(failed.verdict_file, verdict | {"summary": "rank 3 failed first"})
    logs = failed.path / "attempt-1/logs"
    (logs / "node-1.rank3.err").write_text("no such file: rows.csv; give one that is there\n")
    (logs / "node-1.log").write_text("[rank2]: RuntimeError: [pair.cc:553] Connection closed by peer\n")
    assert diagnose(failed).category == "unknown"


# -- facts that decide which advice fits ------------------------------------------------------------


SELF = "total capacity of 79.32 GiB of which 2.40 GiB is free. this process has 70.00 GiB memory in use."
OTHER = "Process 77 has 6.92 GiB memory in use. "
IDLE = "12.59 GiB is reserved by PyTorch but unallocated."


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        (SELF, {"later"}),
        (OTHER + SELF, {"later", "shared_gpu"}),
        (SELF + IDLE, {"later", "fragmented"}),
        ("70.00 GiB already allocated; 1 GiB free; 70.50 GiB reserved in total by PyTorch", {"later"}),
        ("4.00 GiB total capacity; 1.68 GiB already allocated; 2.72 GiB reserved in total by PyTorch",
         {"later", "fragmented"}),
        ("in _optimizer_step\n    self.optimizer.step()", {"later", "optimizer"}),
        ("in initialize_optimizer_states\n    self.optimizer.step()", {"later", "optimizer", "states"}),
        ("self.accelerator.backward(loss)", {"later", "backward"}),
        ("model.generate(**inputs)", {"later", "evaluation"}),
        ("engine.save_16bit_model(path)", {"later", "saving"}),
    ],
)  # fmt: skip
def test_what_was_said_tells_where_the_memory_went(failed, said, facts):
    assert facts_of(gather(failed), said) - {"local", "no_zero", "no_checkpoints"} == facts


def test_a_run_that_can_go_on_is_told_how_and_another_that_it_cannot(failed):
    write_json(failed.verdict_file, failed.verdict() | {"state": "CANCELLED", "candidates": []})
    assert "names no `train.checkpoint_dir`" in diagnose(failed).advice[0]
    plan = json.loads(failed.plan_file.read_text())
    write_json(failed.plan_file, plan | {"checkpoint_dir": "/there"})
    assert diagnose(failed).advice == (
        "`orchestrate resume job-made` goes on from the last complete checkpoint.",
    )


def test_advice_fits_the_settings_of_the_run(tmp_path):
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "zero_hpz_partition_size": 2}
    config = {"zero_optimization": zero, "train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}}
    run = made_run(tmp_path, failing=3)
    launch = dataclasses.replace(run.plan(), deepspeed=config)
    run.plan_file.write_text(launch.to_json())
    advice = " ".join(diagnose(run).advice)
    assert "The micro batch is 1 already" in advice
    assert "`deepspeed.hpz` keeps a second copy" in advice
    assert "Halve" not in advice
    assert "offload_param: cpu" not in advice


# -- patterns of the user's own ---------------------------------------------------------------------


OWN = """
categories:
  licence:
    title: no licence is free
    advice: [ask for one, {if: later, try: "wait {minutes} minutes"}, {if: not later, try: never said}]
patterns:
  - id: flexlm
    category: licence
    match: 'no licence for (?P<minutes>\\d+) min'
    say: 'no licence for {minutes} min'
"""


def test_a_users_own_patterns_come_before_ours(failed, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(OWN)
    log = failed.path / "attempt-1/logs/node-1.rank3.err"
    log.write_text(log.read_text() + "OSError: no licence for 7 min\n")
    told = diagnose(failed, patterns=[str(mine)])
    assert (told.category, told.title, told.message) == (
        "licence",
        "no licence is free",
        "no licence for 7 min",
    )
    assert told.advice == ("ask for one", "wait 7 minutes")
    assert diagnose(failed).category == "cuda_oom"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "a file of patterns is a mapping"),
        ("a: [", "no YAML"),
        ("patterns: [{category: gone, match: x}]", "there is no such category (got gone)"),
        ("patterns: [{category: quota, match: '('}]", "no regular expression"),
        ("patterns: [{category: quota}]", "a pattern needs `match`"),
        ("patterns: [{category: quota, match: x, where: [nowhere]}]", "nowhere"),
        ("patterns: [{category: quota, match: x, strength: sure}]", "one of cause, likely, symptom"),
        ("patterns: [{category: quota, match: x, matches: y}]", "matches"),
        ("patterns: [x]", "a pattern is a mapping (got x)"),
        ("categories: {mine: {}}", "a category has a title"),
        ("categories: {mine: {title: x, advice: [{if: later}]}}", "advice is a list"),
        ("categories: []\npatterns: x", "`categories` is a mapping"),
    ],
)
def test_a_file_of_patterns_that_is_wrong_is_told_with_its_place(tmp_path, text, said):
    path = tmp_path / "patterns.yaml"
    path.write_text(text)
    with pytest.raises(JobFileError) as caught:
        load([str(path)])
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_our_own_patterns_are_in_order():
    book = load()
    assert {pattern.category for pattern in book.patterns} <= set(book.categories)
    names = [pattern.name for pattern in book.patterns]
    assert len(names) == len(set(names))
    assert all(category.advice and category.title for category in book.categories.values())


# -- screens ----------------------------------------------------------------------------------------


def test_the_screen_has_the_sentence_the_evidence_and_what_to_try(failed):
    told = diagnose(failed)
    shown = "\n".join(screen(failed, told, width=80))
    assert all(len(line) <= 80 or "`" in line or "/" in line for line in shown.split("\n"))
    words = ["failed first", "attempt-1/logs/node-1.rank3.err:3", "what to try", "orchestrate plan"]
    assert [word for word in words if word not in shown] == []


def test_the_end_of_a_run_shows_its_state_once(failed):
    status = {"state": State.FAILED, "reason": failed.verdict()["summary"]}
    shown = list(end_of_run(failed, status, diagnose(failed)))
    assert sum("FAILED" in line for line in shown) == 1
    assert next(iter(end_of_run(failed, status, None))).endswith(status["reason"])


def test_who_follows_a_run_waits_for_its_diagnosis_when_he_cannot_make_one(failed, monkeypatch, capsys):
    """Such as with a file of patterns that somebody is writing."""
    said = diagnose(failed).to_json()

    def fails(*_: object, **__: object) -> None:
        threading.Timer(0.3, write_json, (failed.diagnosis_file, said)).start()
        raise ValueError

    failed.diagnosis_file.unlink(missing_ok=True)
    monkeypatch.setattr("orchestrator.diagnose.make.diagnose", fails)
    monkeypatch.setattr("orchestrator.monitor.follow._DIAGNOSIS_SECONDS", 120.0)
    assert follow_run(failed) == 1
    assert "what to try" in capsys.readouterr().out


def test_candidates_are_listed_where_the_evidence_cannot_tell(failed):
    told = diagnose(failed)
    two = (told.first, told.first)
    shown = list(screen(failed, Diagnosis(**{**vars_of(told), "candidates": two, "undetermined": True})))
    assert sum("rank 3 on node-1  torch" in line for line in shown) == 2


def vars_of(told):
    return {name: getattr(told, name) for name in Diagnosis.__dataclass_fields__}


@pytest.mark.parametrize(
    ("told", "gpu"),
    [
        ({}, 1),
        ({"gpus": 4, "devices": None}, 1),
        ({"gpus": 4, "devices": ["2", "3"]}, 3),
        ({"gpus": 4, "devices": ["GPU-aa", "GPU-bb"]}, None),
        ({"gpus": 0, "devices": ["0", "1"]}, None),
    ],
)
def test_a_ranks_gpu_is_the_one_that_its_host_was_given(told, gpu):
    assert gpu_of(PlannedHost("n1", 0, (0, 1), 0, (0, 1)), 1, {"n1": told}) == gpu
