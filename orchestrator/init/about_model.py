"""Questions about the model and the hosts, which `orchestrate plan` computes memory and traffic from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.init import guess
from orchestrator.init.question import Question, always

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Answers

_MODEL = "For the estimates of `orchestrate plan`"


def _model(answer: str) -> Mapping[str, Any]:
    """Return a count of parameters for 7B, else the name of a configuration."""
    from orchestrator.job.quantities import parse_count  # noqa: PLC0415 - one question's

    try:
        parse_count(answer)
    except ValueError:
        return {"model.config": answer}
    return {"model.parameters": answer}


def _has_model(answers: Answers, _machine: Machine) -> bool:
    return answers["model.config"] is not None


QUESTIONS = (
    Question(
        "model.config",
        _MODEL,
        "Which model?",
        "A name on the Hugging Face hub, a folder with a config.json, or a number of parameters such as 7B. "
        "No weights are read. Without an answer nothing is estimated.",
        writes=_model,
    ),
    Question(
        "model.sequence_length",
        _MODEL,
        "How many tokens has a sample?",
        "Activations grow with it; without an answer they are left out of the estimate.",
        "value",
        default=always(2048),
        when=_has_model,
    ),
    Question(
        "hardware.gpu",
        _MODEL,
        "Which GPU do the hosts have?",
        "Such as H100-80GB or A100-40GB: its memory and its peak are known from the data sheet.",
        default=guess.gpu_kind,
        when=lambda answers, machine: (
            _has_model(answers, machine) and not guess.without_gpus(answers, machine)
        ),
    ),
    Question(
        "hardware.link",
        _MODEL,
        "How fast is the network of one host?",
        "One direction, all of its adapters together, such as 100Gbit/s. It decides what ZeRO++ saves.",
        when=lambda answers, machine: _has_model(answers, machine) and guess.several_hosts(answers, machine),
    ),
)
