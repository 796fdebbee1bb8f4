"""The keeper: the process `node.sh` becomes. It ends the run on this host if the agent is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from typing import Callable

from . import processes

AGENT_DIED = 70  # EX_SOFTWARE of sysexits.h: tells the supervisor that no agent is left on the host


def keep(mark: str, agent: Callable[[int, str], int]) -> int:
    """Run `agent` in a child and return its exit code; if it is killed, end the run's processes first.

    Args:
        mark: the value of processes.MARK that the run's processes on this host carry.
        agent: gets a file descriptor that reads end-of-file when the keeper is gone, and a private
            folder that lives as long as the keeper. It is in /tmp because a socket's path may be 107
            bytes long at most (unix(7)), and a run directory's may be longer.
    """
    folder = tempfile.mkdtemp(prefix="orchestrate-")
    try:
        return _keep(mark, lambda alive: agent(alive, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(mark: str, agent: Callable[[int], int]) -> int:
    processes.become_subreaper()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # a closed terminal or connection harms nothing
    alive, held = os.pipe()
    # Blocked until there is an agent to pass it to: it would end us, and nobody would clear up.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(held)
        _run_agent(agent, alive)
    os.close(alive)
    signal.signal(signal.SIGTERM, lambda *_: processes.send_to(child, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    status = _wait_for(child)
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    left = processes.kill_all(mark, (os.getpid(),), (), seconds=10)
    _say(f"the agent was killed by signal {os.WTERMSIG(status)}; its ranks were ended ({len(left)} left)")
    return AGENT_DIED


def _run_agent(agent: Callable[[int], int], alive: int) -> None:
    code = 1
    try:
        code = agent(alive)
    except BaseException:  # noqa: BLE001 - nobody else would tell: this process ends below
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait_for(child: int) -> int:
    """Wait for the agent, reaping orphans that came to us meanwhile; return its wait status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the connection that carried our output may be gone
        print(f"orchestrate: {text}", file=sys.stderr, flush=True)
