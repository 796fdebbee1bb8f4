"""What a job file names, seen from two machines: what is sent, and what it is called there.

A relative path is the user's own: it starts at the job file and what it names is sent. An absolute path (or
one with ~) that exists here is sent too; one that does not is a path of the cluster.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.login.push import Item, check_size, file_item, workdir_items

if TYPE_CHECKING:
    from orchestrator.job import LoadedJob

_FILES = (("cluster", "hostfile"), ("train", "env_file"), ("deepspeed", "config_file"))
_THEIRS = (  # relative ones start at cluster.login.folder
    ("run_root",),
    ("train", "checkpoint_dir"),
    ("train", "python"),
    *(("cluster", "ssh", name) for name in ("identity", "config", "known_hosts")),
)
_PRIVATE = ("env_file",)


@dataclass
class Parcel:
    """A job as it is sent.

    Attributes:
        items: the files.
        names: key path -> name in the job's folder there, for what was sent.
        theirs: key path -> path that starts at the folder on the cluster.
        patterns: for each of `monitor.patterns` its name in the job's folder there, or "" and a path there.
        complete: everything that the job names is here, so all of it can be checked here.
    """

    items: list[Item] = field(default_factory=list)
    names: dict[tuple[str, ...], str] = field(default_factory=dict)
    theirs: dict[tuple[str, ...], str] = field(default_factory=dict)
    patterns: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = True

    def settings(self, folder: str, job: str) -> dict[tuple[str, ...], str]:
        """Return key path -> value for every key that means something else there.

        Args:
            folder: `cluster.login.folder` there, absolute.
            job: the job's folder there, absolute.
        """
        sent = {path: f"{job}/{name}" for path, name in self.names.items()}
        return sent | {path: f"{folder}/{name}" for path, name in self.theirs.items()}

    def pattern_files(self, job: str) -> list[str]:
        """Return what `monitor.patterns` is there; `job` as above."""
        return [theirs or f"{job}/{name}" for name, theirs in self.patterns]


def parcel(job: LoadedJob) -> Parcel:
    """Collect what a job names.

    Raises:
        JobFileError: a relative path names nothing here.
        SubmitError: a file cannot be read, or all of it is more than the limit.
    """
    made = Parcel()
    made.items.append(file_item("job.yaml", job.path))
    problems = [problem for path in _FILES if (problem := _add_file(made, job, path))]
    problems += _add_patterns(made, job)
    problems += _add_templates(made, job)
    problems += _add_workdir(made, job)
    if problems:
        raise JobFileError(*map(job.located, problems))
    for path in _THEIRS:
        _anchor(made, job, path)
    login = job.spec.cluster.login
    assert login is not None  # noqa: S101 - the caller has one
    check_size(made.items, login.push_limit)
    return made


def _raw(job: LoadedJob, path: tuple[str, ...]) -> str | None:
    value: Any = job.source.data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else str(value)


def _is_theirs(raw: str) -> bool:
    """Tell whether a path is written so that it may be one of the cluster."""
    return raw.startswith(("/", "~"))


def _here(job: LoadedJob, raw: str) -> Path:
    return job.base_dir / Path(raw).expanduser()


def _absent(path: tuple[str, ...], raw: str, what: str = "file") -> Problem:
    fix = "correct it; relative paths start at the job file, absolute ones may be the cluster's"
    return Problem(f"there is no such {what} on this machine", ".".join(path), raw, fix)


def _add_file(made: Parcel, job: LoadedJob, path: tuple[str, ...]) -> Problem | None:
    raw = _raw(job, path)
    if raw is None:
        return None
    here = _here(job, raw)
    if not here.is_file():
        made.complete = False
        return None if _is_theirs(raw) else _absent(path, raw)
    name = f"files/{path[-1]}/{here.name}"
    made.items.append(file_item(name, here, private=path[-1] in _PRIVATE))
    made.names[path] = name
    return None


def _add_patterns(made: Parcel, job: LoadedJob) -> list[Problem]:
    problems = []
    given = (job.source.data.get("monitor") or {}).get("patterns") or []
    for number, raw in enumerate(map(str, given)):
        here = _here(job, raw)
        name = f"files/patterns/{number}/{here.name}"
        if here.is_file():
            made.items.append(file_item(name, here))
            made.patterns.append((name, ""))
            continue
        made.complete = False
        made.patterns.append(("", raw))
        if not _is_theirs(raw):
            problems.append(_absent(("monitor", "patterns", str(number)), raw))
    return problems


def _add_templates(made: Parcel, job: LoadedJob) -> list[Problem]:
    raw = _raw(job, ("templates",))
    if raw is None:
        return []
    here = _here(job, raw)
    if not here.is_dir():
        made.complete = False
        return [] if _is_theirs(raw) else [_absent(("templates",), raw, "folder")]
    made.items += workdir_items(here, [], here / ".git", "files/templates")
    made.names["templates",] = "files/templates"
    return []


def _add_workdir(made: Parcel, job: LoadedJob) -> list[Problem]:
    """Send the workdir, unless it is one of the cluster, and see that the script is in it."""
    raw = _raw(job, ("train", "workdir"))
    here = job.base_dir if raw is None else _here(job, raw)
    if raw is not None and not here.is_dir():
        made.complete = False
        return [] if _is_theirs(raw) else [_absent(("train", "workdir"), raw, "folder")]
    login = job.spec.cluster.login
    made.items += workdir_items(here, login.push if login else None, job.spec.run_root)
    made.names["train", "workdir"] = "workdir"
    return _add_script(made, job, here)


def _add_script(made: Parcel, job: LoadedJob, workdir: Path) -> list[Problem]:
    raw = _raw(job, ("train", "script"))
    if raw is None:
        return []
    here = workdir / Path(raw).expanduser()
    try:
        name = f"workdir/{PurePath(here).relative_to(workdir)}"
    except ValueError:
        name = f"files/script/{here.name}"
    if any(item.name == name for item in made.items):
        if _is_theirs(raw):
            made.names["train", "script"] = name
        return []
    if not here.is_file():
        made.complete = False
        return [] if _is_theirs(raw) else [_absent(("train", "script"), raw)]
    if name.startswith("workdir/"):
        fix = "git add it, or let a rule of cluster.login.push include it"
        return [Problem("is not among the files that are sent", "train.script", raw, fix)]
    made.items.append(file_item(name, here))
    made.names["train", "script"] = name
    return []


def _anchor(made: Parcel, job: LoadedJob, path: tuple[str, ...]) -> None:
    """Let a relative path of the cluster start at its folder there."""
    raw = _raw(job, path)
    if path == ("run_root",):
        raw = raw or "runs"
    if path[:2] == ("cluster", "ssh") and raw is not None:
        made.complete = False
    is_command = path == ("train", "python") and "/" not in (raw or "")
    if raw is not None and not _is_theirs(raw) and not is_command:
        made.theirs[path] = raw


def as_setting(path: tuple[str, ...], value: str | list[str] | None) -> str:
    """Return `a.b=value` as `--set` takes it."""
    return f"{'.'.join(path)}={json.dumps(value, ensure_ascii=False)}"
