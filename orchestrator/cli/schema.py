"""`orchestrate schema`: the JSON Schema of a job file."""

from __future__ import annotations

import json

import click


@click.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a job file, so that editors can complete and check it.

    Write it to a file and name it in the first line of a job file:

    \b
        orchestrate schema > job.schema.json
        # yaml-language-server: $schema=job.schema.json
    """  # noqa: D301 - \b is click's own mark
    from orchestrator.job import job_schema

    click.echo(json.dumps(job_schema(), indent=2, ensure_ascii=False))
