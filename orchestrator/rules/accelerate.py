"""Rules about Accelerate: what it refuses, what it ignores, and what the script has to do for it.

They concern scripts that hand their model to `Accelerator.prepare`, not those that `accelerate launch` merely
starts. Sources are of Accelerate 1.15.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem
from orchestrator.rules.facts import rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.rules.facts import Facts

IGNORED = (  # with a DeepSpeed file; in the order of Accelerate's own message
    "gradient_accumulation_steps",
    "gradient_clipping",
    "zero_stage",
    "offload_optimizer_device",
    "offload_param_device",
    "offload_param_nvme_path",
    "offload_optimizer_nvme_path",
    "zero3_save_16bit_model",
    "mixed_precision",
)


def ambiguous(accelerate_yaml: Mapping[str, Any]) -> list[str]:
    """Return the keys of an Accelerate configuration that a DeepSpeed file beside them makes ambiguous.

    Accelerate refuses them in every rank, whatever their values, even `mixed_precision: "no"` and keys that
    are null inside deepspeed_config; only a null `mixed_precision` counts as not there.

    Source: `DeepSpeedPlugin._deepspeed_config_checks`, and `_validate_launch_command` for what it is told.

    Args:
        accelerate_yaml: the file that `accelerate launch --config_file` reads.

    Returns:
        The keys in the order of Accelerate's message; none where no DeepSpeed file is named.
    """
    section = accelerate_yaml.get("deepspeed_config")
    if accelerate_yaml.get("distributed_type") != "DEEPSPEED" or not isinstance(section, dict):
        return []
    if section.get("deepspeed_config_file") in (None, "none"):
        return []
    given = {str(key) for key in section}
    if accelerate_yaml.get("mixed_precision") is not None:
        given.add("mixed_precision")
    return [key for key in IGNORED if key in given]


@rule("accelerate-optimizer-without-scheduler", "error", guess=lambda facts: facts.script is None)
def accelerate_optimizer_without_scheduler(facts: Facts) -> Iterator[Problem]:
    """Accelerate takes DeepSpeed's optimizer only with DeepSpeed's scheduler.

    Source: `Accelerator._prepare_deepspeed`: "You can only specify DummyScheduler in the code when using
    DummyOptim". A DummyScheduler with lr_scheduler_callable, no scheduler at all and the Trainer of
    Transformers are right: then it is silent where the script can be read. What stands in overrides is taken
    as it is.
    """
    if not facts.prepared_by_accelerate or "optimizer" not in facts.config or "scheduler" in facts.config:
        return
    where = facts.where("optimizer", "optimizer")
    if where.startswith("deepspeed.overrides") or _brings_no_scheduler(facts.script):
        return
    what = "with DeepSpeed's optimizer Accelerate refuses a scheduler that the script brings"
    fix = (
        "add deepspeed.scheduler and use DummyScheduler in the script, or remove the optimizer; if the "
        "script uses DummyScheduler(lr_scheduler_callable=…), no scheduler or HF Trainer, say it as "
        "deepspeed.overrides.optimizer"
    )
    yield Problem(what, where, facts.get("optimizer", "type"), fix)


def _brings_no_scheduler(script: str | None) -> bool:
    """Return whether the script, as far as it can be read, names no scheduler or lets Accelerate make it."""
    if script is None:
        return False
    try:
        words = set(_words(ast.parse(script)))
    except (SyntaxError, ValueError):  # not this Python's language
        return False
    named = any(re.search(r"(?i)schedul|LR$", word) for word in words)
    return "lr_scheduler_callable" in words or not named


def _words(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a script uses; comments and texts are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword | ast.arg) and node.arg:
            yield node.arg
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


@rule("accelerate-dummies", "note")
def accelerate_dummies(facts: Facts) -> Iterator[Problem]:
    """Where the DeepSpeed configuration has an optimizer or a scheduler, the script uses a dummy for it.

    Source: `Accelerator._prepare_deepspeed`; "Important code changes when using DeepSpeed Config File" in
    Accelerate's documentation, cases a to d.
    """
    if not facts.prepared_by_accelerate:
        return
    for section, dummy in (("optimizer", "DummyOptim"), ("scheduler", "DummyScheduler")):
        if section in facts.config:
            what = f"the script has to use accelerate.utils.{dummy} in place of its own {section}"
            if section == "optimizer" and "scheduler" not in facts.config:
                what += ", and DummyScheduler(optimizer, lr_scheduler_callable=…) if it has a scheduler"
            where = facts.where(section, section)
            yield Problem(what, where, facts.get(section, "type"), f"or remove the {section} here")
    if facts.config and not {"optimizer", "scheduler"} & facts.config.keys():
        what = "the script brings optimizer and scheduler; DummyOptim would be refused"
        yield Problem(what, "deepspeed", None, "add deepspeed.optimizer and scheduler for DeepSpeed's own")


@rule("accelerate-accumulation", "note")
def accelerate_accumulation(facts: Facts) -> Iterator[Problem]:
    """The DeepSpeed file's gradient_accumulation_steps goes before that of `Accelerator(...)`.

    Source: `Accelerator._prepare_deepspeed`: a mismatch is logged and DeepSpeed's value used; only `auto` is
    filled from the script.
    """
    steps = facts.config.get("gradient_accumulation_steps")
    said = facts.script is None or "gradient_accumulation" in facts.script
    if not facts.prepared_by_accelerate or steps is None or not said:
        return
    where = facts.where("gradient_accumulation_steps", "gradient_accumulation_steps")
    if steps == "auto":
        what = "Accelerator(gradient_accumulation_steps=k) in the script decides"
        yield Problem(what, where, "auto", "give a number to decide here")
    else:
        what = "goes before Accelerator(gradient_accumulation_steps=k) in the script"
        yield Problem(what, where, str(steps), 'write "auto" in a DeepSpeed file to let the script decide')


@rule("accelerate-pipeline", "error")
def accelerate_pipeline(facts: Facts) -> Iterator[Problem]:
    """Accelerate does not drive DeepSpeed's pipeline parallelism.

    Source: its documentation's caveats; `runtime/pipe/engine.py` of DeepSpeed: "Only train_batch() is
    accessible in pipeline mode", where Accelerate calls backward and step.
    """
    stages = facts.get("pipeline", "stages")
    if facts.prepared_by_accelerate and isinstance(stages, int) and stages > 1:
        what = "Accelerate does not support DeepSpeed's pipeline parallelism"
        where = facts.where("", "pipeline")
        yield Problem(what, where, None, "remove it, or call deepspeed.initialize and use launcher: torchrun")


@rule("accelerate-tensor-parallel", "warning")
def accelerate_tensor_parallel(facts: Facts) -> Iterator[Problem]:
    """Under Accelerate, tensor parallelism is DeepSpeed's AutoTP alone, and counts no batch for it.

    Source: its documentation's caveats (no mpu); `Accelerator._prepare_deepspeed` fills train_batch_size with
    all processes, whatever autotp_size is.
    """
    size = facts.get("tensor_parallel", "autotp_size")
    if facts.prepared_by_accelerate and isinstance(size, int) and size > 1:
        what = (
            "Accelerate passes no mpu on, so Megatron's tensor parallelism is out; with AutoTP it counts "
            "every rank as data-parallel where it fills train_batch_size"
        )
        where = facts.where("", "tensor_parallel", "autotp_size")
        yield Problem(what, where, str(size), "give global_batch and micro_batch_per_gpu as numbers")


@rule("accelerate-one-model", "note")
def accelerate_one_model(facts: Facts) -> Iterator[Problem]:
    """An Accelerator prepares one model with DeepSpeed.

    Source: `Accelerator.prepare`: "You can't use same Accelerator() instance with multiple models when using
    DeepSpeed".
    """
    if facts.prepared_by_accelerate and facts.config:
        what = "an Accelerator prepares one model with DeepSpeed, and no pipeline"
        fix = "for several models, give each an Accelerator and a DeepSpeedPlugin of its own"
        yield Problem(what, "train.launcher", "accelerate", fix)
