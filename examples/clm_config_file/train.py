"""Train a causal language model with Accelerate and a DeepSpeed JSON file: the lesson behind `job.yaml`.

What the JSON holds decides what this script brings. With an `optimizer` and a `scheduler` in it, DeepSpeed
makes both, and the script hands Accelerate a DummyOptim and a DummyScheduler: notes of the learning rate and
the number of steps, from which `prepare` fills the values that are `auto`. With neither, the script's own
AdamW and its cosine schedule train. A scheduler alone works as well; an optimizer alone does not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deepspeed
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
    set_seed,
)
from corpus import BYTES, REFERENCE, blocks, refuse, vocabulary
from parts import SHAPES, build_model, by_config
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils.data import DataLoader
from tracking import trackers

if TYPE_CHECKING:
    from collections.abc import Iterator


def positive(text: str) -> int:
    """Return a whole number above 0, which argparse asks for."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def parse_args() -> argparse.Namespace:
    """Read the command line; `--help` shows the defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="of a GPT-2 with random weights")
    parser.add_argument("--model", help="weights to start from: a name on the hub or a folder")
    parser.add_argument("--tokenizer", help="name, folder or `bytes`; default: the model's, else bytes")
    parser.add_argument("--data", default=REFERENCE, help="file, folder, or hub NAME[:CONFIGURATION]")
    parser.add_argument("--eval_data", help="file or folder; default: the last tenth of --data")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder seen by all hosts")
    parser.add_argument("--checkpoint_dir", type=Path, help="default: `checkpoints` in --output_dir")
    parser.add_argument("--seq_len", type=positive, default=128, help="tokens in a block")
    parser.add_argument("--steps", type=positive, default=60, help="optimizer steps, resumed ones included")
    parser.add_argument("--warmup_steps", type=int, default=10)
    parser.add_argument(
        "--eval_every", type=positive, default=20, help="steps between evaluations, which save"
    )
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight_decay", type=float, default=0.01)
    parser.add_argument("--batch_size", type=positive, default=8, help="per rank, if the JSON has `auto`")
    parser.add_argument(
        "--accumulate", type=positive, default=1, help="micro-batches, if the JSON has `auto`"
    )
    parser.add_argument("--report_to", nargs="*", default=["jsonl"], help="jsonl, csv, tensorboard, wandb …")
    parser.add_argument("--resume", metavar="TAG", help="go on from this folder in --checkpoint_dir")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the order of the data")
    args = parser.parse_args()
    args.checkpoint_dir = args.checkpoint_dir or args.output_dir / "checkpoints"
    return args


@dataclass
class Progress:
    """How far training is; saved and loaded with every checkpoint."""

    step: int = 0
    best_loss: float = math.inf
    best_tag: str = ""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint kept."""
        self.__dict__.update(state)


@dataclass
class Training:
    """What belongs together after `prepare`."""

    accelerator: Accelerator
    model: Any
    optimizer: Any
    scheduler: Any
    train_data: Any
    eval_data: Any
    progress: Progress


