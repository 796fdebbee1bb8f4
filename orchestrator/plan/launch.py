"""The plan itself, and how `plan.json` holds it."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from orchestrator.plan.host import PlannedHost
from orchestrator.plan.monitor import MonitorPlan, monitor_from
from orchestrator.plan.notify import NotifyPlan, notify_from

PLACEHOLDERS = (
    *("ds_config", "accelerate_config", "run_dir", "run_id", "hostfile"),
    *("checkpoint_dir", "resume_tag"),
)
"""Names that `{…}` in an argument of the script stands for; any other brace stays as it is."""
_PLACEHOLDER = re.compile("{(" + "|".join(PLACEHOLDERS) + ")}")


@dataclass(frozen=True, slots=True)
class SshPlan:
    """How the hosts are reached; None leaves a matter to the user's ssh configuration."""

    user: str | None = None
    port: int | None = None
    identity: str | None = None
    jump: str | None = None
    config: str | None = None
    known_hosts: str | None = None
    accept_new_host_keys: bool = False
    connect_timeout: int = 10
    options: dict[str, str] = field(default_factory=dict)
    fanout: int | None = None


@dataclass(frozen=True, slots=True)
class SlurmPlan:
    """What Slurm is asked for, and what to do inside the allocation.

    Attributes:
        options: sbatch's long options without dashes; None for one that takes no value.
        signal_before: seconds before its time limit at which Slurm tells the supervisor.
        requeue: the job may be queued again.
        srun_args: more options for srun.
        in_allocation: runs in an allocation that the user holds, which nobody here may requeue or end.
    """

    options: dict[str, str | None]
    signal_before: int
    requeue: bool
    srun_args: tuple[str, ...]
    in_allocation: bool = False


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """How the agent, and so the training, comes to run in a container.

    Attributes:
        srun_flags: for srun, which starts node.sh inside (pyxis).
        command: what node.sh, on the host, puts before the agent's command (Apptainer).
        forced: variables to export a second time with `force_prefix`, so that they win over the image's.
    """

    srun_flags: tuple[str, ...]
    command: tuple[str, ...]
    forced: tuple[str, ...]
    force_prefix: str


