"""Ranks that measure an all-reduce: made by a process that imports torch once, one set a measurement.

A rank that hangs or crashes takes nothing along, for it is a process of its own; it is forked from one that
has torch already, as importing it takes seconds.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Tuple

from .exchange import WARM, fit
from .lines import receive, send

Work = Callable[[Dict[str, Any]], Dict[str, Any]]


class Ranks:
    """The process that has torch imported and makes those that measure."""

    def __init__(self, env: Dict[str, str], backend: str) -> None:
        ours, theirs = socket.socketpair()
        words = [sys.executable, os.path.abspath(sys.argv[0]), "ranks", json.dumps(backend)]
        self._process = subprocess.Popen(words, stdin=theirs.fileno(), env=dict(os.environ, **env))
        theirs.close()
        self._channel = ours

    def ready(self, seconds: float) -> Dict[str, Any]:
        """Return what it `can` do: nccl, gloo, or tcp and `why`."""
        try:
            return receive(self._channel, seconds)
        except (OSError, ValueError) as error:
            return {"can": "tcp", "why": f"torch cannot be imported here: {error}"}

    def measure(self, order: Dict[str, Any]) -> Dict[str, Any]:
        """Return what the ranks of this host measured: bytes and seconds."""
        send(self._channel, order)
        result = receive(self._channel, order["limit"] + 10)
        if "error" in result:
            raise OSError(result["error"])
        return result

    def end(self) -> None:
        """End it: it does so itself when nobody is there any more to give orders."""
        self._channel.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()


def main(backend: str) -> int:
    """Import torch, say what is possible here, then make ranks for each measurement."""
    channel = socket.socket(fileno=os.dup(0))
    if backend == "tcp":
        send(channel, {"can": "tcp"})
        return 0
    try:
        import torch.distributed  # noqa: F401, PLC0415 - what this process is for
    except Exception as error:  # noqa: BLE001 - a broken torch is as good as none
        send(channel, {"can": "tcp", "why": f"{type(error).__name__}: {error}"})
        return 0
    send(channel, {"can": backend or ("nccl" if _child(_has_nccl, {}, 60) == {"yes": True} else "gloo")})
    while True:
        try:
            order = receive(channel, 86400)
        except OSError:
            return 0
        send(channel, make(order))


def _has_nccl(_: Dict[str, Any]) -> Dict[str, Any]:
    """Ask CUDA in a process of its own: one that has asked cannot be forked any more."""
    import torch  # noqa: PLC0415

    wanted = os.environ.get("DS_ACCELERATOR") != "cpu"
    return {"yes": wanted and torch.cuda.is_available() and torch.distributed.is_nccl_available()}


def make(order: Dict[str, Any]) -> Dict[str, Any]:
    """Run this host's ranks of one measurement; return the first one's result, or the first error."""
    children = [_start(_rank, dict(order, local=local)) for local in range(order["ranks"])]
    end = time.monotonic() + order["limit"] + 5
    results = [_finish(child, end) for child in children]
    return next((result for result in results if "error" in result), results[0])


def _child(work: Work, order: Dict[str, Any], seconds: float) -> Dict[str, Any]:
    return _finish(_start(work, order), time.monotonic() + seconds)


def _start(work: Work, order: Dict[str, Any]) -> Tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            send(theirs, work(order))
        except BaseException as error:  # noqa: BLE001 - the parent tells it
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            send(theirs, {"error": f"{type(error).__name__}: {text[:300]}"})
        finally:
            os._exit(0)
    theirs.close()
    return pid, ours


def _finish(child: Tuple[int, socket.socket], end: float) -> Dict[str, Any]:
    pid, channel = child
    with channel:
        try:
            result = receive(channel, max(0.1, end - time.monotonic()))
        except (OSError, ValueError):
            result = {"error": "the measurement did not end in its time"}
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    crashed = os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL
    return {"error": f"the rank died of signal {os.WTERMSIG(status)}"} if crashed else result


def _rank(order: Dict[str, Any]) -> Dict[str, Any]:
    """Be one rank: join the group, measure, leave."""
    from datetime import timedelta  # noqa: PLC0415

    import torch  # noqa: PLC0415
    import torch.distributed as dist  # noqa: PLC0415

    cuda = order["how"] == "nccl"
    if cuda:
        torch.cuda.set_device(order["local"] % torch.cuda.device_count())
    torch.set_num_threads(1)
    host = "[{}]".format(order["address"]) if ":" in order["address"] else order["address"]
    dist.init_process_group(
        order["how"],
        init_method="tcp://{}:{}".format(host, order["port"]),
        rank=order["first"] + order["local"],
        world_size=order["world"],
        timeout=timedelta(seconds=order["limit"]),
    )
    result = _all_reduces(order, "cuda" if cuda else "cpu")
    dist.destroy_process_group()
    return result


def _all_reduces(order: Dict[str, Any], device: str) -> Dict[str, Any]:
    import torch  # noqa: PLC0415
    import torch.distributed as dist  # noqa: PLC0415

    def timed(size: int) -> float:
        tensor = torch.zeros(size // 4, device=device)
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        dist.all_reduce(tensor)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed(WARM)  # connects the ranks
    longest = torch.tensor([timed(WARM)], device=device)
    dist.all_reduce(longest, op=dist.ReduceOp.MAX)  # so that all ranks choose the same size
    size, repeats = fit(order, float(longest.item()))
    times = [timed(size) for _ in range(repeats)]
    return {"bytes": size, "time": statistics.median(times), "times": times}
