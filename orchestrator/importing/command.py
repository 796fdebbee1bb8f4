"""Which tool a command line calls, behind everything that may stand in front of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.options import names
from orchestrator.importing.program import (
    is_python,
    python_words,
    set_program,
    set_python,
    set_python_beside,
)
from orchestrator.importing.slurm_options import Request, add_step, read_options
from orchestrator.importing.variables import set_variable, warn_of_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.importing.draft import Draft

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)
_IN_FRONT = {"time": (), "nohup": (), "exec": (), "command": (), "env": (), "stdbuf": ("-",), "nice": ("-",)}
_RUNNERS = {"uv": "run", "poetry": "run", "pipenv": "run", "pixi": "run", "pdm": "run", "rye": "run"}
_CONTAINERS = ("apptainer", "singularity")
_CONTAINER_VALUES = names(
    "-B --bind --mount --env --env-file --pwd --cwd -W --workdir -H --home -o --overlay -S --scratch "
    "--network --network-args --security --add-caps --drop-caps --hostname --dns --apply-cgroups"
)
_MPI = names("mpirun mpiexec mpiexec.hydra orterun prun")
_MODULES = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "deepspeed.launcher.runner": "deepspeed",
    "accelerate.commands.launch": "accelerate-launch",
}
_SHELLS = ("bash", "sh", "zsh")
_TOOLS = {
    "accelerate-launch": "accelerate-launch",
    "deepspeed": "deepspeed",
    "deepspeed.pt": "deepspeed",
    "ds": "deepspeed",
    "torchrun": "torchrun",
}


@dataclass(frozen=True)
class Start:
    """What a command line starts.

    Attributes:
        tool: deepspeed, torchrun, accelerate-launch, python; mpi for what cannot be carried, shell for a
            shell with a command of its own.
        word: the tool as it is written.
        words: behind it.
        env: assignments in front.
        step: options of srun, None where there is no srun.
        runner: `uv run` or the like that stood in front.
        python: the Python that runs the tool as a module.
        container: the section of the job file, where `apptainer exec` stood in front.
    """

    tool: str
    word: str
    words: list[str]
    env: dict[str, str]
    step: list[tuple[str, str]] | None = None
    runner: str = ""
    python: str = ""
    container: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a command line needs to know besides its words.

    Attributes:
        environ: the environment, for Accelerate's default configuration.
        prefer: see map_accelerate.
        request: what Slurm is asked for, None where there is no Slurm.
        alone: srun asks for the hosts itself.
    """

    environ: Mapping[str, str]
    prefer: str | None = None
    request: Request | None = None
    alone: bool = False


def find_start(words: Sequence[str], where: str) -> Start | None:
    """Return what a command line starts; None where it is no tool that starts ranks.

    Raises:
        JobFileError: an option of srun lacks its value.
    """
    rest, env, runner = list(words), {}, ""
    step: list[tuple[str, str]] | None = None
    container: dict[str, Any] = {}
    while rest:
        assigned = _ASSIGNMENT.match(rest[0])
        name = PurePosixPath(rest[0]).name
        if assigned:
            env[assigned[1]] = assigned[2]
            del rest[0]
        elif name in _IN_FRONT:
            del rest[0]
            while rest and rest[0].startswith("-"):
                del rest[: 2 if rest[0] in ("-n", "-u") else 1]
        elif name == "srun":
            step, rest = read_options(rest[1:], where)
        elif name in _CONTAINERS and rest[1:2] == ["exec"]:
            container, rest = read_container(rest[2:], where)
        elif name in _RUNNERS and rest[1:2] == [_RUNNERS[name]]:
            runner, rest = f"{name} {rest[1]}", rest[2:]
        else:
            break
    found = _tool(rest, env, step, runner) if rest else None
    return found and replace(found, container=container)


def read_container(words: Sequence[str], where: str) -> tuple[dict[str, Any], list[str]]:
    """Return the section `container` that `apptainer exec WORDS` stands for, and the command in it.

    Raises:
        JobFileError: there is no image.
    """
    rest, mounts, extra = list(words), [], []
    while rest and rest[0].startswith("-"):
        option, equals, value = rest.pop(0).partition("=")
        if option in _CONTAINER_VALUES and not equals:
            equals, value = "=", rest.pop(0) if rest else ""
        if option in ("-B", "--bind"):
            mounts += value.split(",")
        elif option != "--nv":  # added where a host has NVIDIA's driver
            extra.append(f"{option}{equals}{value}")
    if not rest:
        raise JobFileError(Problem("names no image", where, " ".join(words), "add the image and the command"))
    found = {"image": rest[0], "runtime": "apptainer", "mounts": mounts, "extra": extra}
    return {key: value for key, value in found.items() if value}, rest[1:]


