"""The options of other tools' command lines, read as these tools read them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.importing.draft import Draft


@dataclass(frozen=True)
class Tool:
    """The options of a tool that starts ranks.

    Attributes:
        name: for notes and errors.
        values: options that take a value, each as its spellings joined by `|`.
        flags: options that take none.
        appended: options that take a value and may come several times.
        reasons: why an option is not carried, by name (dashes and underscores count the same) or, ending
            in `*`, by how its name begins.
    """

    name: str
    values: tuple[str, ...]
    flags: tuple[str, ...]
    reasons: Mapping[str, str]
    appended: tuple[str, ...] = ()

    def options(self) -> frozenset[str]:
        """Return every spelling of every option."""
        every = (*self.values, *self.flags, *self.appended)
        return frozenset(word for spellings in every for word in spellings.split("|")) | {"-h", "--help"}

    def reason(self, name: str) -> str | None:
        """Return why an option is not carried; None for one that has to be mapped."""
        begins = (
            text for key, text in self.reasons.items() if key.endswith("*") and name.startswith(key[:-1])
        )
        return self.reasons.get(name) or next(begins, None)


@dataclass(frozen=True)
class Parsed:
    """A command line.

    Attributes:
        options: what was given, by the name of the option's destination.
        words: what comes behind the options: the script and its arguments.
        took_dashes: whether the tool kept a `--` to itself that stood right behind the script.
    """

    options: dict[str, Any]
    words: list[str]
    took_dashes: bool = False


def parse(tool: Tool, words: Sequence[str], source: str) -> Parsed:
    """Read a command line as the tool's own parser does, abbreviations included.

    Args:
        tool: whose it is.
        words: without the tool's name.
        source: where the command stands, for errors.

    Raises:
        JobFileError: an option that the tool does not know, or that lacks its value.
    """
    parser = _parser(tool, source)
    found = vars(parser.parse_args(list(words)))
    program = [found.pop("script "), *found.pop("words ")]
    # argparse takes the first `--` out of what a positional has matched, and that may stand behind it (3.13).
    return Parsed(found, program, list(words[-len(program) - 1 :]) == [program[0], "--", *program[1:]])


def _parser(tool: Tool, source: str) -> argparse.ArgumentParser:
    parser = _Parser(prog=tool.name, argument_default=argparse.SUPPRESS, add_help=False)
    parser.source = source
    for spellings in tool.values:
        parser.add_argument(*spellings.split("|"))
    for spellings in tool.appended:
        parser.add_argument(*spellings.split("|"), action="append")
    for spellings in tool.flags:
        parser.add_argument(*spellings.split("|"), action="store_true")
    parser.add_argument("script ", metavar="script")  # a name that no option has
    parser.add_argument("words ", nargs=argparse.REMAINDER)
    return parser


class _Parser(argparse.ArgumentParser):
    source = ""

    def error(self, message: str) -> NoReturn:
        fix = f"correct the command, or leave the option out; {self.prog} --help lists them"
        raise JobFileError(Problem(f"{self.prog}: {message}", self.source, fix=fix))


def drop_rest(tool: Tool, parsed: Parsed, mapped: Iterable[str], draft: Draft, source: str) -> None:
    """Name every given option that was not mapped, with the reason, and a `--` that no script gets."""
    if parsed.took_dashes:
        draft.drop(f"{source}: --", f"{tool.name} keeps it to itself where it stands right behind the script")
    for name in parsed.options.keys() - set(mapped):
        draft.drop(f"{source}: --{name}", tool.reason(name) or "has no counterpart in a job file")


def both(text: str) -> tuple[str, ...]:
    """Return each name with both spellings: `--a-b|--a_b`."""
    return tuple(
        f"--{name.replace('_', '-')}|--{name}" if "_" in name else f"--{name}" for name in text.split()
    )


def names(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


def count(value: object, source: str) -> int:
    """Return a number of 1 or more.

    Raises:
        JobFileError: it is none.
    """
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1:
        raise JobFileError(Problem("expected a number of 1 or more", source, str(value), "write the number"))
    return number
