"""`orchestrate report` and `compare`, and the documents behind them."""

from __future__ import annotations

import json
import re

import pytest

from orchestrator.report.compare import compare
from orchestrator.report.compare_page import compare_page
from orchestrator.report.document import document
from orchestrator.report.page import page
from orchestrator.states import State
from tests.eventful_run import STORY, eventful_run
from tests.made_run import BEGAN, OOM, made_run
from tests.samples import click, run_dir


@pytest.fixture(scope="module")
def eventful(tmp_path_factory):
    return eventful_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def told(eventful):
    return document(eventful)


def test_every_second_is_accounted_for(told):
    assert {kind: round(s) for kind, s in told["goodput"]["seconds"].items()} == STORY
    assert told["goodput"]["wall"] == sum(STORY.values())
    assert told["goodput"]["share"] == pytest.approx(STORY["productive"] / sum(STORY.values()))
    assert told["goodput"]["rank_seconds"] == pytest.approx(32 * (told["goodput"]["wall"] - STORY["queue"]))


def test_a_document_says_what_ran_and_how_it_ended(told):
    assert told["state"] == "FAILED"
    assert (told["verdict"]["rank"], told["verdict"]["host"]) == (3, "node-000")
    assert told["ran"]["git"]["commit"].startswith("0123456789ab")
    assert told["ran"]["zero"] == "ZeRO-3"
    assert told["software"]["torch"] == {"2.13.0": [f"node-{i:03}" for i in range(4)]}
    assert [(a["first_step"], a["last_step"], a["resumed_from"]) for a in told["attempts"]] == [
        (1, 255, None),
        (201, 445, "global_step200"),
    ]
    assert told["figures"]["checkpoints"] == 4
    slow = "slow: its steps take 1.4 s, those of the others 1.0 s"
    assert [host["said"] for host in told["hosts"]] == [[], [], [], [slow]]
    assert {"hang", "checkpoint", "straggler", "requeue"} <= {event["kind"] for event in told["events"]}


def test_a_document_survives_json(told):
    again = json.loads(json.dumps(told))
    assert page(again) == page(told)


def test_secrets_of_the_job_file_are_left_out(told):
    assert "WANDB_API_KEY: <hidden>" in told["job"]
    assert "not-for-everybody" not in page(told)


def test_everything_on_the_page_is_text(eventful, told):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    changed = json.loads(json.dumps(told).replace(OOM, "boom").replace("node-003", evil.replace('"', "")))
    changed["verdict"] |= {"title": evil, "summary": evil, "advice": [evil, f"use `{evil}`"], "evidence": [
        {"file": evil, "line": 1, "text": evil}]}  # fmt: skip
    changed["ran"] |= {"command": evil, "user": evil}
    changed["job"] = changed["excerpts"][0]["lines"][0] = evil
    shown = page(changed)
    assert evil not in shown
    assert "<script>alert" not in shown
    assert "<img" not in shown
    assert shown.count("<script") == page(told).count("<script")


def test_the_page_needs_nothing_but_itself(told):
    shown = page(told)
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", shown)
    assert "url(" not in shown
    assert "default-src 'none'" in shown


def test_a_run_without_anything_has_a_page(here):
    found = document(run_dir(here / "runs", "bare-aaaa", State.RUNNING))
    assert found["goodput"]["share"] is None
    assert "bare-aaaa" in page(found)
    assert "No line of the logs told of a step" in page(found)


def test_a_run_that_waits_for_its_hosts_is_in_the_queue(tmp_path):
    run = eventful_run(tmp_path)
    for file in (run.events_file, run.metrics_file, run.verdict_file, run.slurm_file):
        file.unlink()
    for attempt in run.attempts():
        attempt.verdict_file.unlink()
    run.write_status(State.PENDING, "handed to Slurm")
    found = document(run, now=BEGAN + 500)
    assert found["goodput"]["seconds"]["queue"] == 500
    assert (found["attempts"], found["state"]) == ([], "PENDING")
    assert "handed to Slurm" in page(found)


@pytest.mark.parametrize("damage", ["[1, 2", '{"event": "checkpoint"}\n{"time": 5}\nnull\n', "\x00\xff"])
def test_a_damaged_run_directory_has_a_page(here, damage):
    run = made_run(here / "runs", failing=1)
    for file in (run.events_file, run.metrics_file, run.diagnosis_file, run.attempt(1).hosts_file):
        file.write_text(damage, encoding="latin-1")
    assert "FAILED" in page(document(run))


def test_a_run_that_goes_on_is_reported_as_such(here):
    run = made_run(here / "runs", over=False)
    found = document(run, now=BEGAN + 100)
    assert found["over"] is False
    assert found["goodput"]["seconds"]["productive"] == 70
    assert "so far" in page(found)
    assert re.search(r"it goes on: step 60, loss 2\.\d+", page(found))


