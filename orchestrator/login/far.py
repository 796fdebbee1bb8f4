"""What runs on the login host: one request on the first line of its input, then what that needs.

Nothing of a request is an argument, where every user of the host could read it. Both outputs begin with a
mark, before which a shell's start-up files may have printed what they like.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAST_SECONDS = 10.0  # for a command to end after its user has gone


def main(mark: str) -> int:
    """Do what the request says; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # who asked is gone; what was asked is done all the same
            stream.write(f"\x1e{mark}\n")
            stream.flush()
    request = json.loads(sys.stdin.buffer.readline())
    verbs = {
        "command": _command,
        "follow": _follow,
        "screen": _screen,
        "submit": _submit,
        "push": _push,
        "states": _states,
        "fetch": _fetch,
    }
    try:
        return verbs[request["verb"]](request)
    except OrchestratorError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _command(request: Mapping[str, Any]) -> int:
    """Run a command of `orchestrate` for the user, who ends it by ending our input."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    return _orchestrate(request["words"], color=request.get("color", False))


def _follow(request: Mapping[str, Any]) -> int:
    """Follow a run as `submit --follow` does."""
    from orchestrator.cli.sweep import follow_sweep  # noqa: PLC0415
    from orchestrator.monitor.follow import follow_run  # noqa: PLC0415
    from orchestrator.rundir import RunDir  # noqa: PLC0415
    from orchestrator.sweep.sweepdir import SweepDir  # noqa: PLC0415

    threading.Thread(target=_end_with_input, daemon=True).start()
    path = Path(request["run_dir"])
    is_sweep = SweepDir(path).sweep_file.exists()
    return follow_sweep(SweepDir(path)) if is_sweep else follow_run(RunDir(path))


def _screen(request: Mapping[str, Any]) -> int:
    """Show a run's screen through our pipes (see login.screen); it ends when our input does."""
    os.environ["TEXTUAL_DRIVER"] = "textual.drivers.web_driver:WebDriver"
    return _orchestrate(["top", request["run_dir"]])


def _end_with_input() -> None:
    while os.read(0, 1024):  # not through the buffer, whose lock this thread would hold at our end
        pass
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(_LAST_SECONDS)
    os._exit(130)


def _orchestrate(words: list[str], *, color: bool = False) -> int:
    from orchestrator.cli.main import main as orchestrate  # noqa: PLC0415 - moving files needs none of it

    try:
        orchestrate(words, color=color)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _submit(request: Mapping[str, Any]) -> int:
    """Submit the job that was sent, unless that has been done already; print run id and directory."""
    from orchestrator.login.submission import submit_once  # noqa: PLC0415

    os.environ.update(request["environ"])
    printed, said = io.StringIO(), io.StringIO()
    # Nothing is written to a connection that may be gone between the run's creation and its start.
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = submit_once(request, _orchestrate)
    sys.stderr.write(said.getvalue())
    sys.stdout.write(printed.getvalue())
    return code


def _push(request: Mapping[str, Any]) -> int:
    from orchestrator.login.store import receive_files  # noqa: PLC0415

    return receive_files(request, sys.stdin.buffer, sys.stdout.buffer)


def _states(request: Mapping[str, Any]) -> int:
    """Print the states of several runs: run id -> what `list` shows; None for one that is not there."""
    print(json.dumps({run_id: _state(Path(path).expanduser()) for run_id, path in request["runs"].items()}))
    return 0


def _state(path: Path) -> dict[str, Any] | None:
    """Return what `list` shows of a run, or state, reason and since (epoch seconds) of a sweep."""
    from orchestrator.cli.sweep import sweep_entry  # noqa: PLC0415
    from orchestrator.monitor.overview import overview  # noqa: PLC0415
    from orchestrator.monitor.status import current_status  # noqa: PLC0415
    from orchestrator.monitor.sweep import point_rows  # noqa: PLC0415
    from orchestrator.rundir import RunDir  # noqa: PLC0415
    from orchestrator.sweep.sweepdir import SweepDir  # noqa: PLC0415

    run, sweep = RunDir(path), SweepDir(path)
    if sweep.sweep_file.exists():
        entry = sweep_entry(sweep, point_rows(sweep))
        return {key: entry.get(key, 0.0) for key in ("state", "reason", "since")}
    return overview(run, current_status(run)) if run.plan_file.exists() else None


def _fetch(request: Mapping[str, Any]) -> int:
    from orchestrator.login.sending import send_files  # noqa: PLC0415

    return send_files(request, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
