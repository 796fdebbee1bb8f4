"""`orchestrate notify`: try the ways of a job file to tell somebody."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import print_json, print_table

if TYPE_CHECKING:
    from orchestrator.job import LoadedJob
    from orchestrator.notify.message import Message
    from orchestrator.plan import NotifyPlan


@click.command("notify")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value: --set notify=[]."
)
@click.option("--show", is_flag=True, help="Print the message; send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def notify_command(job: Path, overrides: tuple[str, ...], *, show: bool, as_json: bool) -> int:
    """Send a test message to everybody that `notify` of JOB names, from here. Exit code 1 if one fails.

    A run sends from where its supervisor runs: the submit host, on Slurm the job's first node. Where that
    reaches nothing outside, what could not be sent is in events.jsonl (`notified`), and the run goes on.
    """
    from orchestrator.errors import JobFileError, Problem
    from orchestrator.job import load_job
    from orchestrator.plan.notify import notify_plans

    loaded = load_job(job, overrides)
    if not loaded.spec.notify:
        fix = "add notify: [{on: [failure], mail: you@example.org}]"
        raise JobFileError(Problem("tells nobody: it has no notify", str(job), fix=fix))
    message = _test_message(loaded)
    if show and as_json:
        print_json({"subject": message.subject, "text": message.text})
        return 0
    if show:
        click.echo(f"{message.subject}\n{message.text}")
        return 0
    rows = [_try(target, message, loaded) for target in notify_plans(loaded.spec.notify)]
    if as_json:
        print_json([{"to": to, "on": on.split(), "ok": not why, "why": why} for to, on, why in rows])
    else:
        print_table(["to", "on", "sent"], [[to, on, why or "yes"] for to, on, why in rows])
    return 1 if any(why for _, _, why in rows) else 0


def _test_message(job: LoadedJob) -> Message:
    import socket

    from orchestrator.notify.message import Facts, make_message

    facts = Facts(
        run_id=f"{job.spec.name}-test",
        name=job.spec.name,
        run_dir=str(job.path.absolute()),
        host=socket.gethostname(),
        shape=f"{job.spec.train.launcher} on {job.spec.cluster.backend}",
        state="TEST",
        reason=f"a test, sent {time.strftime('%Y-%m-%d %H:%M:%S')}; nothing was started",
    )
    return make_message("test", facts)


def _try(target: NotifyPlan, message: Message, job: LoadedJob) -> tuple[str, str, str]:
    from orchestrator.notify.deliver import deliver
    from orchestrator.notify.errors import DeliveryError

    try:
        deliver(target, message, os.environ, job.base_dir)
    except DeliveryError as error:
        return target.name, " ".join(target.on), str(error)
    return target.name, " ".join(target.on), ""
