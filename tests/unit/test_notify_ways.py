"""Messages over every way, to real servers and commands."""

from __future__ import annotations

import base64
import os
import signal
import socket
from pathlib import Path

import pytest

from orchestrator.notify.deliver import deliver
from orchestrator.notify.errors import DeliveryError
from orchestrator.notify.message import Facts, make_message
from orchestrator.plan import NotifyPlan
from tests.receivers import Mail, Web, own_certificate, served

FACTS = Facts(
    run_id="job-abcd",
    name="job",
    run_dir="/runs/job-abcd",
    host="login1",
    shape="64 ranks on 8 hosts (slurm)",
    state="FAILED",
    reason="rank 13 on node-3 failed first: CUDA out of memory <!everyone> & more\nof it",
    advice=("halve the batch", "offload", "and a third"),
    seconds=8000.0,
    progress={"step": 412, "loss": 2.1339, "tokens_per_second": 81234.5},
)
MESSAGE = make_message("failure", FACTS)
TEXT = """\
rank 13 on node-3 failed first: CUDA out of memory <!everyone> & more of it
try: halve the batch
try: offload
step 412, loss 2.134, 81234 tokens/s, 64 ranks on 8 hosts (slurm)
more: orchestrate diagnose job-abcd
on login1: /runs/job-abcd"""


@pytest.fixture
def web():
    with served(Web()) as server:
        yield server


@pytest.fixture
def mail():
    with served(Mail()) as server:
        yield server


def target(way: str, *words: str, variables: tuple[str, ...] = (), **options: str) -> NotifyPlan:
    return NotifyPlan(("end",), way, words, variables, options)


def send(plan: NotifyPlan, folder: Path = Path("/"), seconds: float = 10.0, **values: str) -> str:
    """Deliver the message; return "" or why not, with a mark where another try may help."""
    try:
        deliver(plan, MESSAGE, values, folder, seconds)
    except DeliveryError as error:
        return f"{error}{' (again)' if error.again else ''}"
    return ""


def test_a_message_says_what_happened_and_where_to_look():
    assert MESSAGE.subject == "job-abcd FAILED after 2 h 13 min"
    assert MESSAGE.text == TEXT
    assert MESSAGE.values["step"] == 412


def test_no_words_of_a_script_stop_a_message(mail, tmp_path):
    odd = "\x1b[31mbad\x1b[0m \ud83d nul\0 caf\u00e9\r\n.\r\nQUIT"
    message = make_message("failure", Facts(**{**FACTS.__dict__, "reason": odd}))
    assert message.text.splitlines()[0] == "bad nul caf\u00e9 . QUIT"
    deliver(target("mail", "a@example.org", smtp=mail.place), message, {}, tmp_path)
    deliver(target("command", "sh", "-c", 'echo "$1" > said', "sh", "{text}"), message, {}, tmp_path)
    assert (tmp_path / "said").read_text() == f"{message.text}\n"
    assert len(mail.got) == 1


def test_a_mail_that_one_of_two_refuses_is_not_sent_again(mail):
    mail.unknown = "b@example.org"
    plan = target("mail", "a@example.org", "b@example.org", smtp=mail.place)
    assert send(plan) == "refused for b@example.org"
    assert len(mail.got) == 1


def test_slack_gets_text_in_which_a_script_cannot_ping_anybody(web):
    assert send(target("slack", "HOOK", variables=("HOOK",)), HOOK=f"{web.url}/services/T0/B0") == ""
    [(path, body)] = web.got
    assert path == "/services/T0/B0"
    assert body["text"].startswith("*job-abcd FAILED after 2 h 13 min*\nrank 13")
    assert "&lt;!everyone&gt; &amp; more" in body["text"]
    assert "<" not in body["text"]


def test_discord_gets_no_more_than_it_takes(web):
    long = Facts(**{**FACTS.__dict__, "advice": ("x" * 599, "`" * 599), "reason": "y" * 5000})
    deliver(
        target("discord", "HOOK", variables=("HOOK",)),
        make_message("end", long),
        {"HOOK": web.url},
        Path("/"),
    )
    [(_, body)] = web.got
    assert len(body["content"]) <= 2000
    assert body["content"].count("```") == 2
    assert body["allowed_mentions"] == {"parse": []}


def test_a_webhook_gets_values_and_its_address_holds_a_secret(web):
    plan = target("webhook", web.url + "/${TOKEN}?a=1", variables=("TOKEN",))
    assert send(plan, TOKEN="s3cret") == ""
    [(path, body)] = web.got
    assert path == "/s3cret?a=1"
    wanted = {"event": "failure", "state": "FAILED", "step": 412, "loss": 2.1339, "seconds": 8000.0}
    assert wanted.items() <= body.items()
    assert body["text"].startswith(body["subject"])


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (404, "HTTP 404 Not Found: no such hook: /${TOKEN}"),
        (503, "HTTP 503 Service Unavailable: no such hook: /${TOKEN} (again)"),
        (429, "HTTP 429 Too Many Requests: no such hook: /${TOKEN} (again)"),
        (302, "HTTP 302 Found: no such hook: /${TOKEN}"),
    ],
)
def test_a_refusal_is_told_without_the_secret(web, code, why):
    web.answers = [code]
    assert send(target("webhook", web.url + "/${TOKEN}", variables=("TOKEN",)), TOKEN="s3cret") == why
    assert [path for path, _ in web.got] == ["/s3cret"]


