"""Fail in a given way on one rank, or on all, for the corpus of captured failures.

Before it fails a rank writes the time into `order-RANK`, which tells afterwards who was first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import cuda_ways
import plain_ways
import torch_ways

RANK = int(os.environ["RANK"])
PATIENCE = torch_ways.PATIENCE


def parsed():
    parser = argparse.ArgumentParser(prog="train.py")
    parser.add_argument("way")
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3)
    if "arguments" in sys.argv:
        sys.argv.append("--learning-rat=3e-4")
    return parser.parse_args()


COLLECTIVE = {"peer_exit", "peer_error", "leaves"}
WAITED_FOR = {"sleeps", "sleeps_long"}
ALL = {
    "alone",
    "arguments",
    "batch",
    "optimizer",
    "typo",
    "ds_checkpoint",
    "fp16",
    "cpu_adam",
    "store",
    *("cuda_oom_states", "ordinal", "nccl_interface", "same_gpu", "nccl_of_cpu", "overflow"),
}


def others(args):
    if args.way in COLLECTIVE or args.way in WAITED_FOR:
        torch_ways.reduce(4 if args.way == "sleeps" else 600)
    time.sleep(PATIENCE)


def note_time(args):
    path = args.folder / f"order-{RANK}"
    path.write_text(json.dumps(time.time()))


def main():
    args = parsed()
    for step in range(1, args.steps + 1):
        print(f"step {step}/{args.steps} loss {3.2 - step / 10:.3f} tokens/s 8192", flush=True)
    if args.way == "store":
        os.environ["MASTER_PORT"] = "1"
        torch_ways.group(5)
    if args.way == "barrier":
        together = torch_ways.group(60)
        if args.rank != RANK:
            together.monitored_barrier(timeout=timedelta(seconds=4))
        time.sleep(PATIENCE)
    if args.way in cuda_ways.TOGETHER:
        cuda_ways.begin(args)
    if args.rank != RANK and args.way not in ALL:
        if args.way in WAITED_FOR | COLLECTIVE:
            others(args)
        time.sleep(PATIENCE)
    if args.way in COLLECTIVE | WAITED_FOR:
        torch_ways.group(60)
        time.sleep(2)
    note_time(args)
    name = f"way_{args.way}"
    try:
        places = (plain_ways, torch_ways, cuda_ways)
        next(getattr(place, name) for place in places if hasattr(place, name))(args)
    except BaseException:
        note_time(args)
        raise


if __name__ == "__main__":
    main()
