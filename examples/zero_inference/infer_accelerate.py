"""Ask a model that is larger than a GPU, through Accelerate: `prepare` makes DeepSpeed's engine.

The same as `infer.py`, with less to say: Accelerate keeps DeepSpeed's configuration alive, deals the prompts
out to the ranks and puts their answers back in order. `accelerate launch` tells it where that is:

    accelerate launch --config_file zero3.yaml infer_accelerate.py --output answers.jsonl
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed
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
from prompts import Answer, check_stage, here, read_prompts, show
from torch.distributed.elastic.multiprocessing.errors import record
from torch.utils.data import DataLoader

MICRO_BATCH = "train_micro_batch_size_per_gpu"


def parse_args() -> argparse.Namespace:
    """Read the command line; `--help` shows the defaults."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--batch_size", type=int, default=4, help="where DeepSpeed's configuration says auto")
    return parser.parse_args()


def join() -> Accelerator:
    """Return the Accelerator, with all the ranks that `accelerate launch` started.

    Raises:
        SystemExit: it was started without DeepSpeed, or at a stage that cuts up no weights.
    """
    # Without a GPU, Accelerate 1.15 knows no backend for DeepSpeed and counts one rank: each would ask all
    # prompts. With the backend named it asks torch.distributed.
    handlers = [] if torch.cuda.is_available() else [InitProcessGroupKwargs(backend="gloo")]
    accelerator = Accelerator(kwargs_handlers=handlers)
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    check_stage({} if plugin is None else plugin.deepspeed_config)
    return accelerator


def ask(
    accelerator: Accelerator, model: Any, loader: Any, tokenizer: Any, args: argparse.Namespace
) -> list[tuple[str, int]]:
    """Return (answer, rank that gave it) of every prompt, in their order, on every rank.

    Accelerate's loader gives every rank equally many batches, starting over with the first prompts where
    they run out; `gather_for_metrics` drops what was asked twice.
    """
    found: list[tuple[str, int]] = []
    for texts in loader:
        tokens = generate(model, tokenizer, texts, args, synced=accelerator.num_processes > 1)
        tokens = tokens.to(accelerator.device).contiguous()
        tokens = accelerator.pad_across_processes(tokens, dim=1, pad_index=tokenizer.pad_token_id)
        ranks = torch.full((len(tokens),), accelerator.process_index, device=accelerator.device)
        tokens, ranks = accelerator.gather_for_metrics((tokens, ranks))
        found += zip(decode(tokenizer, tokens.cpu()), ranks.tolist(), strict=True)
        accelerator.print(f"asked {len(found)} of {len(loader.dataset)}", flush=True)
    return found


def load(accelerator: Accelerator, prompts: Any, args: argparse.Namespace) -> tuple[Any, DataLoader[Any]]:
    """Return the model, its weights cut up, and the loader of this rank's prompts."""
    set_seed(args.seed)
    bf16 = accelerator.mixed_precision == "bf16"
    model = load_model(args.model, torch.bfloat16 if bf16 else torch.float32)
    said = accelerator.state.deepspeed_plugin.deepspeed_config.get(MICRO_BATCH, "auto")
    size = args.batch_size if said == "auto" else said
    engine, loader = accelerator.prepare(model, DataLoader(prompts, batch_size=size))
    return accelerator.unwrap_model(engine).eval(), loader


@record  # also writes an exception to TORCHELASTIC_ERROR_FILE, where the verdict of a run quotes it from
def main() -> None:
    """Join the other ranks, load, ask, gather, leave."""
    args = parse_args()
    args.model = here(args.model)
    prompts = read_prompts(Path(here(args.prompts)))
    quiet()
    started = time.perf_counter()
    accelerator = join()
    tokenizer = load_tokenizer(args.model)
    model, loader = load(accelerator, prompts, args)
    accelerator.print(describe(model, len(prompts)), flush=True)
    report(accelerator.print, "loading", started)
    started = time.perf_counter()
    answers = ask(accelerator, model, loader, tokenizer, args)
    report(accelerator.print, "generate", started)
    if accelerator.is_main_process:
        show([Answer(number, prompts[number], *answer) for number, answer in enumerate(answers)], args.output)
    accelerator.wait_for_everyone()  # nobody leaves, and ends the run, while the main process writes
    leave()


if __name__ == "__main__":
    main()
