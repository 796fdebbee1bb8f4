"""A training that hangs: all ranks sum over gloo, and from a step on one of them reads what never comes.

`--stuck R` and `--at STEP` say who and when. `--busy R --busy-seconds S`: at that step that rank computes
for a while instead, and the others wait for it. `--slow R`: so it does at every step, for half a second.
"""

from __future__ import annotations

import argparse
import os
import time

import torch
import torch.distributed as dist

parser = argparse.ArgumentParser()
parser.add_argument("--stuck", type=int, default=-1)
parser.add_argument("--busy", type=int, default=-1)
parser.add_argument("--busy-seconds", type=float, default=0.0)
parser.add_argument("--slow", type=int, default=-1)
parser.add_argument("--at", type=int, default=4)
parser.add_argument("--steps", type=int, default=8)
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


dist.init_process_group("gloo")
for step in range(1, args.steps + 1):
    began = time.monotonic()
    if step == args.at and dist.get_rank() == args.stuck:
        next_batch()
    if step == args.at and dist.get_rank() == args.busy:
        compute(args.busy_seconds)
    if dist.get_rank() == args.slow:
        compute(0.5)
    total = torch.ones(1000)
    dist.all_reduce(total)
    if dist.get_rank() == 0:
        print(
            f"step {step}/{args.steps} loss {1 / step:.3f} step_time {time.monotonic() - began:.2f}s",
            flush=True,
        )
    time.sleep(0.1)
dist.destroy_process_group()
