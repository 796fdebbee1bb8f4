"""Make the log folder of a large run grow: a process of its own, so that its cost is nobody else's.

    python -m benchmarks.growing_logs FOLDER HOSTS SLOTS LINES_A_SECOND SECONDS

Every rank's .out grows once a second, by as many lines as the rate asks for: a line of a step, which ends
with the time it was written, and lines that tell nothing. Every rank's .err and every host's log is there
and stays as it is, as they do in a run that goes well. HOST.times gets a line for each growth, and every
100 s each host gets a sample.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

_TICKS = 20  # a second; at each, one part in so many of the files grows
_OTHER = (
    "[2026-11-21 10:00:00,000] [INFO] [data.py:118:refill] shard 17 of 512, 4096 sequences, queue depth 32\n"
)


def main(folder: Path, hosts: int, slots: int, rate: float, seconds: float) -> None:
    """Write until the time is over; print how many lines were written."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    ranks = hosts * slots
    each = max(1, round(rate / ranks))
    handles = [_opened(folder / f"worker-{rank // slots}.rank{rank}.out") for rank in range(ranks)]
    times = [_opened(folder / f"worker-{host}.times") for host in range(hosts)]
    print("ready", flush=True)
    sys.stdin.readline()
    began, tick, sizes = time.time(), 0, [os.fstat(handle).st_size for handle in handles]
    while (now := time.time()) - began < seconds:
        for rank in range(tick % _TICKS, ranks, _TICKS):
            line = (
                f"step {tick // _TICKS + 1}/100000 loss 2.345 tokens/s 4745 step_time 1.00s wall {now:.3f}\n"
            )
            sizes[rank] += os.write(handles[rank], (_OTHER * (each - 1) + line).encode())
            os.write(times[rank // slots], f"{now:.3f} {rank}.out {sizes[rank]}\n".encode())
        for host in range(tick % 2000, hosts, 2000):
            _sample(folder, host, slots, now)
        tick += 1
        time.sleep(max(0.0, began + tick / _TICKS - time.time()))
    print(json.dumps({"lines": tick * (ranks // _TICKS) * each, "seconds": time.time() - began}), flush=True)


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _sample(folder: Path, host: int, slots: int, now: float) -> None:
    ranks = {str(rank): {"cpu": 1.0, "memory": 9 << 30} for rank in range(host * slots, (host + 1) * slots)}
    gpu = {
        "utilization": 0.98,
        "memory": 61 << 30,
        "memory_total": 80 << 30,
        "temperature": 64,
        "clock": 1980,
    }
    own = {
        "cpu": 8.1,
        "cores": 64,
        "memory": 200 << 30,
        "memory_total": 1 << 40,
        "sent": 2e9,
        "received": 2e9,
    }
    gpus = {str(index): gpu for index in range(slots)}
    with (folder / f"worker-{host}.samples").open("a") as file:
        file.write(json.dumps({"time": now, "host": own, "ranks": ranks, "gpus": gpus}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