def join(args: argparse.Namespace) -> Accelerator:
    """Join the other ranks; Accelerate reads the DeepSpeed JSON that the launcher named."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") != "true":
        fix = "use launcher: accelerate with deepspeed.config_file, or accelerate launch --config_file"
        refuse("this script wants a DeepSpeed file from its launcher", "none", fix)
    handlers = []
    if not torch.cuda.is_available():
        # Accelerate 1.15 takes every rank with DeepSpeed on a CPU for rank 0 of 1: all would train on the
        # same data and gather nothing. With the backend named, it asks torch.distributed.
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
        # DeepSpeed would compile an all-reduce that helps on a single host only.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return Accelerator(
        kwargs_handlers=handlers,
        log_with=trackers(args.report_to, args.output_dir),
        project_dir=args.output_dir,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
        # Without sync_with_dataloader a step may take micro-batches of two epochs: all steps are equal.
        gradient_accumulation_plugin=GradientAccumulationPlugin(args.accumulate, sync_with_dataloader=False),
    )


def prepare(accelerator: Accelerator, args: argparse.Namespace) -> Training:
    """Read the data on rank 0, share it, build everything and hand it to Accelerate."""
    tokenizer = args.tokenizer or args.model or BYTES
    data: list[Any] = [None]
    if accelerator.is_main_process:
        data = [blocks(args.data, args.eval_data, args.seq_len, tokenizer)]
    (parts,) = broadcast_object_list(data)
    given = accelerator.state.deepspeed_plugin.deepspeed_config.get("train_micro_batch_size_per_gpu", "auto")
    batch = args.batch_size if given == "auto" else given
    loaders = [
        DataLoader(part.long(), batch, shuffle=first)
        for part, first in zip(parts, (True, False), strict=True)
    ]
    model = build_model(args, vocabulary(tokenizer)[0])
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    return Training(
        accelerator, *accelerator.prepare(model, *by_config(accelerator, model, args), *loaders), progress
    )


def micro_batches(run: Training) -> Iterator[torch.Tensor]:
    """Yield this rank's blocks without end, int64 (batch, length), after those that are done already.

    The order depends on the seed and the epoch alone, so a resumed run goes on with what comes next.
    """
    done = run.progress.step * run.accelerator.gradient_accumulation_steps
    epoch, skip = divmod(done, len(run.train_data))
    while True:
        run.train_data.set_epoch(epoch)
        yield from run.accelerator.skip_first_batches(run.train_data, skip) if skip else run.train_data
        epoch, skip = epoch + 1, 0


def train_step(run: Training, batches: Iterator[torch.Tensor]) -> float:
    """Take one optimizer step over all its micro-batches; return the mean loss of all ranks."""
    losses = []
    for _ in range(run.accelerator.gradient_accumulation_steps):
        ids = next(batches)
        with run.accelerator.accumulate(run.model):  # only the last micro-batch moves the weights
            loss = run.model(input_ids=ids, labels=ids).loss
            run.accelerator.backward(loss)
            run.optimizer.step()
            run.scheduler.step()
            run.optimizer.zero_grad()
        losses.append(loss.detach().float())
    return run.accelerator.reduce(torch.stack(losses).mean(), "mean").item()


@torch.no_grad()
def evaluate(run: Training) -> float:
    """Return the mean loss of the evaluation blocks, in nats per token; its exponential is the perplexity."""
    run.model.eval()
    losses = []
    for ids in run.eval_data:
        loss = run.model(input_ids=ids, labels=ids).loss.float()
        losses.append(run.accelerator.gather_for_metrics(loss.repeat(len(ids))))  # counts no block twice
    run.model.train()
    return torch.cat(losses).mean().item()


def train(run: Training, args: argparse.Namespace) -> None:
    """Train up to step `args.steps`, one progress line a step; evaluate and save now and then."""
    batches = micro_batches(run)
    for step in range(run.progress.step + 1, args.steps + 1):
        started = time.perf_counter()
        loss = train_step(run, batches)
        seconds = time.perf_counter() - started
        rate = run.scheduler.get_last_lr()[0]
        run.accelerator.print(
            f"step {step}/{args.steps} loss {loss:.3f} lr {rate:.2e} step_time {seconds:.2f}s", flush=True
        )
        run.accelerator.log({"train/loss": loss, "train/lr": rate}, step=step)
        run.progress.step = step
        if step % args.eval_every == 0 or step == args.steps:
            evaluate_and_save(run, args)


def evaluate_and_save(run: Training, args: argparse.Namespace) -> None:
    """Write a checkpoint with its figures beside it; `best.json` names the one with the lowest perplexity."""
    progress, loss = run.progress, evaluate(run)
    tag = f"step_{progress.step}"
    better = loss < progress.best_loss
    if better:
        progress.best_loss, progress.best_tag = loss, tag
    perplexity = math.exp(loss)
    run.accelerator.log({"eval/loss": loss, "eval/perplexity": perplexity}, step=progress.step)
    run.accelerator.save_state(args.checkpoint_dir / tag)
    if run.accelerator.is_main_process:
        run.accelerator.unwrap_model(run.model).config.save_pretrained(args.checkpoint_dir)  # of which model
        figures = {"tag": tag, "step": progress.step, "loss": loss, "perplexity": perplexity}
        for path in [
            args.checkpoint_dir / tag / "metrics.json",
            *([args.output_dir / "best.json"] if better else []),
        ]:
            path.write_text(json.dumps(figures) + "\n")
    run.accelerator.print(
        f"eval {tag} loss {loss:.3f} perplexity {perplexity:.2f}{' best' * better}", flush=True
    )


def save_best(run: Training, args: argparse.Namespace) -> None:
    """Go back to the best checkpoint and save its model for `from_pretrained`, in `best_model`."""
    accelerator, tag = run.accelerator, f"step_{run.progress.step}"
    best = run.progress.best_tag
    if best != tag and not (args.checkpoint_dir / best).is_dir():
        accelerator.print(f"{best} was the best checkpoint and is gone: keep the best by `loss`", flush=True)
    elif best != tag:
        tag = best
        accelerator.load_state(args.checkpoint_dir / tag)
    zero = accelerator.deepspeed_config["zero_optimization"]
    if zero["stage"] == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
        accelerator.print(
            f"the weights of {tag} stay in shards, as the JSON does not gather them", flush=True
        )
        return
    whole = accelerator.get_state_dict(run.model)  # on every rank: at stage 3 all give their part
    accelerator.unwrap_model(run.model).save_pretrained(
        args.output_dir / "best_model", is_main_process=accelerator.is_main_process, state_dict=whole
    )
    accelerator.print(f"saved the model of {tag} in {args.output_dir / 'best_model'}", flush=True)


def say_what_runs(run: Training) -> None:
    """Print one line: how many ranks, of what, with whose optimizer."""
    config = run.accelerator.deepspeed_config
    offload = config["zero_optimization"].get("offload_optimizer") or {}
    size = sum(getattr(p, "ds_numel", p.numel()) for p in run.model.module.parameters())
    run.accelerator.print(
        f"{run.accelerator.num_processes} ranks on {run.accelerator.device.type}, "
        f"ZeRO stage {config['zero_optimization']['stage']}, offload {offload.get('device', 'none')}, "
        f"optimizer of {'DeepSpeed' if 'optimizer' in config else 'the script'}, "
        f"scheduler of {'DeepSpeed' if 'scheduler' in config else 'the script'}, "
        f"{size / 1e6:.1f} M parameters, "
        f"{len(run.train_data.dataset)} blocks, batch {config['train_batch_size']}",
        flush=True,
    )


def leave(accelerator: Accelerator) -> None:
    """Close the trackers and end this rank, with exit code 0."""
    accelerator.end_training()
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
    accelerator = join(args)
    set_seed(args.seed)
    run = prepare(accelerator, args)
    accelerator.init_trackers("clm", {key: str(value) for key, value in vars(args).items()})
    if args.resume:
        accelerator.load_state(args.checkpoint_dir / args.resume)
        accelerator.print(f"resumed {args.resume} at step {run.progress.step}", flush=True)
    say_what_runs(run)
    train(run, args)
    save_best(run, args)
    leave(accelerator)


if __name__ == "__main__":
    main()
