"""The zip file that visits a host: the probes, and of our own package just what they need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.archive import bytecode, zipped

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAIN = "import sys\nfrom orchestrator.preflight.{} import main\nsys.exit(main(sys.argv[1:]))\n"
_AGENT = tuple(
    f"agent/{name}" for name in ("__init__", "channel", "checks", "commands", "network", "processes", "wire")
)


def check_zip() -> bytes:
    """Return the probes as one runnable zip file; modules keep their names, the packages above are empty.

    Bytecode comes with them: compiling costs a host three quarters of a visit's processor time.
    """
    texts = sources("probes", _AGENT)
    written = [name for name, text in texts.items() if text and name != "__main__.py"]
    compiled = {f"{name}c": bytecode(Path(__file__).parents[2] / name) for name in written}
    return zipped({**texts, **compiled})


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
