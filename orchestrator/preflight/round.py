"""One visit to every host in progress: start, wait, let go, and put together what came back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem, SubmitError
from orchestrator.launchers import make_launcher
from orchestrator.launchers.base import NO_BUNDLE
from orchestrator.preflight.meeting import Meeting
from orchestrator.preflight.package import check_zip
from orchestrator.preflight.probes.answers import PREFIX
from orchestrator.preflight.values import HostAnswer
from orchestrator.preflight.words import split_log, told_by
from orchestrator.rundir import write_json
from orchestrator.supervisor.control import agent_config
from orchestrator.supervisor.pushing import Pusher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.preflight.values import Visit
    from orchestrator.rundir import RunDir

_SLACK = 3.0  # seconds that a host has to tell what did not answer, before we stop listening
_CLOSE_SECONDS = 4.0
_SEEN_SECONDS = 3.0
_UNSEEN = (
    "it does not see the run directory; choose a run_root that it sees, or set cluster.shared_disk: auto"
)


@dataclass(frozen=True)
class Visited:
    """What a visit brought: answers by host name, and what hosts were to one another.

    Attributes:
        answers: of every host.
        meeting: what was found out over the control channel; None where nobody was asked to meet.
        seen: hosts whose word in the run directory was found here, and those to which it was sent.
    """

    answers: dict[str, HostAnswer]
    meeting: Meeting | None
    seen: frozenset[str]


def _is_word(line: str) -> bool:
    """Tell whether a host says that it has left its word in the run directory, or has one of its own."""
    return line.startswith(f'{PREFIX}{{"probe":"shared","data"')


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that is ours alone to read from the start: a request may hold a token."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


class Round:
    """One visit in progress.

    Attributes:
        late: hosts whose command had not ended when we stopped listening.
    """

    def __init__(self, plan: LaunchPlan, run_dir: RunDir, asked: Visit) -> None:
        self._plan = plan
        self._run_dir = run_dir
        self._asked = asked
        self._dir = run_dir.attempt(1)
        self._token = secrets.token_hex(32)
        self._word = secrets.token_hex(8)  # for everybody to read, so no part of the token
        self._meeting = Meeting(plan, self._token)
        self._launcher = make_launcher(plan, self._dir, self._on_exit)
        self._pusher = Pusher(plan, run_dir, self._dir, self._launcher, self._on_push_failed)
        self._open = {host.alias: host.name for host in plan.hosts}
        self._codes: dict[str, tuple[int, str, float]] = {}
        self._cut_off: dict[str, list[str]] = {}
        self._pushed: set[str] = set()
        self._changed = asyncio.Event()
        self._began = time.monotonic()
        self._started = False
        self.late: tuple[PlannedHost, ...] = ()

    async def run(self) -> Visited:
        """Start everything, wait for the answers, close everything."""
        task = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
        signs = asyncio.create_task(self._meeting.give_signs())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._visit(), self._asked.seconds)
        finally:
            signs.cancel()
            await self._close()
        answers = self._answers()
        return Visited(answers, self._meeting if self._asked.meet else None, await self._seen(answers))

    async def _visit(self) -> None:
        await self._start()
        await self._all_over()

    async def _start(self) -> None:
        port = await self._listen()
        self._write(port)
        await self._launcher.open(port)
        self._started = True
        await self._pusher.start(list(self._plan.hosts))

    async def _listen(self) -> int:
        wanted = self._plan.control_port
        try:
            return await self._meeting.server.open(wanted, local=self._plan.backend == "local")
        except OSError as error:
            fix = "leave it out, or end what listens there (another run of yours?)"
            problem = Problem(f"cannot listen: {error.strerror}", "cluster.control_port", str(wanted), fix)
            raise SubmitError(problem) from error

    def _write(self, port: int) -> None:
        """Put the probes in the agent's place, and write what is asked of the hosts."""
        self._dir.agent_file.write_bytes(check_zip())
        for name, data in self._asked.files.items():
            _write_private(self._dir.rendered / name, data)
        (self._run_dir.path / "check.token").write_text(self._word)
        (self._run_dir.path / "seen").mkdir()
        config = agent_config(self._plan, self._dir, port, self._token, "")
        write_json(self._dir.control_file, config | {"check": self._request()}, 0o600)

    def _request(self) -> dict[str, Any]:
        asked = self._asked
        return {
            "probes": list(asked.probes),
            "programs": dict(asked.programs),
            "folders": dict(asked.folders),
            "nvme": list(asked.nvme),
            "sweep": asked.sweep,
            "meet": asked.meet,
            "seconds": max(1.0, asked.seconds - _SLACK),
            "probe_seconds": min(asked.probe_seconds, max(1.0, asked.seconds - _SLACK)),
        }

    def _on_exit(self, alias: str, code: int, words: str) -> None:
        host = next(host for host in self._plan.hosts if host.alias == alias)
        if code == NO_BUNDLE and self._pusher.wants(host):
            self._pushed.add(alias)
            return
        self._end(alias, code, _UNSEEN if code == NO_BUNDLE else words)

    def _on_push_failed(self, alias: str, why: str) -> None:
        self._end(alias, 255, why)

    def _end(self, alias: str, code: int, words: str) -> None:
        if self._open.pop(alias, None) is None:
            return
        self._codes[alias] = (code, words, time.monotonic() - self._began)
        self._meeting.gone(next(host.name for host in self._plan.hosts if host.alias == alias))
        self._changed.set()

    async def _all_over(self) -> None:
        while self._open:
            await self._changed.wait()
            self._changed.clear()

    async def _close(self) -> None:
        """Let every host go, give each a moment to clear up, and end what does not."""
        self._meeting.dismiss()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_over(), _CLOSE_SECONDS if self._meeting.met else 0)
        late = frozenset(self._open)
        if self._started:
            self.late = tuple(host for host in self._plan.hosts if host.alias in late)
            told = self._told()
            self._cut_off = {alias: told.get(alias, []) for alias in late}
        await self._pusher.close()
        await self._launcher.close()
        await self._meeting.server.close()
        for alias in late:  # how it ended once it was ended is no answer, nor is what its shell said of that
            self._codes.pop(alias, None)

    def _told(self) -> dict[str, list[str]]:
        log = self._dir.launcher_log.read_text(encoding="utf-8", errors="replace")
        return split_log(log, {host.alias for host in self._plan.hosts})

    def _answers(self) -> dict[str, HostAnswer]:
        lines = self._told() | self._cut_off
        return {host.name: self._answer(host, lines.get(host.alias, [])) for host in self._plan.hosts}

    def _answer(self, host: PlannedHost, lines: list[str]) -> HostAnswer:
        code, words, seconds = self._codes.get(host.alias, (None, "", time.monotonic() - self._began))
        said = told_by(lines) or words if code else ""
        if code is None:
            told = told_by(lines)  # a greeting, or what the login warned of: it need not be why
            said = f"no answer in {self._asked.seconds:g} s" + (f"; it said last: {told}" if told else "")
        pushed = host.alias in self._pushed or self._plan.shared_disk is False
        return HostAnswer(host.name, code, lines, said, round(seconds, 3), pushed)

    async def _seen(self, answers: Mapping[str, HostAnswer]) -> frozenset[str]:
        """Return the hosts whose word has come; a file server may be some seconds behind.

        Each name is looked up only once its host has ended: a client of NFS remembers that a name was not
        there, and what a folder held (nfs(5), "Directory entry caching").
        """
        if "shared" not in self._asked.probes:
            return frozenset()
        told = {name for name, answer in answers.items() if any(map(_is_word, answer.stdout))}
        waiting = {host for host in self._plan.hosts if host.name in told}
        expected = len(waiting)
        deadline = time.monotonic() + _SEEN_SECONDS
        seen: set[str] = set()
        while True:
            seen |= {host.name for host in waiting if self._has_word(host)}
            if len(seen) == expected or time.monotonic() > deadline:
                return frozenset(seen)
            await asyncio.sleep(0.2)

    def _has_word(self, host: PlannedHost) -> bool:
        pushed = host.alias in self._pushed or self._plan.shared_disk is False
        with contextlib.suppress(OSError):
            word = (self._run_dir.path / "seen" / host.file_name).read_text(errors="replace")
            return word == self._word[::-1]
        return pushed  # it has a run directory of its own, and writes nothing into ours
