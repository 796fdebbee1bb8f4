"""The conversation: ask one question after the other, check each answer at once, go back when asked to."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from orchestrator.init.document import check_answer, review, text_of
from orchestrator.init.flow import LEAVE_OUT, next_question, parse_answer, shown
from orchestrator.init.screen import BACK

if TYPE_CHECKING:
    from orchestrator.init.document import Review, Settings
    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Choice, Question
    from orchestrator.init.screen import Screen


class _Back(Exception):  # noqa: N818 - not an error: the user wants the question before
    """Go back to the question before."""


class Dialogue:
    """The answers so far, in the order they were given."""

    def __init__(self, machine: Machine, settings: Settings, screen: Screen) -> None:
        self.machine, self.settings, self.screen = machine, settings, screen
        self.answers: dict[str, Any] = dict(settings.answers)
        self._asked: list[str] = []
        self._earlier: dict[str, Any] = {}  # answers that were taken back: defaults for the second time
        self._section = ""

    def run(self, name: str) -> str:
        """Ask everything and return the text of the job file.

        Args:
            name: of the job file.

        Raises:
            Abort: the user ended it.
            JobFileError: the input ended, or what --set says is wrong.
        """
        click.echo(f"A few questions, and {name} is written. {self.screen.hint}")
        while True:
            self._ask_all()
            text = text_of(self.answers, self.settings.others, self.machine, name)
            found = review(text, self.machine.folder, name, self.machine.environ)
            if not (found.wrong or found.later) or self._accepted(found):
                return text
            self._back()

    def _ask_all(self) -> None:
        while question := next_question(self.answers, self.machine):
            try:
                self.answers[question.key] = self._ask(question)
                self._asked.append(question.key)
            except _Back:
                self._back()

    def _back(self) -> None:
        if self._asked:
            key = self._asked.pop()
            self._earlier[key] = self.answers.pop(key)

    def _accepted(self, found: Review) -> bool:
        """Show what still stands against the job; ask whether to write it all the same."""
        from orchestrator.init.question import Choice  # noqa: PLC0415 - types only, but for here

        show_review(found)
        if found.wrong:
            return False
        choices = (Choice(True, "write it", "To be put right later."), Choice(False, "go back"))
        click.secho("? Write it all the same?", bold=True)
        return self.screen.choose(choices, 0) in (0, "", choices[0].label)

    def _ask(self, question: Question) -> Any:
        if question.section != self._section:
            self._section = question.section
            click.secho(f"\n{question.section}", underline=True)
        choices: tuple[Choice, ...] = question.choices(self.answers, self.machine)
        default = question.default(self.answers, self.machine)
        if question.key in self._earlier:
            default = self._earlier[question.key]
        while True:
            self._show(question, shown(question, default, choices))
            answer, problem = self._read(question, default, choices)
            found = None if problem else self._check(question, answer)
            if found is not None and not found.wrong:
                return answer
            for each in found.wrong if found else (problem,):
                click.echo(click.style("  error: ", fg="red") + str(each).replace("\n", "\n  "))

    @staticmethod
    def _show(question: Question, default: str) -> None:
        nothing = "" if question.needed or question.kind == "choice" else "nothing"
        instead = f"; {LEAVE_OUT} for nothing" if default and nothing else ""
        brackets = f" [{default or nothing}{instead}]" if default or nothing else ""
        click.echo(click.style(f"? {question.text}", bold=True) + brackets)
        click.secho(textwrap.fill(question.why, 100, initial_indent="  ", subsequent_indent="  "), dim=True)

    def _read(self, question: Question, default: Any, choices: tuple[Choice, ...]) -> tuple[Any, str]:
        """Return the answer and what is wrong with how it was typed, one of them empty."""
        values = [choice.value for choice in choices]
        at = values.index(default) if default in values else 0
        typed = self.screen.choose(choices, at) if choices else self.screen.type()
        if isinstance(typed, int):
            click.secho(f"  {choices[typed].label}", fg="green")
            return values[typed], ""
        if typed.strip() == BACK:
            raise _Back
        if not typed.strip():
            return (values[at] if choices else default), ""
        try:
            return parse_answer(question, typed, choices), ""
        except ValueError as error:
            return None, str(error)

    def _check(self, question: Question, answer: Any) -> Review:
        found = check_answer(question, answer, self.answers, self.settings, self.machine)
        for problem in found.later:
            click.echo(click.style("  note: ", fg="yellow") + str(problem).replace("\n", "\n  "))
        for warning in found.warnings:
            click.echo(click.style("  note: ", fg="yellow") + warning.replace("\n", "\n  "))
        return found


def show_review(found: Review) -> None:
    """Print what is wrong with a job file, and what stands against starting it."""
    for label, colour, problems in (
        ("error: ", "red", found.wrong),
        ("before it can start: ", "yellow", found.later),
        ("note: ", "yellow", found.warnings),
    ):
        for problem in problems:
            click.echo(click.style(label, fg=colour) + str(problem))
