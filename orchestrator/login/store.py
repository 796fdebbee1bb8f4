"""The login host's side of a push: contents by their hash, kept for the next time, and a folder per job."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.errors import OrchestratorError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_KEPT_SECONDS = 30 * 86400  # of contents that no job has used
_CHUNK = 1 << 20


def receive_files(request: Mapping[str, Any], source: BinaryIO, sink: BinaryIO) -> int:
    """Say what is missing, take it, and make the job's folder in one step.

    Args:
        request: `folder`, `run_id` and `files`: [name, kind, size, hash or target]; the kinds are `-` for a
            file, `x` for a program, `s` for a file that nobody else may read, `l` for a link.
        source: gives the contents of what is missing, one after the other in the order it was told.
        sink: is told, in lines of JSON.

    Returns:
        The exit code.
    """
    folder = Path(request["folder"]).expanduser().absolute()
    job = folder / "jobs" / request["run_id"]
    store = _Store(folder / "files")
    for path in (folder / "jobs", store.path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    sizes = {} if job.exists() else {f[3]: f[2] for f in request["files"] if f[1] != "l"}
    missing = [digest for digest in sizes if not store.has(digest)]
    _say(sink, folder=str(folder), job=str(job), missing=missing)
    for digest in missing:
        store.take(digest, sizes[digest], source)
    if not job.exists():
        _make(job, request["files"], store)
    _say(sink, ok=True)
    store.prune()
    return 0


def _say(sink: BinaryIO, **values: Any) -> None:
    sink.write(json.dumps(values).encode() + b"\n")
    sink.flush()


class _Store:
    """Files named by the SHA-256 of their contents."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, digest: str) -> Path:
        """Return where the contents are."""
        return self.path / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Tell whether the contents are there; they then stay for another while."""
        try:
            os.utime(self.of(digest))
        except OSError:
            return False
        return True

    def take(self, digest: str, size: int, source: BinaryIO) -> None:
        """Read contents and keep them, if they are what they were said to be."""
        self.of(digest).parent.mkdir(mode=0o700, exist_ok=True)
        found = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.path, delete=False) as file:
            try:
                for data in _pieces(source, size):
                    found.update(data)
                    file.write(data)
                file.flush()
                _compare(found.hexdigest(), digest)
                Path(file.name).replace(self.of(digest))
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def prune(self) -> None:
        """Remove what no job has used for long."""
        limit = time.time() - _KEPT_SECONDS
        for path in self.path.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_mtime < limit:
                    path.unlink()


def _pieces(source: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        data = source.read(min(size, _CHUNK))
        if not data:
            raise OrchestratorError(Problem("the connection ended in the middle of a file"))
        yield data
        size -= len(data)


def _compare(found: str, told: str) -> None:
    if found != told:
        raise OrchestratorError(Problem("a file changed while it was sent", fix="submit again"))


def _make(job: Path, files: list[list[Any]], store: _Store) -> None:
    """Make a job's folder beside its place and move it there."""
    draft = Path(tempfile.mkdtemp(prefix=f".{job.name}.", dir=job.parent))
    try:
        for name, kind, _, value in files:
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "l":
                path.symlink_to(value)
                continue
            shutil.copyfile(store.of(value), path)
            path.chmod({"x": 0o755, "s": 0o600}.get(kind, 0o644))
        draft.rename(job)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not job.exists():  # else a second try of the same submit was quicker
            raise
