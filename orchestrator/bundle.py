"""Write what was rendered into a run directory, with what cannot be rendered: the agent and the secrets."""

from __future__ import annotations

import io
import shlex
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.archive import bytecode, zipped
from orchestrator.rundir import AttemptDir, RunDir, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.render import RenderedFile

_MAIN = "import sys\nfrom agent.entry import main\nsys.exit(main(sys.argv[1:]))\n"


def write_bundle(run_dir: RunDir, files: Iterable[RenderedFile], attempt: int) -> None:
    """Write an attempt's rendered files and the agent; folders for logs and errors come with them."""
    here = run_dir.attempt(attempt)
    for folder in (here.rendered, here.logs, here.errors):
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        write_text(run_dir.path / file.path, file.text, 0o755 if file.executable else 0o644)
    here.agent_file.write_bytes(agent_zip())


def agent_zip() -> bytes:
    """Return the agent as one runnable zip file, with bytecode: every agent, launcher and rank runs it."""
    files: dict[str, str | bytes] = {"__main__.py": _MAIN}
    for path in sorted((Path(__file__).parent / "agent").glob("*.py")):
        files[f"agent/{path.name}"] = path.read_bytes()
        files[f"agent/{path.name}c"] = bytecode(path)
    return zipped(files)


def secrets_text(values: Mapping[str, str]) -> str:
    """Return the shell lines that export secret values."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def pack(run_dir: RunDir, attempt: AttemptDir) -> bytes:
    """Return what a host without the shared disk needs of a run directory, as a tar archive.

    The file `pushed` in it tells the agent that its logs have to be sent back.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in (
            run_dir.plan_file,
            run_dir.secrets_file,
            run_dir.workdir,
            attempt.rendered,
            attempt.control_file,
        ):
            if path.exists():
                archive.add(path, path.relative_to(run_dir.path))
        for folder in (attempt.logs, attempt.errors):
            archive.add(folder, folder.relative_to(run_dir.path), recursive=False)
        archive.addfile(tarfile.TarInfo("pushed"))
    return buffer.getvalue()
