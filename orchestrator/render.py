"""Render a plan into the files of one attempt. Pure but for reading the templates themselves.

Bash, hostfiles and ssh configurations come from `job_templates/`; JSON and YAML are dumped, never
templated. A template may only print values that went through a quoting filter: `finalize` refuses the
rest, so a missing `|sh` is an error in a test and not a shell injection on a cluster.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from orchestrator import __version__
from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan

TEMPLATES = {
    "hostfile": "hostfile.j2",
    "hosts.txt": "hosts.txt.j2",
    "ds_filter.txt": "ds_filter.txt.j2",
    "node.sh": "node.sh.j2",
    "ssh_config": "ssh_config.j2",
    "pdsh.sh": "pdsh.sh.j2",
    "srun.sh": "srun.sh.j2",
}
_ONLY_FOR = {"ssh_config": ("pdsh", "ssh"), "pdsh.sh": ("pdsh",), "srun.sh": ("slurm",)}
HOST_SAID = 'printf "@host %s\\n" "$SLURMD_NODENAME"'
"""Tells which host a task of srun is on (see orchestrator.launchers.base.HOST_LINE)."""
_WORD = re.compile(r"[^\s\x00-\x1f\x7f#]+\Z")


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """One file of the bundle: path relative to the run directory, text, and whether it is a program."""

    path: str
    text: str
    executable: bool = False


class Quoted(str):
    """Text that a quoting filter has made safe for where the template puts it."""

    __slots__ = ()


class UnquotedError(Exception):
    """A template printed a value that no quoting filter had passed."""


def _sh(value: object) -> Quoted:
    """Quote one word for a POSIX shell."""
    if "\0" in str(value):
        raise UnquotedError("a NUL character cannot be handed to a shell")
    return Quoted(shlex.quote(str(value)))


def _word(value: object) -> Quoted:
    """Pass a word of a hostfile: no white space, no comment sign."""
    if not _WORD.match(str(value)):
        raise UnquotedError(f"{value!r} is not one word")
    return Quoted(value)


def _ssh_words(value: object) -> Quoted:
    """Pass what the user wrote as ssh_config(5) wants it: commands, several words, quotes of their own."""
    if not str(value).isprintable():
        raise UnquotedError(f"{value!r} cannot be written into an ssh configuration")
    return Quoted(value)


def _ssh_value(value: object) -> Quoted:
    """Quote one argument of an ssh_config(5) line; OpenSSH 8.7 and later take quotes with a backslash."""
    escaped = re.sub(r"""(\\+)(?=["']|\\|\Z)""", r"\1\1", str(value)).replace('"', '\\"')
    return _ssh_words(f'"{escaped}"')


def _ssh_path(value: object) -> Quoted:
    """Quote the path of an Include, which is a pattern of glob(7) too."""
    return _ssh_value(re.sub(r"[*?[]", r"[\g<0>]", str(value).replace("\\", "\\\\")))


def _comment(value: object) -> Quoted:
    """Keep text on one line, for a comment."""
    return Quoted(" ".join(str(value).split()))


def _lines(value: object) -> Quoted:
    """Pass shell lines that the user wrote as such (train.setup)."""
    return Quoted(value)


_FILTERS = {
    "sh": _sh,
    "word": _word,
    "ssh": _ssh_value,
    "ssh_path": _ssh_path,
    "ssh_words": _ssh_words,
    "comment": _comment,
    "lines": _lines,
}


def _finalize(value: object) -> object:
    if isinstance(value, Quoted) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, jinja2.Undefined):
        return value  # Jinja's own error names what is not there
    raise UnquotedError(f"the template prints {value!r} without a quoting filter (sh, word, ssh, comment)")


