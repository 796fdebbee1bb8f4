"""Start the training launcher on this host, and end everything it started."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from . import checks, commands, processes
from .checks import visible_devices

if TYPE_CHECKING:
    from .ranks import Ranks

_LINGER_SECONDS = 1.0  # how long a launcher may outlive its last rank before it gets SIGTERM
_SWEEP_SECONDS = 2.0  # SIGTERM to SIGKILL for what a finished run left behind


class Launch:
    """The life of this host's ranks: start, stop with grace, sweep.

    Attributes:
        started: the training launcher was started.
        stopping: SIGTERM has been decided.
        ended: no process of the run is left here.
        exit_code: the training launcher's, minus the signal number after a death by signal.
        exit_told: it ended after its ranks had been told to, so its code says nothing of the cause.
    """

    def __init__(self, config: dict[str, Any], host: dict[str, Any], ranks: Ranks) -> None:
        self._config = config
        self._host = host
        self._ranks = ranks
        self._mark = f"{config['run_id']}/{config['attempt']}/{host['index']}"
        self._log_path = os.path.join(config["logs"], host["file_name"] + ".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._termed: set[int] = set()
        self._launcher_termed = False
        self._swept = False
        self._ranks_gone: float | None = None
        self._kill_at = float("inf")
        self._events: list[dict[str, Any]] = []
        self.started = False
        self.stopping = False
        self.ended = False
        self.exit_code: int | None = None
        self.exit_told = False

    def log(self, text: str) -> None:
        """Add a line of ours to the host's log."""
        line = f"[orchestrate {time.strftime('%H:%M:%S')}] {text}\n"
        try:
            with open(self._log_path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError:
            pass  # a full disk must not end the run: the ranks may not write there at all

    def events(self) -> list[dict[str, Any]]:
        """Return, once, what the supervisor has to hear."""
        events, self._events = self._events, []
        return events

    def warm_up(self) -> None:
        """Have the launcher's module imported while the other hosts come up; does nothing the second time."""
        if self._process is not None or self.exit_code is not None or self.stopping:
            return
        module = commands.MODULES[self._config["launcher"]]
        argv = [self._config["python"], self._config["agent_file"], "late-launch", module]
        try:
            self._process = self._spawn(argv)
        except OSError as error:
            self.log(f"cannot start {argv[0]}: {error.strerror}")
            self._on_exit(127)

    def start(self, start: dict[str, Any]) -> None:
        """Run the training launcher; does nothing the second time."""
        if self.started or self.stopping:
            return
        self.started = True
        self.warm_up()
        start = dict(start, devices=visible_devices(dict(os.environ), self._host["devices"]))
        config = dict(self._config, scratch=os.path.dirname(self._ranks.socket_path))
        args = commands.launcher_args(config, start, self._shim(start))
        order = {
            "args": args,
            "env": {**config["env"], **launcher_environment(dict(os.environ), start)},
            "wait_for": commands.wait_for(config, start),
        }
        self.log(f"running {commands.MODULES[config['launcher']]} {shlex.join(args)}")
        self._give(order)

    def _give(self, order: dict[str, Any]) -> None:
        """Hand the launcher its order; one that has ended meanwhile is seen to have."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.close()

    def _shim(self, start: dict[str, Any]) -> list[str]:
        """Write the shims' configuration and return the command that starts one."""
        config = dict(
            start,
            logs=self._config["logs"],
            errors=self._config["errors"],
            file_name=self._host["file_name"],
            socket=self._ranks.socket_path,
            agent=os.getpid(),
            dumps=self._config["dumps"],
            torch=checks.version_of("torch"),
        )
        path = os.path.join(os.path.dirname(self._ranks.socket_path), "rank.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        python, agent = self._config["python"], self._config["agent_file"]
        return [python, agent, "rank", path, "--", *self._config["command"]]

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        environ = dict(os.environ)
        environ[processes.MARK] = self._mark
        with open(self._log_path, "ab") as log:
            return subprocess.Popen(
                argv,
                cwd=self._config["workdir"],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, reason: str, grace: float) -> None:
        """SIGTERM every rank now, SIGKILL everything after `grace` seconds; a later call may only shorten."""
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        if self.stopping or self.ended:
            return
        self.stopping = True
        self.log(f"stopping: {reason}")
        self._terminate()

    def _terminate(self) -> None:
        fresh = self._ranks.terminate(self._termed)
        self._termed.update(fresh)
        if fresh:
            self._events.append({"t": "termed", "ranks": fresh, "time": time.time()})
        if not self._ranks.records:
            self._terminate_launcher()

    def _terminate_launcher(self) -> None:
        if self._process is not None and self.exit_code is None and not self._launcher_termed:
            self._launcher_termed = True
            processes.send_to(self._process.pid, signal.SIGTERM)

    def tick(self) -> None:
        """Move on: collect the launcher's end, pass the deadline, sweep."""
        for pid, status in processes.reap().items():
            if self._process is not None and pid == self._process.pid:
                self._on_exit(processes.exit_code_of(status))
        if self.ended:
            return
        if self.stopping:
            self._stop_step()
        elif self.exit_code is not None:
            self.stop("the launcher has ended; sweeping what it left", _SWEEP_SECONDS)

    def _on_exit(self, code: int) -> None:
        if self._process is not None:
            self._process.returncode = code  # reaped by us: keep subprocess from waiting for the pid
        self.exit_code = code
        self.exit_told = self.stopping
        self.log(f"the launcher ended with {code}")
        self._events.append({"t": "launcher", "code": code, "told": self.stopping, "time": time.time()})

    def _stop_step(self) -> None:
        self._terminate()
        if not self._ranks.live():
            self._on_ranks_gone()
        if time.monotonic() >= self._kill_at:
            self._finish(processes.kill_all(self._mark, (os.getpid(),), self._spared(), seconds=1.5))

    def _on_ranks_gone(self) -> None:
        now = time.monotonic()
        self._ranks_gone = self._ranks_gone or now
        if self._process is not None and self.exit_code is None:
            if now - self._ranks_gone > _LINGER_SECONDS:
                self._terminate_launcher()
            return
        left = processes.find(self._mark, (os.getpid(),), self._spared())
        if not left:
            self._finish(left)
        elif not self._swept:
            self._swept = True
            self._kill_at = min(self._kill_at, now + _SWEEP_SECONDS)
            for process in left:
                processes.send(process, signal.SIGTERM)

    def _spared(self) -> tuple[int, ...]:
        return (os.getpid(), os.getppid())

    def _finish(self, left: list[processes.Process]) -> None:
        for pid, status in processes.reap().items():
            if self._process is not None and pid == self._process.pid:
                self._on_exit(processes.exit_code_of(status))
        self._events += [{"t": "rank", "record": record} for record in self._ranks.killed()]
        self.ended = True
        pids = [process.pid for process in left]
        self.log(f"nothing of the run is left here{f', but {pids}' if pids else ''}")
        self._events.append({"t": "ended", "left": pids, "time": time.time()})

    def end_now(self) -> None:
        """SIGKILL whatever is left: the agent is about to end."""
        if not self.ended:
            processes.kill_all(self._mark, (os.getpid(),), self._spared(), seconds=2)


def launcher_environment(environ: dict[str, str], start: dict[str, Any]) -> dict[str, str]:
    """Return what to add to the launcher's environment; what the user has set stays as it is.

    The interface must be named: gloo otherwise takes the address of the host's own name, often 127.0.1.1,
    and the ranks of other hosts wait for it in vain.
    """
    cores = len(os.sched_getaffinity(0))
    ranks = start["world_size"] if start.get("simulated") else start["local_world_size"]
    wanted = {
        "OMP_NUM_THREADS": str(max(1, cores // ranks)),
        "PYTHONUNBUFFERED": "1",
    }
    if start.get("interface"):
        wanted["GLOO_SOCKET_IFNAME"] = start["interface"]
        wanted["NCCL_SOCKET_IFNAME"] = "=" + start["interface"]  # "=": this name, not every eth0…
    if start.get("simulated"):
        wanted["NCCL_HOSTID"] = f"{start['run_id']}-{start['node_rank']}"
    added = {key: value for key, value in wanted.items() if key not in environ}
    added["MASTER_ADDR"] = str(start["master_addr"])
    added["MASTER_PORT"] = str(start["master_port"])
    added["CUDA_VISIBLE_DEVICES"] = str(start["devices"])
    added["LOCAL_SIZE"] = str(start["local_world_size"])
    return added
