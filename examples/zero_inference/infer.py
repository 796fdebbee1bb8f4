"""Ask a model that is larger than a GPU: ZeRO-3 cuts its weights up, each rank asks prompts of its own.

The way of the T0_3B document: DeepSpeed's configuration is alive before the model is loaded, an engine
without an optimizer gathers each layer as it is computed, and `synced_gpus` keeps the ranks together. See
`infer_accelerate.py` for the same through Accelerate. By hand:

    torchrun --nproc-per-node 2 infer.py --deepspeed_config ds_config.json --output answers.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deepspeed
import torch
import torch.distributed as dist
from asking import (
    add_arguments,
    decode,
    describe,
    generate,
    leave,
    load_model,
    load_tokenizer,
    quiet,
    report,
)
from prompts import NOTHING, Answer, check_stage, here, read_prompts, shares, show
from torch.distributed.elastic.multiprocessing.errors import record
from transformers.integrations import HfDeepSpeedConfig

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse_args() -> argparse.Namespace:
    """Read the command line; `--help` shows the defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--deepspeed_config", type=Path, required=True, help="path of DeepSpeed's JSON")
    add_arguments(parser)
    return parser.parse_args()


def say(message: str) -> None:
    """Print one line, from rank 0 only, at once."""
    if dist.get_rank() == 0:
        print(message, flush=True)


def ask(
    model: Any, tokenizer: Any, prompts: Sequence[str], size: int, args: argparse.Namespace
) -> list[Answer]:
    """Return this rank's answers."""
    rank, world = dist.get_rank(), dist.get_world_size()
    found: list[Answer] = []
    for numbers in shares(len(prompts), size, rank, world):
        texts = ["" if number == NOTHING else prompts[number] for number in numbers]
        answers = decode(tokenizer, generate(model, tokenizer, texts, args, synced=world > 1))
        found += [Answer(*each, rank) for each in zip(numbers, texts, answers, strict=True)]
        say(f"asked {min(len(prompts), (numbers[-1] + 1) * world)} of {len(prompts)}")
    return [answer for answer in found if answer.number != NOTHING]


def gather(answers: list[Answer]) -> list[Answer]:
    """Return the answers of all ranks, in the order of their prompts."""
    each: list[list[Answer]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(each, answers)
    return sorted(answer for part in each for answer in part)


def load(args: argparse.Namespace, ds_config: dict[str, Any]) -> Any:
    """Return the model, its weights cut up over the ranks; hooks gather each layer as it is computed."""
    # transformers keeps a weak reference to this object and asks it how to load: without it every rank would
    # load the whole model, in its host's memory, before DeepSpeed cuts it up.
    alive = HfDeepSpeedConfig(ds_config)
    torch.manual_seed(args.seed)
    precision = torch.bfloat16 if ds_config.get("bf16", {}).get("enabled") else torch.float32
    model = load_model(args.model, precision)
    engine, *_ = deepspeed.initialize(model=model, config=ds_config)
    del alive
    return engine.module.eval()


def setup(ds_config: dict[str, Any]) -> None:
    """Check DeepSpeed's configuration and join the other ranks."""
    check_stage(ds_config)
    quiet()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # before NCCL starts, or all ranks sit on GPU 0
    deepspeed.init_distributed()


@record  # also writes an exception to TORCHELASTIC_ERROR_FILE, where the verdict of a run quotes it from
def main() -> None:
    """Join the other ranks, load, ask, gather, leave."""
    args = parse_args()
    args.model = here(args.model)
    ds_config = json.loads(args.deepspeed_config.read_text(encoding="utf-8"))
    prompts = read_prompts(Path(here(args.prompts)))
    setup(ds_config)
    started = time.perf_counter()
    tokenizer = load_tokenizer(args.model)
    model = load(args, ds_config)
    say(describe(model, len(prompts)))
    report(say, "loading", started)
    started = time.perf_counter()
    answers = gather(ask(model, tokenizer, prompts, ds_config["train_micro_batch_size_per_gpu"], args))
    report(say, "generate", started)
    if dist.get_rank() == 0:
        show(answers, args.output)
    dist.barrier()  # nobody leaves, and ends the run, while rank 0 writes
    leave()


if __name__ == "__main__":
    main()
