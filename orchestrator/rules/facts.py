"""What a rule looks at, what it finds, and what makes a function a rule."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.configs.offload import offload_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.errors import Problem
    from orchestrator.hosts import HostPool
    from orchestrator.job import JobSpec

Severity = Literal["error", "warning", "note"]
ZERO = "zero_optimization"


@dataclass(frozen=True)
class Finding:
    """What a rule has found.

    Attributes:
        severity: an error stops the job; a warning is shown by submit and plan; a note, which says what the
            script has to do and nothing of what is wrong, by plan alone.
        problem: what, where, the value and the fix.
        rule: id of the rule; it stays the same between versions.
    """

    severity: Severity
    problem: Problem
    rule: str


@dataclass(frozen=True)
class Feature:
    """One of ZeRO++'s: its name, its field of the job file, its key in `zero_optimization`."""

    name: str
    field: str
    key: str

    @property
    def path(self) -> tuple[str, str]:
        """Return the path of the key in DeepSpeed's configuration."""
        return ZERO, self.key


HPZ = Feature("hpZ", "hpz", "zero_hpz_partition_size")
QWZ = Feature("qwZ", "quantized_weights", "zero_quantized_weights")
QGZ = Feature("qgZ", "quantized_gradients", "zero_quantized_gradients")
FROZEN = Feature(
    "quantization of frozen weights", "quantized_nontrainable_weights", "zero_quantized_nontrainable_weights"
)