@dataclass(frozen=True, slots=True)
class KeepPlan:
    """Which checkpoints stay.

    Attributes:
        last: how many of the newest complete ones; at least 1.
        best: how many of the best ones by `metric`, those among the last included.
        metric: the metric's name; None without `best`.
        lowest: whether the lowest value is the best.
    """

    last: int
    best: int = 0
    metric: str | None = None
    lowest: bool = True


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """A job on given hosts, ready to be rendered. Times are seconds, paths absolute.

    Attributes (those that their name does not tell):
        base_dir: the job file's folder.
        max_restarts: how often the run may be started again for what the script has no fault in.
        resume: when ranks are told of a checkpoint: after a restart, always, never.
        resume_args: arguments that are added for them then.
        zero3_init: whether Accelerate cuts the model up while it is made; None: at stage 3.
        resume_tag: the complete tag in checkpoint_dir that an attempt goes on from; in the plan made at
            submit, the one that the whole run goes on from (`orchestrate resume`).
        keep: which checkpoints stay when a new one has come; None: all.
        monitor: how the run is watched.
        notify: whom the run tells of itself.
    """

    run_id: str
    name: str
    created: float
    run_dir: str
    backend: str
    hosts: tuple[PlannedHost, ...]
    ds_filter: str
    launcher: str
    python: str
    script: str | None
    module: str | None
    args: tuple[str, ...]
    workdir: str
    snapshot: bool
    setup: tuple[str, ...]
    env: dict[str, str]
    secrets: tuple[str, ...]
    deepspeed: dict[str, Any] | None
    master_addr: str | None
    master_port: int | None
    interface: str | None
    ssh: SshPlan
    shared_disk: bool | str
    control_address: str | None
    control_port: int
    time_limit: float | None
    grace: float
    lease: float
    start_timeout: float
    templates: str | None
    supervisor_python: str
    base_dir: str
    max_restarts: int
    checkpoint_dir: str | None
    resume: str
    resume_args: tuple[str, ...]
    resume_tag: str | None
    slurm: SlurmPlan | None
    container: ContainerPlan | None
    zero3_init: bool | None = None
    keep: KeepPlan | None = None
    monitor: MonitorPlan = field(default_factory=MonitorPlan)
    notify: tuple[NotifyPlan, ...] = ()

    @property
    def world_size(self) -> int:
        """Return the number of ranks."""
        last = self.hosts[-1]
        return last.first_rank + len(last.slots)

    @property
    def train_dir(self) -> str:
        """Return the folder the script runs in: the workdir, or the run's snapshot of it."""
        return f"{self.run_dir}/workdir" if self.snapshot else self.workdir

    def attempt_dir(self, attempt: int) -> str:
        """Return the folder of everything that belongs to one attempt (1 is the first)."""
        return f"{self.run_dir}/attempt-{attempt}"

    def command(self, attempt: int) -> list[str]:
        """Return what one rank runs: python, the script or module, and its arguments."""
        what = ["-m", self.module] if self.module is not None else [str(self.script)]
        return [self.python, "-u", *what, *self._filled_args(attempt)]

    def _filled_args(self, attempt: int) -> list[str]:
        rendered = f"{self.attempt_dir(attempt)}/rendered"
        values = {
            "ds_config": f"{rendered}/ds_config.json",
            "accelerate_config": f"{rendered}/accelerate.yaml",
            "run_dir": self.run_dir,
            "run_id": self.run_id,
            "hostfile": f"{rendered}/hostfile",
            "checkpoint_dir": self.checkpoint_dir or "",
            "resume_tag": self.resume_tag or "",
        }
        more = self.resume_args if self.resume_tag else ()
        return [_fill(arg, values) for arg in (*self.args, *more)]

    def environment(self, attempt: int) -> dict[str, str]:
        """Return the variables that tell the script of its run."""
        values = {
            "ORCHESTRATE_RUN_ID": self.run_id,
            "ORCHESTRATE_ATTEMPT": str(attempt),
            "ORCHESTRATE_CHECKPOINT_DIR": self.checkpoint_dir,
            "ORCHESTRATE_RESUME_TAG": self.resume_tag,
        }
        return {name: value for name, value in values.items() if value}

    def to_json(self) -> str:
        """Return the plan as `plan.json` holds it."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> LaunchPlan:
        """Read back what to_json wrote.

        Raises:
            ValueError: the text is no plan of this version.
        """
        data = json.loads(text)
        known = {f.name for f in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is f.default_factory is MISSING}
        if not isinstance(data, dict) or not needed <= set(data) <= known:
            raise ValueError("not a launch plan of this version")
        for name in ("args", "setup", "secrets", "resume_args"):
            data[name] = tuple(data[name])
        data["hosts"] = tuple(_host_from(entry) for entry in data["hosts"])
        data["ssh"] = SshPlan(**data["ssh"])
        data["slurm"] = _slurm_from(data["slurm"])
        data["container"] = _container_from(data["container"])
        data["keep"] = None if data.get("keep") is None else KeepPlan(**data["keep"])
        data["monitor"] = monitor_from(data.get("monitor"))
        data["notify"] = notify_from(data.get("notify", []))
        return cls(**data)


def _host_from(entry: dict[str, Any]) -> PlannedHost:
    entry["slots"], entry["devices"] = tuple(entry["slots"]), tuple(entry["devices"])
    return PlannedHost(**entry)


def _slurm_from(entry: dict[str, Any] | None) -> SlurmPlan | None:
    return None if entry is None else SlurmPlan(**entry | {"srun_args": tuple(entry["srun_args"])})


def _container_from(entry: dict[str, Any] | None) -> ContainerPlan | None:
    if entry is None:
        return None
    lists = {name: tuple(entry[name]) for name in ("srun_flags", "command", "forced")}
    return ContainerPlan(**entry | lists)


def _fill(arg: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], arg)
