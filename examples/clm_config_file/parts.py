"""The parts that the DeepSpeed file decides on: the model's shape, the optimizer and the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DummyOptim, DummyScheduler
from corpus import refuse

if TYPE_CHECKING:
    import argparse

    from accelerate import Accelerator

# layers, hidden size, heads; as GPT-2's papers have them, and `tiny` for CPUs
SHAPES = {
    "tiny": (2, 128, 4),  # 0.5 M parameters
    "gpt2": (12, 768, 12),  # 124 M with GPT-2's own vocabulary
    "gpt2-medium": (24, 1024, 16),  # 355 M
    "gpt2-large": (36, 1280, 20),  # 774 M
    "gpt2-xl": (48, 1600, 25),  # 1.5 G
}


def build_model(args: argparse.Namespace, tokens: int) -> torch.nn.Module:
    """Return the model; at stage 3 transformers makes it under `deepspeed.zero.Init`, as Accelerate said.

    Args:
        args: `model`, `shape` and `seq_len` of the command line.
        tokens: how many there are, which a model with weights has to know.
    """
    from transformers import AutoModelForCausalLM, GPT2Config  # noqa: PLC0415 - slow, and --help can do without

    if args.model:
        return _pretrained(args.model, tokens, args.seq_len)
    layers, hidden, heads = SHAPES[args.shape]
    config = GPT2Config(
        vocab_size=tokens,
        n_layer=layers,
        n_embd=hidden,
        n_head=heads,
        n_positions=args.seq_len,
        use_cache=False,
        embd_pdrop=0.0,  # without dropout a resumed run takes the very steps of an unbroken one
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


def _pretrained(name: str, tokens: int, length: int) -> torch.nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415 - as above

    try:
        config = AutoConfig.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name)
    except (OSError, ValueError) as error:
        refuse(f"no model ({error})", name, "give a folder or a name on the hub, or --shape in its place")
    if tokens > config.vocab_size:
        refuse(
            f"the tokenizer has {tokens} tokens, the model",
            config.vocab_size,
            "use the model's own tokenizer",
        )
    if length > (most := getattr(config, "max_position_embeddings", length)):
        refuse(f"a block of {length} tokens is too long for the model, which has", most, "lower --seq_len")
    return model


def by_config(accelerator: Accelerator, model: torch.nn.Module, args: argparse.Namespace) -> tuple[Any, Any]:
    """Return optimizer and scheduler: dummies for what the JSON has, our own for what it has not."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    if "optimizer" in config and "scheduler" not in config:
        fix = "add a scheduler to it, or remove the optimizer: then AdamW and a cosine of this script train"
        refuse("Accelerate takes no scheduler of ours beside DeepSpeed's optimizer", "DeepSpeed's JSON", fix)
    groups = decayed_and_not(model, args.weight_decay)
    optimizer_class = DummyOptim if "optimizer" in config else torch.optim.AdamW
    optimizer = optimizer_class(groups, lr=args.lr, weight_decay=args.weight_decay)
    ranks = accelerator.num_processes
    if "scheduler" in config:  # prepare divides the total by the number of ranks, but not the warm-up
        return optimizer, DummyScheduler(optimizer, args.steps * ranks, args.warmup_steps)
    from transformers import get_cosine_schedule_with_warmup  # noqa: PLC0415 - as above

    # Accelerate steps a scheduler once for each rank.
    return optimizer, get_cosine_schedule_with_warmup(
        optimizer, args.warmup_steps * ranks, args.steps * ranks
    )


def decayed_and_not(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return two groups: biases and norms (one-dimensional parameters) shall not decay."""
    named = list(model.named_parameters())
    # A parameter that ZeRO-3 has cut up has no shape of its own: ds_shape is that of the whole.
    flat = [len(getattr(value, "ds_shape", value.shape)) < 2 for _, value in named]
    parts = [
        [v for (_, v), is_flat in zip(named, flat, strict=True) if is_flat is want] for want in (False, True)
    ]
    return [{"params": parts[0], "weight_decay": decay}, {"params": parts[1], "weight_decay": 0.0}]
