"""A slow link between simulated hosts: the loopback device of a network namespace, shaped with `tc`.

Ranks of different simulated hosts reach each other through `lo` only (`NCCL_HOSTID` differs), ranks of one
host over NVLink. Both directions share its one queue, so a link of R each way is a queue of 2 R; what it lets
through is measured, not believed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

_DEVICES = Path("/proc/self/net/dev")  # of our namespace; /sys shows that of whoever mounted it
_CHUNK = bytes(1 << 20)
_STREAMS = 4  # for each direction, about as many as NCCL opens
_GIGABIT = 1e9 / 8


def enter_namespace(module: str) -> None:
    """Start this command again in a network namespace of its own, where nothing but us uses `lo`.

    Raises:
        SystemExit: not root, or a program is missing.
    """
    if "BENCH_NAMESPACE" not in os.environ:
        if os.geteuid() != 0:
            sys.exit("this comparison shapes a network device, so it needs root")
        os.environ["BENCH_NAMESPACE"] = "yes"
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--net", *command])
    _run("ip", "link", "set", "lo", "up")


def shape(gigabits: float | None) -> None:
    """Let so many Gbit/s through in each direction; None for as many as the kernel can."""
    shown = subprocess.run(["tc", "qdisc", "show", "dev", "lo"], capture_output=True, text=True, check=True)
    there = "tbf" in shown.stdout
    if gigabits is None:
        if there:
            _run("tc", "qdisc", "del", "dev", "lo", "root")
        return
    queue = ["tbf", "rate", f"{round(2000 * gigabits)}mbit", "burst", "8mb", "latency", "100ms"]
    _run("tc", "qdisc", "change" if there else "add", "dev", "lo", "root", *queue)


def sent() -> int:
    """Return the bytes that have gone over the link so far, both directions together, headers included."""
    line = next(line for line in _DEVICES.read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def measure(seconds: float = 1.0) -> float:
    """Return what the link lets through in each direction while both are full, in Gbit/s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        pairs = [_pair(server) for _ in range(_STREAMS)]
    ends = [end for pair in pairs for end in pair]
    threads = [threading.Thread(target=work, args=(end,)) for end in ends for work in (_pour, _drain)]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)  # until the queue's burst is used up
    began, before = time.perf_counter(), sent()
    time.sleep(seconds)
    rate = (sent() - before) / (time.perf_counter() - began)
    for end in ends:
        with contextlib.suppress(OSError):  # the other end was the first
            end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for end in ends:
        end.close()
    return rate / 2 / _GIGABIT


def _pair(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    here = socket.create_connection(server.getsockname())
    return here, server.accept()[0]


def _pour(end: socket.socket) -> None:
    try:
        while True:
            end.sendall(_CHUNK)
    except OSError:
        return  # shut down


def _drain(end: socket.socket) -> None:
    space = bytearray(len(_CHUNK))
    try:
        while end.recv_into(space):
            pass
    except OSError:
        return


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr.strip()}")
