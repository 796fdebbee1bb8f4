"""A model as the estimates see it: how many parameters, how many train, how large a transformer's parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.job.model_spec import ModelSpec

_PEFT_DEFAULT = 2
"""Linear layers of a block that get an adapter when PEFT chooses: query and value, for most models."""
_ALL_LINEAR = 7
"""Linear layers of a Llama-shaped block: query, key, value, output, gate, up and down."""


@dataclass(frozen=True)
class ModelShape:
    """A model's sizes; None is what is not known.

    Attributes:
        parameters: number of parameters, shared ones once, adapters included.
        trainable: those of them that are trained; none for inference.
        largest_layer: parameters of the largest single module (DeepSpeed's `largest_layer_params`).
        hidden_size: width of the model.
        layers: number of transformer blocks.
        heads: attention heads of a block.
        vocabulary: number of tokens the model knows.
        sequence_length: tokens of one sample.
        tensors: elements of each parameter tensor, in any order; decides what stays whole on every rank
            (`stage3_param_persistence_threshold`) and what qgZ cannot quantize.
        pretrained_in: `fp32`, `fp16` or `bf16`.
        source: where this comes from, for the reader.
        active_parameters: parameters that one token passes (mixture of experts); None for all.
        intermediate_size: width of the MLP inside a block.
        gated: the MLP multiplies two such layers (SwiGLU and its kin), in a block with RMSNorm.
    """

    parameters: int
    trainable: int
    largest_layer: int | None = None
    hidden_size: int | None = None
    layers: int | None = None
    heads: int | None = None
    vocabulary: int | None = None
    sequence_length: int | None = None
    tensors: tuple[int, ...] | None = None
    pretrained_in: str | None = None
    source: str = ""
    active_parameters: int | None = None
    intermediate_size: int | None = None
    gated: bool = False

    @property
    def is_inference(self) -> bool:
        """Tell whether nothing trains: a step is one forward pass then."""
        return self.trainable == 0

    @property
    def frozen(self) -> int:
        """Return the number of parameters that are not trained."""
        return self.parameters - self.trainable

    @cached_property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Return (elements, number of such tensors), each size once; empty when tensors are not known.

        Models repeat few sizes: what goes through these does not depend on the number of tensors.
        """
        return tuple(sorted(Counter(self.tensors or ()).items()))

    @property
    def active(self) -> int:
        """Return the number of parameters that one token passes."""
        return self.parameters if self.active_parameters is None else self.active_parameters

    @property
    def block(self) -> int | None:
        """Return the parameters of one transformer block, embeddings left out where they are known."""
        if self.layers is None:
            return None
        embeddings = 2 * (self.vocabulary or 0) * (self.hidden_size or 0)
        rest = self.parameters - embeddings
        return (rest if rest > self.parameters // 4 else self.parameters) // self.layers

    def to_json(self) -> dict[str, Any]:
        """Return the shape for `json.dumps`; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelShape:
        """Return the shape that `to_json` wrote; keys that are not known are left out.

        Raises:
            TypeError: `parameters` or `trainable` is missing.
        """
        known = {each.name: data[each.name] for each in fields(cls) if each.name in data}
        if known.get("tensors") is not None:
            known["tensors"] = tuple(known["tensors"])
        return cls(**known)


def shape_of(spec: ModelSpec) -> ModelShape | None:
    """Return the shape that a job file gives in numbers; None when a model's configuration is needed.

    Adapters (`lora`) are counted as pairs of matrices `hidden_size x r`, which is exact for square layers and
    too few for wider ones; without `hidden_size` and `layers`, or `trainable_parameters`, it returns None.
    """
    if spec.parameters is None:
        return None
    adapters = 0
    if spec.lora is not None:
        counted = spec.trainable_parameters or _adapters(spec)
        if counted is None:
            return None
        adapters = counted
    said = spec.trainable_parameters
    trainable = said if said is not None else adapters or spec.parameters
    return ModelShape(
        spec.parameters + adapters,
        trainable,
        spec.largest_layer or _embedding(spec),
        spec.hidden_size,
        spec.layers,
        spec.attention_heads,
        spec.vocabulary,
        spec.sequence_length,
        pretrained_in=spec.pretrained_in,
        source="model.parameters",
    )


def _adapters(spec: ModelSpec) -> int | None:
    if spec.lora is None or spec.hidden_size is None or spec.layers is None:
        return None
    targets = spec.lora.target_modules
    chosen = {None: _PEFT_DEFAULT, "all-linear": _ALL_LINEAR}
    number = len(targets) if isinstance(targets, list) else chosen[targets]
    return number * spec.layers * 2 * spec.lora.r * spec.hidden_size


def _embedding(spec: ModelSpec) -> int | None:
    """Return the parameters of the embedding, which is the largest module of most models."""
    if spec.hidden_size is None or spec.vocabulary is None:
        return None
    return max(spec.hidden_size * spec.vocabulary, 4 * spec.hidden_size**2)
