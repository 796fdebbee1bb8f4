"""Commands for runs elsewhere: the version of the program that submitted a run is asked about it there."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem, RunNotFoundError
from orchestrator.login.client import Connection
from orchestrator.login.install import NotInstalledError, call
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.login.records import RemoteRun
    from orchestrator.login.talk import Talk


def talk_to(run: RemoteRun, request: dict[str, Any], *, may_log_in: bool = True) -> Talk:
    """Start the far program for a run; a version that was removed there is replaced by this one.

    Raises:
        LoginError: the login host cannot be reached.
    """
    connection = Connection(run.login, may_log_in=may_log_in)
    try:
        return call(connection, run.program, request)
    except NotInstalledError:
        from orchestrator.login.install import Program, install  # noqa: PLC0415

        program = Program("slurm")
        install(connection, program)
        return call(connection, program.name, request)


def run_command(run: RemoteRun, words: list[str], *, color: bool) -> int:
    """Run a command line of `orchestrate` there; show what it says; return its exit code.

    Ctrl-C ends the command there and leaves the run alone.
    """
    return _relay(run, {"verb": "command", "words": words, "color": color})


def follow(run: RemoteRun) -> int:
    """Follow a run until it ends; return 0 if it succeeded, 1 if not, 130 after Ctrl-C."""
    return _relay(run, {"verb": "follow", "run_dir": run.run_dir})


def _relay(run: RemoteRun, request: dict[str, Any]) -> int:
    with talk_to(run, request) as talk, _ctrl_c(talk):
        return talk.relay(_to(sys.stdout), _to(sys.stderr))


@contextlib.contextmanager
def _ctrl_c(talk: Talk) -> Iterator[None]:
    """Pass the first Ctrl-C on; a second one ends us.

    As an exception it would come in the middle of a message, and what follows would be read as another.
    """

    def pass_on(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        talk.end_input()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # a script's background has it ignored
        signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _to(stream: Any) -> Any:
    def write(data: bytes) -> None:
        stream.buffer.write(data)
        stream.flush()

    return write


def settle(run: RemoteRun) -> None:
    """Find out whether an interrupted submit had come to a start, and where the run is.

    Raises:
        RunNotFoundError: it had not; the record of it is removed.
    """
    states = _states(run, [run], may_log_in=True)
    if states[run.run_id] is None:
        run.forget()
        what = "its submit was interrupted before it was started"
        raise RunNotFoundError(Problem(what, "RUN", run.run_id, f"submit {run.job_file} again"))
    run.run_dir = run.planned_dir
    run.save()


def _states(asked: RemoteRun, runs: Iterable[RemoteRun], *, may_log_in: bool) -> dict[str, Any]:
    request = {"verb": "states", "runs": {run.run_id: run.run_dir or run.planned_dir for run in runs}}
    with talk_to(asked, request, may_log_in=may_log_in) as talk:
        found: dict[str, Any] = talk.line()
    return found


def entries(runs: list[RemoteRun]) -> list[dict[str, Any]]:
    """Return what `list` shows of these runs; nobody is asked to log in for it."""
    for group in _by_login(runs):
        if Connection(group[-1].login).is_open():
            _refresh(group)
    return [_entry(run) for run in runs]


def _by_login(runs: list[RemoteRun]) -> list[list[RemoteRun]]:
    groups: dict[str, list[RemoteRun]] = {}
    for run in runs:
        if not State(run.last.get("state", State.UNKNOWN)).is_final:
            groups.setdefault(str(sorted(run.login.items())), []).append(run)
    return list(groups.values())


def _refresh(group: list[RemoteRun]) -> None:
    try:
        states = _states(group[-1], group, may_log_in=False)
    except OrchestratorError:
        return  # as last seen
    for run in group:
        told = states.get(run.run_id)
        if told is None:
            told = {
                "state": State.LOST if run.run_dir else State.UNKNOWN,
                "reason": "it is not there",
                "since": 0,
            }
        run.last = {**told, "seen": time.time()}
        run.save()


def _entry(run: RemoteRun) -> dict[str, Any]:
    last = {"state": State.UNKNOWN, "reason": "", "since": 0.0, **run.last}
    seen = last.pop("seen", 0.0)
    state = State(last["state"])
    if not run.run_dir:
        last["reason"] = f"its submit was interrupted; `orchestrate status {run.run_id}` finds out"
    elif not state.is_final and time.time() - seen > 60:
        last["reason"] = f"not connected to {run.host}; {state} when last seen"
        state = State.UNKNOWN
    own = {"run_id": run.run_id, "run_dir": run.run_dir, "login": run.host, "created": run.created}
    return {**last, **own, "state": state}