@dataclass(frozen=True)
class Facts:
    """Everything a rule may look at; None or "" where it is not known.

    Attributes:
        spec: the job file.
        pool: the hosts and slots of the run, after the filters.
        config: DeepSpeed's configuration as it will be written; empty when the job has none.
        device: what the ranks compute on: cuda, cpu or another of DeepSpeed's accelerators.
        compute_capability: of the GPUs, such as 8.0 for A100.
        deepspeed: version of DeepSpeed that the ranks import.
        gpu_memory_needed: estimate for one GPU, in bytes.
        gpu_memory: memory of one GPU, in bytes.
        host_memory_needed: estimate for one host, in bytes.
        host_memory: memory of one host, in bytes.
        gpus_per_host: GPUs that each host has, used or not.
        unfiltered_world: ranks there would be without include and exclude.
        tensors: elements of each weight of the model that has two dimensions or more.
        pretrained_in: arithmetic the model was pretrained in: fp32, fp16 or bf16.
        fp16_on_cpu: whether the hosts' CPUs compute in fp16 (AVX512-FP16).
        script: text of the training script.
        places: `file:line` of each key of the DeepSpeed file, by its path; empty without one.
    """

    spec: JobSpec
    pool: HostPool
    config: Mapping[str, Any]
    device: str = ""
    compute_capability: float | None = None
    deepspeed: str | None = None
    gpu_memory_needed: int | None = None
    gpu_memory: int | None = None
    host_memory_needed: int | None = None
    host_memory: int | None = None
    gpus_per_host: int | None = None
    unfiltered_world: int | None = None
    tensors: tuple[int, ...] | None = None
    pretrained_in: str | None = None
    fp16_on_cpu: bool | None = None
    script: str | None = None
    places: Mapping[tuple[str, ...], str] = field(default_factory=dict)

    def get(self, *path: str) -> Any:
        """Return a value of DeepSpeed's configuration; None where there is none, and for `auto`."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value == "auto" else value

    def where(self, name: str, *path: str) -> str:
        """Return where a setting is written: a key of the job file, or line and key of the DeepSpeed file.

        Args:
            name: its field in the section `deepspeed`, "" where it has none.
            path: its keys in DeepSpeed's configuration.
        """
        section = self.spec.deepspeed
        if section is None:
            return "deepspeed"
        if self._overridden(path):
            return ".".join(("deepspeed.overrides", *path))
        if section.config_file is not None and (not name or getattr(section, name) is None):
            place = self.places.get(path)
            return f"{place}: {'.'.join(path)}" if place else "deepspeed.config_file"
        return f"deepspeed.{name}" if name else "deepspeed"

    def word(self, name: str, *path: str) -> str:
        """Return what a setting is called where it is written: its field's name, or DeepSpeed's key."""
        return name if self.where(name, *path) == f"deepspeed.{name}" else path[-1]

    def where_feature(self, feature: Feature) -> str:
        """Return what turns a feature of ZeRO++ on, as `where` does."""
        return self.where(feature.field, *feature.path)

    def word_feature(self, feature: Feature) -> str:
        """Return what a feature of ZeRO++ is called where it is turned on."""
        return self.word(feature.field, *feature.path)

    def _overridden(self, path: tuple[str, ...]) -> bool:
        value: Any = self.spec.deepspeed and self.spec.deepspeed.overrides
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return bool(path) and value is not None

    @property
    def stage(self) -> int | None:
        """Return the ZeRO stage; None where the script decides on it."""
        section = self.config.get(ZERO, {})
        value = section.get("stage", 0) if isinstance(section, dict) else None
        return value if isinstance(value, int) else None

    @property
    def maybe_stage_3(self) -> bool:
        """Return whether the stage is 3, or may be."""
        return self.stage in (3, None)

    @property
    def hpz(self) -> int:
        """Return the ranks of an hpZ group; 1 where hpZ is off."""
        value = self.get(*HPZ.path)
        return value if isinstance(value, int) and value > 1 else 1

    def on(self, feature: Feature) -> bool:
        """Return whether a feature of ZeRO++ is switched on, whatever the stage."""
        return self.hpz > 1 if feature is HPZ else self.get(*feature.path) is True

    def active(self, *features: Feature) -> list[Feature]:
        """Return those of the features that are switched on at a stage that can be 3."""
        return [feature for feature in features if self.maybe_stage_3 and self.on(feature)]

    @property
    def precision(self) -> str | None:
        """Return fp16, bf16 or fp32; None where the script may still choose."""
        if self.get("fp16", "enabled") is True:
            return "fp16"
        if any(self.get(name, "enabled") is True for name in ("bf16", "bfloat16")):
            return "bf16"
        said = self.spec.deepspeed.precision if self.spec.deepspeed else None
        return "fp32" if said == "fp32" else None

    def arithmetic(self, *kinds: str) -> str:
        """Return how to get one of these kinds (fp32, fp16, bf16) where the arithmetic is said now."""
        now = self.precision or "fp32"
        if now == "fp32" or not self._in_file(now):
            return f"set precision: {' or '.join(kinds)}"
        switch = {"fp32": f"switch {now} off"}
        return " or ".join(switch.get(kind, f"enable {kind} in place of {now}") for kind in kinds)

    def _in_file(self, kind: str) -> bool:
        return self.where("precision", kind, "enabled") != "deepspeed.precision"

    @property
    def less_memory(self) -> str:
        """Return what is left to try where a GPU is too small."""
        model, micro = self.spec.model, self.get("train_micro_batch_size_per_gpu")
        ways = {
            "a higher ZeRO stage": self.stage in (0, 1, 2),
            "offload": not (self.offloads("offload_optimizer") and self.offloads("offload_param")),
            "a smaller micro-batch": micro != 1,
            "recomputation of activations (model.recompute)": model is not None and not model.recompute,
            "more hosts": True,
        }
        *others, last = [way for way, open_ in ways.items() if open_]
        return f"{', '.join(others)} or {last}" if others else last

    @property
    def optimizer(self) -> str | None:
        """Return the type of DeepSpeed's own optimizer, in lower case; None where the script brings one."""
        kind = self.get("optimizer", "type")
        return kind.lower() if isinstance(kind, str) else None

    def offloads(self, section: str) -> bool:
        """Return whether `offload_optimizer` or `offload_param` moves anything."""
        zero = self.config.get(ZERO)
        return isinstance(zero, dict) and offload_device(zero, section) in ("cpu", "nvme")

    @cached_property
    def prepared_by_accelerate(self) -> bool:
        """Return whether the script hands its model to Accelerate's `Accelerator.prepare`, for all we know.

        Scripts that call `deepspeed.initialize` may be started by `accelerate launch` too; the Trainer of
        Transformers deals with optimizer and scheduler itself (`deepspeed_optim_sched`).
        """
        mine = self.script is None or re.search(r"\bAccelerator\s*\(", self.script) is not None
        return self.spec.train.launcher == "accelerate" and mine


@dataclass(frozen=True)
class Rule:
    """A rule: called with facts, it yields what it finds in them.

    Attributes:
        id: a name that stays the same between versions.
        severity: of what it finds.
        check: the function.
        guess: whether it is only likely with these facts: then an error is a warning.
    """

    id: str
    severity: Severity
    check: Callable[[Facts], Iterator[Problem]]
    guess: Callable[[Facts], bool]

    @property
    def summary(self) -> str:
        """Return the first line of the rule's docstring."""
        return (self.check.__doc__ or "").partition("\n")[0]

    def __call__(self, facts: Facts) -> Iterator[Finding]:
        """Yield what the rule finds."""
        severity: Severity = "warning" if self.guess(facts) else self.severity
        return (Finding(severity, problem, self.id) for problem in self.check(facts))


def rule(
    name: str, severity: Severity, guess: Callable[[Facts], bool] = lambda _: False
) -> Callable[[Callable[[Facts], Iterator[Problem]]], Rule]:
    """Make a rule of a function that yields problems; its docstring gives the source."""
    return lambda check: Rule(name, severity, check, guess)
