"""Train a language model with DeepSpeed ZeRO++: the lesson behind the job files of this folder.

Every rank of every host runs this file, and nothing in it knows about hosts, launchers or schedulers: the
five variables RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say all that a rank needs. torchrun,
DeepSpeed's launcher and `accelerate launch` set them alike. What ZeRO does is up to the DeepSpeed config. By
hand on one machine, with the `ds_config.json` that `orchestrate render job.yaml` shows:

    torchrun --nproc-per-node 2 train.py --deepspeed_config ds_config.json --save checkpoints

`corpus.py` has the data, `model.py` the model; here is what happens to them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from pathlib import Path

import corpus
import deepspeed
import model
import numpy as np
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from torch.distributed.elastic.multiprocessing.errors import record

NEWEST = "newest"
HELD_OUT = 0.05  # share of the corpus, at its end, that training never sees
EVAL_WINDOWS = 128  # spread over what is held out


def parse_args() -> argparse.Namespace:
    """Read the command line; `--help` shows the defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--deepspeed_config", required=True, help="path of DeepSpeed's JSON")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps, resumed ones included")
    parser.add_argument("--peak_tflops", type=float, help="of a GPU; 989 for bf16 on an H100. Shows MFU")
    parser.add_argument("--save", type=Path, help="folder for the checkpoint, seen by all hosts")
    parser.add_argument("--save_every", type=int, default=0, metavar="STEPS", help="0: only at the end")
    parser.add_argument(
        "--resume", nargs="?", const=NEWEST, metavar="TAG", help="go on from this tag or the newest of --save"
    )
    model.add_arguments(parser)
    corpus.add_arguments(parser)
    return parser.parse_args()


def say(message: str) -> None:
    """Print one line, from rank 0 only, at once: a log that people watch must not wait in a buffer."""
    if dist.get_rank() == 0:
        print(message, flush=True)


class Trainer:
    """One rank's share of a training.

    Attributes:
        step: optimizer steps taken.
        seen: windows of the corpus trained on, by all ranks together. With it the order of the data depends
            neither on the number of ranks nor on the batch size: both may change when a run is resumed.
    """

    def __init__(self, engine: DeepSpeedEngine, data: corpus.Corpus, args: argparse.Namespace) -> None:
        self.engine = engine
        self.data = data
        self.args = args
        self.step = self.seen = 0
        self.train_windows = int(data.windows * (1 - HELD_OUT))
        self.flops = model.flops_per_token(engine.module, args)

    def batch(self, windows: list[int]) -> torch.Tensor:
        """Return windows of the corpus on this rank's device, int64 (windows, seq_len)."""
        rows = np.stack([self.data.window(window) for window in windows]).astype(np.int64)
        return torch.from_numpy(rows).to(self.engine.device)

    def next_windows(self) -> list[int]:
        """Return this rank's windows of the next micro-batch, and count those of all ranks as seen."""
        size = self.engine.train_micro_batch_size_per_gpu()
        first = self.seen + dist.get_rank() * size
        self.seen += dist.get_world_size() * size
        return corpus.order(first, size, self.train_windows, self.args.seed)

    def train_step(self) -> float:
        """Take one optimizer step over all its micro-batches; return their mean loss in nats per token."""
        losses = []
        for _ in range(self.engine.gradient_accumulation_steps()):
            ids = self.batch(self.next_windows())
            loss = self.engine(input_ids=ids, labels=ids).loss  # weights are gathered layer by layer, let go
            self.engine.backward(loss)  # gradients are summed over the ranks, each rank keeping its shard
            self.engine.step()  # counts micro-batches: only the last one of a step moves the weights
            losses.append(loss.detach())
        self.step += 1
        return mean_over_ranks(losses)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Return the loss on held-out text, the same windows of it on any number of ranks."""
        self.engine.eval()
        size = self.engine.train_micro_batch_size_per_gpu()
        held_out = self.data.windows - self.train_windows
        total = torch.zeros(2, device=self.engine.device)  # losses, windows
        for before in range(0, EVAL_WINDOWS, size * dist.get_world_size()):
            first = before + dist.get_rank() * size
            mine = range(first, min(first + size, EVAL_WINDOWS))
            # Each call gathers weights from all ranks: one that has nothing left asks what counts nothing.
            places = [number * held_out // EVAL_WINDOWS for number in mine or [0]]
            ids = self.batch([self.train_windows + place for place in places])
            loss = self.engine(input_ids=ids, labels=ids).loss.float()
            total += torch.stack([loss * len(mine), torch.tensor(len(mine), device=loss.device)])
        dist.all_reduce(total)
        return (total[0] / total[1]).item()

    def resume(self) -> None:
        """Load a checkpoint, every rank its own shard, and go on where it was made."""
        if not (self.args.resume and self.args.save):
            return
        # What `orchestrate checkpoint reshape` makes fits any number of ranks, and has a pointer of its own.
        universal = self.engine.load_universal_checkpoint()
        latest = self.args.save / ("latest_universal" if universal else "latest")
        if self.args.resume == NEWEST and not latest.exists():  # a first start by the same command
            say(f"no checkpoint in {self.args.save}: starting from step 0")
            return
        tag = latest.read_text().strip() if self.args.resume == NEWEST else self.args.resume
        if not (self.args.save / tag).is_dir():
            raise SystemExit(f"--resume: there is no checkpoint {tag} in {self.args.save}")
        path, state = self.engine.load_checkpoint(str(self.args.save), tag=tag)
        self.step, self.seen = state["step"], state["seen"]
        say(f"resumed {path} at step {self.step}")
        if state["windows"] != self.data.windows:
            say("the corpus or --seq_len is another one now, and so is the order of the data")

    def save(self) -> None:
        """Have every rank write its shard of weights and optimizer state; then rank 0 writes `latest`."""
        if not self.args.save:
            return
        state = {"step": self.step, "seen": self.seen, "windows": self.data.windows}
        self.engine.save_checkpoint(str(self.args.save), client_state=state)
        if dist.get_rank() == 0:
            self.engine.module.config.save_pretrained(self.args.save)  # the model that these weights are of
        say(f"saved {self.args.save} at step {self.step}")

    def run(self) -> None:
        """Train up to step `args.steps`, one progress line a step, then evaluate and save."""
        self.resume()
        first = self.step
        saves = range(0, self.args.steps, self.args.save_every or self.args.steps + 1)
        while self.step < self.args.steps:
            started = time.perf_counter()
            loss = self.train_step()
            figures = self.speed(time.perf_counter() - started)
            say(f"step {self.step}/{self.args.steps} loss {loss:.3f} {figures}")
            if self.step in saves:
                self.save()
        peak = peak_memory()  # of training: evaluation and saving come after it
        loss = self.evaluate()
        say(f"held-out loss {loss:.3f}, {loss / math.log(2) / self.data.bytes_per_token:.3f} bits per byte")
        if self.step > first:
            self.save()
        if peak:
            say(f"peak memory {peak / 1e9:.2f} GB")

    def speed(self, seconds: float) -> str:
        """Return the figures of a step: tokens/s of all ranks together, arithmetic of each of them."""
        tokens = self.engine.train_batch_size() * self.args.seq_len / seconds
        tflops = tokens * self.flops / dist.get_world_size() / 1e12
        mfu = f" MFU {tflops / self.args.peak_tflops:.1%}" if self.args.peak_tflops else ""
        return f"tokens/s {tokens:.0f} step_time {seconds:.2f}s TFLOP/s {tflops:.3g}{mfu}"


def mean_over_ranks(losses: list[torch.Tensor]) -> float:
    """Average this rank's losses, then over all ranks. Every rank has to call it."""
    total = torch.stack(losses).float().mean()
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def peak_memory() -> int:
    """Return the most bytes that a GPU had allocated, of all ranks; 0 on CPUs."""
    if not torch.cuda.is_available():
        return 0
    peak = torch.tensor(torch.cuda.max_memory_allocated(), device="cuda")
    dist.all_reduce(peak, dist.ReduceOp.MAX)
    return int(peak.item())


