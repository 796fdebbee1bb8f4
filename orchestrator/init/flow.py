"""Which question comes next, and what the answers make: functions of values."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from orchestrator.init.questions import QUESTIONS

if TYPE_CHECKING:
    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Answers, Choice, Question

LEAVE_OUT = "-"
"""What is typed for no answer where Enter would take a default."""


def next_question(answers: Answers, machine: Machine) -> Question | None:
    """Return the first question that applies and has no answer, None when all have one."""
    for question in QUESTIONS:
        if question.key not in answers and question.when(answers, machine):
            return question
    return None


def complete(answers: Answers, machine: Machine) -> dict[str, Any]:
    """Return the answers with the default of every question that is still to come."""
    full = dict(answers)
    while question := next_question(full, machine):
        full[question.key] = question.default(full, machine)
    return full


def job_data(answers: Answers) -> dict[str, Any]:
    """Return the job file's data that the answers make."""
    data: dict[str, Any] = {}
    done = set()
    for question in QUESTIONS:
        if question.key in answers and question.key not in done:
            done.add(question.key)
            for key, value in question.entries(answers[question.key]).items():
                _put(data, key.split("."), value)
    return data


def _put(data: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        data = data.setdefault(key, {})
    data[path[-1]] = value


def parse_answer(question: Question, text: str, choices: tuple[Choice, ...] = ()) -> Any:
    """Return the answer that a text gives.

    Args:
        question: the question.
        text: what was typed, not empty.
        choices: what there is to choose from, for a question of that kind: by name or value.

    Raises:
        ValueError: it is none; says what was expected.
    """
    text = text.strip()
    if text == LEAVE_OUT and not question.needed and question.kind != "choice":
        return None
    if question.kind == "choice":
        return _chosen(text, choices)
    if question.kind == "value":
        return _value(text)
    if question.kind == "words":
        return _words(text)
    if question.kind == "names":
        return [name.strip() for name in text.split(",") if name.strip()]
    return text


def _chosen(text: str, choices: tuple[Choice, ...]) -> Any:
    for choice in choices:
        if text.lower() in (str(choice.value).lower(), choice.label.lower()):
            return choice.value
    raise ValueError(f"expected one of {', '.join(choice.label for choice in choices)}")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:  # "No closing quotation"
        raise ValueError(f"expected words as in a shell: {str(error).lower()}") from None


def _value(text: str) -> Any:
    """Return what YAML reads: 8 is a number, [a, b] a list, everything else is text."""
    from orchestrator.errors import JobFileError  # noqa: PLC0415 - a wrong value's
    from orchestrator.job.yaml_source import parse_yaml  # noqa: PLC0415 - YAML is for questions, not for --help

    try:
        return parse_yaml(text, "").data
    except JobFileError:
        return text


def shown(question: Question, answer: Any, choices: tuple[Choice, ...] = ()) -> str:
    """Return an answer as it would be typed; empty for none."""
    for choice in choices:
        if choice.value == answer and type(choice.value) is type(answer):
            return choice.label
    if answer is None:
        return ""
    if isinstance(answer, list):
        return shlex.join(answer) if question.kind == "words" else ", ".join(map(str, answer))
    return str(answer)
