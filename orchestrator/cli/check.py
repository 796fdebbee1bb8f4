"""`orchestrate check`: preflight on the real hosts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import print_json
from orchestrator.errors import JobFileError, Problem
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.job import LoadedJob
    from orchestrator.preflight.findings import Report
    from orchestrator.preflight.run import Wanted
    from orchestrator.prepare import Prepared

_DAY = 86400


def _complete_checks(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the checks that begin like the last of some with commas, for the shell."""
    from orchestrator.preflight.judging import JUDGES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in JUDGES if name.startswith(last)]


@click.command("check")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value: --set cluster.nodes=4."
)
@click.option(
    "--only",
    metavar="NAMES",
    help="Only these checks, with commas: login,gpus,disk.",
    shell_complete=_complete_checks,
)
@click.option("--skip", metavar="NAMES", help="All checks but these.", shell_complete=_complete_checks)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    callback=lambda _context, _option, value: _seconds(value),
    help="Seconds in which hosts have to answer.",
)
@click.option("--all-reduce", is_flag=True, help="Measure the network between all hosts (half a minute).")
@click.option("--build-ops", is_flag=True, help="Build DeepSpeed's operators now, once for each folder.")
@click.option("--drop-bad", is_flag=True, help="Leave the hosts that fail out: write a filter into JOB.")
@click.option("--in-allocation", is_flag=True, help="Check the Slurm allocation that this shell holds.")
@click.option("--from-login", is_flag=True, hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts.")
def check_command(
    job: Path,
    overrides: tuple[str, ...],
    only: str | None,
    skip: str | None,
    timeout: float,
    *,
    all_reduce: bool,
    build_ops: bool,
    drop_bad: bool,
    in_allocation: bool,
    from_login: bool,
    as_json: bool,
) -> int:
    """Look on every host of JOB for what would make it fail; start nothing, leave nothing there.

    On Slurm it runs in the allocation that this shell holds, or asks for one of ten minutes (thirty with
    --build-ops). Exit code 1 if a host fails; with --drop-bad 0 if the job, as it is written then, can start.
    """
    from orchestrator.job import load_job

    checks = _chosen(only, skip, ("links",) * all_reduce + ("ops",) * build_ops)
    loaded = _one_run(load_job(job, overrides), overrides)
    if loaded.spec.cluster.backend == "slurm" and not (in_allocation or os.environ.get("SLURM_JOB_ID")):
        from orchestrator.preflight.allocate import check_in_new_allocation

        settings = [word for setting in overrides for word in ("--set", setting)]
        names = ["--only", ",".join(checks), "--timeout", str(timeout)]
        flags = ["--build-ops"] * build_ops + ["--drop-bad"] * drop_bad + ["--json"] * as_json
        return check_in_new_allocation(loaded, ["check", str(job), *settings, *names, *flags])
    from orchestrator.preflight.run import Wanted

    report = _run(loaded, Wanted(checks, timeout, from_login, build_ops))
    _print(report, as_json=as_json)
    if drop_bad and report.bad:
        return _drop(loaded, overrides, report)
    return 0 if report.ok else 1


def _run(loaded: LoadedJob, wanted: Wanted) -> Report:
    from orchestrator.preflight.run import run_check

    prepared = _prepared(loaded)
    for warning in prepared.warnings:
        click.echo(click.style("warning: ", fg="yellow") + str(warning), err=True)
    _say(f"checking {counted(len(prepared.plan.hosts), 'host')} ...")
    return run_check(prepared, wanted)


def _one_run(loaded: LoadedJob, overrides: tuple[str, ...]) -> LoadedJob:
    """Return the job, or the first run of a sweep: all of them want the same of their hosts.

    Raises:
        JobFileError: the hosts are to be had from a login host only.
    """
    from orchestrator.job import load_job

    if loaded.spec.cluster.login is not None:
        what, fix = "the hosts are seen from the login host only", "run `orchestrate check` there"
        raise JobFileError(loaded.located(Problem(what, "cluster.login", fix=fix)))
    slurm = loaded.spec.cluster.slurm
    if loaded.spec.matrix is None and (slurm is None or slurm.array is None):
        return loaded
    from orchestrator.job.matrix import points_of

    return load_job(loaded.path, (*overrides, *points_of(loaded)[0].settings))


def _seconds(value: float) -> float:
    """Return a time limit; inf and nan are none."""
    if not 0 < value <= _DAY:
        raise click.BadParameter(f"{value:g} is not a number of seconds between 0 and {_DAY} (a day)")
    return value


def _chosen(only: str | None, skip: str | None, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the checks to make; `asked` are those that have an option of their own."""
    from orchestrator.preflight.judging import JUDGES, ON_DEMAND

    known = list(JUDGES)
    for text, option in ((only, "--only"), (skip, "--skip")):
        unknown = [name for name in _names(text) if name not in known]
        if unknown:
            raise click.UsageError(f"{option}: no check {unknown[0]!r}; there are {', '.join(known)}")
    wanted = [name for name in known if name not in ON_DEMAND] if only is None else _names(only)
    chosen = tuple(dict.fromkeys([*(name for name in wanted if name not in _names(skip)), *asked]))
    if not chosen:
        options = ["--only"] * (only is not None) + ["--skip"] * (skip is not None)
        left = f"nothing is left to check after {' and '.join(options)}"
        raise click.UsageError(f"{left}; there are {', '.join(known)}")
    return chosen


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _prepared(loaded: LoadedJob) -> Prepared:
    from orchestrator.forecast.examine import prepare_or_tell
    from orchestrator.preflight.fanout import check_id
    from orchestrator.slurm.allocation import read_allocation

    given = read_allocation(os.environ) if loaded.spec.cluster.backend == "slurm" else None
    return prepare_or_tell(loaded, os.environ, check_id(), given)


def _say(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(text, err=True)


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
        return
    from orchestrator.preflight.table import table_lines

    for line in table_lines(report):
        click.echo(line)


def _drop(loaded: LoadedJob, overrides: tuple[str, ...], report: Report) -> int:
    """Write a filter without the bad hosts into the job file, if the rest can still run the job."""
    import json

    from orchestrator.job import load_job
    from orchestrator.job.yaml_text import set_values
    from orchestrator.preflight.drop import filter_without
    from orchestrator.rundir import write_text

    if len(report.bad) == len(report.hosts):
        said = f"--drop-bad: every host fails, so there is none to go on with; {loaded.path} stays as it is"
        click.echo(click.style("error: ", fg="red", bold=True) + said, err=True)
        return 1
    key, value = filter_without(loaded.spec.cluster, report.bad)
    setting = f"cluster.{key}={json.dumps(value)}"
    try:
        rest = _prepared(load_job(loaded.path, (*overrides, setting)))
    except JobFileError as error:
        what = f"without {', '.join(report.bad)} the job does not fit the hosts any more; nothing was written"
        raise JobFileError(Problem(what, f"cluster.{key}", value), *error.problems) from error
    before = loaded.path.read_bytes().decode("utf-8")  # line ends stay as they are
    text = set_values(before, str(loaded.path), {f"cluster.{key}": json.dumps(value, ensure_ascii=False)})
    shape = f"{counted(len(rest.plan.hosts), 'host')}, {counted(rest.plan.world_size, 'rank')}"
    write_text(loaded.path, text, loaded.path.stat().st_mode & 0o777)
    click.echo(f"{loaded.path}: cluster.{key} is now {value}; the job still fits: {shape}", err=True)
    return 0
