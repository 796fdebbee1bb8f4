"""The agent's loop: one thread, woken by the supervisor, by ranks, by signals, and by a short clock."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from . import checks, network, processes
from .channel import Channel
from .control_file import load
from .launch import Launch
from .ranks import Ranks
from .sending import Sending
from .watch import Watch

if TYPE_CHECKING:
    from .dumping import Dumper

_TICK = 0.05  # seconds, while something is near: a connection, a start, an end
_CALM_TICK = 0.25  # while ranks just run: whatever matters wakes the loop by itself
_PARTING_SECONDS = 2.0  # that a host which has been told to end waits for a supervisor that is gone
LEASE_RAN_OUT = 75  # EX_TEMPFAIL of sysexits.h
TOLD_TO_END = "the host sent SIGTERM to its agent"


class Agent:
    """Everything the run does on this host, from the first word of the supervisor to its release.

    Args:
        config: `control.json`, written by the supervisor (see orchestrator.supervisor.control).
        host: this host's entry in it: name, file_name, index, devices.
        alive: reads end-of-file when our keeper is gone.
        folder: a private folder for the socket of the rank shims.
        shared: the run directory is the supervisor's own, so logs need no sending.
    """

    def __init__(
        self, config: dict[str, Any], host: dict[str, Any], alive: int, folder: str, *, shared: bool
    ) -> None:
        self.config = config
        self.host = host
        self.selector = selectors.DefaultSelector()
        self.channel = Channel(self.selector, config, host["name"])
        self.ranks = Ranks(config["errors"], folder, self.selector)
        self.launch = Launch(config, host, self.ranks)
        self.watch = Watch(config, host, self.ranks.listed, shared=shared)
        own = config["logs"], host["file_name"], self.watch, self.launch.log
        self.logs = None if shared else Sending(*own)
        self.dumper: Dumper | None = None
        self.folder = folder
        self.master_port: network.HeldPort | None = None
        self.keeper = alive
        self.announced = False
        self.released = False
        self.exit_code = 0
        self.said_drained = False
        self.fault = ""
        self.problems: list[str] = []

    def run(self) -> int:
        """Serve the supervisor until it releases this host, or the lease runs out."""
        wakeup, waker = socket.socketpair()
        for end in (wakeup, waker):
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._give_up(TOLD_TO_END))
        self.selector.register(wakeup, selectors.EVENT_READ, lambda _: wakeup.recv(4096))
        self.selector.register(self.ranks.socket, selectors.EVENT_READ, lambda _: None)
        self.selector.register(self.keeper, selectors.EVENT_READ, self._on_keeper_gone)
        self.launch.log(f"agent {os.getpid()} on {socket.gethostname()}, run {self.config['run_id']}")
        self.problems = checks.problems(self.config, self.host["devices"])
        with contextlib.suppress(OSError):
            os.makedirs(self.config["dumps"], exist_ok=True)
        try:
            if not self.problems:
                self.launch.warm_up()
            while not self.released:
                self._turn()
        finally:
            self.launch.end_now()
            self.ranks.close()
            self._tidy()
        return self.exit_code

    def _tidy(self) -> None:
        """Take back what was pushed here, once its logs are safe; what the script wrote stays."""
        if self.logs is None:
            return
        attempt = self.config["attempt_dir"]
        gone = ["control.json"] + (["rendered", "logs", "errors"] if self.said_drained else [])
        for path in [os.path.join(attempt, name) for name in gone]:
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else _unlink(path)
        for name in ("secrets.env", "plan.json", "pushed") if self.said_drained else ("secrets.env",):
            _unlink(os.path.join(self.config["run_dir"], name))
        for path in (attempt, self.config["run_dir"]):
            with contextlib.suppress(OSError):
                os.rmdir(path)  # only if nothing else is in it

    def _turn(self) -> None:
        for key, mask in self.selector.select(self._patience()):
            key.data(mask)
        for message in self.channel.receive():
            self._obey(message)
        self._report()
        self.launch.tick()
        self._report_end()
        self._send_logs()
        self._check_lease()
        self.channel.tick()
        if not self.channel.ready:
            self.announced = False

    def _patience(self) -> float:
        """Return how long nothing may happen before the loop looks for itself."""
        at_rest = self.announced and self.launch.started and self.launch.exit_code is None
        return _CALM_TICK if at_rest and not self.launch.stopping and not self.ranks.unsettled else _TICK

    def _obey(self, message: dict[str, Any]) -> None:
        """Do what the supervisor says; every order may come again after a reconnection."""
        order = message["t"]
        if order == "welcome":
            self._announce(message)
        elif order == "ping":
            self.channel.send({"t": "pong", "sent": message["sent"], "now": time.time()})
        elif order == "probe":
            self.channel.send(self._probe(message))
        elif order == "start":
            self._start(message)
        elif order == "stop":
            self.ranks.abort_at_end(message.get("abort", ()))
            self._stop(message["reason"], message["grace"])
        elif order in {"dump", "tool"}:
            self._dump(message)
        elif order == "kept" and self.logs:
            self.logs.ship.acknowledge(message["ends"])
        elif order == "release":
            self.released = True

    def _announce(self, message: dict[str, Any]) -> None:
        """Say who we are and everything that has happened so far."""
        if self.logs:
            self.logs.ship.resume(message["have"])
        started = self.launch.started
        self.announced = True
        self.said_drained = False
        if self.dumper is not None:
            self.dumper.forget()
        self.channel.send(
            {
                "t": "ready",
                "pid": os.getpid(),
                "keeper": os.getppid(),
                "hostname": socket.gethostname(),
                "versions": checks.versions(),
                "gpus": checks.count_gpus(),
                "devices": checks.device_names(dict(os.environ), self.host["devices"]),
                "addresses": self._addresses(),
                "problems": self.problems,
                "port": self._hold_port() if not started and self.host["index"] == 0 else None,
                "ranks": list(self.ranks.records.values()),
                "launcher": self.launch.exit_code,
                "launcher_told": self.launch.exit_told,
                "started": started,
                "ended": self.launch.ended,
                "shared": self.logs is None,
            }
        )
        if self.fault:
            self.channel.send({"t": "fault", "text": self.fault})

    def _addresses(self) -> list[tuple[str, str]]:
        """Return this host's addresses and their interfaces, the one the submit host reached it by first."""
        reached = os.environ.get("SSH_CONNECTION", "").split()[2:3] or [self.channel.own_address]
        known = network.addresses()
        return sorted(known.items(), key=lambda pair: pair[0] not in reached)

    def _hold_port(self) -> int | str:
        """Take the master port here, where it must be free; return it, or why it cannot be had."""
        if self.master_port is None:
            port = self.config["master_port"]
            try:
                self.master_port = network.HeldPort(port or 0)
            except OSError as error:
                return f"train.master_port {port} is not free here: {error.strerror}; leave it out"
        return self.master_port.number

    def _probe(self, message: dict[str, Any]) -> dict[str, Any]:
        """Try the master's addresses in order; tell the first that answers and our way to it."""
        failures = []
        for address in message["addresses"]:
            try:
                _, interface = network.interface_towards(address, message["port"], message["timeout"])
            except OSError as error:
                failures.append(f"{address}: {error.strerror or error}")
                continue
            return {"t": "route", "address": address, "interface": interface}
        return {"t": "route", "address": None, "failures": failures}

    def _start(self, message: dict[str, Any]) -> None:
        if self.master_port is not None:
            self.master_port.stop_listening()
        self.launch.start(message)
        self.watch.start()
        self.channel.send({"t": "started", "time": time.time()})

    def _stop(self, reason: str, grace: float | None = None) -> None:
        self.launch.stop(reason, self.config["grace"] if grace is None else grace)

    def _dump(self, message: dict[str, Any]) -> None:
        from .dumping import Dumper  # noqa: PLC0415 - few runs hang

        self.dumper = self.dumper or Dumper.of(self.config, self.host["file_name"], self.folder)
        if message["t"] == "tool":
            self.dumper.take_tool(message)
        else:
            self.dumper.order(message, self.ranks.pids())

    def _report(self) -> None:
        """Pass on what ranks did, at once."""
        for record in self.ranks.hear() + self.ranks.check():
            self.channel.send({"t": "rank", "record": record})

    def _report_end(self) -> None:
        for event in self.launch.events():
            self.channel.send(event)
        for answer in self.dumper.answers() if self.dumper else ():
            self.channel.send(*answer)

    def _send_logs(self) -> None:
        over = self.launch.ended and self.watch.finish()
        if self.logs:
            self.logs.look(at_once=self.launch.ended, last=over)
        if not self.announced:
            return
        if self.logs:
            self.logs.send(self.channel)
        if over and not self.said_drained and (not self.logs or self.logs.ship.is_drained()):
            self.said_drained = True
            self.channel.send({"t": "drained"})

    def _check_lease(self) -> None:
        silence = time.monotonic() - self.channel.contact
        told = self.fault == TOLD_TO_END and self.launch.ended and not self.channel.ready
        if silence < (_PARTING_SECONDS if told else self.config["lease"]):
            return
        if not self.launch.stopping:
            self.launch.log(f"no word from the supervisor for {silence:.0f} s: {self.channel.failure}")
            self._stop("the supervisor was out of reach longer than the lease")
        if self.launch.ended:
            self.exit_code = LEASE_RAN_OUT
            self.released = True

    def _on_keeper_gone(self, _mask: int) -> None:
        self.selector.unregister(self.keeper)
        self._give_up("the agent's keeper was killed")

    def _give_up(self, why: str) -> None:
        """End the ranks although the supervisor did not say so, and tell it why."""
        self.fault = why
        self.channel.send({"t": "fault", "text": why})
        self._stop(why)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def main(run_dir: str, attempt_dir: str, host_name: str, alive: int, folder: str) -> int:
    """Run the agent of one host; returns the exit code for the keeper."""
    processes.become_subreaper()
    config, host, shared = load(run_dir, attempt_dir, host_name)
    return Agent(config, host, alive, folder, shared=shared).run()
