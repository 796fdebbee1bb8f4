"""`orchestrate completion SHELL`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> int:
    """Print the completion script of a shell; for bash: eval "$(orchestrate completion bash)"."""
    from orchestrator.cli.main import cli

    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(maker(cli, {}, "orchestrate", "_ORCHESTRATE_COMPLETE").source())
    return 0