def introduce(engine: DeepSpeedEngine, data: corpus.Corpus) -> None:
    """Say what is trained on what; end every rank if the hosts have not made the same tokens."""
    digests: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(digests, data.digest)
    if len(set(digests)) > 1:
        others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        raise SystemExit(f"ranks {others} have another corpus than rank 0: give all hosts the same --data")
    say(
        f"{dist.get_world_size()} ranks on {engine.device.type}, "
        f"ZeRO stage {engine.zero_optimization_stage()}, hpZ groups of {engine.zero_hpz_partition_size()}, "
        f"{model.parameters(engine.module) / 1e6:.1f} M parameters, {data.tokens / 1e6:.1f} M tokens of text"
    )


def leave() -> None:
    """End a rank whose work is done, with exit code 0."""
    dist.destroy_process_group()
    # DeepSpeed holds on to its groups, so a thread of gloo may still be dropping the last tensor while Python
    # shuts down, and that aborts about one rank in twenty. So the rank ends without Python's shutdown.
    sys.stdout.flush()
    os._exit(0)


@record  # also writes an exception to TORCHELASTIC_ERROR_FILE, where the verdict of a run quotes it from
def main() -> None:
    """Join the other ranks, build, train, leave."""
    args = parse_args()
    # DeepSpeed calls collectives by names that torch 2.13 has replaced: three warnings a step, for nothing.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # before NCCL starts, or all ranks sit on GPU 0
    else:
        # DeepSpeed would compile an all-reduce that helps on a single host only, and fail where g++ or ninja
        # is missing. Gloo does the same work everywhere.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    data = corpus.find(args, args.seq_len)
    deepspeed.init_distributed()  # NCCL on GPUs, gloo on CPUs
    llama = model.build(args, data.vocabulary)
    engine, *_ = deepspeed.initialize(
        model=llama, model_parameters=llama.parameters(), config=args.deepspeed_config
    )
    introduce(engine, data)
    Trainer(engine, data, args).run()
    leave()


if __name__ == "__main__":
    main()
