"""`orchestrate submit` and `orchestrate render`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import print_json
from orchestrator.errors import JobFileError

if TYPE_CHECKING:
    from orchestrator.submit import Prepared

_JOB = click.argument("job", type=click.Path(path_type=Path))
_SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value: --set cluster.nodes=4."
)


def _prepare(job: Path, overrides: tuple[str, ...]) -> Prepared:
    from orchestrator import submit
    from orchestrator.job import load_job

    loaded = load_job(job, overrides)
    try:
        prepared = submit.prepare(loaded, os.environ)
    except JobFileError as error:
        raise JobFileError(*map(loaded.located, error.problems)) from error
    for warning in prepared.warnings:
        click.echo(click.style("warning: ", fg="yellow") + warning, err=True)
    return prepared


@click.command("submit")
@_JOB
@_SET
@click.option("--dry-run", is_flag=True, help="Check everything, write and start nothing.")
@click.option("--follow", "-f", is_flag=True, help="Show the run until it ends; Ctrl-C leaves it alone.")
@click.option("--json", "as_json", is_flag=True, help="Print run id and directory for scripts.")
def submit_command(job: Path, overrides: tuple[str, ...], dry_run: bool, follow: bool, as_json: bool) -> int:
    """Start the job described in JOB (a YAML file) and return at once.

    The run goes on when this terminal is closed.
    """
    from orchestrator import submit

    prepared = _prepare(job, overrides)
    plan = prepared.plan
    if dry_run:
        _print_dry_run(prepared)
        return 0
    run_dir = submit.create(prepared)
    submit.start(run_dir, job)
    if as_json:
        print_json({"run_id": plan.run_id, "run_dir": plan.run_dir})
    else:
        click.echo(f"{click.style(plan.run_id, bold=True)}  {_shape(prepared)}")
        click.echo(f"directory  {plan.run_dir}")
    if follow:
        from orchestrator.monitor.follow import follow_run

        return follow_run(run_dir)
    if not as_json:
        click.echo(f"follow     orchestrate logs -f {plan.run_id}")
        click.echo(f"status     orchestrate status {plan.run_id}")
    return 0


def _shape(prepared: Prepared) -> str:
    plan = prepared.plan
    zero = (plan.deepspeed or {}).get("zero_optimization", {})
    hosts = f"{len(plan.hosts)} host{'s' if len(plan.hosts) > 1 else ''}"
    parts = [f"{plan.world_size} ranks on {hosts} ({plan.backend}, {plan.launcher})"]
    if "stage" in zero:
        parts.append(f"ZeRO-{zero['stage']}")
    if zero.get("zero_hpz_partition_size", 1) not in (0, 1):
        parts.append(f"hpZ {zero['zero_hpz_partition_size']}")
    return ", ".join(parts)


def _print_dry_run(prepared: Prepared) -> None:
    click.echo(f"{prepared.plan.name}: {_shape(prepared)}")
    click.echo(f"would write {prepared.plan.run_dir}/")
    for file in prepared.files:
        click.echo(f"  {file.path}")
    click.echo("nothing was written or started; `orchestrate render` shows the files")


@click.command("render")
@_JOB
@_SET
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write the files into this folder.")
def render_command(job: Path, overrides: tuple[str, ...], output: Path | None) -> int:
    """Print exactly the files that submit would write for JOB; values of secrets are left out."""
    prepared = _prepare(job, overrides)
    if output is not None:
        _write(prepared, output)
        return 0
    for file in prepared.files:
        click.echo(click.style(f"# ---- {file.path}", bold=True))
        click.echo(file.text, nl=not file.text.endswith("\n"))
    if prepared.secrets:
        click.echo(click.style("# ---- secrets.env (mode 0600)", bold=True))
        for name in prepared.secrets:
            click.echo(f"export {name}=<not shown>")
    return 0


def _write(prepared: Prepared, output: Path) -> None:
    from orchestrator.errors import Problem, SubmitError

    try:
        for file in prepared.files:
            path = output / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, encoding="utf-8")
            path.chmod(0o755 if file.executable else 0o644)
            click.echo(str(path))
    except OSError as error:
        raise SubmitError(Problem(f"cannot write: {error.strerror}", "--output", error.filename)) from error
