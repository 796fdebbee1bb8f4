"""Which of DeepSpeed's compiled operators a configuration makes it load when a run starts. Pure.

Read from DeepSpeed 0.19.8: runtime/engine.py (`_configure_basic_optimizer`), runtime/zero, ops/op_builder.
What a script loads by itself is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ADAM = ("adam", "adamw", "muon")  # Muon has Adam for what is no matrix
_QUANTIZED = ("zero_quantized_weights", "zero_quantized_gradients", "zero_quantized_nontrainable_weights")
_HOST_DEVICES = ("cpu", "nvme")


@dataclass(frozen=True)
class Op:
    """An operator by the name of its builder, and the key of the configuration that asks for it."""

    name: str
    why: str


def ops_needed(config: Mapping[str, Any], device: str) -> tuple[Op, ...]:
    """Return the operators that DeepSpeed loads with this configuration, each once.

    Args:
        config: DeepSpeed's configuration, after `auto` is resolved.
        device: "cuda" or "cpu", what DeepSpeed's accelerator will be.
    """
    found: dict[str, Op] = {}
    for op in (*_communication(device), *_optimizer(config, device), *_zero(config, device), *_other(config)):
        found.setdefault(op.name, op)
    return tuple(found.values())


def _communication(device: str) -> Iterator[Op]:
    if device == "cpu":  # comm/torch.py builds it at init_distributed where it is compatible
        yield Op("deepspeed_shm_comm", "DeepSpeed on the CPU")


def _optimizer(config: Mapping[str, Any], device: str) -> Iterator[Op]:
    section = _section(config, "optimizer")
    name = str(section.get("type", "")).lower()
    offloaded = _offload(config, "optimizer") in _HOST_DEVICES
    why = f"optimizer {section.get('type')}"
    if offloaded:
        why += " with offload_optimizer"
    if not name:
        if offloaded and config.get("zero_force_ds_cpu_optimizer", True):
            yield Op("cpu_adam", "offload_optimizer with the script's own optimizer")
    elif name in _ADAM:
        if not _section(section, "params").get("torch_adam"):
            yield Op("cpu_adam" if offloaded else "fused_adam", why)
    elif name == "adagrad" and offloaded:
        yield Op("cpu_adagrad", why)
    elif name == "lion":
        yield Op("cpu_lion" if offloaded else "fused_lion", why)
    elif name == "lamb" and device == "cuda":
        yield Op("fused_lamb", why)


def _zero(config: Mapping[str, Any], device: str) -> Iterator[Op]:
    zero = _section(config, "zero_optimization")
    for part in ("optimizer", "param"):
        if _offload(config, part) == "nvme":
            yield from _nvme(config, f"offload_{part} to nvme")
    for key in _QUANTIZED:
        if zero.get(key) and device == "cuda":
            yield Op("quantizer", key)
    if zero.get("zenflow"):
        yield Op("cpu_adam", "zenflow")


def _nvme(config: Mapping[str, Any], why: str) -> Iterator[Op]:
    yield Op("pin_memory", why)  # async_io loads it first (op_builder/async_io.py, 0.19.8)
    yield Op("async_io", why)
    if _section(config, "aio").get("use_gds"):
        yield Op("gds", "aio.use_gds")


def _other(config: Mapping[str, Any]) -> Iterator[Op]:
    if _section(config, "compile").get("deepcompile"):
        yield Op("dc", "compile.deepcompile")
    routing = _section(_section(config, "data_efficiency"), "data_routing")
    if _section(routing, "random_ltd").get("enabled"):
        yield Op("random_ltd", "data_efficiency.data_routing.random_ltd")


def _offload(config: Mapping[str, Any], part: str) -> str:
    """Return where a part is offloaded to; the old `cpu_offload: true` counts as cpu."""
    zero = _section(config, "zero_optimization")
    old = {"optimizer": "cpu_offload", "param": "cpu_offload_param"}[part]
    if zero.get(old) is True:
        return "cpu"
    return str(_section(zero, f"offload_{part}").get("device", "none"))


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}
