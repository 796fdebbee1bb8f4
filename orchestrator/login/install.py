"""Put this very version of the program on the login host: once, in a place named by its contents."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import platform
import re
import shlex
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import orchestrator
from orchestrator.errors import LoginError, Problem
from orchestrator.login.talk import Talk, new_mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.login.client import Connection

_NEEDED = ("click", "jinja2", "pydantic", "pyyaml", "rich")
_FOR_BACKEND = {"slurm": ("submitit",), "ssh": ("paramiko",), "top": ("submitit", "textual")}
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_NO_PYTHON, _NOT_THERE = 95, 96  # exit codes of our shell lines
_FIND = """
for p in {candidates}; do
  if "$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$p" -c 'import base64, sys; exec(base64.b64decode(sys.argv.pop(1)))' "$@"
  fi
done
exit 95
"""
_CANDIDATES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")


class Program:
    """This version of the program with what a backend (or the screen, `top`) needs, as it can be sent.

    Attributes:
        pins: `name==version` of every package it needs.
        name: of its folder there: version and a hash of all its files and pins.
    """

    def __init__(self, backend: str) -> None:
        self._packages = list(_closure([*_NEEDED, *_FOR_BACKEND.get(backend, ())]))
        self.pins = [f"{each.name}=={each.version}" for each in self._packages]
        self._own = dict(sorted(_own_files()))
        digest = hashlib.sha256("\n".join(sorted(self.pins)).encode())
        for name, path in self._own.items():
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
        self.name = f"{orchestrator.__version__}-{digest.hexdigest()[:16]}"

    def archive(self, *, packages: bool) -> bytes:
        """Return a compressed tar of the program and, if asked for, of its packages as they are here."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
            for name, path in {**self._own, **(self._package_files() if packages else {})}.items():
                archive.add(path.resolve(), name, recursive=False, filter=_anonymous)
        return buffer.getvalue()

    def _package_files(self) -> dict[str, Path]:
        return {
            str(file): Path(str(file.locate()))
            for package in self._packages
            for file in package.files or ()
            if not str(file).startswith("..") and file.suffix != ".pyc" and Path(str(file.locate())).is_file()
        }

    def fits(self, there: dict[str, Any]) -> bool:
        """Tell whether our packages can run there as they are: same Python, same kind of machine."""
        return (
            there["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
            and there["implementation"] == sys.implementation.name
            and there["platform"] == sysconfig.get_platform()
            and there["machine"] == platform.machine()
            and all(package.files for package in self._packages)
        )


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out whose the file is here: root there would give it to that user."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def _closure(names: list[str]) -> Iterator[importlib.metadata.Distribution]:
    """Yield the installed packages of these names and all that they need here."""
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name.lower().replace("_", "-") in seen:
            continue
        seen.add(name.lower().replace("_", "-"))
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python; what is missing in earnest shows when it is tried
        yield package
        wanted = (line for line in package.requires or () if "extra ==" not in line)
        names += [match[0] for line in wanted if (match := _NAME.match(line))]


def _own_files() -> Iterator[tuple[str, Path]]:
    """Yield name and place of every file of this package, as a wheel has them."""
    root = Path(orchestrator.__file__).parent
    templates = root / "job_templates"
    if not templates.is_dir():  # a checkout has them beside the package
        for path in (root.parent / "job_templates").iterdir():
            yield f"orchestrator/job_templates/{path.name}", path
    for path in root.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"orchestrator/{path.relative_to(root)}", path


def shell_command(script: str, setup: list[str], *words: str) -> str:
    """Return a command line that any login shell passes on to bash unharmed: setup lines, then the script."""
    text = "\n".join([*setup, script])
    packed = base64.b64encode(text.encode()).decode()
    return shlex.join(["bash", "-c", 'eval "$(printf %s "$0" | base64 -d)"', packed, *words])


def call(connection: Connection, name: str, request: dict[str, Any]) -> Talk:
    """Start the far program with a request; LoginError when it is not installed there.

    Raises:
        NotInstalledError: there is no such version there.
    """
    mark = new_mark()
    script = (
        f'p="$HOME/.local/share/orchestrate/"{shlex.quote(name)}/bin/python\n'
        f'if [ -x "$p" ]; then exec "$p" -I -m orchestrator.login.far "$@"; fi\nexit {_NOT_THERE}'
    )
    talk = Talk(connection, shell_command(script, connection.place.spec["setup"], mark), mark)
    talk.send_json(request)
    if not talk.begin():
        if talk.code == _NOT_THERE:
            raise NotInstalledError(Problem("the program is not there", connection.host, name))
        raise talk.failure()
    return talk


class NotInstalledError(LoginError):
    """The login host lacks this version of the program."""


def install(connection: Connection, program: Program) -> None:
    """Install the program on the login host; nothing is sent when it is there.

    Raises:
        LoginError: no Python 3.11 there, or the packages cannot be had.
    """
    why = _install(connection, program, by_pip=False)
    if why:
        click.echo(f"packages of this machine do not run on {connection.host}; trying pip there", err=True)
        why = _install(connection, program, by_pip=True)
    if why:
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        fix = f"let pip reach an index there, or name a Python {here} as cluster.login.python"
        raise LoginError(Problem(f"cannot be installed there: {why[-2000:]}", connection.host, fix=fix))


def _install(connection: Connection, program: Program, *, by_pip: bool) -> str:
    """Install one way or the other; return "" or why it did not work."""
    with _start_bootstrap(connection, program.name) as talk:
        if not talk.begin():
            raise _no_python(talk, connection)
        there = talk.line()
        if there["there"]:
            return ""
        by_pip = by_pip or not program.fits(there)
        click.echo(f"installing orchestrate {program.name} on {connection.host}", err=True)
        archive = program.archive(packages=not by_pip)
        talk.send_json({"size": len(archive), "pins": program.pins if by_pip else []})
        talk.send(archive)
        said = talk.line()
        return "" if said["ok"] else str(said["why"])


def _start_bootstrap(connection: Connection, name: str) -> Talk:
    spec = connection.place.spec
    source = (Path(__file__).parent / "bootstrap.py").read_bytes()
    candidates = [spec["python"]] if spec["python"] else _CANDIDATES
    script = _FIND.format(candidates=" ".join(map(_word_of_shell, candidates)))
    mark = new_mark()
    words = (base64.b64encode(source).decode(), mark, name)
    return Talk(connection, shell_command(script, spec["setup"], *words), mark)


def _word_of_shell(word: str) -> str:
    """Quote a word, but let the shell there expand a `~/` at its beginning."""
    return '"$HOME"/' + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word)


def _no_python(talk: Talk, connection: Connection) -> LoginError:
    python = connection.place.spec["python"]
    if talk.code != _NO_PYTHON:
        return LoginError(Problem(talk.said() or f"its shell ended with {talk.code}", connection.host))
    what = "is no Python 3.11 or newer there" if python else "no Python 3.11 or newer on its PATH"
    fix = "name one as cluster.login.python, or load a module in cluster.login.setup"
    return LoginError(Problem(what, f"{connection.host}: cluster.login.python", python, fix))