def test_a_server_that_does_not_answer_is_given_up(web):
    web.answers = [0]
    assert send(target("webhook", web.url), seconds=0.2) == "127.0.0.1: timed out (again)"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/x", "127.0.0.1: Connection refused (again)"),
        ("ftp://127.0.0.1/x", "the address begins with neither https:// nor http://"),
        ("http://127.0.0.1:s3cret/x", "no address to post to: "),
        ("http://nowhere.invalid/s3cret", "nowhere.invalid: "),
    ],
)
def test_an_address_that_leads_nowhere(url, why):
    said = send(target("slack", "HOOK", variables=("HOOK",)), HOOK=url)
    assert said.startswith(why)
    assert "s3cret" not in said


def test_a_variable_that_is_not_set_is_named():
    assert send(target("slack", "HOOK", variables=("HOOK",))) == "HOOK is not set where this runs"


def test_mail_through_a_server(mail):
    plan = target("mail", "a@example.org", "b@example.org", smtp=mail.place, sender="me@example.org")
    assert send(plan) == ""
    [(sender, to, text)] = mail.got
    assert (sender, to) == ("<me@example.org>", ["<a@example.org>", "<b@example.org>"])
    assert "Subject: [orchestrate] job-abcd FAILED after 2 h 13 min" in text
    assert "try: halve the batch" in text


def test_a_mail_server_that_refuses(mail):
    plan = target("mail", "a@example.org", smtp=mail.place)
    mail.refuse = "550 no such user"
    assert send(plan) == f"{mail.place}: 550 no such user (a@example.org)"
    mail.refuse = "451 try later"
    assert send(plan).endswith("(again)")


def test_no_password_goes_over_a_line_that_others_read(mail):
    plan = target("mail", "a@example.org", variables=("PASS",), smtp=mail.place, user="me", password="PASS")
    assert send(plan, PASS="geheim") == "127.0.0.1 offers no TLS, and a password is not sent without"
    assert mail.got == []


def test_a_password_goes_to_a_mail_server_with_a_trusted_certificate_only(mail, tmp_path, monkeypatch):
    mail.certificate = own_certificate(tmp_path / "own.pem")
    plan = target("mail", "a@example.org", smtp=mail.place)
    assert send(plan) == ""  # without one, a certificate that the server made itself will do
    login = target("mail", "a@example.org", variables=("PASS",), smtp=mail.place, user="me", password="PASS")
    refused = send(login, PASS="geheim")
    assert refused.startswith(f"{mail.place}: its certificate is not trusted (self")
    assert refused.endswith("SSL_CERT_FILE=FILE names those to trust")
    assert mail.logins == []
    monkeypatch.setenv("SSL_CERT_FILE", str(mail.certificate))
    assert send(login, PASS="geheim") == ""
    assert [base64.b64decode(one) for one in mail.logins] == [b"\0me\0geheim"]
    assert len(mail.got) == 2


def test_a_mail_server_that_is_not_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert send(target("mail", "a@example.org", smtp=place)) == f"{place}: Connection refused (again)"


def test_mail_by_the_machines_own_sendmail(tmp_path, monkeypatch):
    program = tmp_path / "sendmail"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words; cat > {tmp_path}/mail; exit $CODE\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CODE", "0")
    assert send(target("mail", "a@example.org")) == ""
    assert (tmp_path / "words").read_text() == "-t -i\n"
    assert "To: a@example.org\n" in (tmp_path / "mail").read_text()
    monkeypatch.setenv("CODE", "75")
    assert send(target("mail", "a@example.org")) == "sendmail ended with 75:  (again)"


def test_a_command_gets_message_words_and_variables(tmp_path):
    script = 'cat > in; printf "%s|" "$@" > words; echo "$ORCHESTRATE_EVENT $ORCHESTRATE_STEP" > env'
    plan = target("command", "sh", "-c", script, "sh", "{state} of {run_id}", "{subject}", "{odd}")
    assert send(plan, tmp_path) == ""
    assert (tmp_path / "in").read_text() == f"{MESSAGE.subject}\n{TEXT}\n"
    assert (tmp_path / "words").read_text() == f"FAILED of job-abcd|{MESSAGE.subject}|{{odd}}|"
    assert (tmp_path / "env").read_text() == "failure 412\n"


def test_a_command_that_fails_says_its_last_words():
    assert (
        send(target("command", "sh", "-c", "echo no such room >&2; exit 3"))
        == "sh ended with 3: no such room"
    )
    assert send(target("command", "no-such-program")) == (
        "no-such-program ended with 127: No such file or directory"
    )


def test_a_command_does_not_hold_signals_back_as_the_supervisor_does():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        assert send(target("command", "sh", "-c", "kill -TERM $$; exit 3")) == "sh was killed by SIGTERM"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_what_a_command_leaves_in_the_background_holds_nothing_up(tmp_path):
    os.mkfifo(tmp_path / "gate")
    script = "sh -c 'read line < gate; echo over > gate' & echo $! > pid"
    assert send(target("command", "sh", "-c", script), tmp_path) == ""
    (tmp_path / "gate").write_text("go on\n")  # blocks for ever if it is not there any more
    assert (tmp_path / "gate").read_text() == "over\n"


def test_a_command_that_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr("orchestrator.notify.deliver.COMMAND_SECONDS", 0.2)
    assert send(target("command", "sh", "-c", "sleep 60 & sleep 60")) == "sh took longer than 0.2 s"
