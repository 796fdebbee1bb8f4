"""`orchestrate checkpoint`: what a run has saved, its weights as one model, and which of it to keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.checkpoint_place import place_of
from orchestrator.cli.output import ago, print_json, print_table
from orchestrator.cli.reshape import reshape_command
from orchestrator.cli.runs import complete_run

if TYPE_CHECKING:
    from orchestrator.checkpoints.consolidate import Consolidated
    from orchestrator.checkpoints.prune import Pruned

_RUN = click.argument("run", metavar="RUN|FOLDER", shell_complete=complete_run)
_ROOT = click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@click.group("checkpoint")
def checkpoint_group() -> None:
    """List, consolidate, reshape and prune checkpoints.

    RUN is a run as in `orchestrate status`, for the checkpoint_dir of its job file; FOLDER is any folder with
    checkpoints, whoever wrote them.
    """


@checkpoint_group.command("list")
@_RUN
@_ROOT
@_JSON
def list_command(run: str, run_root: Path, as_json: bool) -> int:
    """Show every checkpoint, the newest last, and what is missing in those that are not complete."""
    place = place_of(run, run_root)
    if isinstance(place, int):
        return place
    from orchestrator.checkpoints.show import describe

    shown = describe(place.folder)
    if as_json:
        print_json(shown)
        return 0
    if not shown["tags"]:
        click.echo(f"no checkpoints in {place.what}")
        return 0
    click.echo(place.what)
    head = ["tag", "step", "size", "state", "stage", "ranks", "saved"]
    print_table(head, [_row(tag) for tag in shown["tags"]])
    for word in shown["notes"]:
        click.echo(click.style("note: ", fg="yellow") + word)
    return 0


def _row(tag: dict[str, Any]) -> list[str]:
    from orchestrator.checkpoints.show import size_words

    marks = [word for word in ("latest", "resumable") if tag[word]]
    marks += tag["more"]
    state = ["complete", *marks] if tag["complete"] else [*marks, f"NOT COMPLETE: {tag['why']}"]
    return [
        tag["name"],
        _number(tag["step"]),
        size_words(tag["size"]),
        ", ".join(state),
        _number(tag["stage"]),
        _number(tag["world_size"]),
        ago(tag["saved"]) + " ago" if tag["saved"] else "",
    ]


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


@checkpoint_group.command("consolidate")
@_RUN
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--tag", help="Which checkpoint; the last complete one when not given.")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Type of the weights: fp32 from shards when not given; of whole weights, what they are.",
)
@click.option("--max-shard-size", default="5GB", show_default=True, help="Size of a file, as 5GB or 2GiB.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A config.json, or a folder with one, to put beside the weights; looked for when not given.",
)
@click.option("--python", help="Python with torch and DeepSpeed; train.python of the run when not given.")
@_ROOT
@_JSON
def consolidate_command(
    *,
    run: str,
    out: Path,
    tag: str | None,
    dtype: str | None,
    max_shard_size: str,
    config: Path | None,
    python: str | None,
    run_root: Path,
    as_json: bool,
) -> int:
    """Write the weights of a checkpoint as one model into the folder OUT: safetensors files with an index.

    from_pretrained loads it where there is a config.json. No GPU is needed. DeepSpeed's files are loaded as
    pickles, which can run any code: name only what your own runs have saved.
    """
    place = place_of(run, run_root, out)
    if isinstance(place, int):
        return place
    from dataclasses import asdict

    from orchestrator.checkpoints.consolidate import Wanted, consolidate
    from orchestrator.checkpoints.place import choose, python_for

    wanted = Wanted(out.absolute(), dtype, _size(max_shard_size), config)
    program = python_for(place, python)
    done = consolidate(place, choose(place, tag), wanted, program, lambda line: click.echo(line, err=True))
    if as_json:
        print_json(asdict(done))
    else:
        _show_consolidated(done)
    return 0


def _size(text: str) -> int:
    from orchestrator.job.quantities import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-shard-size") from None


def _show_consolidated(done: Consolidated) -> None:
    from orchestrator.checkpoints.show import size_words
    from orchestrator.words import counted

    types, files = ", ".join(done.dtypes), counted(len(done.files), "file")
    click.echo(f"{done.out}  {done.parameters:,} parameters of {done.tag}, {types}, {files}")
    for name, same in done.tied.items():
        click.echo(f"{name} is {same}, and is left out")
    if done.config is None:
        click.echo("no config.json was found: add the model's for from_pretrained, or name it with --config")
    click.echo(f"memory used: {size_words(done.peak)}")


@checkpoint_group.command("prune")
@_RUN
@click.option("--keep-last", type=click.IntRange(1), help="How many of the last complete ones stay.")
@click.option("--keep-best", type=click.IntRange(0), help="How many of the best ones stay as well.")
@click.option("--metric", help="What the best ones are best by, as in metrics.json of a tag.")
@click.option(
    "--best-is",
    type=click.Choice(["lowest", "highest"]),
    help="Which value of the metric is the best; lowest when not given.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
@_ROOT
@_JSON
def prune_command(
    *,
    run: str,
    keep_last: int | None,
    keep_best: int | None,
    metric: str | None,
    best_is: str | None,
    dry_run: bool,
    run_root: Path,
    as_json: bool,
) -> int:
    """Delete old checkpoints: of a RUN only those that it wrote itself, of a FOLDER only DeepSpeed's.

    The newest complete one stays in any case, so does what was written after it, what `latest` names and what
    a link leads to. A run without numbers here takes those of its job file (train.keep_checkpoints).
    """
    place = place_of(run, run_root)
    if isinstance(place, int):
        return place
    from orchestrator.checkpoints.command import keep_from, prune_place

    keep = keep_from(place, last=keep_last, best=keep_best, metric=metric, best_is=best_is)
    done = prune_place(place, keep, run_root, dry_run=dry_run)
    if as_json:
        print_json(_pruned(done, dry_run=dry_run))
    else:
        _show_pruned(done, dry_run=dry_run)
    return 1 if done.failed or done.leftovers else 0


def _pruned(done: Pruned, *, dry_run: bool) -> dict[str, Any]:
    stays = [{"path": str(one.seen.path), "why": one.why} for one in done.choices if not one.goes]
    gone = [{"path": str(seen.path), "size": seen.size} for seen in done.gone]
    failed = {str(path): why for path, why in done.failed.items()}
    return {
        "dry_run": dry_run,
        "deleted": gone,
        "kept": stays,
        "failed": failed,
        "leftovers": list(done.leftovers),
    }


def _show_pruned(done: Pruned, *, dry_run: bool) -> None:
    from orchestrator.checkpoints.show import size_words

    goes = "would go" if dry_run else "deleted"
    rows = []
    for one in done.choices:
        why = done.failed.get(one.seen.path)
        words = f"NOT deleted: {why}" if why else goes if one.goes else "stays"
        rows.append([one.seen.path.name, size_words(one.seen.size), words, one.why])
    print_table(["tag", "size", "what", "why"], rows)
    for why in done.leftovers:
        click.echo(click.style("warning: ", fg="yellow") + why, err=True)
    total = size_words(sum(seen.size for seen in done.gone))
    click.echo(f"{goes}: {len(done.gone)} of {len(done.choices)}, {total}")


checkpoint_group.add_command(reshape_command)
