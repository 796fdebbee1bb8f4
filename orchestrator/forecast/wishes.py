"""What a plan took for granted, and what the job file could say to show more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.forecast.document import Wish
from orchestrator.forecast.words import seconds
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.forecast.estimates import Estimates
    from orchestrator.forecast.examine import Examination
    from orchestrator.job import JobSpec

ACTIVATIONS = "the memory of activations"
_MODEL = {  # of a model, for its activations: an example
    "hidden_size": "4096",
    "layers": "32",
    "sequence_length": "4096",
    "vocabulary": "32000",
    "heads": "32",
}
_FIELDS = {"heads": "attention_heads"}
_HARDWARE = {
    "gpu": ("H100-80GB", "what fits, and the arithmetic of a step"),
    "link": ("100Gbit/s", "the time of a step on the network"),
    "host_memory": ("1TB", "what fits a host"),
    "storage": ("5GB/s", "the time of a checkpoint"),
    "host_mtbf": ("42d", "the best interval between checkpoints"),
}


def wishes(spec: JobSpec, made: Estimates | None, *, quick: bool) -> Iterator[Wish]:
    """Yield what the job file does not say and a plan could use.

    Args:
        spec: the job file.
        made: its estimates; None when there are none.
        quick: `model.config` was not read, because nobody wanted to wait.
    """
    model = spec.model
    if made is None:
        if model is None or (model.config is None and model.parameters is None):
            yield Wish(
                "model.parameters", "7B", "memory, traffic and step times (or model.config: a name or folder)"
            )
        elif quick and model.config is not None:
            yield Wish("model.config", str(model.config), "memory, traffic and step times, without --quick")
        elif model.parameters is not None and model.lora is not None:
            yield Wish("model.hidden_size", "4096", "the adapters' size, with model.layers")
        return
    if "micro_batch" in made.gpu.missing:
        yield Wish("deepspeed.micro_batch_per_gpu", "1", ACTIVATIONS)
    for name in made.gpu.missing:
        if name in _MODEL:
            yield Wish(f"model.{_FIELDS.get(name, name)}", _MODEL[name], ACTIVATIONS)
    yield from _hardware(made)


def _hardware(made: Estimates) -> Iterator[Wish]:
    hardware = made.hardware
    known = {
        "gpu": hardware.gpu_memory is not None or hardware.device == "cpu",
        "link": hardware.link is not None or made.world.nodes == 1,
        "host_memory": hardware.host_memory is not None or not made.host.training,
        "storage": hardware.storage is not None or made.shape.is_inference,
        "host_mtbf": hardware.host_mtbf is not None or made.shape.is_inference,
    }
    for name, is_known in known.items():
        if not is_known:
            yield Wish(f"hardware.{name}", *_HARDWARE[name])


def assumptions(examined: Examination, made: Estimates | None) -> Iterator[str]:
    """Yield what the figures rest on although the job file does not say it."""
    spec, pool = examined.job.spec, examined.pool
    if pool is not None and len({len(host.slots) for host in pool.hosts}) > 1 and made is not None:
        yield f"every host has {counted(made.world.gpus_per_node, 'slot')}, as the largest"
    if examined.asked:
        yield "Slurm gives the hosts that are asked for, in order of their names"
    if made is None:
        return
    if spec.deepspeed is None:
        yield "plain data parallelism in fp32: there is no deepspeed section"
    elif examined.unresolved:
        yield f"DeepSpeed's defaults for what the script fills in: {', '.join(examined.unresolved)}"
    if made.shape.is_inference:
        yield "nothing trains (model.trainable_parameters: 0): a step is one forward pass, nothing is saved"
    elif not isinstance(examined.config.get("optimizer"), dict):
        yield "the script's optimizer is of Adam's kind: 8 bytes of states a parameter (deepspeed.optimizer)"
    yield from _of_model(spec, made)
    if made.cadence is not None:
        yield f"a failure is noticed within 60 s; restarting takes {seconds(made.hardware.restart_time)}"


def _of_model(spec: JobSpec, made: Estimates) -> Iterator[str]:
    if spec.model is None or made.gpu.activations is None:
        return
    said = spec.model.model_fields_set
    if not {"attention", "recompute"} <= said:
        how = "with" if spec.model.recompute else "without"
        yield (
            f"{spec.model.attention} attention, {how} recomputation of activations (model.attention, "
            "model.recompute)"
        )
