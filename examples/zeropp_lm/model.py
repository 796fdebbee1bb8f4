"""The models by size, with random weights, and what a token costs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import deepspeed
import torch

if TYPE_CHECKING:
    import argparse

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what decides on the model."""
    parser.add_argument("--size", choices=PRESETS, default="tiny", help="of the model")
    parser.add_argument("--seq_len", type=int, default=128, help="tokens in a window")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the order of the data")
    parser.add_argument(
        "--recompute", action="store_true", help="keep what goes into a layer, in backward compute it again"
    )


def build(args: argparse.Namespace, vocabulary: int) -> LlamaForCausalLM:
    """Return a Llama with random weights; with ZeRO stage 3 each rank holds only its shard of them."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - slow, and --help can do without

    shape = PRESETS[args.size]
    llama = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=args.seq_len,
        use_cache=False,
        architectures=["LlamaForCausalLM"],  # for config.json: what loads the weights elsewhere
    )
    # Inside `Init` every layer is cut up as soon as it is made: no rank ever holds the whole model. Stages 0
    # to 2 must do without, as nothing would gather the pieces again.
    stage = deepspeed.DeepSpeedConfig(args.deepspeed_config).zero_optimization_stage
    with deepspeed.zero.Init(config_dict_or_path=args.deepspeed_config, enabled=stage == 3):
        model = LlamaForCausalLM(llama)
    draw(model, args.seed)
    if args.recompute:  # a third more arithmetic for a fraction of the activations
        new = "activation_checkpointing_enable"  # transformers 5.23 warns of the older name
        enable = getattr(model, new if hasattr(model, new) else "gradient_checkpointing_enable")
        enable({"use_reentrant": False})
    return model


@torch.no_grad()
def draw(model: torch.nn.Module, seed: int) -> None:
    """Give all matrices normal values, the same ones at every stage of ZeRO.

    transformers does so once the model is complete. By then `Init` has cut the weights up, and what there is
    to write to is empty: they would keep the other values that torch.nn gives its layers. So each one is
    gathered, written, and cut up again.
    """
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            weight = module.weight
            with deepspeed.zero.GatheredParameters(weight, modifier_rank=0):
                values = torch.randn(weight.shape, device=weight.device)
                weight.copy_(values * weight.shape[1] ** -0.5)  # what goes through it keeps its size


def parameters(model: torch.nn.Module) -> int:
    """Return how many weights a model has; numel() of one that is cut up counts this rank's shard alone."""
    return sum(getattr(weight, "ds_numel", weight.numel()) for weight in model.parameters())


def flops_per_token(model: torch.nn.Module, args: argparse.Namespace) -> float:
    """Return what forward and backward cost a token: 6 a weight, and 12·layers·hidden·length for attention.

    That is what the model needs, without what --recompute does twice, as in PaLM's appendix B (arXiv
    2204.02311): so the share of a GPU's peak that is made of it (MFU) compares across settings.
    """
    shape = PRESETS[args.size]
    return 6.0 * parameters(model) + 12.0 * shape.layers * shape.hidden * args.seq_len
