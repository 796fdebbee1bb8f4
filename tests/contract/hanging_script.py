"""A training that hangs: all ranks sum over gloo, and from a step on one of them reads what never comes.

`--stuck R` and `--at STEP` say who and when. `--busy R --busy-until FILE`: at that step that rank computes
until there is such a file, and the others wait for it. `--slow R`: so it does at every step, for half a
second and with some threads. `--until FILE`: the last step is not made before there is such a file.

`--spin`: those that wait use a whole core each, as with NCCL, and a thread does what ProcessGroupNCCL's does
with the flight recorder's pipe.
"""

from __future__ import annotations

import argparse
import itertools
import os
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--stuck", type=int, default=-1)
parser.add_argument("--busy", type=int, default=-1)
parser.add_argument("--busy-until", type=Path)
parser.add_argument("--spin", action="store_true")
parser.add_argument("--slow", type=int, default=-1)
parser.add_argument("--at", type=int, default=4)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--until", type=Path)
parser.add_argument("--report")
args = parser.parse_args()


def next_batch() -> bytes:
    """Wait for a batch from somebody who sends none."""
    reader, _writer = os.pipe()
    return os.read(reader, 1)  # the line that the test looks for


def compute(seconds: float) -> None:
    """Use a CPU for a while, without a word."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(10_000))


def multiply(seconds: float) -> None:
    """Use a CPU for a while, without Python's lock."""
    end, factor = time.monotonic() + seconds, torch.ones(256, 256)
    while time.monotonic() < end:
        factor @ factor


def compute_much(seconds: float) -> None:
    """Use CPUs for a while: on a busy machine, one thread may get less than anybody would wait for."""
    threads = [threading.Thread(target=multiply, args=(seconds,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def work() -> None:
    """Use a CPU until the file is there."""
    while not args.busy_until.exists():
        compute(0.02)
        time.sleep(0.001)  # the recorder's thread needs Python's lock as well


def spin(collective: dist.Work) -> None:
    """Wait as ranks do for a GPU: using a core, and with no call of torch.distributed in the stack."""
    while not collective.is_completed():
        time.sleep(0)


def answer_the_pipe() -> None:
    """Write down what the flight recorder knows whenever somebody writes into its pipe."""
    from torch._C._distributed_c10d import _dump_fr_trace

    pipe = f"{os.environ['TORCH_NCCL_DEBUG_INFO_PIPE_FILE']}{dist.get_rank()}.pipe"
    os.mkfifo(pipe)
    handle = os.open(pipe, os.O_RDWR)  # and not os.O_RDONLY, which would wait for a writer
    while os.read(handle, 128):
        Path(f"{os.environ['TORCH_FR_DUMP_TEMP_FILE']}{dist.get_rank()}").write_bytes(_dump_fr_trace())


dist.init_process_group("gloo")
if args.spin:
    threading.Thread(target=answer_the_pipe, daemon=True).start()
for step in itertools.count(1):
    began = time.monotonic()
    if step == args.at and dist.get_rank() == args.stuck:
        next_batch()
    if step == args.at and dist.get_rank() == args.busy:
        work()
    if dist.get_rank() == args.slow:
        compute_much(0.5)
    last = step >= args.steps and (args.until is None or args.until.exists())
    total = torch.full((1000,), float(last))
    if args.spin:
        spin(dist.all_reduce(total, async_op=True))
    else:
        dist.all_reduce(total)
    if dist.get_rank() == 0:
        print(
            f"step {step}/{args.steps} loss {1 / step:.3f} step_time {time.monotonic() - began:.2f}s",
            flush=True,
        )
    if total[0] == dist.get_world_size():  # all of them see the file, and end with the same step
        break
    time.sleep(0.1)
dist.destroy_process_group()
os._exit(0)  # in Python's own end, a thread of gloo may still be at work, which aborts it now and then
