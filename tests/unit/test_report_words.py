"""What a report says of events, logs and code."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from orchestrator.report.excerpts import clean, tail, without_secrets
from orchestrator.report.happenings import happenings, said_of_hosts
from orchestrator.source import source_of, told_source
from tests.samples import click


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HF_TOKEN=abc next", "HF_TOKEN=<hidden> next"),
        ("--api-key abc --lr 1", "--api-key <hidden> --lr 1"),
        ("  SLACK_SECRET: $HOME", "  SLACK_SECRET: $HOME"),
        ("max_tokens: 4096", "max_tokens: 4096"),
        ("secrets: [HF_TOKEN]", "secrets: [HF_TOKEN]"),
        ("env: {MY_KEY: abc, B: 2}", "env: {MY_KEY: <hidden>, B: 2}"),
        ("PASSWORD: 'two words' # x", "PASSWORD: <hidden> # x"),
        ("login hf_" + "a" * 30, "login <hidden>"),
        ("{webhook: 'https://x.org/a/b7', on: end}", "{webhook: 'https://x.org/<hidden>', on: end}"),
        ("webhook: https://x.org/${HOOK}", "webhook: https://x.org/${HOOK}"),
        ("at https://hooks.slack.com/services/T0/B0/abc", "at https://hooks.slack.com/services/<hidden>"),
        ("data: s3://me:pw@host/x and http://h:80/y@z", "data: s3://<hidden>@host/x and http://h:80/y@z"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text, shown):
    assert without_secrets(text) == shown


def event(name: str, **details: object) -> dict[str, object]:
    return {"time": 1.0, "event": name, **details}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            event("hang", ranks=[3, 4, 5], waiting=[0], silent=130.0, where={"3": "a.py:1 f", "0": "b:2"}),
            "hang: ranks 3-5 silent for 2 min 10 s, 1 rank waiting; rank 3 at a.py:1 f",
        ),
        (event("gpu_fault", host="n1", gpu=5, what="xid", code=79, text="off"), "n1, GPU 5: xid 79 (off)"),
        (event("checkpoint", tag="t1", began=5, ended=9.5), "checkpoint t1 complete after 4.5 s"),
        (event("pruned", tags=["a", "b"], bytes=2e9), "old checkpoints deleted: a, b, 2 GB"),
        (event("versions_differ", package="torch", hosts={"2.7": ["n1", "n2"], "2.8": ["n3"]}),
         "torch differs between hosts: 2.7 on n[1-2]; 2.8 on n3"),
        (event("hang"), "hang: ranks silent for 0 s"),
    ],
)  # fmt: skip
def test_events_are_told_in_words(told, words):
    assert [one["words"] for one in happenings([told, event("rank_start"), event("of a later version")])] == [
        words
    ]


def test_what_a_script_did_on_a_gpu_is_no_fault_of_the_gpu():
    faults = [event("gpu_fault", host="n1", gpu=5, what="xid", code=code) for code in (31, 48)]
    mine, the_gpus = happenings(faults)
    assert (mine["mark"], the_gpus["mark"]) == ("mark", "bad")
    assert mine["words"].startswith(
        "n1, GPU 5: xid 31, of the script and not of the GPU: a kernel used memory"
    )
    assert said_of_hosts(faults) == {"n1": [mine["words"][4:], "GPU 5: xid 48"]}


def test_a_checkpoint_is_told_when_it_was_complete_and_not_when_it_was_found():
    late = {**event("checkpoint", tag="t1", began=5, ended=9.5), "time": 24.0}
    assert [one["time"] for one in happenings([late])] == [9.5]


def test_of_very_many_events_the_first_and_the_last_are_told():
    found = happenings([{**event("checkpoint", tag=f"t{i}"), "time": float(i)} for i in range(5000)])
    assert len(found) == 401
    assert (found[0]["words"], found[-1]["words"]) == ("checkpoint t0 complete", "checkpoint t4999 complete")
    assert found[200]["words"] == "… 4,600 more of this kind are left out"


def test_what_is_said_of_a_host_is_said_once():
    twice = [event("straggler", host="n1", words="late"), event("straggler", host="n1", words="late")]
    assert said_of_hosts([*twice, event("oom_kill", host="n2"), event("oom_kill")]) == {
        "n1": ["slow: late"],
        "n2": ["the kernel killed for memory"],
    }


def test_log_lines_are_shown_as_a_terminal_would():
    assert clean("\x1b[31mred\x1b[0m\tand\x07 more") == "red and more"
    assert clean(" 10%|#   |\r 50%|##  |\r 99%|####|\r") == " 99%|####|"
    assert clean("x" * 1000).endswith("… (1,000 characters)")


def test_the_end_of_a_large_log_is_read(tmp_path):
    (tmp_path / "log").write_bytes(b"caf\xe9\n" * 100_000 + b"y" * 300 + b"\nlast")
    found = tail(tmp_path / "log", 3)
    assert found == ["caf\ufffd", "y" * 300, "last"]
    (tmp_path / "one").write_bytes(b"z" * 10_000_000)
    assert len(tail(tmp_path / "one")) == 1
    assert tail(tmp_path / "none") == []


def git(folder, *words: str) -> None:
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *options, *words], cwd=folder, check=True, capture_output=True)


def test_the_commit_of_the_code_is_known(tmp_path):
    assert source_of(tmp_path) == {}
    assert source_of(tmp_path / "missing") == {}
    git(tmp_path, "init")
    assert source_of(tmp_path) == {}
    (tmp_path / "train.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    found = source_of(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", found["commit"])
    assert (found["branch"], found["changed"]) == ("main", 0)
    (tmp_path / "train.py").write_text("2")
    (tmp_path / "untracked.py").write_text("3")
    assert source_of(tmp_path)["changed"] == 1


def test_submit_records_commit_and_versions(here):
    git(here, "init")
    git(here, "add", "train.py")
    git(here, "commit", "-m", "one")
    assert click("submit", "--no-start", "--run-id", "job-git1", "job.yaml").exception is None
    record = json.loads((here / "runs/job-git1/record.json").read_text())
    assert record["git"]["changed"] == 0
    assert record["versions"]["python"]


def test_of_code_that_was_sent_here_its_origin_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("ORCHESTRATE_SOURCE", json.dumps({"commit": "c" * 40, "branch": "main", "changed": 1}))
    assert told_source(tmp_path)["commit"] == "c" * 40
