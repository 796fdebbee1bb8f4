"""Logins against a server made of paramiko: the real protocol, and ways of asking that sshd here has not."""

from __future__ import annotations

import socket
import threading

import pytest

paramiko = pytest.importorskip("paramiko")

from orchestrator.launchers.remote import Target  # noqa: E402 - paramiko comes with it
from orchestrator.login.auth import Authentication  # noqa: E402

WORD, CODE = "right", "271828"


class Server(paramiko.ServerInterface):
    """A host that wants the given ways, one after the other."""

    def __init__(self, steps: list[str], key=None) -> None:
        self.steps = list(steps)
        self.key = key
        self.tried: list[str] = []

    def get_allowed_auths(self, username):
        return self.steps[0] if self.steps else ""

    def _step(self, way: str, right: bool) -> int:
        self.tried.append(way)
        if way not in self.steps[0].split(",") or not right:
            return paramiko.AUTH_FAILED
        del self.steps[0]
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL if self.steps else paramiko.AUTH_SUCCESSFUL

    def check_auth_none(self, username):
        return self._step("none", right=True)

    def check_auth_publickey(self, username, key):
        return self._step("publickey", key == self.key)

    def check_auth_password(self, username, password):
        return self._step("password", password == WORD)

    def check_auth_interactive(self, username, submethods):
        return paramiko.InteractiveQuery(
            "Two steps", "Look at your phone", ("Password: ", False), ("Code: ", True)
        )

    def check_auth_interactive_response(self, responses):
        return self._step("keyboard-interactive", responses == [WORD, CODE])


class Person:
    """Someone at a terminal: answers in order, and what was shown."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bool]] = []
        self.told: list[str] = []

    def ask(self, prompt: str, seen: bool) -> str:
        self.asked.append((prompt, seen))
        if not self.answers:
            raise OSError("nobody is there")
        return self.answers.pop(0)


def log_in(server: Server, person: Person, **options: str | list[str]) -> bool:
    """Log in to the server; return whether it let us in."""
    ours, theirs = socket.socketpair()
    there = paramiko.Transport(theirs)
    there.add_server_key(paramiko.ECDSAKey.generate())
    here = paramiko.Transport(ours)
    try:
        there.start_server(event=threading.Event(), server=server)
        here.start_client(timeout=60)
        given = {"identityagent": ["none"]} | options
        target = Target("login", 22, "me", {k: tuple(v) for k, v in given.items()})
        Authentication(target, person.ask, person.told.append).authenticate(here)
        return here.is_authenticated()
    finally:
        here.close()
        there.close()


@pytest.fixture
def key(tmp_path):
    made = paramiko.RSAKey.generate(2048)
    made.write_private_key_file(str(tmp_path / "id"))
    made.write_private_key_file(str(tmp_path / "locked"), password="phrase")
    return made


def test_a_key_file_is_enough_where_the_host_says_so(key, tmp_path):
    person = Person()
    assert log_in(Server(["publickey,password"], key), person, identityfile=[str(tmp_path / "id")])
    assert person.asked == []


def test_a_locked_key_asks_for_its_phrase_until_it_is_right(key, tmp_path):
    path = str(tmp_path / "locked")
    person = Person("wrong", "phrase")
    assert log_in(Server(["publickey"], key), person, identityfile=[path])
    assert person.asked == [(f"Enter passphrase for key '{path}': ", False)] * 2


def test_a_password_may_be_mistyped_twice():
    person = Person("wrong", "wrong", WORD)
    assert log_in(Server(["password"]), person)
    assert person.asked == [("me@login's password: ", False)] * 3


def test_a_third_wrong_password_is_the_last():
    person = Person("wrong", "wrong", "wrong", WORD)
    with pytest.raises(paramiko.AuthenticationException, match="tried password; the server wants password"):
        log_in(Server(["password"]), person)
    assert person.answers == [WORD]


def test_questions_are_shown_and_answered_as_the_host_asks_them():
    person = Person(WORD, CODE)
    assert log_in(Server(["keyboard-interactive,password"]), person)
    assert person.told == ["Two steps", "Look at your phone"]
    assert person.asked == [("(me@login) Password: ", False), ("(me@login) Code: ", True)]


def test_a_second_factor_follows_the_first(key, tmp_path):
    person = Person(WORD, CODE)
    server = Server(["publickey", "keyboard-interactive"], key)
    assert log_in(server, person, identityfile=[str(tmp_path / "id")])
    assert server.tried == ["none", "publickey", "keyboard-interactive"]


def test_a_host_that_lets_everybody_in_asks_nothing():
    assert log_in(Server(["none"]), Person())


@pytest.mark.parametrize("way", ["password", "keyboard-interactive"])
def test_nobody_to_ask_is_an_end_at_once(way):
    with pytest.raises(OSError, match="nobody is there"):
        log_in(Server([way]), Person())
