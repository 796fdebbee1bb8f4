"""Run a test's script as ranks on this machine, forked from one process that has imported DeepSpeed.

Each import of torch and DeepSpeed costs a core many seconds, and torchrun is one more. A rank leaves without
Python's own end: a gloo thread of torch 2.13 may still drop a tensor then, and the rank dies of SIGABRT
("terminate called without an active exception") although all has been done, destroy_process_group() or not.
"""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NoReturn


def run_ranks(ranks: int, script: Path, *words: object) -> str:
    """Return what the ranks printed; all must end with 0."""
    done = subprocess.run(
        [sys.executable, __file__, str(ranks), script, *map(str, words)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def main() -> int:
    """Fork the ranks; as soon as one has failed, end the others: they would wait for it."""
    import deepspeed  # noqa: F401

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ranks = int(sys.argv[1])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE=str(ranks))
    running = {pid for rank in range(ranks) if (pid := os.fork() or become(rank))}
    failed = 0
    while running:
        pid, status = os.wait()
        running.discard(pid)
        if status and not failed:
            failed = 1
            for other in running:
                os.kill(other, signal.SIGKILL)
    return failed


def become(rank: int) -> NoReturn:
    """Run the script in a forked child; its own folder is where it imports from."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    sys.argv = sys.argv[2:]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except BaseException:  # noqa: BLE001 - as Python itself would
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
