"""The file of patterns: which words mean which kind of failure, and what to try. Users may add their own.

    categories:
      ID:
        title: the kind of failure in words
        advice:
          - what to try
          - {if: [FACT, not FACT], try: what to try where all of these hold}
    patterns:
      - id: NAME
        category: ID
        match: a regular expression, searched in every line
        say: the failure in a few words; {NAME} is a named group of `match`
        strength: cause | likely | symptom
        where: [message, raised, error, output, host, launcher, event, summary]

The first pattern that is found decides, `cause` before `likely` before `symptom`; what the failed rank itself
said counts before what stands in other logs. Facts are those of `orchestrator.diagnose.facts`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STRENGTHS = ("cause", "likely", "symptom")
KINDS = ("message", "raised", "error", "output", "host", "launcher", "event", "summary")
_OWN_FILE = Path(__file__).with_name("patterns.yaml")
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to try, where all of `facts` hold ("not X": where X does not)."""

    text: str
    facts: tuple[str, ...] = ()

    def fits(self, known: frozenset[str]) -> bool:
        """Tell whether it applies."""
        return all(
            (fact.removeprefix("not ") not in known) if fact.startswith("not ") else fact in known
            for fact in self.facts
        )


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of failure."""

    name: str
    title: str
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True, slots=True)
class Pattern:
    """Words that mean a kind of failure.

    Attributes:
        users: it stands in a file of the user's: it is tried before all others, in all that was said.
    """

    name: str
    category: str
    match: re.Pattern[str]
    say: str = ""
    strength: str = "cause"
    where: tuple[str, ...] = KINDS
    users: bool = False


@dataclass(frozen=True, slots=True)
class Book:
    """All categories and patterns, in the order in which they are tried."""

    categories: dict[str, Category]
    patterns: tuple[Pattern, ...]


def load(files: Sequence[str] = ()) -> Book:
    """Return the patterns of this program after those of the user's files.

    Raises:
        JobFileError: a file cannot be read, or is no file of patterns; all its problems.
    """
    return _load(tuple(str(file) for file in files), tuple(map(_changed, files)))


def _changed(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=8)
def _load(files: tuple[str, ...], _changed: tuple[int, ...]) -> Book:
    own = _read(_OWN_FILE)
    more = [_read(Path(file)) for file in files]
    categories = {name: _category(name, entry) for name, entry in own.get("categories", {}).items()}
    for path, document in zip(files, more, strict=True):
        problems = list(_problems(path, document, set(categories)))
        if problems:
            raise JobFileError(*problems)
        added = document.get("categories") or {}
        categories |= {name: _category(name, entry) for name, entry in added.items()}
    users = [_pattern(entry, users=True) for document in more for entry in document.get("patterns") or ()]
    ours = [_pattern(entry) for entry in own["patterns"]]
    return Book(categories, (*users, *ours))


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        fix = "correct `monitor.patterns`, where paths start at the job file, or --patterns"
        raise JobFileError(
            Problem(f"cannot read the file of patterns: {said}", str(path), fix=fix)
        ) from error
    except yaml.YAMLError as error:
        raise JobFileError(Problem(f"the file of patterns is no YAML: {error}", str(path))) from error
    if not isinstance(document, dict):
        fix = "write `patterns:` and a list below it; see `orchestrate diagnose --help`"
        raise JobFileError(Problem("a file of patterns is a mapping", str(path), str(document)[:80], fix))
    return document


def _problems(path: str, document: dict[str, Any], known: set[str]) -> Iterable[Problem]:
    added = document.get("categories") or {}
    patterns = document.get("patterns") or []
    if not isinstance(added, dict) or not isinstance(patterns, list):
        yield Problem("`categories` is a mapping and `patterns` a list", path)
        return
    for name, entry in added.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("title"), str):
            yield Problem("a category has a title", f"{path}: categories.{name}", str(entry)[:80])
        elif problem := _advice_problem(entry.get("advice")):
            yield Problem(problem, f"{path}: categories.{name}.advice")
    for index, entry in enumerate(patterns):
        where = f"{path}: patterns[{index}]"
        if not isinstance(entry, dict):
            yield Problem("a pattern is a mapping", where, str(entry)[:80])
        else:
            yield from _pattern_problems(where, entry, known | set(added))


def _advice_problem(entries: Any) -> str:
    good = isinstance(entries or [], list) and all(
        isinstance(entry, str) or (isinstance(entry, dict) and isinstance(entry.get("try"), str))
        for entry in entries or []
    )
    return "" if good else "advice is a list of sentences, or of {if: [facts], try: sentence}"


def _pattern_problems(where: str, entry: dict[str, Any], known: set[str]) -> Iterable[Problem]:
    unknown = sorted(set(entry) - {"id", "category", "match", "say", "strength", "where"})
    if unknown:
        yield Problem("a pattern has no such key", where, ", ".join(unknown))
    category = entry.get("category")
    if category not in known:
        fix = f"one of {', '.join(sorted(known))}, or add it to `categories`"
        yield Problem("there is no such category", f"{where}.category", str(category), fix)
    try:
        re.compile(str(entry["match"]))
    except KeyError:
        yield Problem("a pattern needs `match`, a regular expression", where)
    except re.error as error:
        yield Problem(f"no regular expression: {error}", f"{where}.match", str(entry["match"]))
    if entry.get("strength", "cause") not in STRENGTHS:
        yield Problem(f"one of {', '.join(STRENGTHS)}", f"{where}.strength", str(entry["strength"]))
    wrong = sorted(set(_listed(entry.get("where"))) - set(KINDS))
    if wrong:
        yield Problem(f"some of {', '.join(KINDS)}", f"{where}.where", ", ".join(wrong))


def _listed(value: Any) -> tuple[str, ...]:
    return (str(value),) if isinstance(value, str) else tuple(map(str, value or ()))


def _category(name: str, entry: dict[str, Any]) -> Category:
    return Category(name, entry["title"], tuple(map(_advice, entry.get("advice") or ())))


def _advice(entry: str | dict[str, Any]) -> Advice:
    if isinstance(entry, str):
        return Advice(" ".join(entry.split()))
    return Advice(" ".join(entry["try"].split()), _listed(entry.get("if")))


def _pattern(entry: dict[str, Any], *, users: bool = False) -> Pattern:
    return Pattern(
        name=str(entry.get("id", entry["match"])),
        category=entry["category"],
        match=re.compile(str(entry["match"]), re.MULTILINE),
        say=str(entry.get("say", "")),
        strength=entry.get("strength", "cause"),
        where=_listed(entry.get("where")) or KINDS,
        users=users,
    )
