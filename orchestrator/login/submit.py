"""`orchestrate submit` with `cluster.login`: check here, send, submit there, remember."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import click

from orchestrator.errors import JobFileError, LoginError, Problem
from orchestrator.forecast.examine import prepare_or_tell
from orchestrator.login import records
from orchestrator.login.client import Connection, LostError
from orchestrator.login.install import NotInstalledError, Program, call, install
from orchestrator.login.jobfile import Parcel, as_setting, parcel
from orchestrator.login.push import send_items
from orchestrator.login.words import Words
from orchestrator.notify.needs import needed_by
from orchestrator.prepare import new_run_id
from orchestrator.source import VARIABLE, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.job import LoadedJob
    from orchestrator.prepare import Prepared


def check(job: LoadedJob, environ: Mapping[str, str]) -> tuple[Parcel, Prepared | None]:
    """Check what can be checked here; return what is to be sent and, where all of it is here, the plan.

    Raises:
        JobFileError: something is wrong already.
        SubmitError: what is to be sent cannot be.
    """
    made = parcel(job)
    absent = [(name, where) for name, where in needed_variables(job).items() if name not in environ]
    if absent:
        what = "not set in the environment"
        problems = [Problem(what, where, name, f"export {name}=…") for name, where in absent]
        raise JobFileError(*map(job.located, problems))
    if not made.complete or job.source.data.get("matrix"):
        return made, None
    return made, prepare_or_tell(job, environ)


def needed_variables(job: LoadedJob) -> dict[str, str]:
    """Return the variables whose values go with the job, each with the key that names it."""
    return {**needed_by(job.spec), **dict.fromkeys(job.spec.train.secrets, "train.secrets")}


class Submission:
    """One submit, which may take more than one try; the run id is chosen before the first."""

    def __init__(self, job: LoadedJob, overrides: Sequence[str], made: Parcel) -> None:
        login = job.spec.cluster.login
        if login is None:
            raise ValueError("the job has no login host")
        self._job = job
        self._overrides = overrides
        self._parcel = made
        self._options: list[str] = []
        self._described = [item.described() for item in made.items]
        self._program = Program(job.spec.cluster.backend)
        self._connection = Connection(login.model_dump(mode="json"))
        self.record = self._begin()

    def _begin(self) -> records.RemoteRun:
        """Take up an earlier try to submit just this, or choose a run id; write it down before all else."""
        path = str(self._job.path.absolute())
        told = [path, self._connection.place.spec, self._overrides, self._described]
        digest = hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()
        earlier = records.unfinished(digest)
        record = earlier or records.RemoteRun(
            run_id=new_run_id(self._job.spec.name),
            login=self._connection.place.spec,
            program=self._program.name,
            job_file=path,
            digest=digest,
        )
        record.program = self._program.name
        return record

    def run(self, options: Sequence[str] = ()) -> dict[str, Any]:
        """Submit with these options; return what `submit --json` said there.

        A lost connection is made again, once.

        Raises:
            LoginError: the login host cannot be reached; the error says whether the run may have started.
            SubmitFailed: the login host has said why not; it has been shown.
        """
        self._options = list(options)
        self._connection.open()
        self.record.save()
        try:
            return self._try()
        except LostError as error:
            click.echo(f"{error.problems[0]}; trying again", err=True)
        try:
            return self._try()
        except LostError as error:
            run_id = self.record.run_id
            fix = (
                f"submit again, which finds run {run_id} if it was started, or `orchestrate status {run_id}`"
            )
            raise LoginError(Problem(error.problems[0].what, self._connection.host, fix=fix)) from error

    def _try(self) -> dict[str, Any]:
        try:
            places = self._push()
        except NotInstalledError:
            install(self._connection, self._program)
            places = self._push()
        return self._submit(places["folder"], places["job"])

    def _push(self) -> dict[str, Any]:
        folder = str(self._connection.place.spec["folder"])
        folder = folder if folder.startswith(("/", "~")) else f"~/{folder}"
        request = {"verb": "push", "folder": folder, "run_id": self.record.run_id, "files": self._described}
        with call(self._connection, self._program.name, request) as talk:
            return send_items(talk, self._parcel.items, self._described)

    def _submit(self, folder: str, job: str) -> dict[str, Any]:
        settings = self._parcel.settings(folder, job)
        self.record.planned_dir = f"{self._run_root(settings)}/{self.record.run_id}"
        self.record.save()
        request = {
            "verb": "submit",
            "job": job,
            "run_id": self.record.run_id,
            "run_dir": self.record.planned_dir,
            "words": self._words(settings, job),
            "environ": {name: os.environ[name] for name in needed_variables(self._job)} | self._source(),
        }
        words = Words(self._job, job, settings)
        said = bytearray()
        with call(self._connection, self._program.name, request) as talk:
            code = talk.relay(said.extend, words.show)
        words.finish()
        if code:
            self.record.forget()
            raise SubmitFailedError(code)
        return self._remember(json.loads(said))

    def _source(self) -> dict[str, str]:
        """Return the variable that tells of the code's commit: git's own folder is not sent."""
        found = source_of(self._job.spec.train.workdir_path(self._job.base_dir))
        return {VARIABLE: json.dumps(found)} if found else {}

    def _run_root(self, settings: dict[tuple[str, ...], str]) -> str:
        return settings.get(("run_root",)) or str(self._job.source.data["run_root"])

    def _words(self, settings: dict[tuple[str, ...], str], job: str) -> list[str]:
        changes = [*self._overrides, *(as_setting(*each) for each in settings.items())]
        if patterns := self._parcel.pattern_files(job):
            changes.append(as_setting(("monitor", "patterns"), patterns))
        changes.append(as_setting(("cluster", "login"), None))
        options = [word for change in changes for word in ("--set", change)]
        return [
            "submit",
            f"{job}/job.yaml",
            *options,
            "--run-id",
            self.record.run_id,
            "--json",
            *self._options,
        ]

    def _remember(self, said: dict[str, Any]) -> dict[str, Any]:
        self.record.run_dir = said.get("run_dir") or said["sweep_dir"]
        self.record.save()
        return said


class SubmitFailedError(Exception):
    """The login host refused the job, and what it said has been shown; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
