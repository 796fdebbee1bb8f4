"""Write tensors as safetensors files, one tensor in memory at a time.

The format (safetensors 0.7): length of the header as 8 bytes, little-endian; the header, JSON padded with
spaces to a multiple of 8; the tensors' bytes, one after the other. `save_file` of the library wants all
tensors of a file at once, and their bytes a second time.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .source import UnfitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_ASKED = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type as torch names it, its shape and its bytes."""

    dtype: str
    shape: list[int]
    size: int


@dataclass(frozen=True)
class File:
    """One file that is to be written; the last of several has the index of all."""

    name: str
    entries: dict[str, Entry]
    index: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return the bytes of its tensors."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def dtypes(self) -> set[str]:
        """Return the types of its tensors."""
        return {entry.dtype for entry in self.entries.values()}


def planned(tensors: Mapping[str, Any], dtype: str | None, most: int) -> list[File]:
    """Share tensors out over files, in their order.

    Args:
        tensors: by name.
        dtype: what floating-point numbers become (fp32, bf16, fp16); None leaves them.
        most: bytes of a file; a larger tensor gets a file of its own.

    Raises:
        UnfitError: a tensor has a type that the format does not know.
    """
    groups: list[dict[str, Entry]] = [{}]
    for name, tensor in tensors.items():
        entry = _entry(tensor, dtype)
        if groups[-1] and entry.size + sum(each.size for each in groups[-1].values()) > most:
            groups.append({})
        groups[-1][name] = entry
    if len(groups) == 1:
        return [File("model.safetensors", groups[0])]
    names = [f"model-{place:05}-of-{len(groups):05}.safetensors" for place in range(1, len(groups) + 1)]
    files = {name: file for file, group in zip(names, groups, strict=True) for name in group}
    total = sum(entry.size for group in groups for entry in group.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    last = len(groups) - 1
    return [File(names[at], group, index if at == last else {}) for at, group in enumerate(groups)]


def write(file: File, folder: Path, tensors: dict[str, Any]) -> None:
    """Write one file, and the index after the last one; its tensors are taken out of `tensors`."""
    with (folder / file.name).open("xb") as out:
        out.write(_header(file.entries))
        for name, entry in file.entries.items():
            tensor = tensors.pop(name).contiguous()
            out.write(memoryview(_raw(tensor, entry.dtype)))
        _settle(out)
    if file.index:
        with (folder / _INDEX).open("x", encoding="utf-8") as index:
            json.dump(file.index, index, indent=2)
            _settle(index)


def _settle(file: Any) -> None:
    """See that a full disk, or a quota on NFS, is told now and not after the folder has its name."""
    file.flush()
    os.fsync(file.fileno())


def _entry(tensor: Any, dtype: str | None) -> Entry:
    name = str(tensor.dtype).rpartition(".")[2]
    if dtype and name in ("float64", "float32", "float16", "bfloat16"):
        name = _ASKED[dtype]
    if name not in _NAMES:
        raise UnfitError(f"safetensors files cannot hold {name}")
    count = 1
    for length in tensor.shape:
        count *= int(length)
    return Entry(name, [int(length) for length in tensor.shape], count * _width(name))


def _width(dtype: str) -> int:
    bits = "".join(filter(str.isdigit, dtype.partition("_")[0].replace("bool", "8")))
    return int(bits) // 8


def _header(entries: Mapping[str, Entry]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for (name, entry), offset in zip(entries.items(), _offsets(entries), strict=True):
        header[name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": entry.shape,
            "data_offsets": [offset, offset + entry.size],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _offsets(entries: Mapping[str, Entry]) -> Iterator[int]:
    offset = 0
    for entry in entries.values():
        yield offset
        offset += entry.size


def _raw(tensor: Any, dtype: str) -> Any:
    """Return a tensor's bytes as an array of them, in the type it is to have."""
    import torch  # noqa: PLC0415 - as in source.py

    return tensor.to(getattr(torch, dtype)).contiguous().reshape(-1).view(torch.uint8).numpy()
