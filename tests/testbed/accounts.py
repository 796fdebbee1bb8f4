"""The ordinary user of a bed, and the account files that hosts see.

The user exists in the mount namespaces of the bed only, so that nothing has to be undone on the machine
and two beds never race for /etc/passwd.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.testbed.requirements import tool

if TYPE_CHECKING:
    from collections.abc import Sequence

ORDINARY = "orchtest"
REPOSITORY = Path(__file__).resolve().parents[2]
NOISE = "echo 'Welcome to the cluster: scratch is 93 % full'\necho 'module: command not found' >&2\n"


@dataclass(frozen=True, slots=True)
class User:
    """An account on the hosts of a bed, with a throw-away home that all hosts share."""

    name: str
    uid: int
    home: Path

    @property
    def variables(self) -> dict[str, str]:
        """Return what a login sets for this user."""
        return {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}


def make_users(directory: Path, *, ordinary: bool, chatty: bool) -> dict[str, User]:
    """Create the homes and the account files in the bed's directory; return the users by name."""
    users = {"root": User("root", 0, directory / "home/root")}
    if ordinary:
        users[ORDINARY] = User(ORDINARY, _free_uid(), directory / "home" / ORDINARY)
    for user in users.values():
        user.home.mkdir(parents=True)
        (user.home / ".bashrc").write_text(NOISE if chatty else "")
        for path in (user.home, user.home / ".bashrc"):
            os.chown(path, user.uid, user.uid)
    _write_accounts(directory, users)
    return users


def _free_uid() -> int:
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(54321, 64000) if uid not in taken)


def _write_accounts(directory: Path, users: dict[str, User]) -> None:
    others = [line for line in _lines("/etc/passwd") if line.partition(":")[0] not in users]
    ours = [f"{u.name}:*:{u.uid}:{u.uid}:testbed:{u.home}:/bin/bash" for u in users.values()]
    (directory / "passwd").write_text("\n".join([*ours, *others]) + "\n")
    # A "!" here would lock the account for ssh keys too; distributions ship root that way.
    (directory / "shadow").write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in users))
    (directory / "shadow").chmod(0o600)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(errors="replace").splitlines()


def account_mounts(directory: Path) -> list[list[str]]:
    """Return the mount commands that make the bed's accounts known in a mount namespace."""
    return [["mount", "--bind", str(directory / name), f"/etc/{name}"] for name in ("passwd", "shadow")]


def open_closed_folders(directory: Path) -> list[list[str]]:
    """Return mount commands that let ordinary users reach this python, this project and the bed.

    They often lie below a folder of mode 0700 (pyenv in /root). Such a folder is covered, in the mount
    namespace, by an empty one that holds just these.
    """
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), REPOSITORY, directory}
    closed = {path: top for path in needed if (top := _topmost_closed(path)) is not None}
    commands: list[list[str]] = []
    for number, top in enumerate(sorted(set(closed.values()))):
        # The tmpfs hides what it must hold, so the folder is first kept under another name.
        kept = Path(f"/run/testbed-{number}")
        commands += [["mkdir", "-p", str(kept)], ["mount", "--bind", str(top), str(kept)]]
        commands.append(["mount", "-t", "tmpfs", "-o", "mode=755", "cover", str(top)])
        for path in sorted(path for path, above in closed.items() if above == top):
            commands.append(["mkdir", "-p", str(path)])
            commands.append(["mount", "--bind", str(kept / path.relative_to(top)), str(path)])
    return commands


def _topmost_closed(path: Path) -> Path | None:
    for parent in reversed(path.parents):
        if not parent.stat().st_mode & 0o001:
            return parent
    return None


def submit_side(directory: Path, more: Sequence[Sequence[str]] = ()) -> list[str]:
    """Return the command prefix for a mount namespace of the submit side, where the bed's users exist.

    Args:
        directory: the bed's.
        more: further commands to run in it first, such as mounts.
    """
    commands = [["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], *account_mounts(directory)]
    commands += [*open_closed_folders(directory), *map(list, more)]
    script = "set -e; " + "; ".join(shlex.join(command) for command in commands) + '; exec "$@"'
    return [tool("unshare"), "--mount", "--uts", "sh", "-c", script, "sh"]


def as_user(user: User) -> list[str]:
    """Return the command prefix that drops root's rights and becomes the user."""
    if user.uid == 0:
        return []
    ids = ["--reuid", str(user.uid), "--regid", str(user.uid), "--clear-groups"]
    return [shutil.which("setpriv") or "setpriv", *ids, "--inh-caps=-all", "--"]
