"""A job file as the files of other tools: Accelerate's configuration, DeepSpeed's JSON, a hostfile."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.hosts import HostPool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.job import LoadedJob

DS_CONFIG, HOSTFILE = "ds_config.json", "hostfile"
"""Names of the files beside an exported Accelerate configuration."""


@dataclass(frozen=True)
class Exported:
    """What an export writes.

    Attributes:
        files: paths and texts, the one that was asked for first.
        notes: what the user should know.
    """

    files: tuple[tuple[Path, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Job:
    """A job with its hosts and DeepSpeed's configuration."""

    job: LoadedJob
    pool: HostPool
    config: dict[str, Any] | None

    @property
    def filter(self) -> str:
        """Return DeepSpeed's filter for the slots that are used; "" for all of the exported hostfile."""
        from orchestrator.hosts.dialects import deepspeed_filter  # noqa: PLC0415 - only some need it

        hosts = self.pool.hosts
        whole = HostPool(tuple(replace(host, slots=tuple(range(max(host.slots) + 1))) for host in hosts))
        return deepspeed_filter(whole, self.pool)


def export(kind: str, job: LoadedJob, output: Path | None, *, fields: bool = False) -> Exported:
    """Return the files of another tool that say what a job file says.

    Args:
        kind: accelerate, deepspeed or hostfile.
        job: the job file.
        output: the file to write; None for stdout.
        fields: say DeepSpeed's configuration in Accelerate's own fields, without a JSON file.

    Raises:
        JobFileError: the hosts or the configuration are wrong, there is not what is asked for, or Accelerate
            has no field for something.
    """
    from orchestrator.prepare import pool_of  # noqa: PLC0415 - only a command needs it

    exported = _export(kind, job, pool_of(job.spec.cluster), output, fields=fields)
    deepspeed = job.spec.deepspeed
    own = {job.path, job.spec.cluster.hostfile, deepspeed and deepspeed.config_file}
    taken = {path.resolve() for path in own if path}
    for path, _ in exported.files:
        if output is not None and path.resolve() in taken:
            what = "the job reads this file: the export would replace it"
            raise JobFileError(Problem(what, "--output", str(path), "export into another folder"))
    return exported


def _export(kind: str, job: LoadedJob, pool: HostPool, output: Path | None, *, fields: bool) -> Exported:
    known = _Job(job, pool, None if kind == "hostfile" else _config(job, pool, kind))
    target = output or Path(kind)
    if kind == "deepspeed":
        return Exported(((target, _json(known.config)),), _left_auto(known.config))
    if kind == "hostfile":
        return Exported(((target, _hostfile(known)),), _slots(known))
    return _accelerate(known, target, is_stdout=output is None, fields=fields)


def _config(job: LoadedJob, pool: HostPool, kind: str) -> dict[str, Any] | None:
    """Return DeepSpeed's configuration; for Accelerate, whose scripts fill `auto`, as for its launcher."""
    from orchestrator.configs import deepspeed_config  # noqa: PLC0415

    spec = job.spec
    if spec.deepspeed is None:
        what = "the job has no deepspeed section"
        raise JobFileError(Problem(what, "deepspeed", fix="add one: deepspeed: {zero_stage: 3}"))
    launcher = "accelerate" if kind == "accelerate" else spec.train.launcher
    return deepspeed_config.build(
        spec.deepspeed, pool, job.base_dir, launcher=launcher, model=spec.model
    ).config


