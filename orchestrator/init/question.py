"""A question of the questionnaire: what is asked, why, and what an answer puts into the job file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from orchestrator.init.machine import Machine

Answers = Mapping[str, Any]
"""Answers so far by the key of their question; None is "leave it out"."""
Kind = Literal["choice", "text", "value", "words", "names"]
"""How an answer is typed: one of the choices, a text, a YAML value, a command line, names with commas."""


@dataclass(frozen=True)
class Choice:
    """One answer to choose: its value, its name and what it means."""

    value: Any
    label: str
    explanation: str = ""


Find = Callable[[Answers, "Machine"], Any]
"""Something that follows from the answers so far and the machine."""


def always(value: Any) -> Find:
    """Return what finds the same value always."""
    return lambda _answers, _machine: value


def answered(key: str, *values: Any) -> Find:
    """Return the condition that a question was asked and has one of these answers."""
    return lambda answers, _machine: answers.get(key) in values


NOTHING = always(None)
ASKED = always(True)
NO_CHOICES = always(())
YES_NO = always((Choice(True, "yes"), Choice(False, "no")))
YES_OR_NOTHING = always((Choice(True, "yes"), Choice(None, "no")))
"""For what is off unless it is said."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        key: key path of the job file that the answer goes to; `ask.…` where it only decides what is asked.
        section: heading that it stands under.
        text: the question.
        why: what the answer does, in one or two sentences.
        kind: how the answer is typed.
        choices: what there is to choose, for kind choice.
        default: answer for Enter and for --yes; None leaves the key out.
        when: whether it is asked at all.
        needed: whether there must be an answer.
        writes: what an answer puts into the job file, by key path, where that is more than `key`.
    """

    key: str
    section: str
    text: str
    why: str
    kind: Kind = "text"
    choices: Find = NO_CHOICES
    default: Find = NOTHING
    when: Find = ASKED
    needed: bool = False
    writes: Callable[[Any], Mapping[str, Any]] | None = None

    def entries(self, answer: Any) -> Mapping[str, Any]:
        """Return what an answer puts into the job file, by key path."""
        if answer is None or (self.writes is None and self.key.startswith("ask.")):
            return {}
        return {self.key: answer} if self.writes is None else self.writes(answer)
