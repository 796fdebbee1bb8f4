"""`orchestrate resume`."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import print_json
from orchestrator.cli.runs import complete_run
from orchestrator.errors import JobFileError, Problem
from orchestrator.states import State
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.checkpoints.universal_make import Conversion
    from orchestrator.cli.submitted import Options
    from orchestrator.resume import Resumption
    from orchestrator.rundir import RunDir


@click.command("resume")
@click.argument("run", default="last", shell_complete=complete_run)
@click.option("--nodes", type=click.IntRange(min=1), help="Number of hosts; default: as many as before.")
@click.option("--tag", help="The checkpoint to go on from; default: the last complete one.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value of the job.")
@click.option("--dry-run", is_flag=True, help="Check everything, write and start nothing.")
@click.option("--follow", "-f", is_flag=True, help="Show the run until it ends; Ctrl-C leaves it alone.")
@click.option("--json", "as_json", is_flag=True, help="Print run id and directory for scripts.")
@click.option("--no-start", is_flag=True, help="Write the run directory, start nothing, and say what would.")
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
def resume_command(
    run: str, run_root: Path, nodes: int | None, tag: str | None, overrides: tuple[str, ...], **flags: bool
) -> int:
    """Go on where RUN has ended, in a new run with the same job file and the same folder of checkpoints.

    On another number of ranks the checkpoint is converted first, and the accumulation steps change so that
    the global batch stays.
    """
    from orchestrator import registry
    from orchestrator.cli.login import forward
    from orchestrator.cli.submitted import Options
    from orchestrator.resume import make_resumption

    if (code := forward(run, run_root)) is not None:
        return code
    found, options = registry.find(run, run_root), Options(**flags)
    with _alone(found):
        _see_that_it_has_ended(found)
        begun = _resume(found, run_root, make_resumption(found, overrides, nodes, tag), options)
    if begun is None or not options.follow:
        return 0
    from orchestrator.monitor.follow import follow_run

    return follow_run(begun)


@contextlib.contextmanager
def _alone(run: RunDir) -> Iterator[None]:
    """Hold the lock of a run that is resumed: two at once would both find that nobody saves there yet.

    Raises:
        JobFileError: another `resume` of this run is at work.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a directory that we may only read, a disk without locks
            lock = stack.enter_context((run.path / "resume.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                what, fix = "it is being resumed at this moment", "wait for that, and see `orchestrate list`"
                raise JobFileError(Problem(what, "RUN", run.run_id, fix)) from None
        yield


def _see_that_it_has_ended(run: RunDir) -> None:
    """Two runs that save into one folder would ruin each other's checkpoints."""
    from orchestrator.monitor.status import current_status

    state = current_status(run)["state"]
    if not state.is_final:
        fix = f"wait until it ends, or end it: orchestrate cancel {run.run_id}"
        raise JobFileError(Problem(f"the run is still {state}", "RUN", run.run_id, fix))


def _see_that_nobody_saves_there(folder: str | None, run_root: Path) -> None:
    """Refuse a second run in that folder, such as the one that an earlier `resume` has begun."""
    from orchestrator import registry
    from orchestrator.monitor.status import current_status

    for other in registry.all_runs(run_root):
        if not _may_save(other) or _folder_of(other) != os.path.realpath(folder or ""):
            continue
        if current_status(other)["state"].is_final:
            continue
        fix = f"wait until it ends, or end it: orchestrate cancel {other.run_id}"
        what = f"another run saves its checkpoints there: {other.run_id}"
        raise JobFileError(Problem(what, "train.checkpoint_dir", folder, fix))


def _may_save(run: RunDir) -> bool:
    """Return whether a run seems to be on; one that was only written (`--no-start`) is not."""
    state = run.status()["state"]
    return not state.is_final and (state is not State.CREATED or run.supervisor_log.exists())


def _folder_of(run: RunDir) -> str | None:
    """Return where a run saves, links resolved."""
    try:
        folder = run.plan().checkpoint_dir
    except (OSError, ValueError):  # of another version of this program
        return None
    return None if folder is None else os.path.realpath(folder)


def _resume(run: RunDir, run_root: Path, resumption: Resumption, options: Options) -> RunDir | None:
    """Begin the new run; return it if it was started."""
    from orchestrator import submit
    from orchestrator.cli.submitted import print_not_started, print_started

    prepared = resumption.prepared
    _see_that_nobody_saves_there(prepared.plan.checkpoint_dir, run_root)
    for warning in (*prepared.warnings, *resumption.warnings):
        click.echo(click.style("warning: ", fg="yellow") + warning, err=True)
    if not options.as_json:
        _print_start(run, resumption)
    if options.dry_run:
        _print_dry_run(run, resumption, as_json=options.as_json)
        return None
    _convert(resumption, options)
    run_dir = submit.create(prepared)
    job_file = Path(run.record().get("job_file", run.job_file))
    submit.record_run(run_dir, prepared.plan, job_file, resumes=run.run_id)
    if options.no_start:
        print_not_started(run_dir, prepared, as_json=options.as_json)
        return None
    submit.start(run_dir)
    print_started(run_dir, prepared, options)
    return run_dir


def _print_start(run: RunDir, resumption: Resumption) -> None:
    from orchestrator.cli.reshape import of_ranks
    from orchestrator.configs.batch import GLOBAL, MICRO, STEPS

    tag, batch = resumption.start.tag, resumption.batch
    step = "" if tag.step is None else f", step {tag.step}"
    click.echo(f"resumes    {run.run_id} from {tag.name}{step}, {of_ranks(tag)}")
    if batch:
        parts = f"{counted(batch[MICRO], 'sample')} x {counted(batch[STEPS], 'accumulation step')}"
        click.echo(f"batch      {counted(batch[GLOBAL], 'sample')} as before: {parts} on each rank")


def _dry_run_json(run: RunDir, resumption: Resumption) -> dict[str, Any]:
    from orchestrator.cli.submitted import dry_run_json

    start = resumption.start
    told = dry_run_json(resumption.prepared)
    told["warnings"] += resumption.warnings
    return told | {
        "resumes": run.run_id,
        "tag": start.tag.name,
        "step": start.tag.step,
        "saved_by_ranks": start.tag.world_size,
        "loads": start.name,
        "converts": start.convert,
        "batch": resumption.batch,
    }


def _print_dry_run(run: RunDir, resumption: Resumption, *, as_json: bool) -> None:
    from orchestrator.cli.reshape import needs_words
    from orchestrator.cli.submitted import shape

    conversion = _conversion(resumption)
    if conversion is not None and resumption.prepared.plan.slurm is None:
        with _not_begun():
            conversion.check()
    if as_json:
        print_json(_dry_run_json(run, resumption))
        return
    click.echo(f"would run  {shape(resumption.prepared)}")
    if conversion is not None:
        click.echo(f"would make {conversion.name} first, for any number of ranks")
        click.echo(f"           {needs_words(conversion, resumption.start.tag.path.parent)}")
    click.echo("nothing was written or started")


def _conversion(resumption: Resumption) -> Conversion | None:
    """Return what has to be made before the new ranks can load the checkpoint; None for nothing."""
    from orchestrator.checkpoints.universal_make import conversion_for

    start, plan = resumption.start, resumption.prepared.plan
    return conversion_for(start.tag, plan, run_id=plan.run_id) if start.convert else None


def _convert(resumption: Resumption, options: Options) -> None:
    """Convert here what the new ranks cannot load; on Slurm the job does it: a login host is for no work."""
    from orchestrator.checkpoints.universal_make import notes_of
    from orchestrator.cli.reshape import convert, print_notes

    start, plan = resumption.start, resumption.prepared.plan
    conversion = _conversion(resumption)
    if conversion is None:
        print_notes(notes_of(start.tag.path.parent / start.name) if start.universal else [])
    elif plan.slurm is not None:
        click.echo(f"the job makes {start.name} first, for {counted(plan.world_size, 'rank')}", err=True)
    else:
        with _not_begun():
            print_notes(convert(conversion, quiet=options.as_json))


@contextlib.contextmanager
def _not_begun() -> Iterator[None]:
    """A conversion that fails here is a run that could not be submitted: none has begun that could fail."""
    from orchestrator.errors import ConversionError, SubmitError

    try:
        yield
    except ConversionError as error:
        raise SubmitError(*error.problems) from error
