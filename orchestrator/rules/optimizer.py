"""Rules about DeepSpeed's own optimizer and scheduler."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from orchestrator.configs.versions import version_numbers
from orchestrator.errors import Problem
from orchestrator.rules.facts import ZERO, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts

_SUPPORTED = ("adam", "adamw", "adagrad", "lion", "muon")  # DeepSpeed 0.19.8, ZERO_SUPPORTED_OPTIMIZERS
_WARMUP = ("WarmupLR", "WarmupDecayLR", "WarmupCosineLR")
_SCHEDULERS = (
    *(*_WARMUP, "LRRangeTest", "OneCycle"),
    *("LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR"),
    *("SequentialLR", "CosineAnnealingLR", "ChainedScheduler", "ReduceLROnPlateau", "CyclicLR"),
    *("CosineAnnealingWarmRestarts", "OneCycleLR", "PolynomialLR"),
)
"""DeepSpeed 0.19.8's own, then those of torch 2.13."""
_STRICT_WARMUP = (0, 19, 6)  # older versions take 2 for what is less


@rule("untested-optimizer", "error")
def untested_optimizer(facts: Facts) -> Iterator[Problem]:
    """ZeRO refuses optimizers that it has not been tested with, unless it is told.

    Source: `runtime/zero/utils.py`, `ZERO_SUPPORTED_OPTIMIZERS`; `runtime/engine.py` asserts
    zero_allow_untested_optimizer.
    """
    named, allowed = facts.optimizer, facts.get("zero_allow_untested_optimizer") is True
    if facts.stage != 0 and named is not None and named not in _SUPPORTED and not allowed:
        what = "ZeRO was not tested with this optimizer and refuses it"
        fix = "use AdamW, Adagrad, Lion or Muon, or add overrides: {zero_allow_untested_optimizer: true}"
        yield Problem(what, _where(facts, "optimizer", "type"), facts.get("optimizer", "type"), fix)


@rule("muon-reduce-scatter", "error")
def muon_reduce_scatter(facts: Facts) -> Iterator[Problem]:
    """Muon needs reduce_scatter off at ZeRO stage 3.

    Source: `runtime/zero/stage3.py`: "Muon and reduce scatter cannot be used together"; it is on by default.
    """
    if facts.stage == 3 and facts.optimizer == "muon" and facts.get(ZERO, "reduce_scatter") is not False:
        what = "Muon does not go with reduce_scatter at ZeRO stage 3, which is on by default"
        yield Problem(what, _where(facts, "optimizer", "type"), "Muon", "set reduce_scatter: false")


@rule("optimizer-max-grad-norm", "error")
def optimizer_max_grad_norm(facts: Facts) -> Iterator[Problem]:
    """max_grad_norm is no parameter of an optimizer.

    Source: `runtime/engine.py`, `_configure_basic_optimizer`, raises ValueError.
    """
    params = facts.get("optimizer", "params")
    if isinstance(params, dict) and "max_grad_norm" in params:
        where = f"{_where(facts, 'optimizer', 'params')}.max_grad_norm"
        value = str(params["max_grad_norm"])
        yield Problem("is no parameter of an optimizer", where, value, "use deepspeed.gradient_clipping")


@rule("unknown-scheduler", "error", guess=lambda facts: not _meant(facts.get("scheduler", "type")))
def unknown_scheduler(facts: Facts) -> Iterator[Problem]:
    """DeepSpeed knows its own schedulers and torch's, by their exact names.

    Source: `runtime/engine.py`, `_scheduler_from_config`: "DeepSpeed does not recognize LR scheduler". A name
    that looks like none of them may be one of a later torch, and is a warning.
    """
    kind = facts.get("scheduler", "type")
    if isinstance(kind, str) and kind not in _SCHEDULERS:
        meant = _meant(kind)
        fix = f"did you mean {meant[0]}?" if meant else f"use one of {', '.join(_SCHEDULERS[:5])}"
        what = "neither DeepSpeed nor torch has this scheduler"
        yield Problem(what, _where(facts, "scheduler", "type"), kind, fix)


def _meant(kind: Any) -> list[str]:
    """Return the scheduler that a name may have been meant for."""
    names = {name.lower(): name for name in _SCHEDULERS}
    return [names[close] for close in difflib.get_close_matches(str(kind).lower(), names, 1, 0.7)]


@rule("scheduler-warmup", "error", guess=lambda facts: facts.deepspeed is None)
def scheduler_warmup(facts: Facts) -> Iterator[Problem]:
    """DeepSpeed's warm-up schedulers want one step or more.

    Source: `runtime/lr_schedules.py`, `WarmupLR.__init__`, raises ValueError from 0.19.6 on.
    """
    if facts.deepspeed is not None and version_numbers(facts.deepspeed) < _STRICT_WARMUP:
        return
    steps = facts.get("scheduler", "params", "warmup_num_steps")
    number = isinstance(steps, int | float) and not isinstance(steps, bool)
    if facts.get("scheduler", "type") in _WARMUP and number and (steps <= 0 or not isinstance(steps, int)):
        what = "DeepSpeed wants a whole number of warm-up steps, 1 or more"
        where = facts.where("scheduler", "scheduler", "params", "warmup_num_steps")
        where += ".params.warmup_num_steps" if where == "deepspeed.scheduler" else ""
        yield Problem(what, where, str(steps), "write 1 for none")


@rule("configuration-not-passed", "warning")
def configuration_not_passed(facts: Facts) -> Iterator[Problem]:
    """The script has to be told where DeepSpeed's configuration is.

    Source: torchrun and DeepSpeed's launcher hand on nothing but the script's arguments; Accelerate's file
    names the configuration itself.
    """
    train = facts.spec.train
    said = any("{ds_config}" in word for word in (*train.args, *train.resume_args))
    if facts.config and train.launcher != "accelerate" and not said:
        what = "no argument of the script is {ds_config}: it will not see what the section deepspeed says"
        fix = 'add args: [--deepspeed_config, "{ds_config}"], or how the script takes its DeepSpeed file'
        yield Problem(what, "train.args", None, fix)


def _where(facts: Facts, section: str, key: str) -> str:
    where = facts.where(section, section, key)
    return f"{where}.{key}" if where == f"deepspeed.{section}" else where
