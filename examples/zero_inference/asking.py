"""What both forms of ZeRO inference share: how a model is loaded, asked and measured."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deepspeed
import torch
import torch.distributed as dist
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerBase

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

WEIGHTS = ("*.safetensors", "*.bin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both forms are asked for."""
    add = parser.add_argument
    model = "name on the hub, or a folder; with a config.json alone it gets random weights"
    add("--model", default="models/tiny", help=model)
    add("--prompts", default="prompts.txt", help="one a line, or JSON lines with `prompt`")
    add("--output", type=Path, required=True, help="JSON lines, in the order of the prompts")
    add("--prompt_length", type=int, default=128, help="tokens; longer prompts are cut")
    add("--answer_length", type=int, default=32, help="tokens, at most")
    add("--seed", type=int, default=1, help="of random weights")


def load_model(name: str, precision: torch.dtype) -> Any:
    """Return the model of a name on the hub or a folder; config.json alone gives random weights.

    With DeepSpeed's configuration alive (`HfDeepSpeedConfig`, or Accelerate's own), transformers makes each
    layer under `deepspeed.zero.Init` and loads each weight into its shards: no rank ever has the whole model.

    Raises:
        SystemExit: there is no such model.
        RuntimeError: the configuration was not alive, so nothing was cut up.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise SystemExit(f"--model {name}: {first}; give a folder or a name on the hub") from None
    kind = (
        transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    )
    make = kind.from_config if is_bare(name) else kind.from_pretrained
    model = make(config if is_bare(name) else name, dtype=precision)
    if not all(hasattr(weight, "ds_id") for weight in model.parameters()):
        raise RuntimeError(
            "the weights were loaded whole: keep HfDeepSpeedConfig alive before from_pretrained"
        )
    return model


def is_bare(name: str) -> bool:
    """Return whether a folder holds a model's configuration and no weights."""
    folder = Path(name)
    return folder.is_dir() and not any(found for pattern in WEIGHTS for found in folder.glob(pattern))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer; a folder without one gets bytes as tokens, which need no file (ByT5)."""
    if Path(name).is_dir() and not (Path(name) / "tokenizer_config.json").exists():
        return ByT5Tokenizer()
    tokenizer = AutoTokenizer.from_pretrained(name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # GPT-2 and Llama have none
    return tokenizer


def generate(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], args: Any, *, synced: bool
) -> Tensor:
    """Return tokens, int64 (texts, length), that the model writes in answer; greedy, so always the same.

    `synced` keeps ranks together: a rank whose answers are done goes on calling the model until all are,
    because every call gathers weights from every rank.
    """
    inputs = tokenizer(
        list(texts),
        return_tensors="pt",
        padding=True,
        padding_side="right" if model.config.is_encoder_decoder else "left",  # a decoder goes on at the end
        truncation=True,
        max_length=args.prompt_length,
    ).to("cuda" if torch.cuda.is_available() else "cpu")  # offloaded weights lie elsewhere than they are used
    tokens = model.generate(
        **inputs, max_new_tokens=args.answer_length, do_sample=False, num_beams=1, synced_gpus=synced
    )
    return tokens if model.config.is_encoder_decoder else tokens[:, inputs["input_ids"].shape[1] :]


def decode(tokenizer: PreTrainedTokenizerBase, tokens: Tensor) -> list[str]:
    """Return the texts of answers; tokens that the tokenizer has not got are left out (random weights)."""
    known = tokens.masked_fill(tokens >= len(tokenizer), tokenizer.pad_token_id)
    return [text.strip() for text in tokenizer.batch_decode(known, skip_special_tokens=True)]


def describe(model: Any, prompts: int) -> str:
    """Return a line about the model: its weights, and how many of them this rank holds."""
    weights = list(model.parameters())
    size, held = sum(w.ds_numel for w in weights), sum(w.ds_tensor.ds_numel for w in weights)
    ranks, device = dist.get_world_size(), "cuda" if torch.cuda.is_available() else "cpu"
    return f"{ranks} ranks on {device}, {size:,} parameters, {held:,} on each, {prompts} prompts"


def report(say: Callable[[str], None], phase: str, started: float) -> None:
    """Print how long a phase took, and the peak of each rank's GPU memory in bytes. Every rank calls it.

    The peak is that of PyTorch's allocator, and counts anew after each report.
    """
    say(f"{phase} took {time.perf_counter() - started:.1f}s")
    if torch.cuda.is_available():
        mine = torch.tensor([torch.cuda.max_memory_allocated()], device="cuda")
        peaks = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(peaks, mine)
        say(f"GPU peak per rank in bytes, {phase}: {' '.join(str(peak.item()) for peak in peaks)}")
        torch.cuda.reset_peak_memory_stats()


def quiet() -> None:
    """Have DeepSpeed start on CPUs without a compiler, and warn of nothing that is its own affair."""
    # It calls collectives by names that torch 2.13 has replaced: three warnings a step, for nothing.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if not torch.cuda.is_available():
        # It would compile an all-reduce that helps on a single host only, and fail where g++ is missing.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def leave() -> None:
    """End a rank whose work is done, with exit code 0."""
    dist.destroy_process_group()
    # DeepSpeed holds on to its groups, so a thread of gloo may still be dropping the last tensor while Python
    # shuts down, and that aborts about one rank in twenty. So the rank ends without Python's shutdown.
    print(end="", flush=True)
    os._exit(0)
