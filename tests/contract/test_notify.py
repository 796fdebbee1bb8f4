"""People are told of real runs: by the supervisor while it lives, by whoever asks when it does not."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.product import wait_until
from tests.receivers import Web, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.product import Run, Site

ALL = ["start", "restart", "hang", "failure", "end"]


@pytest.fixture
def web() -> Iterator[Web]:
    with served(Web()) as server:
        yield server


def told(run: Run) -> list[dict[str, Any]]:
    return run.events("notified")


def test_start_and_end_are_told_with_the_values_of_submit(local: Site, web: Web) -> None:
    local.environ["HOOK"] = web.url + "/secret"
    script = local.folder / "train.py"
    script.write_text("for step in range(1, 4): print(f'step {step}/3 loss {3 / step:.2f}', flush=True)\n")
    notify = [
        {"on": ALL, "slack": "HOOK"},
        {"on": "failure", "slack": "HOOK"},
        {"on": "end", "command": ["no-such-program"]},
        {"on": ALL, "webhook": "${HOOK}"},
    ]
    run = local.submit(train={"script": str(script)}, notify=notify)
    run.succeed()
    wait_until(lambda: len(told(run)) == 5, run.story)
    by_shape = [body for _, body in web.got if "event" in body]
    assert [body["event"] for body in by_shape] == ["start", "end"]
    assert (by_shape[-1]["state"], by_shape[-1]["run_id"]) == ("SUCCEEDED", run.run_id)
    assert [body["text"].split("\n")[0] for _, body in web.got if "event" not in body] == [
        f"*{run.run_id} is running*",
        f"*{by_shape[-1]['subject']}*",
    ]
    assert {path for path, _ in web.got} == {"/secret"}
    assert [(event["to"], event["ok"]) for event in told(run) if not event["ok"]] == [
        ("command no-such-program", False)
    ]
    see_no_secret(run, web.url)


def see_no_secret(run: Run, secret: str) -> None:
    run.see_nothing_left()  # the supervisor and the collector write and rename files until they end
    assert not (run.path / "notify.json").exists()
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_a_failure_is_told_with_its_diagnosis_and_a_cancel_is_none(local: Site, web: Web) -> None:
    notify = [{"on": ["failure"], "webhook": web.url}, {"on": ["end"], "webhook": web.url + "/end"}]
    args = ["--raise", "CUDA out of memory. Tried to allocate 2 GiB", "--fail-rank", "1"]
    run = local.submit(cluster={"nodes": 1}, train={"args": args}, notify=notify)
    assert run.wait()["state"] == "FAILED"
    wait_until(lambda: len(told(run)) == 2, run.story)
    assert {path for path, _ in web.got} == {"/", "/end"}
    [said] = {json.dumps(body) for _, body in web.got}
    diagnosis = json.loads((run.path / "diagnosis.json").read_text())
    assert diagnosis["category"] == json.loads(said)["category"] != ""
    assert json.loads(said)["reason"] == diagnosis["summary"]
    again = local.submit("again", cluster={"nodes": 1}, train={"args": ["--sleep", "60"]}, notify=notify)
    assert local.orchestrate("cancel", again.run_id).returncode == 0
    wait_until(lambda: told(again), again.story)
    assert [path for path, body in web.got if body["run_id"] == again.run_id] == ["/end"]


def test_a_run_on_slurm_is_told_of_from_its_first_host(slurm: Site) -> None:
    file = slurm.folder / "told"
    slurm.environ["PASS"] = "s3cret"
    notify = [
        {"on": ALL, "command": ["sh", "-c", f"cat >> {file}"]},
        {"on": "end", "mail": "a@example.org", "smtp": "192.0.2.1", "user": "me", "password": "PASS"},
    ]
    run = slurm.submit(train={"args": ["--lines", "1"]}, notify=notify)
    run.succeed()
    wait_until(lambda: len(told(run)) == 3, run.story)
    assert [event["to"] for event in told(run) if not event["ok"]] == ["mail a@example.org"]
    lines = file.read_text().splitlines()
    assert lines[0] == f"{run.run_id} is running"
    assert any(line.startswith(f"{run.run_id} SUCCEEDED after") for line in lines)
    see_no_secret(run, "s3cret")


def test_who_asks_first_has_the_end_told_that_nobody_was_left_to_tell(slurm: Site) -> None:
    file = slurm.folder / "told"
    notify = [{"on": "failure", "command": ["sh", "-c", f"cat >> {file}"]}]
    run = slurm.submit(train={"args": ["--sleep", "600"]}, notify=notify)
    run.wait_for_ranks()
    os.kill(run.events("supervisor")[0]["pid"], signal.SIGKILL)
    wait_until(lambda: run.status()["state"] == "FAILED", run.story)
    wait_until(lambda: told(run), run.story)
    run.status()
    assert file.read_text().startswith(f"{run.run_id} FAILED")
    assert "killed by signal 9" in file.read_text()
    assert len(told(run)) == 1
    run.see_nothing_left()
