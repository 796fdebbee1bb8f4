"""Questions about what runs on the hosts, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.init import guess
from orchestrator.init.question import Choice, Question

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Answers

_WHAT, _SCRIPT = "What runs", "The script"
_LAUNCHERS = {
    "torchrun": "PyTorch's own. The script sees RANK, LOCAL_RANK and WORLD_SIZE; right for most scripts.",
    "deepspeed": "DeepSpeed's on each host: the same variables, and --local_rank for scripts that want it.",
    "accelerate": "accelerate launch: for scripts that make an Accelerator().",
}


def _launchers(_answers: Answers, machine: Machine) -> tuple[Choice, ...]:
    here = {name: "" if name in machine.launchers else " (Not installed here.)" for name in _LAUNCHERS}
    return tuple(Choice(name, name, says + here[name]) for name, says in _LAUNCHERS.items())


def _program(answer: str) -> Mapping[str, Any]:
    if answer.startswith("-m "):
        return {"train.module": answer.removeprefix("-m ").strip()}
    return {"train.script": answer}


def _arguments(answers: Answers, machine: Machine) -> list[str] | None:
    script = guess.script(answers, machine)
    if answers["train.launcher"] == "accelerate" or answers["ask.deepspeed"] == "none":
        return None  # Accelerate hands the configuration over itself
    if not script.exists:  # it may still be written so that it takes them
        return ["--deepspeed_config", "{ds_config}"]
    return script.arguments or None


def _checkpoints(answers: Answers, machine: Machine) -> str | None:
    return "{run_dir}/checkpoints" if guess.script(answers, machine).saves else None


PROGRAM = (
    Question(
        "train.script",
        _WHAT,
        "Which script trains?",
        "A path from the job file's folder, or `-m package.module`. It may still have to be written.",
        default=lambda _answers, machine: machine.scripts[0] if machine.scripts else "train.py",
        needed=True,
        writes=_program,
    ),
    Question(
        "train.launcher",
        _WHAT,
        "What starts its ranks on each host?",
        "All three set the same variables.",
        "choice",
        choices=_launchers,
        default=guess.launcher,
        needed=True,
    ),
    Question(
        "train.python",
        _WHAT,
        "Which Python on the hosts?",
        "A command or a path that every host has; without an answer the one that runs orchestrate.",
    ),
)

REST = (
    Question(
        "train.args",
        _SCRIPT,
        "Which arguments does the script get?",
        "As in a shell. {ds_config} becomes the path of the DeepSpeed file made from this job file, "
        "{checkpoint_dir} and {run_dir} the folders of the run.",
        "words",
        default=_arguments,
    ),
    Question(
        "train.checkpoint_dir",
        _SCRIPT,
        "Where does the script save checkpoints?",
        "A folder that every host sees; it may begin with {run_dir}. A run that is started again is told the "
        "last complete one. Without an answer none are looked for.",
        default=_checkpoints,
    ),
    Question(
        "train.resume_args",
        _SCRIPT,
        "Which arguments make it go on from a checkpoint?",
        "Added when a run starts again; {resume_tag} becomes the tag, for example --resume {resume_tag}.",
        "words",
        when=lambda answers, _machine: answers["train.checkpoint_dir"] is not None,
    ),
    Question(
        "time_limit",
        _SCRIPT,
        "When is it stopped at the latest?",
        "A duration such as 90m, 12h or 2d; without an answer it may run for ever.",
        when=lambda answers, _machine: answers["cluster.backend"] != "slurm",
    ),
)
