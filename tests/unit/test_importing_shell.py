"""A shell script's words are those that bash makes of it."""

from __future__ import annotations

import contextlib
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JobFileError
from orchestrator.importing.shell import read_commands
from orchestrator.importing.shell_scope import Scope


def words_of(script: str) -> list[list[str]]:
    """Return the words of every command as our reader sees them, assignments carried out."""
    scope, found = Scope({}), []
    for command in read_commands(script, "x"):
        for name, items in command.arrays.items():
            scope.set(name, [text for item in items for text in scope.fields(item)])
        words = scope.words(command)
        if words and words[0] == "show":
            found.append(words[1:])
        for word in words:
            name, equals, _ = word.partition("=")
            if equals and name.isidentifier():
                scope.set(name, scope.text(command.words[0]).partition("=")[2])
    return found


SHOW = 'show() { printf "%s\\0" "$#" "$@"; }\n'


def words_of_bash(script: str) -> list[list[str]]:
    done = subprocess.run(["bash", "-c", SHOW + script], capture_output=True, check=True)
    parts = done.stdout.decode().split("\0")[:-1]
    found = []
    while parts:
        count = int(parts.pop(0))
        found.append(parts[:count])
        del parts[:count]
    return found


@pytest.mark.parametrize(
    "script",
    [
        "show a 'b c' \"d e\" f\\ g",
        "X=1\nshow $X \"$X\" '$X' ${X} a${X}b",
        "X='a  b'\nshow $X \"$X\" x${X}y",
        'A=(1 \'2 3\')\nshow ${A[@]} "${A[@]}" "${A[*]}" x"${A[@]}"y',
        'A=(1)\nA+=(2 3)\nshow "${A[@]}"',
        "show a \\\n  b # c\nshow '#' a#b",
        'X=\nshow ${X:-d} ${X-d} ${Y:-e} ${X:+f} "$X"',
        "X=7\nshow $((X * 2 + 1)) $(( (X - 1) / 2 ))",
        "show \"a\\\"b\" \"\\$x\" 'it'\\''s'",
        "show a; show b && show c\nshow d || show e",
        "show a >/dev/null 2>&1; show b 2>&1 | cat",
        "cat <<E >/dev/null\nshow no\nE\nshow yes",
        "show $'a b'",
        'E=(); show "$@" x "${E[@]}"; show "${E[@]}" a"${E[@]}"; show "$*"',
        ': "${A:=x}"; show $A ${B=y} $B',
        'declare -a A=(1 2); show "${A[@]}"',
        "show ${1:-a} ${2-b} $#",
    ],
)
def test_words_are_those_of_bash(script):
    if "||" in script or ">/dev/null" in script.partition(";")[0]:
        ours = words_of(script)
        assert all(words in ours for words in words_of_bash(script))
    else:
        assert words_of(script) == words_of_bash(script)


@pytest.mark.parametrize("text", ["A=(a ; b)", "A=( | )", "A=(&", "A=(a\nb"])
def test_an_array_that_does_not_end_is_refused(text):
    with pytest.raises(JobFileError, match="x:1: a \\( is never closed"):
        read_commands(text, "x")


@given(
    st.lists(
        st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8), min_size=1, max_size=4
    )
)
def test_what_is_quoted_is_read_as_it_was(words):
    assert words_of(f"show {shlex.join(words)}") == [words]


@given(st.text(st.sampled_from("ab \n\t\"'\\$(){}`;&|<>#=!*[]"), max_size=30))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(JobFileError):
        for command in read_commands(text, "x"):
            Scope({}).words(command)
