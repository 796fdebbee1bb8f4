"""Whether a folder of torch.distributed.checkpoint is complete.

`.metadata` is written last, under another name, and tells the file, the offset and the length of each piece.
"""

from __future__ import annotations

import pickletools
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from orchestrator.checkpoints.tag import Listing, named, temporary
from orchestrator.checkpoints.whole import INTEGERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"__\d+_\d+\.distcp")
_LIMIT = 16 << 20  # bytes of .metadata that are walked through, about a second each 2 MiB


def is_tag(folder: Listing) -> bool:
    """Return whether a folder holds such a checkpoint, or the beginnings of one."""
    return ".metadata" in folder.files or any(_NAME.fullmatch(name) for name in folder.files)


def problems(folder: Listing) -> list[str]:
    """Return what is missing or cut off."""
    found = [f"{name} is the remains of a save that did not end" for name in folder.files if temporary(name)]
    if ".metadata" not in folder.files:
        return [*found, ".metadata is missing, which is written last"]
    try:
        lengths = _lengths((folder.path / ".metadata").read_bytes())
    except (OSError, ValueError) as error:
        return [*found, f".metadata cannot be read: {error}"]
    gone = sorted(lengths.keys() - folder.files.keys())
    if gone:
        found.append(f"{len(gone)} of {len(lengths)} files are missing: {named(gone)}")
    short = [name for name in lengths if name not in gone and folder.files[name][0] < lengths[name]]
    return [*found, *(f"{name} is cut off" for name in sorted(short))]


def _lengths(metadata: bytes) -> dict[str, int]:
    """Return the bytes that each file has to have.

    torch 2.13 pickles `relative_path`, `offset` and `length` of each piece, in this order.
    """
    if len(metadata) > _LIMIT:
        return dict.fromkeys(map(bytes.decode, re.findall(rb"__\d+_\d+\.distcp", metadata)), 1)
    lengths: dict[str, int] = defaultdict(int)
    name, key, offset = "", "", 0
    for token in _tokens(metadata):
        if isinstance(token, int):
            offset = token if key == "offset" else offset
            if name and key == "length":
                lengths[name] = max(lengths[name], offset + token)
                name = ""
        elif _NAME.fullmatch(token):
            name = token
        key = token if isinstance(token, str) else ""
    return lengths


def _tokens(data: bytes) -> Iterator[str | int]:
    """Yield the strings and whole numbers of a pickle, in order, without executing any of it.

    Raises:
        ValueError: it is no pickle, or the beginning of one.
    """
    memo: dict[int, str] = {}
    stored, last = 0, None
    for operation, argument, _ in pickletools.genops(data):
        token: str | int | None = None
        if operation.name in {"MEMOIZE", "BINPUT", "LONG_BINPUT"}:
            place = stored if operation.name == "MEMOIZE" else argument
            stored += 1
            if isinstance(last, str):
                memo[int(place or 0)] = last
        elif operation.name in {"BINGET", "LONG_BINGET"}:
            token = memo.get(int(argument or 0))
        elif "UNICODE" in operation.name or operation.name in INTEGERS:
            token = argument
        if token is not None:
            yield token
        last = token
