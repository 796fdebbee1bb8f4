"""What `submit`, `resume` and their like are asked for, and what they say of the run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import print_json
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.prepare import Prepared
    from orchestrator.rundir import RunDir


@dataclass(frozen=True)
class Options:
    """What the user asked `submit` for.

    Raises:
        UsageError: JSON is to be followed by what is not.
    """

    dry_run: bool
    follow: bool
    as_json: bool
    no_start: bool

    def __post_init__(self) -> None:
        if self.as_json and self.follow and not (self.dry_run or self.no_start):
            what = "--json prints one object and --follow the run's own words; choose one"
            raise click.UsageError(f"{what}; `orchestrate logs -f --json` follows as JSON")


def print_started(run_dir: RunDir, prepared: Prepared, options: Options) -> None:
    """Say which run was started, and how to follow it."""
    job_id = run_dir.slurm_job().get("job_id")
    if options.as_json:
        print_json({"run_id": run_dir.run_id, "run_dir": str(run_dir.path), "slurm_job_id": job_id})
        return
    click.echo(f"{click.style(run_dir.run_id, bold=True)}  {shape(prepared)}")
    click.echo(f"directory  {run_dir.path}")
    if job_id:
        click.echo(f"Slurm job  {job_id}")
    if not options.follow:
        click.echo(f"follow     orchestrate logs -f {run_dir.run_id}")
        click.echo(f"status     orchestrate status {run_dir.run_id}")


def print_not_started(run_dir: RunDir, prepared: Prepared, *, as_json: bool) -> int:
    """Say how to start a run that was only written; return 0."""
    script = run_dir.path / prepared.files[0].path
    command = ["sbatch", str(script)] if script == run_dir.batch_script else [str(script)]
    if as_json:
        print_json({"run_id": run_dir.run_id, "run_dir": str(run_dir.path), "command": command})
    else:
        click.echo(f"{click.style(run_dir.run_id, bold=True)}  {shape(prepared)}")
        click.echo(f"start it with   {shlex.join(command)}")
    return 0


def shape(prepared: Prepared) -> str:
    """Return what will run, in one line: ranks, hosts, ZeRO stage."""
    plan = prepared.plan
    zero = (plan.deepspeed or {}).get("zero_optimization", {})
    ranks, hosts = counted(plan.world_size, "rank"), counted(len(plan.hosts), "host")
    parts = [f"{ranks} on {hosts} ({plan.backend}, {plan.launcher})"]
    if "stage" in zero:
        parts.append(f"ZeRO-{zero['stage']}")
    if zero.get("zero_hpz_partition_size", 1) not in (0, 1):
        parts.append(f"hpZ {zero['zero_hpz_partition_size']}")
    return ", ".join(parts)


def dry_run_json(prepared: Prepared) -> dict[str, Any]:
    """Return what would be run, as JSON for scripts."""
    plan = prepared.plan
    return {
        "dry_run": True,
        "name": plan.name,
        "backend": plan.backend,
        "launcher": plan.launcher,
        "nodes": len(plan.hosts),
        "ranks": plan.world_size,
        "run_dir": plan.run_dir,
        "files": [str(file.path) for file in prepared.files],
        "warnings": list(prepared.warnings),
    }


def print_files(prepared: Prepared, folder: str = "") -> None:
    """Print the files of a run; before each its path, which begins with `folder`."""
    for file in prepared.files:
        click.echo(click.style(f"# ---- {folder}{file.path}", bold=True))
        click.echo(file.text, nl=not file.text.endswith("\n"))
    if prepared.secrets:
        click.echo(click.style(f"# ---- {folder}secrets.env (mode 0600)", bold=True))
        for name in prepared.secrets:
            click.echo(f"export {name}=<not shown>")
