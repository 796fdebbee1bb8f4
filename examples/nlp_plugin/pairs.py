"""Sentence pairs with a label 0 or 1: from the hub, from a file, or made of Python's own standard library.

The pairs that we make ask: does this sentence describe this function? The sentence is the first of a
docstring, the other half the function's signature; in half of the pairs, the signature of another function.
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import random
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DOCSTRINGS = "python-docstrings"
HELD_OUT = 0.15  # share of pairs without an evaluation part of their own
COLUMNS = ("sentence1", "sentence2", "label")  # as in MRPC


class Pair(NamedTuple):
    """Two sentences, and whether they belong together."""

    first: str
    second: str
    label: int


def refuse(what: str, value: object, fix: str) -> NoReturn:
    """End this rank with exit code 1 and one line, which the run's verdict quotes: what, value, way out."""
    sys.exit(f"error: {what}: {value}; fix: {fix}")


def read(source: str, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return (training, evaluation) pairs.

    Args:
        source: `python-docstrings`; a JSONL or CSV file with the columns of MRPC; or `NAME:CONFIGURATION` on
            the hub, such as `nyu-mll/glue:mrpc`.
        seed: of the split, where the source has none of its own.
    """
    made = source == DOCSTRINGS
    if not made and not Path(source).expanduser().is_file():
        return _from_hub(source)
    pairs = from_docstrings(seed) if made else list(_from_file(Path(source).expanduser()))
    random.Random(seed).shuffle(pairs)  # noqa: S311 - sampling, not secrets
    held_out = int(len(pairs) * HELD_OUT)
    if not held_out:
        refuse("too few pairs to hold some out", f"{source} has {len(pairs)}", "give more of them")
    return pairs[held_out:], pairs[:held_out]


def from_docstrings(seed: int) -> list[Pair]:
    """Return pairs of the standard library's top-level modules; about 6,500 with Python 3.11."""
    rng = random.Random(seed)  # noqa: S311 - as above
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    known = [function for module in modules for function in _functions(module)]
    signatures = [signature for _, signature in known]
    pairs = []
    for sentence, signature in known:
        pairs += [Pair(sentence, signature, 1), Pair(sentence, rng.choice(signatures), 0)]
    return pairs


def _functions(module: Path) -> Iterator[tuple[str, str]]:
    """Yield (first sentence, signature) of the functions that have a docstring."""
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            sentence = " ".join(text.split("\n\n")[0].split()).partition(". ")[0]
            names = [one.arg for one in node.args.args if one.arg not in {"self", "cls"}]
            yield sentence, f"{node.name.replace('_', ' ').strip()} ( {', '.join(names)} )"


def _from_file(path: Path) -> Iterator[Pair]:
    with path.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines) if path.suffix == ".csv" else _json(lines, path)
        for number, row in enumerate(rows, 1):
            yield _pair(row, f"{path}, row {number}")


def _json(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            refuse(f"this line is no JSON ({error})", f"{path}, line {number}", "one object a line")


def _pair(row: dict[str, Any], where: str) -> Pair:
    first, second, label = (row.get(name) for name in COLUMNS)
    if first is None or second is None or str(label) not in {"0", "1"}:
        refuse(f"a pair needs {', '.join(COLUMNS)} with a label 0 or 1", where, "rename the columns")
    return Pair(first, second, int(label))


def _from_hub(source: str) -> tuple[list[Pair], list[Pair]]:
    if importlib.util.find_spec("datasets") is None:
        fix = "give a file that is there, or install `datasets` to load it from the hub"
        refuse("no such file, and no way to ask the hub for it", source, fix)
    from datasets import load_dataset  # noqa: PLC0415 - not needed for files

    name, _, configuration = source.partition(":")
    try:
        data = load_dataset(name, configuration or None)
    except Exception as error:  # noqa: BLE001 - the hub's library has no base class for what can go wrong here
        refuse(f"the hub does not give this data set ({error})", source, "check its name and the network")
    train, test = ([_pair(row, source) for row in data[split]] for split in ("train", "validation"))
    return train, test
