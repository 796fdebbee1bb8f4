"""The zip file that visits a host: the probes, and of our own package just what they need."""

from __future__ import annotations

import importlib.util
import io
import marshal
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MAIN = "import sys\nfrom orchestrator.preflight.{} import main\nsys.exit(main(sys.argv[1:]))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own: the same probes give the same bytes
_AGENT = tuple(
    f"agent/{name}" for name in ("__init__", "channel", "checks", "commands", "network", "processes", "wire")
)
_UNCHECKED = (0b01).to_bytes(4, "little")  # PEP 552: a pyc that is valid whatever its source says


def check_zip() -> bytes:
    """Return the probes as one runnable zip file; modules keep their names, the packages above are empty.

    Bytecode of our own Python comes with them. Compiling costs a host three quarters of a visit's processor
    time; one with another version of Python compiles the sources, as zipimport does for a foreign pyc.
    """
    texts = sources("probes", _AGENT)
    bytecode = {f"{name}c": _bytecode(name, text) for name, text in texts.items() if name != "__main__.py"}
    return zipped({**texts, **bytecode})


def sources(folder: str, others: Iterable[str]) -> dict[str, str]:
    """Return the texts of a zip by the names they have in it.

    Args:
        folder: of `preflight`, all of whose modules go in; its `entry.main` is what the zip runs.
        others: modules of our package that they need, as `agent/wire`.
    """
    package = Path(__file__).parents[1]
    texts = {"__main__.py": _MAIN.format(f"{folder}.entry")}
    texts |= {"orchestrator/__init__.py": "", "orchestrator/preflight/__init__.py": ""}
    paths = [package / f"{name}.py" for name in others]
    for path in [*paths, *sorted((package / "preflight" / folder).glob("*.py"))]:
        texts[f"orchestrator/{path.relative_to(package)}"] = path.read_text(encoding="utf-8")
    return texts


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """Return files as a zip, the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def _bytecode(name: str, text: str) -> bytes:
    """Return a source's pyc: magic number, flags, the source's hash (unchecked, so none), code (PEP 552)."""
    code = compile(text, name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + bytes(8) + marshal.dumps(code)
