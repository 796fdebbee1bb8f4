"""What is sent to the login host: the workdir's files, and the files that the job file names."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.errors import OrchestratorError, Problem, SubmitError
from orchestrator.snapshot import workdir_files
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.login.talk import Talk

_CHUNK = 1 << 20
_MIB = 1 << 20
_SHOWN = 3  # of the biggest entries


@dataclass(frozen=True)
class Item:
    """One file to send.

    Attributes:
        name: its path in the job's folder there.
        source: where it is here.
        kind: `-` a file, `x` a program, `s` a file that nobody else may read, `l` a link.
        size: bytes; 0 for a link.
    """

    name: str
    source: Path
    kind: str
    size: int

    def described(self) -> list[Any]:
        """Return the item as the far side wants it: with its hash, or the target of a link."""
        value = str(self.source.readlink()) if self.kind == "l" else _digest(self.source)
        return [self.name, self.kind, self.size, value]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_item(name: str, path: Path, *, private: bool = False) -> Item:
    """Return one file as an item."""
    found = path.stat()
    kind = "s" if private else "x" if found.st_mode & stat.S_IXUSR else "-"
    return Item(name, path, kind, found.st_size)


def workdir_items(
    workdir: Path, rules: Sequence[str] | None, leave_out: Path, prefix: str = "workdir"
) -> list[Item]:
    """Return the files of a workdir: git's, or those that the rules let through.

    Raises:
        SubmitError: a file cannot be read.
    """
    names = workdir_files(workdir, leave_out) if rules is None else _filtered(workdir, rules, leave_out)
    try:
        found = [_item(workdir, name, prefix) for name in names]
    except OSError as error:
        raise SubmitError(
            Problem(f"cannot be sent: {error.strerror}", "train.workdir", error.filename)
        ) from error
    return [item for item in found if item is not None]


def _item(workdir: Path, name: str, prefix: str) -> Item | None:
    path = workdir / name
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        inside = path.resolve().is_relative_to(workdir.resolve())
        if inside or not path.is_file():  # what a link to another place means there is not ours to say
            return Item(f"{prefix}/{name}", path, "l", 0)
        return file_item(f"{prefix}/{name}", path)
    return file_item(f"{prefix}/{name}", path) if stat.S_ISREG(found.st_mode) else None


def _filtered(workdir: Path, rules: Sequence[str], leave_out: Path) -> Iterator[str]:
    """Yield the files that rsync's filter rules let through; a folder left out is not entered."""
    compiled = [_Rule(rule) for rule in rules]

    def sent(name: str, *, folder: bool) -> bool:
        return next((rule.include for rule in compiled if rule.matches(name, folder=folder)), True)

    def walk(folder: Path) -> Iterator[str]:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path)
            name = str(path.relative_to(workdir))
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git" and path != leave_out and sent(name, folder=True):
                    yield from walk(path)
            elif sent(name, folder=False):
                yield name

    return walk(workdir)


class _Rule:
    """One rule `+ PATTERN` or `- PATTERN`, as rsync(1) explains them."""

    def __init__(self, text: str) -> None:
        sign, _, pattern = text.partition(" ")
        self.include = sign == "+"
        self._folders_only = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        self._whole = "/" in pattern or "**" in pattern  # else only the last part of a path is looked at
        body = "".join(_regex(pattern.removeprefix("/")))
        self._regex = re.compile(("" if pattern.startswith("/") else r"(?:.*/)?") + body, re.DOTALL)

    def matches(self, name: str, *, folder: bool) -> bool:
        """Tell whether the rule speaks of a path relative to the workdir."""
        if self._folders_only and not folder:
            return False
        return self._regex.fullmatch(name if self._whole else name.rpartition("/")[2]) is not None


_TOKEN = re.compile(r"(/\*\*\*\Z)|(\*\*+)|(\*)|(\?)|(\[!?\]?[^]]*\])|(.)", re.DOTALL)


def _regex(pattern: str) -> Iterator[str]:
    for match in _TOKEN.finditer(pattern):
        kinds = ("(?:/.*)?", ".*", "[^/]*", "[^/]", None, None)
        told = kinds[(match.lastindex or 1) - 1]
        if match[5]:
            told = match[5].replace("[!", "[^", 1)
        yield told if told is not None else re.escape(match[0])


def check_size(items: Iterable[Item], limit: int) -> None:
    """Refuse to send more than `limit` MiB.

    Raises:
        SubmitError: it is more; with the biggest entries by name.
    """
    sizes: Counter[str] = Counter()
    for item in items:
        sizes["/".join(item.name.split("/")[1:3])] += item.size
    total = sum(sizes.values())
    if total <= limit * _MIB:
        return
    biggest = ", ".join(f"{name} ({size / _MIB:.0f} MiB)" for name, size in sizes.most_common(_SHOWN))
    raise SubmitError(
        Problem(
            f"{total / _MIB:.0f} MiB would be sent, the limit is {limit} MiB; the biggest: {biggest}",
            "cluster.login.push",
            fix="leave them out ('- data/'), or raise cluster.login.push_limit",
        )
    )


def send_items(talk: Talk, items: Sequence[Item], described: Sequence[list[Any]]) -> dict[str, Any]:
    """Send what the far side lacks; return its first answer: `folder`, `job`, `missing`.

    Raises:
        OrchestratorError: it could not take it.
    """
    answer: dict[str, Any] = talk.line()
    sources = {told[3]: item for item, told in zip(items, described, strict=True)}
    size = sum(sources[digest].size for digest in answer["missing"])
    if size > 8 * _MIB:
        click.echo(f"sending {counted(len(answer['missing']), 'file')}, {size / _MIB:.0f} MiB", err=True)
    for digest in answer["missing"]:
        _send_file(talk, sources[digest])
    if not talk.line()["ok"]:
        raise talk.failure()
    return answer


def _send_file(talk: Talk, item: Item) -> None:
    """Send exactly as many bytes as were told; that others have come meanwhile shows in the hash."""
    left = item.size
    with item.source.open("rb") as file:
        while left and (data := file.read(min(left, _CHUNK))):
            talk.send(data)
            left -= len(data)
    if left:
        raise OrchestratorError(
            Problem("became shorter while it was sent", str(item.source), fix="submit again")
        )
