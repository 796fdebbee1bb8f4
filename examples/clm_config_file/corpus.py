"""Text as blocks of tokens: from the hub, from files, or the Python reference that every Python carries.

Only rank 0 reads; it sends the blocks to the others. So no host needs the files or the network but the first,
and two hosts whose Pythons differ still train on the same text.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BYTES = "bytes"
REFERENCE = "python-reference"
TEXT_COLUMN = "text"
HELD_OUT = 0.1  # share of a text without an evaluation part of its own, at its end


def refuse(what: str, value: object, fix: str) -> NoReturn:
    """End this rank with exit code 1 and one line, which the run's verdict quotes: what, value, way out."""
    sys.exit(f"error: {what}: {value}; fix: {fix}")


def vocabulary(tokenizer: str) -> tuple[int, Callable[[str], list[int]]]:
    """Return the number of tokens there are, and what turns a text into them.

    Args:
        tokenizer: `bytes` (256 tokens, nothing to download), a name on the hub, or a folder.
    """
    if tokenizer == BYTES:
        return 256, lambda text: list(text.encode())
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow, and bytes can do without

    try:
        made = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        refuse(f"no tokenizer ({error})", tokenizer, "give a folder or a name on the hub, or `bytes`")
    # No text is too long here: it is cut into blocks afterwards.
    return len(made), lambda text: made(text, add_special_tokens=False, verbose=False)["input_ids"]


def blocks(source: str, eval_source: str | None, length: int, tokenizer: str) -> list[torch.Tensor]:
    """Return (training, evaluation) blocks, int32 (count, length) each.

    Args:
        source: `python-reference`; a file or a folder; or `NAME` or `NAME:CONFIGURATION` on the hub.
        eval_source: file or folder for the evaluation; default: the hub's validation split, else the last
            tenth of the text.
        length: tokens in a block.
        tokenizer: as in `vocabulary`.
    """
    _, encode = vocabulary(tokenizer)
    texts = read(source) if eval_source is None else [*read(source)[:1], "\n".join(read(eval_source))]
    if len(texts) == 1:
        cut = int(len(texts[0]) * (1 - HELD_OUT))
        texts = [texts[0][:cut], texts[0][cut:]]
    made = [_cut(encode(text), length) for text in texts]
    for which, part in zip(("training", "evaluation"), made, strict=True):
        if not len(part):
            refuse(f"the {which} text has not one block of {length} tokens", source, "lower --seq_len")
    return made


def read(source: str) -> list[str]:
    """Return one text, or two where the source has an evaluation part of its own."""
    if source == REFERENCE:
        # The language reference as `help()` shows it: 465 kB of English in Python 3.11.
        from pydoc_data.topics import topics  # noqa: PLC0415 - as large as what it holds

        return ["\n\n".join(text for _, text in sorted(topics.items()))]
    path = Path(source).expanduser()
    if path.exists():
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
        return ["\n".join(piece for file in files for piece in _pieces(file))]
    return _from_hub(source)


def _pieces(file: Path) -> Iterator[str]:
    """Yield the texts of a file: a row's column `text` in JSONL and CSV, else the whole file."""
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        if file.suffix not in {".jsonl", ".csv"}:
            yield lines.read()
            return
        for number, row in enumerate(
            csv.DictReader(lines) if file.suffix == ".csv" else _json(lines, file), 1
        ):
            if TEXT_COLUMN not in row:
                refuse(f"no column `{TEXT_COLUMN}`", f"{file}, row {number}", f"name it `{TEXT_COLUMN}`")
            yield row[TEXT_COLUMN]


def _json(lines: Iterable[str], file: Path) -> Iterator[dict[str, str]]:
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            refuse(f"this line is no JSON ({error})", f"{file}, line {number}", "one object a line")


def _from_hub(source: str) -> list[str]:
    if importlib.util.find_spec("datasets") is None:
        fix = "give a file or a folder that is there, or install `datasets` to load it from the hub"
        refuse("no such file or folder, and no way to ask the hub for it", source, fix)
    from datasets import load_dataset  # noqa: PLC0415 - not needed for files

    name, _, configuration = source.partition(":")
    try:
        data = load_dataset(name, configuration or None)
    except Exception as error:  # noqa: BLE001 - the hub's library has no base class for what can go wrong here
        refuse(f"the hub does not give this data set ({error})", source, "check its name and the network")
    splits = [split for split in ("train", "validation") if split in data]
    return ["\n".join(data[split][TEXT_COLUMN]) for split in splits]


def _cut(tokens: list[int], length: int) -> torch.Tensor:
    """Return whole blocks; what is left at the end is dropped."""
    whole = len(tokens) // length * length
    return torch.tensor(tokens[:whole], dtype=torch.int32).view(-1, length)
