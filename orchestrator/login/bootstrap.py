"""Makes the program's own environment on a login host. Sent as text to a Python there: standard library only.

It says what Python it is, is told what will come, unpacks it beside the final place, tries it, and moves it
there in one step: two that do it at once do not meet, and half of it is never seen.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from pathlib import Path
from typing import Any

_TRY = "import orchestrator.cli.main, orchestrator.job.load, orchestrator.render, rich.console"


def main(mark: str, name: str) -> int:
    """Install under `name`, unless it is there; answer in lines of JSON."""
    os.umask(0o077)
    print(f"\x1e{mark}", flush=True)
    base = Path.home() / ".local/share/orchestrate"
    there = (base / name / "bin/python").exists()
    _say(
        there=there,
        python=f"{sys.version_info[0]}.{sys.version_info[1]}",
        implementation=sys.implementation.name,
        platform=sysconfig.get_platform(),
        machine=platform.machine(),
        executable=sys.executable,
    )
    if there:
        return 0
    base.mkdir(parents=True, exist_ok=True)
    order = json.loads(sys.stdin.buffer.readline())
    work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=base))
    try:
        why = _build(work / "env", order)
        if not why:
            _move(work / "env", base / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _say(ok=not why, why=why)
    return 0


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _build(env: Path, order: dict[str, Any]) -> str:
    """Make the environment; return "" or why it cannot be made."""
    archive = _receive(env.with_name("archive.tar"), order["size"])
    try:
        venv.create(env, with_pip=bool(order["pins"]), symlinks=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{sys.executable} cannot make a virtual environment (Debian: python3-venv): {error}"
    site = next(env.glob("lib/python*/site-packages"))
    with tarfile.open(archive) as packed:
        packed.extractall(site)  # noqa: S202 - our own program, which will run there
    if order["pins"]:
        pip = [str(env / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        done = subprocess.run([*pip, *order["pins"]], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"pip: {done.stderr.strip()}"
    done = subprocess.run([env / "bin/python", "-I", "-c", _TRY], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def _receive(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        while size:
            data = sys.stdin.buffer.read(min(size, 1 << 20))
            if not data:
                raise SystemExit("the connection ended in the middle")
            file.write(data)
            size -= len(data)
    return path


def _move(env: Path, target: Path) -> None:
    """Put the environment in its place, unless another one was quicker.

    Where the program was removed while it ran there may be remains: Python makes folders again for what it
    has compiled.
    """
    try:
        env.rename(target)
    except OSError:
        if not (target / "bin/python").exists():
            with contextlib.suppress(FileNotFoundError):  # another one that found them has moved them
                target.rename(env.with_name("remains"))
            with contextlib.suppress(OSError):
                env.rename(target)
        if not (target / "bin/python").exists():
            raise


sys.exit(main(sys.argv[1], sys.argv[2]))
