"""The zip file with the programs that visit hosts beside the probes: `python programs.pyz NAME REQUEST`."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

NAME = "programs.pyz"
"""How the file is called on the hosts; the command is `python programs.pyz pairwise|ops|reach REQUEST`."""
_MAIN = "import sys\nfrom orchestrator.preflight.programs.entry import main\nsys.exit(main(sys.argv[1:]))\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own: the same programs give the same bytes
_OTHERS = ("agent/__init__", "agent/network", "preflight/probes/__init__", "preflight/probes/answers")


def program_zip() -> bytes:
    """Return the programs as one runnable zip file, laid out as that of the probes (preflight.package)."""
    package = Path(__file__).parents[1]
    texts = {"__main__.py": _MAIN, "orchestrator/__init__.py": "", "orchestrator/preflight/__init__.py": ""}
    paths = [package / f"{name}.py" for name in _OTHERS]
    for path in [*paths, *sorted((package / "preflight/programs").glob("*.py"))]:
        texts[f"orchestrator/{path.relative_to(package)}"] = path.read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return buffer.getvalue()
