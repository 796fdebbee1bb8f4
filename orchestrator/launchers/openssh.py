"""The OpenSSH client, configured by the run's own ssh_config: how a bundle gets to a host."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.plan import PlannedHost
    from orchestrator.rundir import AttemptDir

_UNPACK = 'umask 077 && mkdir -p -- "$1" && tar -xf - -C "$1"'


def unpack_command(run_dir: str) -> str:
    """Return the shell command that unpacks a tar archive from its input into the run directory."""
    return shlex.join(["sh", "-c", _UNPACK, "push", run_dir])


async def push(attempt: AttemptDir, host: PlannedHost, archive: bytes) -> str:
    """Send an archive to a host; return "" or ssh's own words for what went wrong.

    The master connection that `open_masters` may have made is used where there is one.
    """
    process = await asyncio.create_subprocess_exec(
        *("ssh", "-F", "ssh_config", "-a", "-x", "-T", host.alias, unpack_command(str(attempt.path.parent))),
        cwd=attempt.rendered,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate(archive)
    words = " ".join(said.decode("utf-8", "replace").split())
    return "" if process.returncode == 0 else (words or f"ssh ended with {process.returncode}")