def test_a_thousand_hosts_fit_into_two_megabytes(tmp_path):
    run = made_run(tmp_path, hosts=1000, slots=1, steps=10, failing=7, slow=3)
    shown = page(document(run))
    assert len(shown.encode()) < 2_000_000
    assert shown.count("<tr") == 1001
    many = document(run)
    many["hosts"] += [{**many["hosts"][0], "host": f"more-{i}"} for i in range(200)]
    shown = page(many)
    assert shown.count("<tr") == 1001
    assert "200 more hosts" in shown
    assert "<th>node-7</th>" in shown  # it failed first


def test_where_a_rank_hung_is_shown(tmp_path):
    run = eventful_run(tmp_path)
    dumps = run.attempt(2).dumps
    dumps.mkdir()
    (dumps / "node-000.rank3.txt").write_text('Thread 1 (idle): "MainThread"\n    readline (loader.py:57)\n')
    found = document(run)["excerpts"]
    assert [one["title"] for one in found] == [
        "rank 3 on node-000, which failed first",
        "where rank 3 stood while it hung",
        "what rank 0 printed last",
    ]
    assert found[1]["lines"][1] == "    readline (loader.py:57)"
    assert found[1]["file"] == "attempt-2/dumps/node-000.rank3.txt"


def test_report_writes_one_file(here, monkeypatch):
    made_run(here / "runs", failing=3)
    result = click("report", "job-made")
    assert result.exception is None, result.exception
    assert result.output.strip() == str(here / "job-made.html")
    assert "CUDA out of memory" in (here / "job-made.html").read_text()
    assert click("report", "-o", "-").output.startswith("<!doctype html>")
    assert json.loads(click("report", "--json").output)["run_id"] == "job-made"
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    click("report", "--open", "-o", "x.html")
    assert opened == [(here / "x.html").as_uri()]


def test_report_says_where_it_cannot_write(here):
    made_run(here / "runs")
    result = click("report", "-o", "no/such/folder.html")
    assert "--output: cannot write the page: No such file or directory (got no/such/folder.html)" in str(
        result.exception
    )
    assert result.exception.exit_code == 2
    assert click("report", "nothing-so").exception.exit_code == 2


JOBS = (
    "train: {args: [--lr, 1e-4, --data, a b]}\ncluster: {nodes: 4}\n",
    "train: {args: [--lr=3e-4, --data, a b]}\ncluster: {nodes: 4}\ndeepspeed: {stage: 3}\n",
)


@pytest.fixture
def two(here):
    for i, (job, steps) in enumerate(zip(JOBS, (40, 60), strict=True)):
        made_run(here / "runs", steps=steps, run_id=f"pair-{i}").job_file.write_text(job)
    return [document(run) for run in _runs(here)]


def _runs(here):
    from orchestrator.rundir import RunDir

    return [RunDir(here / "runs" / f"pair-{i}") for i in (0, 1)]


def test_compare_says_what_differed(two):
    found = {one["key"]: one["values"] for one in compare(two)["differences"]}
    assert found == {"train.args --lr": ["1e-4", "3e-4"], "deepspeed.stage": [None, "3"]}


def test_compare_takes_a_job_file_that_is_no_yaml(two):
    two[1]["job"] = "a: [b"
    keys = [one["key"] for one in compare(two)["differences"]]
    assert "cluster.nodes" in keys


def test_compare_prints_a_table_and_writes_a_page(two, here):
    result = click("compare", "pair-0", "pair-1")
    assert result.exception is None, result.exception
    rows = [line.split() for line in result.output.splitlines()]
    assert ["train.args", "--lr", "1e-4", "3e-4"] in rows
    assert ["last", "step", "40", "60"] in rows
    shown = (here / "compare.html").read_text()
    assert shown == compare_page(json.loads(json.dumps(compare(two)))) or "pair-1" in shown
    assert shown.count('class="c1"') >= 5  # the second run's line in every plot
    assert json.loads(click("compare", "pair-0", "pair-1", "--json").output)["runs"][1]["run_id"] == "pair-1"


def test_compare_wants_two_to_eight(two):
    assert "1 run cannot be compared; name 2 to 8 of them" in str(
        click("compare", "pair-0").exception.message
    )
    assert "9 runs" in str(click("compare", *["pair-0"] * 9).exception.message)


def test_runs_with_one_id_stay_apart(two):
    shown = compare_page(compare([two[0], two[0]]))
    assert "pair-0 (1)" in shown
    assert "pair-0 (2)" in shown
    assert "Nothing that is known of them." in shown
