"""Where a kept connection has its socket on this machine: a folder that only its user can enter."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import LoginError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LONGEST = 86  # bytes of the folder's path; a socket's path may have 107 (unix(7))
_IDENTITY = ("host", "identity", "jump", "config", "known_hosts", "options")


def runtime_dir() -> Path:
    """Return the folder of all kept connections of this user; made 0700, or refused.

    Raises:
        LoginError: somebody else owns it or can enter it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    path = Path(base) / "orchestrate"
    if not base or len(os.fsencode(path)) > _LONGEST or not Path(base).is_dir():
        path = Path(f"/tmp/orchestrate-login-{os.getuid()}")  # noqa: S108 - made 0700 by us, or not used
    _claim(path)
    return path


def _claim(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise LoginError(
            Problem(f"cannot make the folder of connections: {error.strerror}", str(path))
        ) from error
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077 or not stat.S_ISDIR(found.st_mode):
        fix = "remove it, or set XDG_RUNTIME_DIR to a folder of your own"
        raise LoginError(Problem("the folder of connections is open to others", str(path), fix=fix))


class Place:
    """The files of one kept connection.

    Attributes:
        spec: `cluster.login` as a dictionary that JSON can hold.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = dict(spec)
        identity = json.dumps([self.spec.get(name) for name in _IDENTITY], sort_keys=True)
        self.folder = runtime_dir() / hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.socket = self.folder / "socket"
        self.lock = self.folder / "lock"
        self.log = self.folder / "log"
        self._info = self.folder / "info.json"
        self._left = self.folder / "left"

    @property
    def host(self) -> str:
        """Return the login host as the user wrote it."""
        return str(self.spec["host"])

    def make(self) -> None:
        """Make the folder and write down whose it is."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._info.write_text(json.dumps(self.spec), encoding="utf-8")

    def leave_word(self, why: str) -> None:
        """Say for the next command why the connection has ended."""
        self._left.write_text(f"{why} at {time.strftime('%H:%M:%S')}", encoding="utf-8")

    def take_word(self) -> str:
        """Return why the last connection ended, once; "" when there is nothing to tell."""
        try:
            word = self._left.read_text(encoding="utf-8")
            self._left.unlink()
        except OSError:
            return ""
        return word


def places() -> Iterator[Place]:
    """Yield every connection that there is or has been since this machine started."""
    for path in sorted(runtime_dir().glob("*/info.json")):
        try:
            yield Place(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError):
            continue
