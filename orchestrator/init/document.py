"""The job file that answers make: its text, and what is wrong with it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, OrchestratorError, Problem
from orchestrator.init.flow import complete, job_data
from orchestrator.init.questions import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Answers, Question
    from orchestrator.job import LoadedJob

_COUNTS = ("cluster.nodes", "cluster.slots")  # more than the hostfile has will not come right later
_HEAD = """Written by `orchestrate init`; change it as you like.

    orchestrate plan {name}      hosts, ranks, memory and traffic
    orchestrate check {name}     whether the hosts are ready
    orchestrate submit {name}    start it

`orchestrate schema` describes every key there is."""


@dataclass(frozen=True)
class Settings:
    """What --set says: answers to questions, and other keys with their values as typed."""

    answers: Mapping[str, Any]
    others: Mapping[str, str]


@dataclass(frozen=True)
class Review:
    """What is wrong with a job file.

    Attributes:
        wrong: what no job file may say.
        later: what stands against starting it: contradictions with the hosts, files that are not there.
        warnings: what the user should know.
    """

    wrong: tuple[Problem, ...] = ()
    later: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def read_settings(settings: Iterable[str]) -> Settings:
    """Read `a.b=value`; the value is YAML.

    Raises:
        JobFileError: one is of another form, or its value is not YAML.
    """
    questions = {question.key: question for question in QUESTIONS}
    answers: dict[str, Any] = {}
    others: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals or "" in key.split("."):
            where, fix = f"--set {setting}", "name a key path and a value"
            raise JobFileError(Problem("not of the form a.b=value", where, fix=fix))
        if key in questions:
            answers[key] = _answer(questions[key], value, f"--set {setting}")
        else:
            others[key] = value
    return Settings(answers, others)


def _answer(question: Question, value: str, where: str) -> Any:
    from orchestrator.job.yaml_source import compose, read_node  # noqa: PLC0415 - only with --set

    node = compose(value, where)
    if node is None:
        return None
    source = read_node(node, where)
    if question.kind in ("words", "names") and isinstance(source.data, list):
        return [source.texts.get((number,), item) for number, item in enumerate(source.data)]
    return source.texts.get((), source.data) if question.kind == "text" else source.data


def text_of(answers: Answers, others: Mapping[str, str], machine: Machine, name: str) -> str:
    """Return the text of the job file.

    Args:
        answers: all of them.
        others: further keys and their values, as YAML.
        machine: what the choices depended on.
        name: of the file, for the commands that its head names.

    Raises:
        JobFileError: one of `others` cannot be set.
    """
    from orchestrator.job.compose import compose  # noqa: PLC0415 - models and YAML, which --help needs not

    comments = {"": _HEAD.format(name=name), **_meanings(answers, machine)}
    return with_settings(compose(job_data(answers), comments, explain=True), name, others)


def _meanings(answers: Answers, machine: Machine) -> dict[str, str]:
    """Return what the choices of DeepSpeed's settings mean: `zero_stage: 2` says more than "ZeRO stage"."""
    return {
        question.key: choice.explanation
        for question in QUESTIONS
        if question.kind == "choice" and question.key.startswith("deepspeed.") and question.key in answers
        for choice in question.choices(answers, machine)
        if choice.value == answers[question.key] and choice.explanation
    }


def with_settings(text: str, name: str, values: Mapping[str, str]) -> str:
    """Return a job file's text with values set, its comments as they are.

    Raises:
        JobFileError: one of them cannot be set.
    """
    if not values:
        return text
    from orchestrator.job.yaml_text import set_values  # noqa: PLC0415 - only with --set

    return set_values(text, name, values)


def review(text: str, folder: Path, name: str, environ: Mapping[str, str]) -> Review:
    """Return what is wrong with a job file that is not written yet.

    Args:
        text: its text.
        folder: where it will stand.
        name: what to call it.
        environ: the environment, for the secrets that it passes on.
    """
    from orchestrator.job import load_job  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory(prefix="orchestrate-init-") as place:
        path = Path(place) / Path(name).name
        path.write_text(text, encoding="utf-8")
        try:
            job = load_job(path, base_dir=folder.absolute())
        except JobFileError as error:
            return Review(wrong=_named(error.problems, str(path), name))
    later, warnings = _prepared(job, environ)
    return Review(later=_named(later, str(path), name), warnings=warnings)


def _prepared(job: LoadedJob, environ: Mapping[str, str]) -> tuple[Sequence[Problem], tuple[str, ...]]:
    from orchestrator.prepare import prepare  # noqa: PLC0415 - as above

    try:
        return (), prepare(job, environ).warnings
    except OrchestratorError as error:
        return error.problems, ()


def _named(problems: Iterable[Problem], path: str, name: str) -> tuple[Problem, ...]:
    """Return problems that call the file by the name it will have."""
    return tuple(replace(each, where=each.where.replace(path, name)) for each in problems)


def check_answer(
    question: Question, answer: Any, answers: Answers, settings: Settings, machine: Machine
) -> Review:
    """Return what is wrong with one answer, the questions that are still to come answered by their defaults.

    Only problems of the keys that the answer sets are returned: others are another question's.
    """
    full = complete({**answers, question.key: answer}, machine)
    try:
        text = text_of(full, settings.others, machine, "job.yaml")
    except JobFileError as error:
        return Review(wrong=error.problems)
    found = review(text, machine.folder, "job.yaml", machine.environ)
    keys = [question.key, *question.entries(answer)]
    wrong, later = _about(found.wrong, keys), _about(found.later, keys)
    if question.key in _COUNTS:
        wrong, later = wrong + later, []
    return Review(
        wrong=tuple(wrong),
        later=tuple(later),
        warnings=tuple(text for text in found.warnings if any(text.startswith(f"{key}:") for key in keys)),
    )


def _about(problems: Iterable[Problem], keys: Sequence[str]) -> list[Problem]:
    """Return the problems of these keys, without the lines of a file that is not written yet."""
    return [replace(each, where="") for each in problems if _key_of(each, keys) is not None]


def _key_of(problem: Problem, keys: Iterable[str]) -> str | None:
    """Return which of these key paths a problem is about, or about something inside."""
    where = problem.where.rpartition(": ")[2]
    return next((key for key in keys if where == key or where.startswith(f"{key}.")), None)


def blame_settings(problems: Iterable[Problem], settings: Iterable[str]) -> list[Problem]:
    """Return problems of a file that is not written, each with the --set that caused it, where one did."""
    said = {setting.partition("=")[0].strip(): setting for setting in settings}
    found = []
    for problem in problems:
        key = _key_of(problem, said)
        found.append(problem if key is None else replace(problem, where=f"--set {said[key]}"))
    return found
