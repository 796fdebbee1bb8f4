"""What `zeropp` trains, with which settings, and what the estimates say of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks import bench
from orchestrator.estimate import (
    Hardware,
    ModelShape,
    World,
    find_gpu,
    gpu_memory,
    settings_of,
    step_time,
    traffic,
)
from orchestrator.job import JobSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKENS = 1024
MICRO_BATCH = 2
WORLD = World(nodes=2, gpus_per_node=2)
SCRIPT = bench.ROOT / "examples/zeropp_lm/train.py"
# layers, hidden size, intermediate size: presets of the example, whose tokens are bytes
SIZES = {"tiny": (3, 128, 384), "300m": (24, 1024, 2816), "1b": (20, 2048, 5632)}
_HEADS = {"tiny": 4, "300m": 16, "1b": 16}
_BYTES = 256  # tokens there are
# DeepSpeed keeps a billion elements whole by default, which is all of this model: nothing would be gathered
# for backward. So the limits are as small beside it as the defaults are beside a model of tens of billions.
_LIMITS = {
    "stage3_max_live_parameters": 100_000_000,
    "stage3_max_reuse_distance": 50_000_000,
    "stage3_prefetch_bucket_size": 30_000_000,
    "reduce_bucket_size": 30_000_000,
}
_ZEROPP = {"zero_hpz_partition_size": 2, "zero_quantized_weights": True, "zero_quantized_gradients": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "ZeRO-3": {},
    "hpZ": {"zero_hpz_partition_size": 2},
    "qwZ": {"zero_quantized_weights": True},
    "qgZ": {"zero_quantized_gradients": True},
    "ZeRO++": _ZEROPP,
}


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        setting: of SETTINGS.
        accumulation: micro-steps of an optimizer step (g).
        phases: (Gbit/s each way or None, steps that count) in their order; between two phases one step is
            left out, which saw both.
        size: of SIZES.
        warm_up: steps before the first phase.
        one_host: whether NCCL is told that all GPUs are in one host, so that NVLink joins the halves.
        micro_batch: windows of a GPU.
        ramp: steps in which the learning rate grows to its full height; 0: it is that from the first one.
        rate: of learning.
        betas: of AdamW.
    """

    setting: str
    accumulation: int = 1
    phases: tuple[tuple[float | None, int], ...] = ()
    size: str = "1b"
    warm_up: int = 3
    one_host: bool = False
    micro_batch: int = MICRO_BATCH
    ramp: int = 0
    rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.999)
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Return the optimizer steps of the whole training."""
        return self.warm_up + sum(steps for _, steps in self.phases) + max(0, len(self.phases) - 1)

    @property
    def tokens(self) -> int:
        """Return the tokens of an optimizer step, of all ranks together."""
        return self.accumulation * self.micro_batch * WORLD.size * TOKENS

    def boundaries(self) -> list[tuple[int, int, float | None]]:
        """Return for each phase the last step before it, its own last step, and the speed of the link."""
        found, step = [], self.warm_up
        for gigabits, steps in self.phases:
            found.append((step, step + steps, gigabits))
            step += steps + 1
        return found

    def zero(self) -> dict[str, Any]:
        """Return DeepSpeed's section `zero_optimization`."""
        return {"stage": 3, **_LIMITS, **SETTINGS[self.setting]}

    def config(self) -> dict[str, Any]:
        """Return DeepSpeed's configuration."""
        ramp = {"warmup_min_lr": 0, "warmup_max_lr": self.rate, "warmup_num_steps": self.ramp}
        scheduler = {"type": "WarmupLR", "params": ramp | {"warmup_type": "linear"}}
        adam = {"lr": self.rate, "betas": list(self.betas)}
        return ({"scheduler": scheduler} if self.ramp else {}) | {
            "train_micro_batch_size_per_gpu": self.micro_batch,
            "gradient_accumulation_steps": self.accumulation,
            "gradient_clipping": 1.0,
            "bf16": {"enabled": True},
            # DeepSpeed's own is compiled at the first start; PyTorch's needs more memory on GPUs.
            "optimizer": {"type": "AdamW", "params": adam | {"torch_adam": self.size == "tiny"}},
            "zero_optimization": self.zero(),
        }

    def job(self, python: str) -> dict[str, Any]:
        """Return the job file, whose DeepSpeed section is a file `ds.json` beside it."""
        args = ["--deepspeed_config", "{ds_config}", "--size", self.size, "--steps", self.steps]
        environ = {**self.environ, **({"NCCL_HOSTID": "one"} if self.one_host else {})}
        return {
            "name": "zeropp",
            "cluster": {"backend": "local", "nodes": WORLD.nodes, "slots": WORLD.gpus_per_node},
            "train": {
                "script": str(SCRIPT),
                "python": python,
                "args": [*args, "--seq_len", TOKENS],
                "env": {"OMP_NUM_THREADS": "4", **environ},
            },
            "deepspeed": {"config_file": "ds.json"},
            "run_root": "runs",
            "time_limit": "10m",
        }

    def shape(self) -> ModelShape:
        """Return the model as the estimates see it; embedding and head are not tied."""
        layers, hidden, mlp = SIZES[self.size]
        ends = [_BYTES * hidden] * 2 + [hidden]
        block = [hidden * hidden] * 4 + [hidden * mlp] * 3 + [hidden] * 2
        tensors = tuple(ends + block * layers)
        total = sum(tensors)
        heads = _HEADS[self.size]
        return ModelShape(
            total, total, hidden * mlp, hidden, layers, heads, _BYTES, TOKENS, tensors, intermediate_size=mlp,
            gated=True,
        )  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """What `orchestrate plan` says of a case.

    Attributes:
        peak: bytes of one GPU.
        sent: bytes between the hosts in a step, both directions together.
        seconds: of a step.
    """

    peak: int
    sent: int
    seconds: float


def predict(case: Case, gigabits: float, gpu: str) -> Prediction:
    """Return the estimates for a link of so many Gbit/s each way."""
    spec = JobSpec.model_validate({"cluster": {"backend": "local"}, "train": {"script": "train.py"}})
    settings = settings_of(case.config(), spec)
    known = find_gpu(gpu)
    hardware = Hardware(known, "cuda", link=gigabits * 1e9 / 8, gpu_link=known.gpu_link)
    time = step_time(case.shape(), settings, WORLD, hardware)
    flow = traffic(case.shape(), settings, WORLD)
    return Prediction(
        gpu_memory(case.shape(), settings, WORLD).total, flow.ring.total * WORLD.nodes, time.total or 0.0
    )
