"""The options of sbatch and srun, and what they come to for each host."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.options import count, names

if TYPE_CHECKING:
    from collections.abc import Sequence


_SHORT = {
    "A": "account", "B": "extra-node-info", "C": "constraint", "D": "chdir", "F": "nodefile", "G": "gpus",
    "H": "hold", "I": "immediate", "J": "job-name", "K": "kill-on-bad-exit", "L": "licenses",
    "M": "clusters", "N": "nodes", "O": "overcommit", "Q": "quiet", "S": "core-spec", "W": "wait",
    "a": "array", "b": "begin", "c": "cpus-per-task", "d": "dependency", "e": "error", "i": "input",
    "k": "no-kill", "l": "label", "m": "distribution", "n": "ntasks", "o": "output", "p": "partition",
    "q": "qos", "s": "oversubscribe", "t": "time", "u": "unbuffered", "v": "verbose", "w": "nodelist",
    "x": "exclude",
}  # fmt: skip
_FLAGS = names(
    "contiguous exclusive get-user-env help hold ignore-pbs immediate kill-on-bad-exit label no-kill "
    "no-requeue oversubscribe overcommit parsable pty quiet reboot requeue spread-job test-only unbuffered "
    "usage use-min-nodes verbose version wait overlap exact container-mount-home no-container-mount-home "
    "container-writable container-readonly container-remap-root no-container-remap-root disable-status "
    "preserve-env multi-prog whole"
)

_OPTIONAL_VALUE = names("I K k s")
TASKS = ("ntasks", "ntasks-per-node", "tasks-per-node", "ntasks-per-gpu", "ntasks-per-socket")
_LOGS = "every host and rank has its log in the run directory: orchestrate logs"
OURS = {
    "output": _LOGS,
    "error": _LOGS,
    "open-mode": _LOGS,
    "label": _LOGS,
    "unbuffered": _LOGS,
    "input": "ranks get no standard input",
    "kill-on-bad-exit": "a host that fails ends the run anyway",
    "export": "train.env says what ranks get",
    "export-file": "train.env_file says it",
    "parsable": "it is about what sbatch prints",
    "quiet": "it is about what sbatch prints",
    "verbose": "it is about what sbatch prints",
    "wait": "hosts end together; orchestrate submit --wait waits for the run",
    "test-only": "orchestrate plan and submit --dry-run",
    "wrap": "the job file says what runs",
    "distribution": "there is one task on each host, and slots say the order of ranks",
    "multi-prog": "there is one task on each host",
    "overlap": "srun starts one step and no other",
    "exact": "srun starts one step and no other",
    "pty": "ranks have no terminal",
}
TYPED = names(
    "partition account qos reservation time gres gpus-per-node mem constraint nodelist exclude segment "
    "switches dependency array begin nice licenses comment mail-user mail-type"
)
CONTAINER = {
    "container-image": "image",
    "container-mounts": "mounts",
    "container-workdir": "workdir",
    "container-env": "env",
    "container-mount-home": "mount_home",
    "no-container-mount-home": "mount_home",
    "container-writable": "writable",
}


@dataclass
class Request:
    """What Slurm is asked for.

    Attributes:
        options: long options of sbatch with their values, "" for a flag.
        places: where each was said.
        step: options of srun that are not about the number of tasks, one word each.
        per_task: each task is a rank, started by srun itself.
    """

    options: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    step: list[str] = field(default_factory=list)
    per_task: bool = False

    def add(self, name: str, value: str, place: str) -> None:
        """Set an option; the last one counts, as with sbatch."""
        name = {"tasks-per-node": "ntasks-per-node"}.get(name, name)
        self.options[name], self.places[name] = value, place

    def number(self, name: str) -> int | None:
        """Return an option that is a number of 1 or more; None where it is not given."""
        value = self.options.get(name)
        if value is None:
            return None
        if name == "nodes":
            value = value.partition("-")[0]
        return count(value, f"{self.places[name]}: --{name}")

    @property
    def nodes(self) -> int:
        """Return the number of hosts; sbatch's default is 1."""
        tasks, each = self.number("ntasks"), self.number("ntasks-per-node")
        return self.number("nodes") or (tasks // each if tasks and each else 0) or 1

    @property
    def tasks_per_node(self) -> int:
        """Return the number of tasks on each host; sbatch's default is 1."""
        tasks = self.number("ntasks")
        return self.number("ntasks-per-node") or (max(1, tasks // self.nodes) if tasks else 1)

    @property
    def gpus(self) -> int | None:
        """Return the number of GPUs of each host; None where it is not said."""
        by_node = _gpu_count(self.options.get("gpus-per-node", "")) or _gres_count(
            self.options.get("gres", "")
        )
        total, each = (
            _gpu_count(self.options.get("gpus", "")),
            _gpu_count(self.options.get("gpus-per-task", "")),
        )
        return by_node or (total // self.nodes if total else None) or (each * self.tasks_per_node or None)

    def variables(self) -> dict[str, str]:
        """Return the variables that Slurm sets for such a job, as far as they are known before."""
        cpus = self.number("cpus-per-task")
        found = {
            "SLURM_NNODES": self.nodes,
            "SLURM_JOB_NUM_NODES": self.nodes,
            "SLURM_NTASKS": self.nodes * self.tasks_per_node,
            "SLURM_NPROCS": self.nodes * self.tasks_per_node,
            "SLURM_NTASKS_PER_NODE": self.number("ntasks-per-node"),
            "SLURM_GPUS_ON_NODE": self.gpus,
            "SLURM_GPUS_PER_NODE": _gpu_count(self.options.get("gpus-per-node", "")) or None,
            "SLURM_CPUS_PER_TASK": cpus,
        }
        return {name: str(value) for name, value in found.items() if value is not None}


def _gpu_count(text: str) -> int:
    """Return how many GPUs `8`, `h100:8` or `a100:4,h100:4` asks for; 0 for none."""
    counts = [part.rpartition(":")[2] for part in text.split(",") if part]
    return sum(int(each) for each in counts if each.isdigit())


def _gres_count(text: str) -> int:
    gpus = [part.strip() for part in text.split(",") if part.strip().startswith(("gpu:", "gpu"))]
    return sum(int(part.rpartition(":")[2]) if part.rpartition(":")[2].isdigit() else 1 for part in gpus)


def read_directives(text: str, name: str) -> Request:
    """Return what the #SBATCH lines of a script say; like sbatch, read up to the first command.

    Raises:
        JobFileError: a line cannot be read.
    """
    request = Request()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            break
        if not line.startswith("#SBATCH"):
            continue
        where = f"{name}:{number}"
        try:
            words = shlex.split(line.removeprefix("#SBATCH"), comments=True)
        except ValueError as error:
            raise JobFileError(Problem(f"cannot be read: {error}", where, line, "close the quote")) from None
        options, rest = read_options(words, where)
        if rest:
            what = "is no option; jobs of several parts (hetjob) cannot be imported"
            raise JobFileError(Problem(what, where, " ".join(rest), "remove the line"))
        for option, value in options:
            request.add(option, value, where)
    return request


def read_options(words: Sequence[str], where: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the options at the head of a line, by their long names, and the words behind them.

    Raises:
        JobFileError: an option lacks its value.
    """
    found, rest = [], list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        word = rest.pop(0)
        name, value = _split_option(word)
        if value is None and name in _FLAGS:
            value = ""
        elif value is None:
            if not rest:
                raise JobFileError(Problem("lacks its value", where, word, f"write --{name}=VALUE"))
            value = rest.pop(0)
        found.append((name, value))
    return found, rest[1:] if rest[:1] == ["--"] else rest


def _split_option(word: str) -> tuple[str, str | None]:
    """Return the long name and the value, None where it stands in the next word."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        return name, value if equals else None
    name = _SHORT.get(word[1], word[1])
    value = word[2:].removeprefix("=")
    return name, value or ("" if word[1] in _OPTIONAL_VALUE else None)


def add_step(
    request: Request, options: Sequence[tuple[str, str]], where: str, *, alone: bool = False
) -> None:
    """Take in the options of the srun that starts the ranks.

    Args:
        request: gets them.
        options: by their long names.
        where: srun stands.
        alone: there is no sbatch, so srun is what asks for the hosts.
    """
    sizes = (*TASKS, "nodes", "cpus-per-task", "gpus", "gpus-per-node", "gpus-per-task", *CONTAINER)
    for name, value in options:
        if name in sizes or (alone and (name in TYPED or name in ("job-name", "chdir", "exclusive"))):
            request.add(name, value, where)
        elif name in OURS:
            request.places.setdefault(name, where)
            request.options.setdefault(name, value)
        else:
            request.step.append(f"--{name}={value}" if value else f"--{name}")
