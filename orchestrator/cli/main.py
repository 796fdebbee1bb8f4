"""The `orchestrate` command itself: its subcommands by name, and one place that shows errors."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any, NamedTuple

import click

from orchestrator import __version__
from orchestrator.errors import OrchestratorError


class _Entry(NamedTuple):
    module: str
    attribute: str
    help: str


_COMMANDS = {
    "init": _Entry("init", "init_command", "Write a job file by question and answer, or from a template."),
    "import": _Entry(
        "importing", "import_command", "Make a job file of Accelerate's files, command lines and scripts."
    ),
    "export": _Entry("importing", "export_command", "Write Accelerate's or DeepSpeed's files for a job."),
    "submit": _Entry("submit", "submit_command", "Start a job and return at once."),
    "resume": _Entry(
        "resume", "resume_command", "Go on where a run has ended, perhaps on more or fewer hosts."
    ),
    "render": _Entry("submit", "render_command", "Print exactly the files that submit would write."),
    "plan": _Entry(
        "plan", "plan_command", "Show hosts, memory, traffic, times and every mistake, before the queue."
    ),
    "hosts": _Entry("hosts", "hosts_command", "Show hosts, slots and ranks after filters."),
    "check": _Entry("check", "check_command", "Look on every host for what would make a job fail."),
    "list": _Entry("listing", "list_command", "List runs."),
    "status": _Entry("runs", "status_command", "Show what a run is doing, or how it ended and why."),
    "top": _Entry("top", "top_command", "Watch a run on one screen, live or afterwards."),
    "logs": _Entry("logs", "logs_command", "Show the logs of hosts and ranks."),
    "diagnose": _Entry("diagnose", "diagnose_command", "Say what failed first, why, and what to try."),
    "report": _Entry("report", "report_command", "Write one page that tells all of a run."),
    "compare": _Entry("report", "compare_command", "Lay runs over each other, and say what differed."),
    "metrics": _Entry("metrics", "metrics_command", "Show step, loss, speed and load; serve or export them."),
    "cancel": _Entry("runs", "cancel_command", "End a run on every host."),
    "notify": _Entry("notify", "notify_command", "Send a test message to everybody that a job file names."),
    "checkpoint": _Entry(
        "checkpoint", "checkpoint_group", "List, consolidate, reshape and prune checkpoints."
    ),
    "fetch": _Entry("login", "fetch_command", "Copy a run's files from the cluster it was sent to."),
    "login": _Entry("login", "login_command", "Open, show or end the connection to a login host."),
    "schema": _Entry("schema", "schema_command", "Print the JSON Schema of the job file."),
    "supervise": _Entry("runs", "supervise_command", "Drive a run from its directory, in the foreground."),
    "completion": _Entry("completion", "completion_command", "Print the shell's completion script."),
}


class _LazyGroup(click.Group):
    """A group that imports a subcommand's module only when that subcommand is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a run's life."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one subcommand."""
        del ctx
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"orchestrator.cli.{entry.module}")
        command: click.Command = getattr(module, entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a subcommand; suggest the nearest name for one that is not there."""
        name = click.utils.make_str(args[0])
        if name not in _COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; a reader that has enough (`| head`) is no failure, which click makes of it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Keep Python from complaining again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestrate")
def cli() -> None:
    """Train one model on many machines from one job file.

    Exit codes: 0 fine; 1 the run failed; 2 the job file or the command line is wrong; 3 the job could
    not be submitted.
    """


def main(words: list[str] | None = None, *, color: bool | None = None) -> None:
    """Run the command; show our own errors as text, and everything else as the bug it is.

    Args:
        words: the command line, if not that of this process.
        color: whether to print colours, if not for a terminal only.
    """
    try:
        code = cli(words, prog_name="orchestrate", standalone_mode=False, color=color)
        sys.exit(code if isinstance(code, int) else 0)
    except OrchestratorError as error:
        for problem in error.problems:
            click.echo(click.style("error: ", fg="red", bold=True) + str(problem), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # As above: what is still in the buffer has no place either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"{click.style('error: ', fg='red', bold=True)}cannot write: {error.strerror}", err=True)
        sys.exit(1)
