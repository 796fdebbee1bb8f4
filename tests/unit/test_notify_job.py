"""`notify` in the job file, and `orchestrate notify`."""

from __future__ import annotations

import json
import stat

import pytest

from orchestrator.errors import JobFileError
from orchestrator.job import load_job
from orchestrator.login.submit import check, needed_variables
from orchestrator.notify.store import read_values, write_values
from orchestrator.plan import LaunchPlan
from orchestrator.plan.notify import notify_plans
from orchestrator.prepare import prepare
from tests import samples
from tests.receivers import Web, served


@pytest.fixture
def web():
    with served(Web()) as server:
        yield server


def job(here, notify: str):
    text = "cluster: {backend: local, nodes: 1}\ntrain: {script: train.py}\nnotify:\n"
    (here / "job.yaml").write_text(text + notify)
    return load_job(here / "job.yaml")


def test_each_way_is_read_into_the_plan_and_back(here):
    loaded = job(
        here,
        """\
  - {on: [start, end], slack: SLACK_URL}
  - {on: failure, mail: a@b.c, smtp: "mail:587", user: me, password: PASS, sender: me@b.c}
  - {mail: [a@b.c, d@e.f]}
  - {webhook: "https://x/${TOKEN}"}
  - {command: [notify-send, "{text}"]}
""",
    )
    made = notify_plans(loaded.spec.notify)
    assert [(plan.on, plan.name, plan.variables) for plan in made] == [
        (("start", "end"), "slack SLACK_URL", ("SLACK_URL",)),
        (("failure",), "mail a@b.c", ("PASS",)),
        (("hang", "end"), "mail a@b.c, d@e.f", ()),
        (("hang", "end"), "webhook https://x/${TOKEN}", ("TOKEN",)),
        (("hang", "end"), "command notify-send", ()),
    ]
    environ = {"SLACK_URL": "http://s", "PASS": "p", "TOKEN": "t", "OTHER": "o"}
    ready = prepare(loaded, environ)
    assert LaunchPlan.from_json(ready.plan.to_json()).notify == made
    assert ready.told == {"SLACK_URL": "http://s", "PASS": "p", "TOKEN": "t"}


def test_an_address_that_was_written_down_is_in_no_table_and_no_event(here):
    loaded = job(
        here, "  - {webhook: 'https://me:pw@x:8/hooks/a7/${TOKEN}/${ID}?k=v'}\n  - {webhook: http://y}\n"
    )
    names = [target.name for target in notify_plans(loaded.spec.notify)]
    assert names == ["webhook https://…@x:8/…/…/${TOKEN}/…", "webhook http://y"]


def test_values_are_for_the_user_alone_and_never_in_the_plan(here, tmp_path):
    run = samples.run_dir(tmp_path)
    write_values(run, {"TOKEN": "t"})
    assert stat.S_IMODE(run.notify_file.stat().st_mode) == 0o600
    assert read_values(run) == {"TOKEN": "t"}
    run.forget_secrets()
    assert not run.notify_file.exists()


def test_the_values_go_with_a_job_that_is_sent_to_a_login_host(here):
    (here / "job.yaml").write_text(
        "cluster: {backend: slurm, nodes: 1, slots: 1, login: {host: there}}\n"
        "train: {script: train.py, python: python3, secrets: [TOKEN]}\n"
        "notify: [{slack: HOOK}, {webhook: 'https://x/${TOKEN}'}]\n"
    )
    loaded = load_job(here / "job.yaml")
    assert needed_variables(loaded) == {"HOOK": "notify.0", "TOKEN": "train.secrets"}
    with pytest.raises(JobFileError, match=r"job\.yaml:3: notify\.0: not set in the environment .*HOOK"):
        check(loaded, {"TOKEN": "t"})


def test_a_variable_that_is_not_set_is_an_error_at_submit(here):
    loaded = job(here, "  - {slack: SLACK_URL}\n")
    with pytest.raises(JobFileError, match=r"notify\.0: names a variable that is not set .*SLACK_URL"):
        prepare(loaded, {})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{on: start}", "notify.0: says over no way to whom"),
        ("{slack: A, mail: a@b.c}", "notify.0.slack: mail and slack are both given"),
        ("{slack: https://hooks.slack.com/x}", "export it, and write the variable's name"),
        ("{slack: https://hooks.slack.com/secret}", '(got "https://hooks.slack.com/…")'),
        ("{mail: nobody}", "is no mail address"),
        ("{mail: 'a@b.c, d@e.f'}", "is no mail address"),
        ("{webhook: example.org}", "is no address of the web"),
        ("{webhook: https://x/$TOKEN}", r"write \${NAME}"),
        ("{slack: A, smtp: x}", "smtp is for mail only"),
        ("{mail: a@b.c, smtp: x, user: me}", "user needs password too"),
        (
            "{on: [ende], slack: A}",
            r"expected start, restart, hang, straggler, fault, failure or end \(got \"ende\"\)",
        ),
        ("{on: [], slack: A}", "expected 1 or more in the list"),
        ("{slac: A}", "did you mean slack?"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(here, entry, words):
    with pytest.raises(JobFileError, match=words) as caught:
        job(here, f"  - {entry}\n")
    assert "job.yaml:4: notify.0" in str(caught.value)


def test_the_command_sends_a_test_and_says_what_arrived(here, web, monkeypatch):
    monkeypatch.setenv("HOOK", web.url)
    job(here, "  - {slack: HOOK}\n  - {command: ['false']}\n")
    done = samples.click("notify", "job.yaml", "--json")
    assert done.return_value == 1
    assert [(row["to"], row["ok"]) for row in json.loads(done.stdout)] == [
        ("slack HOOK", True),
        ("command false", False),
    ]
    assert "a test, sent" in web.got[0][1]["text"]
