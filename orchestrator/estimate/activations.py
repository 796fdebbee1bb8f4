"""What forward keeps for backward: activations of the blocks, and the logits.

Source for a GPT block (dropout, an MLP four times as wide): Korthikanti et al., "Reducing Activation
Recomputation in Large Transformer Models" (arXiv 2205.05198), equation 1 and table 2. A Llama block (RMSNorm
computed in fp32, a gated MLP of width f) keeps, counted in Hugging Face's code and measured on a GPU to 2 %:
16 bytes of width h around the two norms, 8 in attention, and 8 bytes of width f in the MLP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.estimate.settings import Settings
    from orchestrator.estimate.shape import ModelShape

_LOGIT_BYTES = (
    12  # of one logit when backward begins: log-softmax and two gradients of it, in fp32 (measured)
)


def activation_bytes(shape: ModelShape, settings: Settings) -> int | None:
    """Return the bytes that forward keeps on one rank, or None when a size is not known.

    With s tokens, b samples, width h and a heads: `sbh (34 + 5as/h)` for each block with eager attention, `34
    sbh` with flash attention, and with recomputation `2 sbh` for each block and all of the one being
    recomputed. Inference keeps nothing: the block being computed is all there is. Where the MLP is known to
    be gated, `sb (24h + 8f)` stands for `34 sbh`.
    """
    tokens = _tokens(shape, settings)
    if tokens is None or not shape.hidden_size or not shape.layers:
        return None
    block = tokens * _block(shape, shape.hidden_size)
    if settings.attention == "eager":
        if not shape.heads or not shape.sequence_length:
            return None
        block += 5 * shape.heads * shape.sequence_length * tokens
    block = block * settings.parameter_bytes // 2
    if shape.is_inference:
        return block
    if settings.recompute:
        return settings.parameter_bytes * tokens * shape.hidden_size * shape.layers + block
    return block * shape.layers


def _block(shape: ModelShape, width: int) -> int:
    """Return the bytes that one block keeps of one token, in 16 bits, without the matrix of scores."""
    if shape.gated and shape.intermediate_size:
        return 24 * width + 8 * shape.intermediate_size
    return 34 * width


def logit_bytes(shape: ModelShape, settings: Settings) -> int | None:
    """Return the bytes of the logits of one micro-batch and of their copies, or None when not known."""
    tokens = _tokens(shape, settings)
    each = settings.parameter_bytes if shape.is_inference else _LOGIT_BYTES
    return None if tokens is None or not shape.vocabulary else each * tokens * shape.vocabulary


def _tokens(shape: ModelShape, settings: Settings) -> int | None:
    if settings.micro_batch is None or not shape.sequence_length:
        return None
    return settings.micro_batch * shape.sequence_length
