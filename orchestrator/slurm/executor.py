"""Submit a rendered batch script through submitit.

submitit 1.5.4 makes its own batch script around a pickled function; here the script is ours and there is
nothing to pickle, so `sbatch` by hand starts the same run. What submitit adds (a job name, `wckey`, a time
limit of five minutes) is not in it either.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from contextlib import redirect_stderr
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, SubmitError
from orchestrator.slurm.refusals import meaning_of, said_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_INHERITED = re.compile(r"(SLURM|SLURMD|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|PMI|PMIX)_")
_KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}


def foreign_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables of an outer job or of site defaults that would change what the script asks for.

    sbatch(1) lets SBATCH_* win over the script's own lines, and SLURM_* of an outer job reach the new one.
    """
    return sorted(name for name in environ if _INHERITED.match(name) and name not in _KEPT)


def submit_script(script: Path, more: Iterable[str] = ()) -> str:
    """Submit a batch script; return the job's id.

    Args:
        script: the rendered script, on a disk that the nodes see.
        more: further options for sbatch.

    Raises:
        SubmitError: there is no sbatch here, or it refuses the job.
    """
    for program in ("sbatch", "srun"):
        if shutil.which(program) is None:
            what = f"{program} is not installed on this machine"
            raise SubmitError(Problem(what, "cluster.backend", "slurm", meaning_of(what)[1]))
    from submitit import SlurmExecutor  # noqa: PLC0415 - only here, it costs every other command its start
    from submitit.core.utils import FailedJobError, FailedSubmissionError  # noqa: PLC0415

    class ScriptExecutor(SlurmExecutor):
        """submitit's executor for Slurm, whose submission is our script as it is."""

        def _make_submission_file_text(self, command: str, uid: str) -> str:
            del command, uid
            return script.read_text(encoding="utf-8")

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            # The script itself and not submitit's copy, so that `scontrol show job` names the one to read.
            del submission_file_path
            unset = [word for name in foreign_variables(os.environ) for word in ("-u", name)]
            return ["env", *unset, "sbatch", *more, str(script)]

    # submitit prints what sbatch said; we say it ourselves.
    with tempfile.TemporaryDirectory(prefix="orchestrate-") as copies, redirect_stderr(io.StringIO()):
        try:
            job = ScriptExecutor(copies)._submit_command("")  # noqa: SLF001 - submit() would pickle a function
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            raise SubmitError(refusal(str(error))) from error
    return str(job.job_id)


def refusal(words: str) -> Problem:
    """Return what sbatch said when it refused a job, and what to do about it."""
    said = said_by(words)
    return Problem(f"sbatch refused the job: {said}", "cluster.slurm", fix=meaning_of(said)[1])
