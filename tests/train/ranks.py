"""Run a test's script as ranks on this machine, forked from one process that has imported what they import.

Each import of torch and DeepSpeed costs a core many seconds, and torchrun is one more; that process does it
once for all tests of a worker. A rank leaves without Python's own end: a gloo thread of torch 2.13 may still
drop a tensor then, and the rank dies of SIGABRT ("terminate called without an active exception") although all
has been done, destroy_process_group() or not.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

SECONDS = 900  # for one script


def run_ranks(ranks: int, script: Path, *words: object, cwd: Path | None = None) -> str:
    """Return what the ranks printed; all must end with 0."""
    from tests.ports import free_port  # not there for the process that forks

    with tempfile.TemporaryDirectory() as folder:
        said, errors = Path(folder, "out"), Path(folder, "err")
        argv = [str(word) for word in (script, *words)]
        files = [str(said), str(errors)]
        code = ordered(ranks=ranks, argv=argv, cwd=str(cwd or Path.cwd()), files=files, port=free_port())
        out = said.read_text()
        assert code == "0", f"{out}{errors.read_text()}ended with {code}"
    return out


def ordered(**order: object) -> str:
    """Give the process that forks an order, and return how it says that this ended."""
    server = importer()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    return server.stdout.readline().strip()


@functools.cache
def importer() -> subprocess.Popen[str]:
    """Start the process that ranks are forked from; it ends with this one, by the end of its stdin."""
    return subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    """Fork once per order, a line of JSON on stdin; answer with how that ended."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what imports print is no answer
    import deepspeed  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401

    gc.freeze()  # what is not touched stays shared
    for line in sys.stdin:
        child = os.fork() or lead(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def lead(order: dict[str, Any]) -> NoReturn:
    """Fork the ranks; as soon as one has failed, end the others: they would wait for it."""
    os.setsid()
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
    signal.alarm(SECONDS)
    for number, name in enumerate([os.devnull, *order["files"]]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    os.chdir(order["cwd"])
    ranks, port = order["ranks"], str(order["port"])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE=str(ranks))
    sys.argv = order["argv"]
    running = {os.fork() or become(rank) for rank in range(ranks)}
    while running:
        pid, status = os.wait()
        running.discard(pid)
        if status:
            os.killpg(0, signal.SIGKILL)
    os._exit(0)


def become(rank: int) -> NoReturn:
    """Run the script in a forked child; its own folder is where it imports from."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
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
    main()
