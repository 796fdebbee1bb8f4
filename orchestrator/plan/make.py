"""Make a plan from a job file and the hosts it runs on: no file is read, no host is asked."""

from __future__ import annotations

import math
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from orchestrator.plan.host import plan_hosts
from orchestrator.plan.launch import ContainerPlan, KeepPlan, LaunchPlan, SlurmPlan, SshPlan
from orchestrator.plan.monitor import MonitorPlan
from orchestrator.plan.notify import notify_plans

_RUN_DIR = "{run_dir}"

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.hosts import HostPool
    from orchestrator.job import ClusterSpec, JobSpec, LoadedJob, SshSpec
    from orchestrator.job.checkpoint_spec import KeepSpec
    from orchestrator.job.monitor_spec import MonitorSpec


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
    secrets = tuple(dict.fromkeys([*env_file, *job.spec.train.secrets]))
    return LaunchPlan(
        run_id=run_id,
        run_dir=str(run_dir),
        created=created,
        ds_filter=ds_filter,
        deepspeed=deepspeed,
        hosts=plan_hosts(pool, simulated=job.spec.cluster.backend == "local"),
        secrets=secrets,
        supervisor_python=sys.executable,
        container=_container_plan(job, run_dir, secrets),
        checkpoint_dir=_checkpoint_dir(job.spec, run_dir),
        resume_tag=None,
        **_of_job(job.spec),
        **_of_cluster(job.spec.cluster),
        **_of_train(job.spec, job.base_dir),
    )


def _of_job(spec: JobSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "time_limit": spec.time_limit,
        "grace": spec.grace,
        "lease": spec.lease,
        "start_timeout": spec.start_timeout,
        "templates": None if spec.templates is None else str(spec.templates),
        "max_restarts": spec.max_restarts,
        "zero3_init": None if spec.deepspeed is None else spec.deepspeed.zero3_init,
        "slurm": _slurm_plan(spec),
        "monitor": _monitor_plan(spec.monitor),
        "notify": notify_plans(spec.notify),
    }


def _of_cluster(cluster: ClusterSpec) -> dict[str, Any]:
    return {
        "backend": cluster.backend,
        "ssh": _ssh_plan(cluster.ssh),
        "shared_disk": cluster.backend == "slurm" or cluster.shared_disk,
        "control_address": cluster.control_address,
        "control_port": cluster.control_port,
    }


def _of_train(spec: JobSpec, base_dir: Path) -> dict[str, Any]:
    train, container = spec.train, spec.container
    inside = None if container is None else container.workdir
    return {
        "base_dir": str(base_dir),
        "launcher": train.launcher,
        "python": train.python or (sys.executable if container is None else "python3"),
        "script": None if train.script is None else str(train.script.expanduser()),
        "module": train.module,
        "args": tuple(train.args),
        "workdir": inside or str(train.workdir_path(base_dir)),
        "snapshot": train.snapshot,
        "setup": tuple(train.setup),
        "env": dict(train.env),
        "master_addr": train.master_addr,
        "master_port": train.master_port,
        "interface": train.interface,
        "resume": train.resume,
        "resume_args": tuple(train.resume_args),
        "keep": None if train.keep_checkpoints is None else _keep_plan(train.keep_checkpoints),
    }


def _keep_plan(keep: KeepSpec) -> KeepPlan:
    return KeepPlan(keep.last, keep.best, keep.metric, lowest=keep.best_is == "lowest")


def _monitor_plan(monitor: MonitorSpec) -> MonitorPlan:
    return MonitorPlan(
        sample_interval=monitor.sample_interval,
        hang_after=monitor.hang.after,
        stop_after=monitor.hang.stop_after,
        patterns=tuple(str(path) for path in monitor.patterns),
    )


def _ssh_plan(ssh: SshSpec) -> SshPlan:
    values = {f.name: getattr(ssh, f.name) for f in fields(SshPlan)}
    for name in ("identity", "config", "known_hosts"):
        values[name] = None if values[name] is None else str(values[name])
    return SshPlan(**values)


def _checkpoint_dir(spec: JobSpec, run_dir: Path) -> str | None:
    """Return the folder of checkpoints; one that begins with {run_dir} is the run's own."""
    if spec.train.checkpoint_dir is None:
        return None
    text = str(spec.train.checkpoint_dir)
    _, placeholder, rest = text.rpartition(_RUN_DIR)
    return f"{run_dir}{rest}" if placeholder else text


def _slurm_plan(spec: JobSpec) -> SlurmPlan | None:
    if spec.cluster.backend != "slurm":
        return None
    from orchestrator.job.slurm_spec import SlurmSpec  # noqa: PLC0415 - only Slurm jobs need either
    from orchestrator.slurm.options import sbatch_options  # noqa: PLC0415

    asked = spec.cluster.slurm or SlurmSpec()
    return SlurmPlan(
        options=sbatch_options(spec),
        signal_before=math.ceil(asked.signal_before),
        requeue=asked.requeue,
        srun_args=tuple(asked.srun_args),
    )


def _container_plan(job: LoadedJob, run_dir: Path, secrets: tuple[str, ...]) -> ContainerPlan | None:
    spec, container = job.spec, job.spec.container
    if container is None:
        return None
    from orchestrator import containers  # noqa: PLC0415 - few jobs have one
    from orchestrator.slurm.options import gpu_count  # noqa: PLC0415

    program = containers.runtime(container, spec.cluster.backend)
    workdir = run_dir / "workdir" if spec.train.snapshot else spec.train.workdir_path(job.base_dir)
    saved = _checkpoint_dir(spec, run_dir)
    must_see = [str(folder) for folder in (run_dir, workdir, saved) if folder]
    if program == "pyxis":
        return ContainerPlan(tuple(containers.pyxis_flags(container, must_see)), (), (), "")
    command = containers.apptainer_command(
        container,
        must_see,
        gpus=spec.cluster.backend != "slurm" or gpu_count(spec.cluster.slurm) is not None,
        workdir=str(workdir),
        program=program,
    )
    forced = tuple(containers.forced_variables(container, [*spec.train.env, *secrets]))
    return ContainerPlan((), tuple(command), forced, f"{program.upper()}ENV_")