def _json(config: Mapping[str, Any] | None) -> str:
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _left_auto(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    found = sorted(_autos(config or {}))
    return (f"left for the training script to fill (auto): {', '.join(found)}",) if found else ()


def _autos(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = [f"{prefix}{key}" for key, value in config.items() if value == "auto"]
    inner = [(key, value) for key, value in config.items() if isinstance(value, dict)]
    return found + [path for key, value in inner for path in _autos(value, f"{prefix}{key}.")]


def _hostfile(known: _Job) -> str:
    backend = known.job.spec.cluster.backend
    if backend in ("slurm", "local"):
        what = f"backend {backend} has no hosts of a hostfile"
        fix = "use backend: pdsh or ssh, with cluster.hostfile"
        raise JobFileError(Problem(what, "cluster.backend", backend, fix))
    return "".join(f"{host.name} slots={max(host.slots) + 1}\n" for host in known.pool.hosts)


def _slots(known: _Job) -> tuple[str, ...]:
    found = [f"not every slot is used: give deepspeed --include {known.filter!r}"] if known.filter else []
    if any(host.address or host.user or host.port for host in known.pool.hosts):
        found.append("addresses, users and ports of hosts are not in it: write them to ~/.ssh/config")
    return tuple(found)


def _accelerate(known: _Job, target: Path, *, is_stdout: bool, fields: bool) -> Exported:
    import yaml  # noqa: PLC0415 - slow to import

    folder, several = target.absolute().parent, len(known.pool.hosts) > 1
    files = [] if fields else [(folder / DS_CONFIG, _json(known.config))]
    notes = [*_left_auto(known.config), *_unsaid(known, "FILE" if is_stdout else shlex.quote(str(target)))]
    config = _in_fields(_basis(known, folder), known) if fields else _basis(known, folder)
    section = config["deepspeed_config"]
    if several and known.job.spec.cluster.backend != "slurm":
        section |= {"deepspeed_multinode_launcher": "pdsh", "deepspeed_hostfile": str(folder / HOSTFILE)}
        files.append((folder / HOSTFILE, _hostfile(known)))
        if known.filter:
            section["deepspeed_inclusion_filter"] = known.filter
    elif several:
        notes.append("Slurm gives the hosts: start it on each with --machine_rank and --main_process_ip")
    else:
        del section["deepspeed_multinode_launcher"]
    if len({len(host.slots) for host in known.pool.hosts}) > 1 and not known.filter:
        notes.append("hosts have different numbers of slots: Accelerate starts the same number on each")
    if is_stdout and files:
        names = ", ".join(str(path) for path, _ in files)
        notes.append(f"it names {names}, which only -o FILE writes")
    text = yaml.safe_dump(config, sort_keys=True, allow_unicode=True, width=4096)
    return Exported(((target, text), *files), tuple(notes))


def _basis(known: _Job, folder: Path) -> dict[str, Any]:
    """Return the configuration without what starts several hosts."""
    from orchestrator.configs import accelerate_config  # noqa: PLC0415

    spec = known.job.spec
    config = accelerate_config.build(
        known.config,
        ds_config_path=str(folder / DS_CONFIG),
        world_size=known.pool.world_size,
        num_machines=len(known.pool.hosts),
        zero3_init=spec.deepspeed.zero3_init if spec.deepspeed else None,
        main_process_ip=spec.train.master_addr,
        main_process_port=spec.train.master_port,
    )
    if (known.config or {}).get("zero_optimization", {}).get("stage") in (0, 1, 2):
        config["deepspeed_config"]["zero3_init_flag"] = False  # Accelerate warns of it and does the same
    names = spec.deepspeed.moe_layer_cls_names if spec.deepspeed else None
    if names:
        config["deepspeed_config"]["deepspeed_moe_layer_cls_names"] = ",".join(names)
    return {**config, "machine_rank": 0, "same_network": True}


def _in_fields(config: dict[str, Any], known: _Job) -> dict[str, Any]:
    """Return the configuration with Accelerate's own fields in place of DeepSpeed's file.

    Raises:
        JobFileError: something has no field.
    """
    from orchestrator.importing.accelerate_plugin import as_fields  # noqa: PLC0415 - only --fields needs it

    found = as_fields(known.config or {})
    if found.unsaid:
        what = f"Accelerate has no field for {', '.join(found.unsaid)}"
        raise JobFileError(
            Problem(what, "--fields", fix="export without --fields: then DeepSpeed's file says it")
        )
    section = {**config["deepspeed_config"], **found.section}
    del section["deepspeed_config_file"]
    return {**config, "deepspeed_config": section, "mixed_precision": found.mixed_precision}


def _unsaid(known: _Job, target: str) -> list[str]:
    """Return what the job file says and an Accelerate configuration cannot."""
    train = known.job.spec.train
    what = f"-m {train.module}" if train.module else str(train.script)
    said = {"env": train.env, "setup": train.setup, "secrets": train.secrets, "args": train.args}
    names = ", ".join(f"train.{key}" for key, value in said.items() if value)
    found = [f"start it with: accelerate launch --config_file {target} {what}"]
    return [*found, f"not exported: {names}"] if names else found
