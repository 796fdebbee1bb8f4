"""Rows of (text, label), both words: from a file, from the hub, or made out of Python's own sources.

What is made: lines of the standard library of the Python that runs this, half of them comments without their
`#`, half of them code. Which of the two is it? Nothing has to be downloaded, and nobody had to label it.
"""

from __future__ import annotations

import csv
import json
import random
import sysconfig
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD_OUT = 0.2  # share of the rows of a file or a hub's data set that has no split for evaluation
LENGTHS = range(15, 90)  # characters of a line that can tell what it is, and fits into the tiny models
NAMED = ("validation", "test")  # splits for evaluation, the best first


class Row(NamedTuple):
    """A text, and the word that belongs to it."""

    text: str
    label: str


class DataError(SystemExit):
    """The data is missing or not as it has to be: what, and what to do about it."""


def split_rows(
    source: str | None, columns: tuple[str, str], sizes: tuple[int, int], seed: int
) -> tuple[list[Row], list[Row]]:
    """Return rows for training and for evaluation, shuffled, the same on every rank.

    Args:
        source: a CSV or JSON-lines file, or a data set's name on the hub (`name` or `name:configuration`);
            None makes rows of Python's standard library.
        columns: names of the columns of text and label; made rows need none.
        sizes: at most so many rows for training, and for evaluation.
        seed: of the order.

    Raises:
        DataError: no such file, column or data set, or no rows in it.
    """
    if source is None:
        parts = [made_rows(seed, sum(sizes))]
    elif Path(source).is_file():
        parts = [file_rows(Path(source), columns)]
    else:
        parts = hub_rows(source, columns)
    for part in parts:
        random.Random(seed).shuffle(part)  # noqa: S311 - an order, no secret
    if len(parts) == 1:
        held_out = min(sizes[1], max(1, int(len(parts[0]) * HELD_OUT)))
        parts = [parts[0][held_out:], parts[0][:held_out]]
    train, evaluation = parts[0][: sizes[0]], parts[1][: sizes[1]]
    if not train or not evaluation:
        raise DataError(f"{source}: two rows are the least: one to train on and one to evaluate with")
    return train, evaluation


def made_rows(seed: int, number: int) -> list[Row]:
    """Return `number` lines of the standard library, as many comments as code, every line once."""
    found: dict[str, dict[str, None]] = {"comment": {}, "code": {}}  # dictionaries keep their order, sets not
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    random.Random(seed).shuffle(paths)  # noqa: S311 - as above
    for path in paths:
        for row in told_apart(path):
            found[row.label][row.text] = None
        if min(len(texts) for texts in found.values()) >= -(-number // 2):
            break
    each = min(number // 2, *(len(texts) for texts in found.values()))
    return [Row(text, label) for label, texts in found.items() for text in list(texts)[:each]]


def told_apart(path: Path) -> Iterator[Row]:
    """Yield the lines of a Python file that are a comment alone, or begin with a word of code."""
    start_of_line = True
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            line = token.line.strip()
            if token.type == tokenize.COMMENT and line == token.string:
                yield from _fit(line.lstrip("#!: "), "comment")
            elif token.type == tokenize.NAME and start_of_line:
                yield from _fit(line, "code")
            if token.type not in {tokenize.INDENT, tokenize.DEDENT}:
                start_of_line = token.type in {tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT}


def _fit(text: str, label: str) -> Iterator[Row]:
    if len(text) in LENGTHS:
        yield Row(text, label)


def file_rows(path: Path, columns: tuple[str, str]) -> list[Row]:
    """Return the rows of a CSV file with a header, or of one JSON object a line."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            found: list[dict[str, Any]] = list(csv.DictReader(file))
        else:
            found = [_object(path, number, line) for number, line in enumerate(file, 1) if line.strip()]
    return [_row(each, columns, f"{path}, row {number}") for number, each in enumerate(found, 1)]


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number}: not JSON: {error}; give JSON lines, or a .csv") from None
    if not isinstance(found, dict):
        raise DataError(f'{path}:{number}: {line.strip()[:60]!r} is no object such as {{"text": ..}}')
    return found


def _row(found: dict[str, Any], columns: tuple[str, str], where: str) -> Row:
    for column in columns:
        if found.get(column) is None:
            have = ", ".join(str(name) for name in found)
            raise DataError(
                f"{where}: no column {column!r}; choose --text_column and --label_column of: {have}"
            )
    text, label = (" ".join(str(found[column]).split()) for column in columns)
    return Row(text, label)


def hub_rows(source: str, columns: tuple[str, str]) -> list[list[Row]]:
    """Return the rows of a data set on the hub, those of a split for evaluation apart where it has one."""
    try:
        from datasets import load_dataset  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415
    except ImportError:
        raise DataError(
            f"--data {source}: no such file, and the hub's data sets need `pip install datasets`"
        ) from None
    name, _, configuration = source.partition(":")
    try:
        found = load_dataset(name, configuration or None)
    except (OSError, ValueError) as error:  # not there, no network; no such configuration
        first = str(error).strip().splitlines()[0]
        raise DataError(f"--data {source}: no such file, and not to be had from the hub: {first}") from None
    if "train" not in found:
        raise DataError(f"--data {source}: no split `train`, only {', '.join(found)}")
    names = ["train", *(split for split in NAMED if split in found)][:2]
    return [_split_rows(found[split], columns, f"{source}, {split}") for split in names]


def _split_rows(split: Any, columns: tuple[str, str], where: str) -> list[Row]:
    """Return a split's rows; labels that are numbers with names become their names."""
    rows = [_row(each, columns, where) for each in split]
    words = getattr(split.features[columns[1]], "names", None)
    if words is None:
        return rows
    return [Row(row.text, words[int(row.label)].replace("_", " ")) for row in rows]
