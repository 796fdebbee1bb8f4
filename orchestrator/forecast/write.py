"""Write the best of the suggested settings into the job file, with its comments left as they are."""

from __future__ import annotations

import difflib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem, SubmitError
from orchestrator.forecast.draw_suggestions import settings_name, yaml_value
from orchestrator.forecast.examine import Examination
from orchestrator.forecast.wishes import ACTIVATIONS
from orchestrator.job import load_job
from orchestrator.job.yaml_text import set_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.forecast.document import PlanDocument


def write_best(path: Path, plan: PlanDocument, *, lossy: bool = False) -> Iterator[str]:
    """Write the best suggestion; yield the change as a unified diff.

    Args:
        path: the job file.
        plan: its plan, with suggestions.
        lossy: take settings that change the training's numbers, too.

    Raises:
        JobFileError: there is nothing to suggest, the settings cannot be set in place, or the job would have
            errors with them that it has not now. The file is left as it was.
        SubmitError: the file cannot be written.
    """
    if plan.suggestions is None or not plan.suggestions.ranked:
        fix = "say what is missing under `To see more`, or use more or larger hosts"
        raise JobFileError(Problem("there are no settings to write", str(path), fix=fix))
    _refuse_guesses(path, plan)
    first = plan.suggestions.ranked[0]
    best = next((each for each in plan.suggestions.ranked if lossy or not each.new_losses), None)
    if best is not first:
        words = ", ".join(first.new_losses)
        yield f"left out what is predicted to be faster: {settings_name(first.settings)}; {words} (--lossy)"
    fields = {} if best is None else {key: yaml_value(value) for key, value in best.fields().items()}
    if not fields:
        yield f"{path} has the best settings already; nothing was written"
        return
    before = path.read_bytes().decode("utf-8")
    after = set_values(before, str(path), fields)
    _refuse_new_errors(path, after, plan)
    _replace(path, after)
    names = (f"{path} (before)", str(path))
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), *names, n=1, lineterm="")
    yield ""
    yield from diff


def _refuse_guesses(path: Path, plan: PlanDocument) -> None:
    """Refuse settings of which nobody can tell whether they fit."""
    keys = [wish.key for wish in plan.wishes if wish.gives == ACTIVATIONS]
    if keys:
        what = "nothing was written: without the memory of activations nobody can tell what fits"
        raise JobFileError(Problem(what, str(path), fix=f"say {', '.join(keys)}"))


def _refuse_new_errors(path: Path, text: str, plan: PlanDocument) -> None:
    """Look at the changed job as a whole: a field may contradict `config_file`, or the batch."""
    known = {found.problem.what for found in plan.findings}
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / path.name
        changed.write_bytes(text.encode("utf-8"))
        examined = Examination(load_job(changed, base_dir=path.parent.absolute()), os.environ).run()
    errors = [found.problem for found in examined.findings() if found.severity == "error"]
    new = [problem for problem in errors if problem.what not in known]
    if new:
        what = "the best settings contradict something else in the job file, so nothing was written"
        raise JobFileError(Problem(what, str(path)), *new)


def _replace(path: Path, text: str) -> None:
    """Write the file at once: whoever reads it meanwhile sees the old one or the new one."""
    target = path.resolve()  # a link stays a link
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_bytes(text.encode("utf-8"))
        draft.chmod(target.stat().st_mode & 0o7777)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise SubmitError(Problem(f"cannot write: {error.strerror}", str(path))) from error
