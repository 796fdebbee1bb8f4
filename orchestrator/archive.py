"""Python code as one runnable zip file, the zipapp format of the standard library."""

from __future__ import annotations

import importlib.util
import io
import marshal
import zipfile
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own: the same code gives the same bytes
_UNCHECKED = (0b01).to_bytes(4, "little")  # PEP 552: a pyc that is valid whatever its source says


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """Return files as a zip, the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def bytecode(source: Path) -> bytes:
    """Return a source's pyc: magic number, flags, the source's hash (unchecked, so none), code (PEP 552).

    Beside its source it saves every process that runs the zip from compiling it. One with another version of
    Python compiles the source, as zipimport does for a foreign pyc. What Python has cached is not compiled
    here either.
    """
    code = SourceFileLoader(source.stem, str(source)).get_code(source.stem)
    # Once through marshal, code that was compiled now is as code from the cache: the same bytes
    code = marshal.loads(marshal.dumps(code))  # noqa: S302 - what the line before it says
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + bytes(8) + marshal.dumps(code)
