"""The models by size, with random weights, and what a token costs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import deepspeed

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM


class Shape(NamedTuple):
    """Of a Llama: `intermediate` is the width inside an MLP."""

    layers: int
    hidden: int
    heads: int
    intermediate: int


# Parameters are those with byte tokens; from 7b on the shapes are LLaMA's (arXiv 2302.13971, table 2).
PRESETS = {
    "tiny": Shape(3, 128, 4, 384),  # 0.7 M, for CPUs
    "100m": Shape(12, 768, 12, 2048),  # 85 M
    "300m": Shape(24, 1024, 16, 2816),  # 309 M
    "1b": Shape(20, 2048, 16, 5632),  # 1.03 G
    "3b": Shape(26, 3200, 32, 8640),  # 3.2 G
    "7b": Shape(32, 4096, 32, 11008),  # 6.48 G
    "13b": Shape(40, 5120, 40, 13824),  # 12.7 G
    "30b": Shape(60, 6656, 52, 17920),  # 32.1 G
    "65b": Shape(80, 8192, 64, 22016),  # 64.8 G
}


def build(shape: Shape, vocabulary: int, length: int, config: str, recompute: bool) -> LlamaForCausalLM:
    """Return a Llama with random weights; with ZeRO stage 3 each rank holds only its shard of them.

    Args:
        shape: its size.
        vocabulary: tokens it knows.
        length: tokens of the longest sample.
        config: path of DeepSpeed's JSON.
        recompute: keep only what goes into each layer and compute the rest again in backward: a third more
            arithmetic for a fraction of the activations.
    """
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - slow, and --help can do without

    llama = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=length,
        use_cache=False,
    )
    # Inside `Init` every layer is cut up as soon as it is made: no rank ever holds the whole model. Stages 0
    # to 2 must do without, as nothing would gather the pieces again.
    stage = deepspeed.DeepSpeedConfig(config).zero_optimization_stage
    with deepspeed.zero.Init(config_dict_or_path=config, enabled=stage == 3):
        model = LlamaForCausalLM(llama)
    if recompute:
        new = "activation_checkpointing_enable"  # transformers 5.23 warns of the older name
        enable = getattr(model, new if hasattr(model, new) else "gradient_checkpointing_enable")
        enable({"use_reentrant": False})
    return model


def parameters(model: torch.nn.Module) -> int:
    """Return how many weights a model has; numel() of one that is cut up counts this rank's shard alone."""
    return sum(getattr(weight, "ds_numel", weight.numel()) for weight in model.parameters())


def flops_per_token(model: torch.nn.Module, shape: Shape, length: int) -> float:
    """Return what forward and backward cost a token: 6 a weight, and 12·layers·hidden·length for attention.

    That is what the model needs, without what --recompute does twice, as in PaLM's appendix B (arXiv
    2204.02311): so the share of a GPU's peak that is made of it (MFU) compares across settings.
    """
    return 6.0 * parameters(model) + 12.0 * shape.layers * shape.hidden * length
