"""The parts of a run's logs that are worth a look: short, whatever is in the files."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from orchestrator.rundir import AttemptDir, RunDir

_BYTES = 64 << 10  # read of a file's end
_LINES, _WIDTH = 40, 400  # lines of an excerpt, characters of a line
_STACKS = 2  # of ranks that hung: the others mostly stand where these do
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SECRET = re.compile(
    r"(\b[A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\s*[:=]\s*"
    r"|--?(?:api|auth|hf|access)?[-_]?(?:key|token|secret|password)[= ]\s*)(?!\$)"
    r"(?:\"[^\"]*\"|'[^']*'|\S+?(?=[,}\]]*(?:\s|$)))"
)
_HOOK = re.compile(
    r"(\bwebhook['\"]?\s*:\s*['\"]?https?://[^/\s'\"]+/"
    r"|https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/)(?!\$)[^\s'\"]+?(?=[,}\]]*(?:['\"\s]|$))"
)
_LOGIN = re.compile(r"(\b\w+://)[^/\s:@'\"]*:[^/\s@'\"]+@")
_KNOWN_SECRET = re.compile(r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})")


def excerpts(
    run: RunDir, verdict: dict[str, Any], events: Iterable[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return `title`, `file` (below the run's directory) and `lines` of the ends of the logs that tell most.

    These are the last words of the rank, or the host, that failed first, and of candidates; the
    stacks of ranks that hung; then rank 0's.
    """
    attempts = run.attempts()
    if not attempts:
        return []
    logs, found = attempts[-1].logs, []
    for title, name in dict.fromkeys([*_failing(verdict), *_first_rank(run, attempts[-1])]):
        found.append(_excerpt(run, title, logs / name, tail(logs / name)))
    stacks = [_excerpt(run, title, path, head(path)) for title, path in _stacks(attempts[-1], events)]
    return [one for one in (*found[:1], *stacks, *found[1:]) if one["lines"]]


def _excerpt(run: RunDir, title: str, path: Path, lines: list[str]) -> dict[str, Any]:
    return {"title": title, "file": str(path.relative_to(run.path)), "lines": lines}


def _stacks(attempt: AttemptDir, events: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Path]]:
    """Yield the first stacks that were taken of the ranks that an attempt's last hang was about."""
    hangs = [event for event in events if event.get("event") == "hang"]
    for rank in (hangs[-1].get("ranks") or [])[:_STACKS] if hangs else ():
        for path in sorted(attempt.dumps.glob(f"*.rank{rank}.txt"))[:1]:
            yield f"where rank {rank} stood while it hung", path


def _failing(verdict: dict[str, Any]) -> Iterator[tuple[str, str]]:
    first = verdict.get("first_failure")
    for cause in [first] if first else (verdict.get("candidates") or [])[:3]:
        rank, host = cause.get("rank"), str(cause.get("host"))
        who = f"the log of {host}" if rank is None else f"rank {rank} on {host}"
        yield f"{who}, which failed first" if first else f"{who}, which may have failed first", cause["log"]


def _first_rank(run: RunDir, attempt: AttemptDir) -> Iterator[tuple[str, str]]:
    host = run.plan(attempt).hosts[0]
    for end, what in (("out", "printed"), ("err", "wrote to stderr")):
        yield f"what rank 0 {what} last", f"{host.file_name}.rank0.{end}"


def tail(path: Path, lines: int = _LINES) -> list[str]:
    """Return the last lines of a file as text that can be shown: of a progress bar, its last state."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _BYTES, 0))
            data = file.read(_BYTES)
    except OSError:
        return []
    rows = data.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    rows = rows[1:] if size > _BYTES and len(rows) > 1 else rows
    shown = [clean(row) for row in rows]
    while shown and not shown[-1]:
        shown.pop()
    return shown[-lines:]


def head(path: Path, lines: int = _LINES) -> list[str]:
    """Return the first lines of a file as text that can be shown."""
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES)
    except OSError:
        return []
    return [clean(row) for row in data.decode("utf-8", "replace").splitlines()[:lines]]


def clean(line: str) -> str:
    """Return a line without colours, control characters and what a carriage return has overwritten."""
    last = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    text = _CONTROL.sub("", _ANSI.sub("", last)).expandtabs(4).rstrip()
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} … ({len(text):,} characters)"


def without_secrets(text: str) -> str:
    """Return a text with what looks like the value of a secret left out: a report is made to be passed on.

    Of a web hook all but the host is one.
    """
    for pattern in (_SECRET, _HOOK):
        text = pattern.sub(r"\1<hidden>", text)
    return _KNOWN_SECRET.sub("<hidden>", _LOGIN.sub(r"\1<hidden>@", text))


def job_text(run: RunDir) -> str:
    """Return the job file without values of secrets; "" where it is gone."""
    try:
        return without_secrets(run.job_file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def software(run: RunDir) -> dict[str, dict[str, list[str]]]:
    """Return the hosts by version by package: as the hosts told, else as it was at submit."""
    found: dict[str, dict[str, list[str]]] = {}
    for attempt in reversed(run.attempts()):
        for host, told in (read_json(attempt.hosts_file) or {}).items():
            for package, version in (told.get("versions") or {}).items():
                found.setdefault(package, {}).setdefault(str(version), []).append(host)
        if found:
            return found
    record = run.record()
    return {
        name: {str(version): [str(record.get("submit_host", ""))]}
        for name, version in (record.get("versions") or {}).items()
    }