def _tool(
    rest: list[str], env: dict[str, str], step: list[tuple[str, str]] | None, runner: str
) -> Start | None:
    word, words = rest[0], rest[1:]
    if is_python(word):
        tool, words = _python_tool(words)
        python = word if tool != "python" else ""
        return Start(tool, word, words, env, step, runner, python) if words else None
    name = PurePosixPath(word).name
    if name == "accelerate" and words[:1] == ["launch"]:
        name, words = "accelerate-launch", words[1:]
    tool = "mpi" if name in _MPI else "shell" if name in _SHELLS and words else _TOOLS.get(name, "")
    return Start(tool, word, words, env, step, runner) if tool else None


def _python_tool(words: list[str]) -> tuple[str, list[str]]:
    """Return the tool that `python WORDS` runs as a module, and its words; else python and all of them."""
    _, is_module, behind = python_words(words)
    if is_module and behind[:2] == ["accelerate.commands.accelerate_cli", "launch"]:
        return "accelerate-launch", behind[2:]
    if is_module and behind and behind[0] in _MODULES:
        return _MODULES[behind[0]], behind[1:]
    return "python", words if behind else []


def map_start(start: Start, draft: Draft, source: str, context: Context) -> None:
    """Write into a draft what a command line starts.

    Raises:
        JobFileError: the command is wrong, or says what no job file can.
    """
    for name, value in start.env.items():
        set_variable(draft, name, value, source)
    if start.runner:
        what = f"{start.runner} is left out: train.python names the environment's Python"
        draft.change(source, what)
    request = context.request
    if start.step is not None and request is not None:
        add_step(request, start.step, source, alone=context.alone)
    for key, value in start.container.items():
        draft.carry(source, f"container.{key}", value)
    if start.python:
        set_python(draft, start.python, source)
    _mapper(start, context)(start, draft, source)
    warn_of_secrets(draft)


def _mapper(start: Start, context: Context) -> Callable[[Start, Draft, str], None]:
    from orchestrator.importing.accelerate_command import map_accelerate_launch  # noqa: PLC0415
    from orchestrator.importing.deepspeed_command import map_deepspeed_command  # noqa: PLC0415
    from orchestrator.importing.torchrun_command import map_torchrun  # noqa: PLC0415

    in_slurm = context.request is not None

    def tool(start: Start, draft: Draft, source: str) -> None:
        if not start.python:
            set_python_beside(draft, start.word, source)
        if start.tool == "deepspeed":
            map_deepspeed_command(start.words, draft, source, in_slurm=in_slurm)
        elif start.tool == "torchrun":
            map_torchrun(start.words, draft, source, in_slurm=in_slurm)
        else:
            map_accelerate_launch(
                start.words, draft, source, context.environ, prefer=context.prefer, in_slurm=in_slurm
            )

    def python(start: Start, draft: Draft, source: str) -> None:
        _map_python(start, draft, source, context.request)

    return {"python": python, "mpi": _refuse_mpi, "shell": _refuse_shell}.get(start.tool, tool)


def _map_python(start: Start, draft: Draft, source: str, request: Request | None) -> None:
    """Write what `python script` does: one rank, or under srun one rank for each task."""
    set_python(draft, start.word, source)
    draft.put("train.launcher", "torchrun")
    flags, is_module, words = python_words(start.words)
    set_program(draft, words, source, module=is_module, no_python=False)
    if flags.replace("-u", "").strip():
        draft.drop(source, f"{flags} of python: set PYTHON… variables in train.env")
    if request is None:
        draft.put("cluster.backend", "local")
        draft.change(source, "the command starts one process", "cluster.slots", 1)
    elif start.step is not None:
        request.per_task = True
        what = "srun started every rank; now RANK, LOCAL_RANK and WORLD_SIZE are set as torchrun does, and"
        draft.change(source, f"{what} SLURM_PROCID is the number of the host")


def _refuse_mpi(start: Start, draft: Draft, source: str) -> None:
    del draft
    what = "ranks are not started by MPI, and its options have no counterpart"
    fix = "import the command with torchrun or deepspeed --hostfile in place of mpirun"
    raise JobFileError(Problem(what, source, start.word, fix))


def _refuse_shell(start: Start, draft: Draft, source: str) -> None:
    del draft
    script = next((word for word in start.words if not word.startswith("-")), "")
    what = "starts a shell, not a training script"
    raise JobFileError(Problem(what, source, start.word, f"import the script itself: {script}"))
