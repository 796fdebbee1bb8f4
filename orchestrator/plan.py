"""The launch plan: everything a template, the supervisor or an agent may read, and nothing else.

A plan is made once, at submit, from the job file and the resolved hosts. It is stored as `plan.json`,
from which alone the supervisor drives the run.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.hosts import HostPool
    from orchestrator.job import ClusterSpec, JobSpec, LoadedJob, SshSpec, TrainSpec

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")

PLACEHOLDERS = ("ds_config", "accelerate_config", "run_dir", "run_id", "hostfile")
"""Names that `{…}` in an argument of the script stands for; any other brace stays as it is."""
_PLACEHOLDER = re.compile("{(" + "|".join(PLACEHOLDERS) + ")}")


@dataclass(frozen=True, slots=True)
class PlannedHost:
    """One host of the run.

    Attributes:
        name: as in the hostfile.
        index: node rank; 0 is the master.
        slots: slot ids on that host, as in the hostfile.
        first_rank: global rank of its first slot; its ranks are consecutive.
        devices: GPU indexes of the slots. They differ from `slots` only for simulated hosts, which
            share one machine's GPUs.
        address, user, port: for ssh, where they are not the name or the ssh configuration's.
    """

    name: str
    index: int
    slots: tuple[int, ...]
    first_rank: int
    devices: tuple[int, ...]
    address: str | None = None
    user: str | None = None
    port: int | None = None

    @property
    def file_name(self) -> str:
        """Return the name as it appears in file names: unusual characters percent-encoded."""
        return file_name(self.name)

    @property
    def alias(self) -> str:
        """Return the name for ssh, pdsh and node.sh: pdsh gives `:`, `@`, `[` and more its own meaning."""
        return self.name if _PLAIN.match(self.name) else f"host-{self.index}"

    @property
    def ssh_address(self) -> str | None:
        """Return what ssh has to be told to connect to; None when the alias will do."""
        return self.address or (None if self.alias == self.name else self.name)

    @property
    def ranks(self) -> range:
        """Return this host's global ranks."""
        return range(self.first_rank, self.first_rank + len(self.slots))


def file_name(host: str) -> str:
    """Return a host's name as it appears in file names; no two names become one."""
    quoted = quote(host, safe="").replace("~", "%7E")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


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
class LaunchPlan:
    """A job on given hosts, ready to be rendered. Times are seconds, paths absolute."""

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
        }
        return [_fill(arg, values) for arg in self.args]

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
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(cls)}:
            raise ValueError("not a launch plan of this version")
        for name in ("args", "setup", "secrets"):
            data[name] = tuple(data[name])
        data["hosts"] = tuple(_host_from(entry) for entry in data["hosts"])
        data["ssh"] = SshPlan(**data["ssh"])
        return cls(**data)


def _host_from(entry: dict[str, Any]) -> PlannedHost:
    entry["slots"], entry["devices"] = tuple(entry["slots"]), tuple(entry["devices"])
    return PlannedHost(**entry)


def _fill(arg: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], arg)


def make_plan(
    job: LoadedJob,
    pool: HostPool,
    *,
    ds_filter: str,
    deepspeed: dict[str, Any] | None,
    env_file: dict[str, str],
    run_id: str,
    run_dir: Path,
    created: float,
) -> LaunchPlan:
    """Put the parts together: no file is read, no host is asked.

    Args:
        job: the job file.
        pool: the hosts after filters, in rank order.
        ds_filter: DeepSpeed's include filter that selects this pool from the hostfile; "" for all of it.
        deepspeed: the whole DeepSpeed configuration, or None.
        env_file: what `train.env_file` holds; only the names go into the plan.
        run_id: the run's id.
        run_dir: its absolute directory.
        created: epoch seconds.
    """
    return LaunchPlan(
        run_id=run_id,
        run_dir=str(run_dir),
        created=created,
        ds_filter=ds_filter,
        deepspeed=deepspeed,
        hosts=plan_hosts(pool, simulated=job.spec.cluster.backend == "local"),
        secrets=tuple(dict.fromkeys([*env_file, *job.spec.train.secrets])),
        supervisor_python=sys.executable,
        **_of_job(job.spec),
        **_of_cluster(job.spec.cluster),
        **_of_train(job.spec.train, job.base_dir),
    )


def _of_job(spec: JobSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "time_limit": spec.time_limit,
        "grace": spec.grace,
        "lease": spec.lease,
        "start_timeout": spec.start_timeout,
        "templates": None if spec.templates is None else str(spec.templates),
    }


def _of_cluster(cluster: ClusterSpec) -> dict[str, Any]:
    return {
        "backend": cluster.backend,
        "ssh": _ssh_plan(cluster.ssh),
        "shared_disk": cluster.shared_disk,
        "control_address": cluster.control_address,
        "control_port": cluster.control_port,
    }


def _of_train(train: TrainSpec, base_dir: Path) -> dict[str, Any]:
    return {
        "launcher": train.launcher,
        "python": train.python or sys.executable,
        "script": None if train.script is None else str(train.script.expanduser()),
        "module": train.module,
        "args": tuple(train.args),
        "workdir": str(train.workdir_path(base_dir)),
        "snapshot": train.snapshot,
        "setup": tuple(train.setup),
        "env": dict(train.env),
        "master_addr": train.master_addr,
        "master_port": train.master_port,
        "interface": train.interface,
    }


def _ssh_plan(ssh: SshSpec) -> SshPlan:
    values = {f.name: getattr(ssh, f.name) for f in fields(SshPlan)}
    for name in ("identity", "config", "known_hosts"):
        values[name] = None if values[name] is None else str(values[name])
    return SshPlan(**values)


def plan_hosts(pool: HostPool, *, simulated: bool) -> tuple[PlannedHost, ...]:
    """Give every host its node rank, its ranks and its GPUs.

    Simulated hosts take consecutive GPUs of the one machine: host 1's begin where host 0's end.
    """
    sizes = [len(host.slots) for host in pool.hosts]
    firsts = [0, *accumulate(sizes)]
    spans = [max(host.slots) + 1 for host in pool.hosts] if simulated else [0] * len(sizes)
    offsets = [0, *accumulate(spans)]
    return tuple(
        PlannedHost(
            name=host.name,
            index=index,
            slots=host.slots,
            first_rank=firsts[index],
            devices=tuple(slot + offsets[index] for slot in host.slots),
            address=host.address,
            user=host.user,
            port=host.port,
        )
        for index, host in enumerate(pool.hosts)
    )
