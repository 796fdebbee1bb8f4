"""Questions about what of DeepSpeed is seldom changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.init.guess import accelerate_value
from orchestrator.init.question import YES_NO, Choice, Question, always, answered

if TYPE_CHECKING:
    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Answers

_MORE = "More of DeepSpeed"
_OPTIMIZERS = (
    Choice(None, "the script's own", "Nothing to change in the script."),
    Choice(
        "AdamW", "DeepSpeed's AdamW", "Fused, or on the CPU with offload. The script takes it from DeepSpeed."
    ),
    Choice("Adam", "DeepSpeed's Adam", "Likewise."),
    Choice("Lion", "DeepSpeed's Lion", "Likewise; one state per weight in place of two."),
)
_SCHEDULERS = (
    Choice(
        None, "the script's own, or none", "Accelerate refuses the script's own beside DeepSpeed's optimizer."
    ),
    Choice("WarmupLR", "WarmupLR", "Rises, then stays."),
    Choice("WarmupDecayLR", "WarmupDecayLR", "Rises, then falls to zero at the last step."),
)


def _more_of_stage_3(answers: Answers, _machine: Machine) -> bool:
    return answers.get("ask.more") is True and answers["deepspeed.zero_stage"] == 3


QUESTIONS = (
    Question(
        "deepspeed.zero3_init",
        _MORE,
        "Cut the model up while it is made (zero.Init)?",
        "So that no rank ever holds a whole model. No is for scripts that must have it whole at first.",
        "choice",
        choices=YES_NO,
        default=accelerate_value("zero3_init_flag", True),
        when=_more_of_stage_3,
    ),
    Question(
        "deepspeed.zero3_save_16bit_model",
        _MORE,
        "Gather whole 16-bit weights when the model is saved?",
        "save_pretrained needs it at stage 3. One rank then holds them all: slow, and as large as the model.",
        "choice",
        choices=YES_NO,
        default=accelerate_value("zero3_save_16bit_model", False),
        when=_more_of_stage_3,
    ),
    Question(
        "deepspeed.moe_layer_cls_names",
        _MORE,
        "Which classes are mixture-of-experts layers?",
        "With commas, such as MixtralSparseMoeBlock: ZeRO-3 gathers each as a whole. Without an answer there "
        "are none.",
        "names",
        when=_more_of_stage_3,
    ),
    Question(
        "deepspeed.optimizer.type",
        _MORE,
        "Whose optimizer?",
        "With DeepSpeed's, an Accelerate script must use DummyOptim in place of its own.",
        "choice",
        choices=always(_OPTIMIZERS),
        when=answered("ask.more", True),
    ),
    Question(
        "deepspeed.optimizer.params.lr",
        _MORE,
        "Which learning rate?",
        "DeepSpeed's optimizer takes it from here, not from the script.",
        "value",
        default=always(1e-4),
        when=lambda answers, _machine: answers.get("deepspeed.optimizer.type") is not None,
        needed=True,
    ),
    Question(
        "deepspeed.scheduler.type",
        _MORE,
        "Whose schedule of the learning rate?",
        "With DeepSpeed's, an Accelerate script must use DummyScheduler in place of its own.",
        "choice",
        choices=always(_SCHEDULERS),
        when=answered("ask.more", True),
    ),
    Question(
        "deepspeed.scheduler.params.warmup_num_steps",
        _MORE,
        "In how many steps does it rise?",
        "Optimizer steps, from the first one on.",
        "value",
        default=always(100),
        when=lambda answers, _machine: answers.get("deepspeed.scheduler.type") is not None,
        needed=True,
    ),
    Question(
        "deepspeed.scheduler.params.total_num_steps",
        _MORE,
        "After how many steps has it fallen to zero?",
        "Optimizer steps of the whole training.",
        "value",
        default=always(1000),
        when=answered("deepspeed.scheduler.type", "WarmupDecayLR"),
        needed=True,
    ),
)
