"""The sections `model` and `hardware`: what is trained and on what, for estimates before the queue."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.job.deepspeed_spec import Count, Precision  # noqa: TC001 - pydantic reads the annotations
from orchestrator.job.section import Section
from orchestrator.job.values import (  # noqa: TC001 - as above
    Bandwidth,
    ByteSize,
    Duration,
    ParameterCount,
    TrainedCount,
    Word,
)


class LoraSpec(Section):
    """Low-rank adapters: the only weights that train."""

    r: Count = Field(description="Rank of the adapters.")
    target_modules: list[Word] | Literal["all-linear"] | None = Field(
        default=None,
        description="Linear layers that get one, by the last part of their name; default: PEFT's choice for "
        "this kind of model.",
    )


class ModelSpec(Section):
    """The model, as far as estimates and `auto` values need to know it."""

    config: Word | None = Field(
        default=None,
        description="Hugging Face configuration: a name on the hub, a folder, or a config.json; no weights "
        "are read.",
    )
    parameters: ParameterCount | None = Field(
        default=None, description="Number of parameters, such as 7B; in place of config."
    )
    trainable_parameters: TrainedCount | None = Field(
        default=None,
        description="Parameters that are trained, 0 for inference; default: all, or the adapters of lora.",
    )
    lora: LoraSpec | None = Field(default=None, description="Low-rank adapters on a frozen model.")
    largest_layer: ParameterCount | None = Field(
        default=None, description="Parameters of the largest single module, such as the embedding."
    )
    hidden_size: Count | None = Field(default=None, description="Width of the model.")
    layers: Count | None = Field(default=None, description="Number of transformer blocks.")
    attention_heads: Count | None = Field(default=None, description="Attention heads of a block.")
    vocabulary: Count | None = Field(default=None, description="Number of tokens the model knows.")
    sequence_length: Count | None = Field(default=None, description="Tokens of one sample.")
    attention: Literal["eager", "flash"] = Field(
        default="flash",
        description="How attention is computed: eager keeps the matrix of scores, flash and SDPA do not.",
    )
    recompute: bool = Field(
        default=False, description="Whether the script recomputes activations in backward (checkpointing)."
    )
    pretrained_in: Precision | None = Field(
        default=None, description="Arithmetic the weights were pretrained in; fp16 breaks bf16 ones."
    )

    @model_validator(mode="after")
    def _trains_what_it_has(self) -> ModelSpec:
        if self.parameters and self.trainable_parameters and self.trainable_parameters > self.parameters:
            raise ValueError("trainable_parameters are more than parameters; correct one of them")
        if self.lora is not None and self.trainable_parameters == 0:
            raise ValueError(
                "trainable_parameters: 0 is inference, and lora trains adapters; remove one of them"
            )
        return self


class HardwareSpec(Section):
    """What the hosts are made of; what is not said is taken from the GPU's data sheet or left out."""

    gpu: Word | None = Field(
        default=None, description="Kind of GPU, such as H100-80GB or A100-40GB; cpu for none."
    )
    gpu_memory: ByteSize | None = Field(default=None, description="Memory of one GPU.")
    gpu_tflops: float | None = Field(
        default=None, gt=0, description="Peak of one GPU in the run's precision, dense, in TFLOP/s."
    )
    efficiency: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.45, description="Part of that peak the model reaches when nothing waits for the network."
    )
    host_memory: ByteSize | None = Field(default=None, description="RAM of one host.")
    link: Bandwidth | None = Field(
        default=None, description="Network of one host, one direction, such as 100Gbit/s."
    )
    gpu_link: Bandwidth | None = Field(
        default=None, description="From one GPU to the others of its host, one direction, such as 300GB/s."
    )
    nvlink_domain: Count | None = Field(
        default=None,
        description="Neighbouring hosts whose GPUs one NVLink network joins, such as 18 of a GB200 NVL72: an "
        "hpZ group may lie on several of them; default: each host for itself.",
    )
    host_link: Bandwidth | None = Field(
        default=None, description="From one GPU to its host's memory, one direction (offload)."
    )
    nvme: Bandwidth | None = Field(default=None, description="Reading and writing NVMe of one host.")
    storage: Bandwidth | None = Field(
        default=None, description="Writing checkpoints, all hosts together, such as 5GB/s."
    )
    host_mtbf: Duration | None = Field(
        default=None, gt=0, description="Mean time between failures of one host, such as 42d."
    )
    restart_time: Duration = Field(
        default=180.0, ge=0, description="From noticing a failure to the first step after it."
    )
