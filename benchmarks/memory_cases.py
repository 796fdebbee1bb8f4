"""The settings whose memory `gpu_memory` predicts and measures, and the model they train."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.estimate import MemoryPerGpu, ModelShape, World, gpu_memory, settings_of
from orchestrator.job import JobSpec

TOKENS = 1024
LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
_SMALL = {
    "reduce_bucket_size": 2048**2,
    "stage3_prefetch_bucket_size": round(0.9 * 2048**2),
    "stage3_param_persistence_threshold": 10 * 2048,
}


@dataclass(frozen=True)
class Case:
    """One run: ZeRO's keys, and what is changed besides."""

    zero: dict[str, Any] = field(default_factory=dict)
    micro_batch: int = 2
    accumulation: int = 1
    recompute: bool = False

    def config(self) -> dict[str, Any]:
        """Return DeepSpeed's configuration."""
        return {
            "train_micro_batch_size_per_gpu": self.micro_batch,
            "gradient_accumulation_steps": self.accumulation,
            "bf16": {"enabled": True},
            "gradient_clipping": 1.0,
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
            "zero_optimization": {"stage": 3, **self.zero},
        }


CASES = {
    "ZeRO-1": Case({"stage": 1}),
    "ZeRO-2": Case({"stage": 2}),
    "ZeRO-3": Case(),
    "ZeRO-3, buckets by hidden_size": Case(_SMALL),
    "ZeRO-3, 4 micro-steps": Case(accumulation=4),
    "ZeRO-3, micro-batch 4": Case(micro_batch=4),
    "ZeRO-3, recomputation": Case(recompute=True),
    "ZeRO-3, optimizer on the host": Case({"offload_optimizer": {"device": "cpu", "pin_memory": True}}),
    "hpZ 2": Case({"zero_hpz_partition_size": 2}),
    "hpZ 4": Case({"zero_hpz_partition_size": 4}),
    "hpZ 2, 4 micro-steps": Case({"zero_hpz_partition_size": 2}, accumulation=4),
    "hpZ 2, recomputation": Case({"zero_hpz_partition_size": 2}, recompute=True),
    "qwZ": Case({"zero_quantized_weights": True}),
}


def shape() -> ModelShape:
    """Return the model as the estimates see it; embedding and head are not tied."""
    hidden, mlp, layers = LLAMA["hidden_size"], LLAMA["intermediate_size"], LLAMA["num_hidden_layers"]
    ends = [LLAMA["vocab_size"] * hidden] * 2 + [hidden]
    block = [hidden * hidden] * 4 + [hidden * mlp] * 3 + [hidden] * 2
    tensors = tuple(ends + block * layers)
    return ModelShape(
        sum(tensors),
        sum(tensors),
        ends[0],
        hidden,
        layers,
        LLAMA["num_attention_heads"],
        LLAMA["vocab_size"],
        TOKENS,
        tensors,
        intermediate_size=mlp,
        gated=True,
    )


def estimate(case: Case, ranks: int) -> MemoryPerGpu:
    """Return what one of `ranks` GPUs is predicted to need."""
    job = {"cluster": {"backend": "local"}, "train": {"script": "train.py"}}
    spec = JobSpec.model_validate(job | {"model": {"recompute": case.recompute}})
    return gpu_memory(shape(), settings_of(case.config(), spec), World(1, ranks))
