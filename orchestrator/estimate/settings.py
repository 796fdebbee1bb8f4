"""The part of DeepSpeed's configuration that decides on memory, traffic and time.

Defaults are those of DeepSpeed 0.19.8 (`runtime/zero/config.py`, `runtime/engine.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.configs.offload import offload_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.hosts import HostPool
    from orchestrator.job.deepspeed_spec import OffloadDevice, Precision
    from orchestrator.job.model import JobSpec

_BYTES = {"fp32": 4, "float32": 4, "fp16": 2, "float16": 2, "half": 2, "bf16": 2, "bfloat16": 2}
_STATES = {"sgd": 4, "lion": 4, "muon": 4, "adagrad": 4}  # one fp32 number a parameter; Adam's kind has two


@dataclass(frozen=True)
class World:
    """The ranks of a run: `nodes` hosts with `gpus_per_node` each."""

    nodes: int
    gpus_per_node: int

    @property
    def size(self) -> int:
        """Return the number of ranks."""
        return self.nodes * self.gpus_per_node

    @classmethod
    def of(cls, pool: HostPool) -> World:
        """Return the ranks of a pool; every host counts as the one with the most slots."""
        return cls(len(pool.hosts), max(len(host.slots) for host in pool.hosts))


@dataclass(frozen=True)
class Settings:
    """What of a job matters to the estimates.

    Attributes:
        stage: ZeRO stage, 0 to 3.
        precision: arithmetic of forward and backward.
        micro_batch: samples of one rank in one forward pass; None when it is not known.
        accumulation: forward passes in one optimizer step (g).
        hpz: ranks in an hpZ group (z); 1 is off.
        quantized_weights: qwZ, weights are gathered in 8 bits.
        quantized_gradients: qgZ, gradients are reduced in 4 bits.
        quantized_nontrainable: frozen weights are kept in 8 bits.
        offload_optimizer: `none`, `cpu` or `nvme`.
        offload_param: `none`, `cpu` or `nvme` (stage 3).
        zero_init: the model is cut up while it is made (`deepspeed.zero.Init`, stage 3).
        recompute: activations are recomputed in backward, block by block.
        attention: `eager` keeps the matrix of scores, `flash` (and SDPA) does not.
        overlap_comm: gradients are reduced while backward computes.
        contiguous_gradients: gradients are copied into one bucket.
        reduce_scatter: stage 2 reduces for the owner alone.
        multi_rank_allreduce: how stage 2 does so: `use_multi_rank_bucket_allreduce`, an all-reduce (default).
        reduce_bucket: elements.
        allgather_bucket: elements (stages 1 and 2).
        prefetch_bucket: elements gathered ahead (stage 3).
        persistence_threshold: tensors of at most so many elements stay whole (stage 3).
        max_live: elements, up to which weights are gathered ahead (stage 3).
        max_reuse: weights that are used again within so many elements are not released (stage 3).
        sub_group: elements that one optimizer step updates at once (stage 3).
        gradient_bytes: bytes of an element in the buffer where gradients add up (`grad_accum_dtype`).
        communication_bytes: bytes of an element while gradients are reduced (`communication_data_type`).
        state_bytes: bytes of optimizer states for one trained parameter, fp32 master copy not counted: 8 for
            Adam.
    """

    stage: int = 0
    precision: Precision = "bf16"
    micro_batch: int | None = None
    accumulation: int = 1
    hpz: int = 1
    quantized_weights: bool = False
    quantized_gradients: bool = False
    quantized_nontrainable: bool = False
    offload_optimizer: OffloadDevice = "none"
    offload_param: OffloadDevice = "none"
    zero_init: bool = True
    recompute: bool = False
    attention: str = "flash"
    overlap_comm: bool = True
    contiguous_gradients: bool = True
    reduce_scatter: bool = True
    multi_rank_allreduce: bool = True
    reduce_bucket: int = 500_000_000
    allgather_bucket: int = 500_000_000
    prefetch_bucket: int = 50_000_000
    persistence_threshold: int = 100_000
    max_live: int = 1_000_000_000
    max_reuse: int = 1_000_000_000
    sub_group: int = 1_000_000_000
    gradient_bytes: int | None = None
    communication_bytes: int | None = None
    state_bytes: int = 8

    @property
    def parameter_bytes(self) -> int:
        """Return the bytes of one parameter in forward and backward."""
        return _BYTES[self.precision]

    @property
    def reduce_bytes(self) -> int:
        """Return the bytes of one element while gradients are reduced."""
        return self.communication_bytes or self.parameter_bytes

    @property
    def accumulate_bytes(self) -> int:
        """Return the bytes of one element of the buffer where gradients add up."""
        return self.gradient_bytes or self.parameter_bytes

    def hpz_group(self, world: World) -> int:
        """Return the ranks that share a secondary partition, 1 when there is none.

        DeepSpeed ignores hpZ below stage 3 and clamps it to the world (`utils/groups.py`).
        """
        return min(max(self.hpz, 1), world.size) if self.stage == 3 else 1

    def quantizes_gradients(self, world: World) -> bool:
        """Return whether qgZ does anything: stage 3 and more than one host (`stage3.py`, `num_nodes > 1`)."""
        return self.quantized_gradients and self.stage == 3 and world.nodes > 1


def settings_of(config: Mapping[str, Any], spec: JobSpec) -> Settings:
    """Return the settings of a job.

    Args:
        config: DeepSpeed's configuration after `configs.deepspeed_config.build`; what is still `auto` counts
            as DeepSpeed's default. Empty for a job without one: plain data parallelism.
        spec: the job, for the model's attention and recomputation, and for `zero3_init`.
    """
    zero = _section(config, "zero_optimization")
    stage = _number(zero.get("stage"), 0)
    fields = spec.deepspeed
    return Settings(
        stage=stage,
        precision=_precision(config),
        micro_batch=_number(config.get("train_micro_batch_size_per_gpu"), 0) or None,
        accumulation=_number(config.get("gradient_accumulation_steps"), 1),
        hpz=_number(zero.get("zero_hpz_partition_size"), 1) or 1,
        quantized_weights=zero.get("zero_quantized_weights") is True,
        quantized_gradients=zero.get("zero_quantized_gradients") is True,
        quantized_nontrainable=zero.get("zero_quantized_nontrainable_weights") is True,
        offload_optimizer=_device(zero, "offload_optimizer"),
        offload_param=_device(zero, "offload_param"),
        zero_init=fields is None or fields.zero3_init is not False,
        recompute=spec.model is not None and spec.model.recompute,
        attention="flash" if spec.model is None else spec.model.attention,
        **_buffers(config, zero, stage),
    )


def _buffers(config: Mapping[str, Any], zero: Mapping[str, Any], stage: int) -> dict[str, Any]:
    types = _section(config, "data_types")
    overlap = zero.get("overlap_comm")
    default = Settings()
    optimizer = str(_section(config, "optimizer").get("type", "Adam")).lower()
    found: dict[str, Any] = {
        name: _number(zero.get(key), getattr(default, name))
        for name, key in (
            ("reduce_bucket", "reduce_bucket_size"),
            ("allgather_bucket", "allgather_bucket_size"),
            ("prefetch_bucket", "stage3_prefetch_bucket_size"),
            ("persistence_threshold", "stage3_param_persistence_threshold"),
            ("max_live", "stage3_max_live_parameters"),
            ("max_reuse", "stage3_max_reuse_distance"),
            ("sub_group", "sub_group_size"),
        )
    }
    return found | {
        "overlap_comm": overlap if isinstance(overlap, bool) else stage == 3,
        "contiguous_gradients": zero.get("contiguous_gradients") is not False,
        "reduce_scatter": zero.get("reduce_scatter") is not False,
        "multi_rank_allreduce": zero.get("use_multi_rank_bucket_allreduce") is not False,
        "gradient_bytes": _BYTES.get(str(types.get("grad_accum_dtype"))),
        "communication_bytes": _BYTES.get(str(config.get("communication_data_type"))),
        "state_bytes": next((size for name, size in _STATES.items() if name in optimizer), 8),
    }


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _number(value: Any, default: int) -> int:
    return round(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _precision(config: Mapping[str, Any]) -> Precision:
    if _section(config, "fp16").get("enabled") is True:
        return "fp16"
    old_and_new = (_section(config, name).get("enabled") for name in ("bf16", "bfloat16"))
    return "bf16" if True in old_and_new else "fp32"


def _device(zero: Mapping[str, Any], name: str) -> OffloadDevice:
    device = offload_device(zero, name)
    return "cpu" if device == "cpu" else "nvme" if device == "nvme" else "none"
