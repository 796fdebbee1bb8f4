"""What the testbed needs of the machine, and the name of what is missing."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

SYSTEM_PATH = os.pathsep.join(
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"],
)
TOOLS = ("ip", "tc", "mount", "nsenter", "unshare", "setpriv", "ssh", "sshd", "ssh-keygen")
SLURM_TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel")
ACCOUNTING_TOOLS = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db")


class TestbedError(RuntimeError):
    """A command that builds or changes the bed failed; the text holds the command and what it said."""

    __test__ = False  # the name makes pytest look for tests in it


def tool(name: str) -> str:
    """Return the path of a system tool, also where PATH lacks the sbin folders (sshd wants a full path)."""
    found = shutil.which(name, path=SYSTEM_PATH) or shutil.which(name)
    if found is None:
        raise TestbedError(f"the testbed needs `{name}`, which is not installed")
    return found


def call(argv: list[str], text: str | None = None) -> str:
    """Run a system command with `text` on its stdin and return its stdout; TestbedError when it fails."""
    done = subprocess.run([tool(argv[0]), *argv[1:]], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        given = f"\n--- input\n{text}" if text else ""
        raise TestbedError(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr.strip()}{given}")
    return done.stdout


@functools.cache
def missing() -> str | None:
    """Return why no testbed can run here, or None when one can."""
    if not sys.platform.startswith("linux"):
        return "the testbed is made of Linux namespaces"
    if os.geteuid() != 0:
        return "the testbed needs root (network namespaces and mounts)"
    if absent := _absent(TOOLS):
        return f"the testbed needs {', '.join(absent)} (Debian: iproute2 util-linux openssh-server)"
    try:
        call(["unshare", "--net", "--mount", "--uts", "true"])
    except TestbedError as error:
        return f"no namespaces here: {error}"
    return None


def _absent(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not (shutil.which(name, path=SYSTEM_PATH) or shutil.which(name))]


@functools.cache
def missing_slurm(*, accounting: bool = False) -> str | None:
    """Return why no Slurm cluster can run on a testbed here, or None when one can."""
    if absent := _absent(SLURM_TOOLS + (ACCOUNTING_TOOLS if accounting else ())):
        return (
            f"Slurm needs {', '.join(absent)} (Debian: slurm-wlm munge; accounting: slurmdbd mariadb-server)"
        )
    if not Path("/etc/slurm").is_dir():
        return "Slurm here does not look for its configuration in /etc/slurm"
    if not Path("/sys/fs/cgroup").is_mount():
        return "slurmd needs a file system mounted on /sys/fs/cgroup"
    return None
