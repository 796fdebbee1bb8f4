"""The zip file that visits a host: the probes, and of our own package just what they need."""

from __future__ import annotations

import importlib.util
import io
import marshal
import zipfile
from pathlib import Path

_MAIN = "import sys\nfrom orchestrator.preflight.probes.entry import main\nsys.exit(main(sys.argv[1:]))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own: the same probes give the same bytes
_AGENT = ("__init__", "channel", "checks", "commands", "network", "processes", "wire")
_UNCHECKED = (0b01).to_bytes(4, "little")  # PEP 552: a pyc that is valid whatever its source says


def check_zip() -> bytes:
    """Return the probes as one runnable zip file; modules keep their names, the packages above are empty.

    Bytecode of our own Python comes with them. Compiling costs a host three quarters of a visit's processor
    time; one with another version of Python compiles the sources, as zipimport does for a foreign pyc.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in _sources().items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
            if name != "__main__.py":
                archive.writestr(zipfile.ZipInfo(f"{name}c", _EPOCH), _bytecode(name, text))
    return buffer.getvalue()


def _sources() -> dict[str, str]:
    package = Path(__file__).parents[1]
    texts = {"__main__.py": _MAIN, "orchestrator/__init__.py": "", "orchestrator/preflight/__init__.py": ""}
    paths = [package / f"agent/{name}.py" for name in _AGENT]
    for path in [*paths, *sorted((package / "preflight/probes").glob("*.py"))]:
        texts[f"orchestrator/{path.relative_to(package)}"] = path.read_text(encoding="utf-8")
    return texts


def _bytecode(name: str, text: str) -> bytes:
    """Return a source's pyc: magic number, flags, the source's hash (unchecked, so none), code (PEP 552)."""
    code = compile(text, name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + bytes(8) + marshal.dumps(code)