def builtin_templates() -> Path:
    """Return the folder of our own templates: inside the wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "job_templates"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "job_templates"


@cache
def _environment(own: str | None) -> jinja2.Environment:
    folders = [folder for folder in (own, str(builtin_templates())) if folder]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        autoescape=False,  # noqa: S701 - shell and hostfiles, no HTML; finalize guards them
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(_FILTERS)
    return environment


def render(plan: LaunchPlan, attempt: int = 1) -> list[RenderedFile]:
    """Return every file of an attempt, in the order a reader wants them.

    Raises:
        JobFileError: one of the user's own templates cannot be rendered.
    """
    files = [_launch_script(plan), *_templated(plan, attempt)]
    if plan.deepspeed is not None:
        files.append(_rendered(attempt, "ds_config.json", json.dumps(plan.deepspeed, indent=2) + "\n"))
    if plan.launcher == "accelerate":
        files.append(_rendered(attempt, "accelerate.yaml", _accelerate_yaml(plan, attempt)))
    if plan.launcher == "deepspeed":
        info = {host.name: list(host.devices) for host in plan.hosts}
        files.append(_rendered(attempt, "world_info.json", json.dumps(info) + "\n"))
    return files


def _rendered(attempt: int, name: str, text: str, *, executable: bool = False) -> RenderedFile:
    return RenderedFile(f"attempt-{attempt}/rendered/{name}", text, executable)


def _launch_script(plan: LaunchPlan) -> RenderedFile:
    if plan.slurm is not None and not plan.slurm.in_allocation:
        return _batch_script(plan)
    return RenderedFile("launch.sh", _fill(plan, "launch.sh.j2", {"plan": plan}), executable=True)


def _batch_script(plan: LaunchPlan) -> RenderedFile:
    from orchestrator.slurm.batch import batch_lines  # noqa: PLC0415 - only Slurm jobs need it

    title = f"run {plan.run_id} ({plan.name})"
    values = {
        "plan": plan,
        "title": title,
        "run_dir": _sh(plan.run_dir),
        "sbatch_lines": batch_lines(plan),
    }
    return RenderedFile("slurm.sbatch", _fill(plan, "slurm.sbatch.j2", values), executable=True)


def render_array(plan: LaunchPlan, folder: str, indexes: Sequence[int], at_once: int | None) -> str:
    """Return the batch script of a sweep: one array, whose task K drives the run in `folder`/ID.K.

    Args:
        plan: of any point: they ask Slurm for the same.
        folder: the sweep's directory, whose name is the sweep's id.
        indexes: of the points, ascending.
        at_once: most tasks at a time; None for no limit.
    """
    from orchestrator.hosts.ranges import fold_numbers  # noqa: PLC0415 - only sweeps on Slurm
    from orchestrator.slurm.batch import array_lines  # noqa: PLC0415

    array = fold_numbers(indexes) + (f"%{at_once}" if at_once else "")
    run_dir = Quoted(_sh(f"{folder}/{Path(folder).name}.") + '"$SLURM_ARRAY_TASK_ID"')
    title = f"sweep {Path(folder).name} ({plan.name}), a task for each point"
    lines = array_lines(plan, folder, array)
    values = {"plan": plan, "title": title, "run_dir": run_dir, "sbatch_lines": lines}
    return _fill(plan, "slurm.sbatch.j2", values)


def _templated(plan: LaunchPlan, attempt: int) -> list[RenderedFile]:
    values = {
        "plan": plan,
        "version": __version__,
        "attempt": attempt,
        "attempt_dir": plan.attempt_dir(attempt),
        "remote_command": pdsh_command(plan.attempt_dir(attempt)),
        "jump_hosts": jump_hosts(plan.ssh.jump),
        "home": str(Path.home()),
        "nodelist": ",".join(host.name for host in plan.hosts),
        "in_container": plan.container is not None and bool(plan.container.command),
        "srun_flags": () if plan.container is None else plan.container.srun_flags,
        "task_command": task_command(plan.attempt_dir(attempt)),
    }
    return [
        _rendered(attempt, name, _fill(plan, template, values), executable=name.endswith(".sh"))
        for name, template in TEMPLATES.items()
        if plan.backend in _ONLY_FOR.get(name, (plan.backend,))
    ]


def _fill(plan: LaunchPlan, template: str, values: dict[str, Any]) -> str:
    try:
        return _environment(plan.templates).get_template(template).render(values)
    except (jinja2.TemplateError, UnquotedError) as error:
        line = getattr(error, "lineno", None)
        where = f"{getattr(error, 'filename', None) or template}{f':{line}' if line else ''}"
        fix = "values need a quoting filter, for example {{ plan.name|sh }}" if plan.templates else ""
        raise JobFileError(Problem(str(error), where, fix=fix)) from error


def _accelerate_yaml(plan: LaunchPlan, attempt: int) -> str:
    import yaml  # noqa: PLC0415 - only this launcher needs it

    from orchestrator.configs import accelerate_config  # noqa: PLC0415

    config = accelerate_config.build(
        plan.deepspeed,
        ds_config_path=f"{plan.attempt_dir(attempt)}/rendered/ds_config.json",
        world_size=plan.world_size,
        num_machines=len(plan.hosts),
        zero3_init=plan.zero3_init,
    )
    return yaml.safe_dump(config, sort_keys=True)


def node_command(attempt_dir: str, alias: str) -> list[str]:
    """Return the command that starts a host's agent, or ends with 97 where the bundle is not there."""
    script = 'if [ -f "$1" ]; then exec bash "$1" "$2"; fi; exit 97'
    return ["bash", "-c", script, "node", f"{attempt_dir}/rendered/node.sh", alias]


def task_command(attempt_dir: str) -> list[str]:
    """Return node_command for srun, whose tasks know by themselves which host they are on."""
    script = f'{HOST_SAID}; if [ -f "$1" ]; then exec bash "$1" "$SLURMD_NODENAME"; fi; exit 97'
    return ["bash", "-c", script, "node", f"{attempt_dir}/rendered/node.sh"]


def pdsh_command(attempt_dir: str) -> str:
    """Return node_command for pdsh, which puts each host's name for %h and wants %% for a percent sign."""
    *words, _ = node_command(attempt_dir, "")
    return shlex.join(words).replace("%", "%%") + " %h"


def jump_hosts(jump: str | None) -> tuple[str, ...]:
    """Return the host names in a ProxyJump value `[user@]host[:port],…`."""
    hops = (hop.strip().rpartition("@")[2] for hop in (jump or "").split(",") if hop.strip())
    return tuple(hop[1:].partition("]")[0] if hop.startswith("[") else hop.partition(":")[0] for hop in hops)
