"""What a job will need: memory, traffic between hosts, step time, checkpoints; and which settings fit best.

Everything here is a function of three values - a `ModelShape`, `Settings` and a `World` - and for times of a
`Hardware`. Memory and traffic are whole bytes, times are seconds. Nothing depends on the number of ranks in
time or space. Tensor and pipeline parallelism are not modelled.
"""

from orchestrator.estimate.candidate import Candidate, Dropped, Suggestions
from orchestrator.estimate.checkpoint import (
    Cadence,
    best_interval,
    checkpoint_bytes,
    daly,
    goodput,
    plan_cadence,
    young,
)
from orchestrator.estimate.hardware import Gpu, Hardware, find_gpu, known_gpus, resolve_hardware
from orchestrator.estimate.memory import HostMemory, MemoryPerGpu, gpu_memory, host_memory
from orchestrator.estimate.model_states import ModelStates, deepspeed_model_states
from orchestrator.estimate.settings import Settings, World, settings_of
from orchestrator.estimate.shape import ModelShape, shape_of
from orchestrator.estimate.speed import StepTime, step_time
from orchestrator.estimate.suggest import suggest
from orchestrator.estimate.traffic import Traffic, Volume, traffic

__all__ = [
    "Cadence",
    "Candidate",
    "Dropped",
    "Gpu",
    "Hardware",
    "HostMemory",
    "MemoryPerGpu",
    "ModelShape",
    "ModelStates",
    "Settings",
    "StepTime",
    "Suggestions",
    "Traffic",
    "Volume",
    "World",
    "best_interval",
    "checkpoint_bytes",
    "daly",
    "deepspeed_model_states",
    "find_gpu",
    "goodput",
    "gpu_memory",
    "host_memory",
    "known_gpus",
    "plan_cadence",
    "resolve_hardware",
    "settings_of",
    "shape_of",
    "step_time",
    "suggest",
    "traffic",
    "young",
]
