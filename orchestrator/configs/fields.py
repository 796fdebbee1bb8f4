"""Where each field of the section `deepspeed` goes in DeepSpeed's configuration (0.19.8).

Sources: `runtime/config.py`, `runtime/zero/config.py`, `runtime/zero/offload_config.py`, `monitor/config.py`,
`profiling/config.py`, `comm/config.py`, `runtime/activation_checkpointing/config.py` of DeepSpeed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.hosts import HostPool
    from orchestrator.job.deepspeed_spec import DeepSpeedSpec
    from orchestrator.job.section import Section

ZERO = "zero_optimization"
_AS_IT_IS: dict[str, tuple[str, ...]] = {
    "zero_stage": (ZERO, "stage"),
    "hpz": (ZERO, "zero_hpz_partition_size"),
    "quantized_weights": (ZERO, "zero_quantized_weights"),
    "quantized_gradients": (ZERO, "zero_quantized_gradients"),
    "quantized_nontrainable_weights": (ZERO, "zero_quantized_nontrainable_weights"),
    "micro_batch_per_gpu": ("train_micro_batch_size_per_gpu",),
    "global_batch": ("train_batch_size",),
    "gradient_accumulation_steps": ("gradient_accumulation_steps",),
    "gradient_clipping": ("gradient_clipping",),
    "force_ds_cpu_optimizer": ("zero_force_ds_cpu_optimizer",),
    "zero3_save_16bit_model": (ZERO, "stage3_gather_16bit_weights_on_model_save"),
    "moe_layer_cls_names": (ZERO, "leaf_module", "classes"),
    "reduce_bucket_size": (ZERO, "reduce_bucket_size"),
    "allgather_bucket_size": (ZERO, "allgather_bucket_size"),
    "prefetch_bucket_size": (ZERO, "stage3_prefetch_bucket_size"),
    "param_persistence_threshold": (ZERO, "stage3_param_persistence_threshold"),
    "max_live_parameters": (ZERO, "stage3_max_live_parameters"),
    "max_reuse_distance": (ZERO, "stage3_max_reuse_distance"),
    "sub_group_size": (ZERO, "sub_group_size"),
    "overlap_comm": (ZERO, "overlap_comm"),
    "contiguous_gradients": (ZERO, "contiguous_gradients"),
    "reduce_scatter": (ZERO, "reduce_scatter"),
}
_SECTIONS = ("fp16", "activation_checkpointing", "checkpoint")
_SWITCHED = ("flops_profiler", "comms_logger", "tensorboard", "csv_monitor", "wandb")
"""Sections that DeepSpeed leaves off unless they say `enabled`; who writes one wants it on."""


@dataclass(frozen=True)
class Wish:
    """One field of the job file: its name, what it puts where in the configuration, and how it is said."""

    field: str
    path: tuple[str, ...]
    value: Any
    said: Any = None

    @property
    def where(self) -> str:
        """Return the key path in the job file."""
        return f"deepspeed.{self.field}"


def wishes(spec: DeepSpeedSpec, pool: HostPool, config: Mapping[str, Any], launcher: str) -> list[Wish]:
    """Return what the fields that are given ask for.

    Args:
        spec: section `deepspeed` of the job file.
        pool: the hosts, whose slots `hpz: node` stands for.
        config: what the DeepSpeed file says: sections are found under the names that it uses.
        launcher: the training launcher: with accelerate, fields do what its own arguments do.
    """
    resolved = {"hpz": _hpz(spec, pool)}
    found = [Wish(name, path, resolved.get(name, getattr(spec, name))) for name, path in _AS_IT_IS.items()]
    found += [
        *_precision(spec, config, launcher),
        *_offload(spec, "offload_optimizer", config),
        *_offload(spec, "offload_param", config),
        *_made_of_parts(spec),
        *(wish for name in _SECTIONS for wish in _section(spec, name)),
        *(wish for name in _SWITCHED for wish in _switched(spec, name)),
    ]
    return [wish for wish in found if wish.value is not None]


def _hpz(spec: DeepSpeedSpec, pool: HostPool) -> int | None:
    from orchestrator.hosts.topology import resolve_hpz  # noqa: PLC0415 - topology reads configurations too

    return None if spec.hpz is None else resolve_hpz(spec.hpz, pool)


def _precision(spec: DeepSpeedSpec, config: Mapping[str, Any], launcher: str) -> Iterator[Wish]:
    """Yield a switch for the wanted arithmetic, and one for each other kind that the file mentions."""
    if spec.precision is None:
        return
    bf16 = "bfloat16" if "bfloat16" in config else "bf16"  # DeepSpeed still reads the old name
    for kind, section in (("bf16", bf16), ("fp16", "fp16")):
        if kind == spec.precision or section in config:
            yield Wish("precision", (section, "enabled"), kind == spec.precision, spec.precision)
    said = spec.fp16 is not None and spec.fp16.auto_cast is not None
    if launcher == "accelerate" and spec.precision == "fp16" and "fp16" not in config and not said:
        yield Wish("precision", ("fp16", "auto_cast"), True)  # as `set_mixed_precision` of Accelerate 1.15


def _offload(spec: DeepSpeedSpec, name: str, config: Mapping[str, Any]) -> Iterator[Wish]:
    """Yield device, folder and pin_memory of one kind of offload; the last only where there is offload."""
    device: str | None = getattr(spec, name)
    folder: Path | None = getattr(spec, f"{name}_nvme_path")
    yield Wish(name, (ZERO, name, "device"), device)
    yield Wish(f"{name}_nvme_path", (ZERO, name, "nvme_path"), folder and str(folder))
    section: Any = config.get(ZERO)
    section = section.get(name) if isinstance(section, dict) else None
    in_file = section.get("device") if isinstance(section, dict) else None
    if (device or in_file) in ("cpu", "nvme"):
        yield Wish("pin_memory", (ZERO, name, "pin_memory"), spec.pin_memory)


def _made_of_parts(spec: DeepSpeedSpec) -> Iterator[Wish]:
    """Yield optimizer and scheduler: their type, and parameter by parameter what may be `auto` in a file."""
    for name, part in (("optimizer", spec.optimizer), ("scheduler", spec.scheduler)):
        if part is not None:
            yield Wish(f"{name}.type", (name, "type"), part.type)
            yield from (
                Wish(f"{name}.params.{key}", (name, "params", key), value)
                for key, value in part.params.items()
            )


def _section(spec: DeepSpeedSpec, name: str) -> Iterator[Wish]:
    """Yield the keys of a section whose names are DeepSpeed's own."""
    section: Section | None = getattr(spec, name)
    for key in type(section).model_fields if section is not None else ():
        value = getattr(section, key)
        plain = str(value) if hasattr(value, "__fspath__") else value
        yield Wish(f"{name}.{key}", (name, key), plain)


def _switched(spec: DeepSpeedSpec, name: str) -> Iterator[Wish]:
    section = getattr(spec, name)
    if section is not None:
        yield from _section(spec, name)
        if section.enabled is None:
            yield Wish(f"{name}.enabled", (name, "enabled"), True)
