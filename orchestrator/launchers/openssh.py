"""The OpenSSH client under the run's own ssh_config: master connections, the bundle, the way back.

A master connection (ControlMaster, ssh_config(5)) is opened only where it saves something: to a jump host,
so that a thousand hosts behind it do not storm its sshd (MaxStartups), and to a host that gets the bundle
pushed, so that pdsh then starts the agent over the same connection. Masters the user keeps are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.launchers.base import end_process
from orchestrator.launchers.ssh_plumbing import split_port
from orchestrator.rundir import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir

_IDLE_SECONDS = 60  # a master that nothing uses any more ends by itself, also when we were killed
_UNPACK = 'umask 077 && mkdir -p -- "$1" && tar -xf - -C "$1"'


def unpack_command(run_dir: str) -> str:
    """Return the shell command that unpacks a tar archive from its input into the run directory."""
    return shlex.join(["sh", "-c", _UNPACK, "push", run_dir])


class OpenSsh:
    """What a run does with ssh beside pdsh; everything it opened is closed again by close()."""

    def __init__(self, plan: LaunchPlan, attempt: AttemptDir) -> None:
        self._plan = plan
        self._attempt = attempt
        # A socket's path may be 107 bytes long (unix(7)), of which ssh needs 58: too few for run directories.
        self._sockets = Path(f"/tmp/orch-{plan.run_id}")  # noqa: S108 - made 0700, or not used

    async def prepare(self, port: int) -> None:
        """Write the forward of our control port into the configuration; open masters to jump hosts."""
        forward = f"Match all\n    RemoteForward 127.0.0.1:{port} 127.0.0.1:{port}\n"
        write_text(self._attempt.rendered / "ssh_forward", forward)
        jump = await self._jump_of(self._plan.hosts[0])
        if jump and self._claim():
            place, user_port = split_port(jump)
            await self._open_master([*(["-p", user_port] if user_port else []), place])

    async def _jump_of(self, host: PlannedHost) -> str:
        """Return the first jump host on the way to a host, "" for none; ssh itself is asked."""
        _, said = await self._ssh(["-G", host.alias])
        options = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
        jump = options.get("proxyjump", "none").strip('"')  # ssh -G keeps the configuration's quotes
        return "" if jump == "none" else jump.split(",")[0]

    async def _open_master(self, place: Sequence[str]) -> str:
        """Open a master connection that stays in the background; return "" or ssh's words."""
        options = ("ControlMaster=yes", f"ControlPersist={_IDLE_SECONDS}", "ClearAllForwardings=yes")
        code, said = await self._ssh([*(f"-o{option}" for option in options), "-f", "-N", *place])
        return "" if code == 0 else said

    async def _ssh(self, arguments: Sequence[str], data: bytes = b"") -> tuple[int, str]:
        """Run ssh with the run's configuration; return its exit code and all it said.

        Its output goes to a file: a master in the background would hold a pipe open for ever.
        """
        with tempfile.TemporaryFile() as output:
            process = await asyncio.create_subprocess_exec(
                *("ssh", "-F", "ssh_config", "-a", "-x", *arguments),
                cwd=self._attempt.rendered,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                await process.communicate(data)
            except asyncio.CancelledError:
                await end_process(process)
                raise
            output.seek(0)
            return process.returncode or 0, output.read().decode("utf-8", "replace").strip()

    async def push(self, host: PlannedHost, archive: bytes) -> str:
        """Send an archive to a host; return "" or ssh's own words for what went wrong."""
        if self._claim():
            failure = await self._open_master([host.alias])
            if failure:
                return failure
        unpack = unpack_command(self._plan.run_dir)
        code, said = await self._ssh(["-T", "-o", "ClearAllForwardings=yes", host.alias, unpack], archive)
        return "" if code == 0 else (" ".join(said.split()) or f"ssh ended with {code}")

    async def close(self) -> None:
        """Close the masters we opened."""
        (self._attempt.rendered / "ssh_forward").unlink(missing_ok=True)
        if not self._is_ours():
            return
        for path in self._sockets.iterdir():
            await self._ssh(["-S", str(path), "-O", "exit", "any"])
            path.unlink(missing_ok=True)
        self._sockets.rmdir()

    def _claim(self) -> bool:
        """Make the folder of the sockets; False when somebody else has it: no masters are opened then."""
        with contextlib.suppress(FileExistsError):
            self._sockets.mkdir(mode=0o700)
        return self._is_ours()

    def _is_ours(self) -> bool:
        return self._sockets.is_dir() and self._sockets.stat().st_uid == os.getuid()
