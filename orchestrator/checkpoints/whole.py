"""Whether a file was written to its end, by a few bytes of it; and numbers out of one without loading it.

Only ends are looked at: a bit that fell over in the middle of a shard is not found here.
"""

from __future__ import annotations

import json
import os
import pickletools
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from orchestrator.checkpoints.tag import temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.checkpoints.tag import Listing

_ZIPPED = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_THREADS = 16  # a shared disk answers in milliseconds, and answers many at once
_END, _END64 = 22, 98  # bytes from the end-of-central-directory record on; with the zip64 ones before it
_HEADER_LIMIT = 100 << 20  # bytes; safetensors refuses a longer header too
_PICKLE_LIMIT = 64 << 20  # bytes of a data.pkl: only names, shapes and the configuration, never tensors
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"  # the magic number that torch.save's format before 1.6 starts with
INTEGERS = {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"}  # opcodes
_SEEN = 12  # bytes at the start of a file that tell its format


def broken_files(folder: Listing) -> list[str]:
    """Return a sentence for every file of a folder that is not whole, or still has a temporary name."""
    names = sorted(folder.files)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _broken(folder.path / name), names)
        return [f"{name} {what}" for name, what in zip(names, found, strict=True) if what]


def _broken(path: Path) -> str:
    if temporary(path.name):
        return "is the remains of a save that did not end"
    check = _check_for(path)
    if check is None:
        return ""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            return check(handle, os.fstat(handle).st_size)
        finally:
            os.close(handle)
    except OSError as error:
        return f"cannot be read: {error.strerror or type(error).__name__}"


def _check_for(path: Path) -> Callable[[int, int], str] | None:
    if path.suffix in _ZIPPED:
        return _check_zip
    return {".safetensors": _check_safetensors, ".json": _check_json}.get(path.suffix)


def _check_zip(handle: int, size: int) -> str:
    """Say what is wrong with a file of torch.save: a zip without comment, its directory before its end."""
    head = os.pread(handle, _SEEN, 0)
    if not head:
        return "is empty"
    if head.startswith(_LEGACY):
        return "has torch.save's old format, which does not tell whether it is whole"
    if head[:4] != b"PK\x03\x04":
        return _check_pickle(handle, size, head)
    tail = os.pread(handle, _END64, max(0, size - _END64))
    if tail[-_END:-18] != b"PK\x05\x06":
        return "is cut off: a zip file without its end"
    length, offset, end = _directory(tail, size)
    if offset + length != end or os.pread(handle, 4, offset) != b"PK\x01\x02":
        return "is damaged: its end does not fit to what is before it"
    return ""


def _directory(tail: bytes, size: int) -> tuple[int, int, int]:
    """Return length and offset of a zip's directory and where it has to end, all in bytes.

    torch 2.13 writes zip64 records into every file, small ones too.
    """
    if tail[-42:-38] == b"PK\x06\x07" and tail[:4] == b"PK\x06\x06":
        length, offset = struct.unpack("<QQ", tail[40:56])
        return length, offset, size - _END64
    length, offset = struct.unpack("<II", tail[-10:-2])
    return length, offset, size - _END


def _check_pickle(handle: int, size: int, head: bytes) -> str:
    """A bare pickle, as user code writes into a `.pkl`: it ends with the opcode STOP."""
    if head[0] != 0x80:
        return "is no file of torch.save"
    return "" if os.pread(handle, 1, size - 1) == b"." else "is cut off"


def _check_safetensors(handle: int, size: int) -> str:
    """Say what is wrong with a safetensors file: its header tells where the last tensor ends."""
    start = os.pread(handle, 8, 0)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_HEADER_LIMIT, size - 8):
        return "is cut off in its header"
    try:
        header = json.loads(os.pread(handle, length, 8))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "has a header that cannot be read"
    return "" if 8 + length + max(ends, default=0) == size else "is cut off: its header tells another length"


def _check_json(handle: int, size: int) -> str:
    try:
        json.loads(os.pread(handle, size, 0))
    except ValueError:
        return "is no JSON, or only the beginning of it"
    return ""


class Said:
    """Numbers that a file of torch.save says about its own save. Nothing of its pickle is executed.

    Args:
        path: the file; one that is missing or broken says nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._data = b"" if path is None else _pickle_of(path)

    def number(self, key: str, below: str = "") -> int | None:
        """Return the whole number under a key; with several (a list), the largest; None when there is none.

        Args:
            key: a key of a dictionary in the file, at any depth: the first place where it is written counts.
            below: a key that has to come before it.
        """
        start = self._after(below, 0) if below else 0
        at = -1 if start < 0 else self._after(key, start)
        return None if at < 0 else max(_numbers(self._data, at), default=None)

    def real(self, key: str) -> float | None:
        """Return the number right after a key; None when there is none, or the key is there more than once.

        Args:
            key: a key of a dictionary in the file, at any depth.
        """
        at = self._after(key, 0)
        if at < 0 or self._after(key, at) >= 0:
            return None  # of the two, nothing tells the one that is meant
        for name, argument in _operations(self._data[at : at + 64]):
            if isinstance(argument, int | float) and (name == "BINFLOAT" or name in INTEGERS):
                return float(argument)
            if name not in {"MEMOIZE", "BINPUT", "LONG_BINPUT"}:
                return None
        return None

    def mentions(self, word: str) -> bool:
        """Return whether the string is in the file's pickle."""
        return self._after(word, 0) >= 0

    def _after(self, word: str, start: int) -> int:
        for prefix in (b"X" + struct.pack("<I", len(word)), b"\x8c" + bytes([len(word)])):  # protocol 2, 4
            at = self._data.find(prefix + word.encode(), start)
            if at >= 0:
                return at + len(prefix) + len(word)
        return -1


def _pickle_of(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith("data.pkl") and info.file_size <= _PICKLE_LIMIT:
                    return archive.read(info)  # its CRC is checked
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, EOFError, struct.error):
        pass
    return b""


def _numbers(data: bytes, at: int) -> list[int]:
    """Return the whole numbers of the value at `at`: up to the next string or the end of its dictionary."""
    found = []
    for name, argument in _operations(data[at : at + 65536]):
        if "UNICODE" in name or name in {"NONE", "SETITEM", "SETITEMS", "EMPTY_DICT", "BUILD"}:
            break
        if isinstance(argument, int) and name in INTEGERS:
            found.append(argument)
        elif name in {"BINGET", "LONG_BINGET"} and found:
            break  # the next key, written before
    return found


def _operations(data: bytes) -> Iterator[tuple[str, object]]:
    try:
        for operation, argument, _ in pickletools.genops(data):
            yield operation.name, argument
    except ValueError:  # cut out of a longer stream
        return
