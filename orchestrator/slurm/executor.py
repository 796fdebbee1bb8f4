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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_INHERITED = re.compile(r"(SLURM|SLURMD|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|PMI|PMIX)_")
_KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}
_NOISE = re.compile(r"^(sbatch: )?(error: )?", re.MULTILINE)
_ADVICE = (  # what sbatch says, lower case: what to do
    ("invalid account", "correct cluster.slurm.account; `sacctmgr show assoc user=$USER` lists yours"),
    ("invalid partition", "correct cluster.slurm.partition; `sinfo` lists them"),
    ("invalid qos", "correct cluster.slurm.qos; `sacctmgr show assoc user=$USER format=qos` lists yours"),
    ("more processors requested", "ask for fewer cluster.nodes or cluster.slurm.cpus_per_task"),
    ("node count specification invalid", "ask for fewer cluster.nodes, or for another partition"),
    ("node configuration is not available", "no node has what cluster.slurm asks for; see `sinfo -N -l`"),
    ("invalid generic resource", "correct cluster.slurm.gres or gpus_per_node; see `sinfo -o '%N %G'`"),
    ("invalid node name", "correct the names in cluster.include or cluster.exclude; `sinfo -N` lists them"),
    ("time limit", "ask for less cluster.slurm.time; `sinfo` shows the limits"),
    ("unable to contact slurm controller", "is slurmctld up? see `scontrol ping`"),
    ("slurm_load", "is slurmctld up? see `scontrol ping`"),
)


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
            fix = "submit on a login node of the cluster, or set cluster.login: user@host"
            what = f"{program} is not installed on this machine"
            raise SubmitError(Problem(what, "cluster.backend", "slurm", fix))
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
    said = "; ".join(dict.fromkeys(line for line in map(_cleaned, words.splitlines()) if line))
    lower = said.lower()
    fix = next((advice for key, advice in _ADVICE if key in lower), "")
    return Problem(f"sbatch refused the job: {said}", "cluster.slurm", fix=fix)


def _cleaned(line: str) -> str:
    return _NOISE.sub("", line.strip())
