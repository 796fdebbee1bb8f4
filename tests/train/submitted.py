"""A job file of an example, submitted as a user does, with the CPU in the place of GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.rundir import RunDir

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# No GPU, so that the figures are the same everywhere; one thread a rank, as the tests share their cores.
CPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Submitted:
    """A run that has ended."""

    path: Path
    screen: str

    @property
    def attempt(self) -> Path:
        """Return the last attempt: where somebody took the first one's port, there is a second."""
        return RunDir(self.path).attempts()[-1].path

    @property
    def said(self) -> str:
        """Return what rank 0 printed."""
        return (self.attempt / "logs/host-0.rank0.out").read_text()

    @property
    def config(self) -> dict[str, Any]:
        """Return DeepSpeed's configuration as the ranks got it."""
        return json.loads((self.attempt / "rendered/ds_config.json").read_text())


def orchestrate(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line; `folder` has its state."""
    env = {**os.environ, **CPU, "XDG_STATE_HOME": str(folder / "state")}
    argv = [sys.executable, "-m", "orchestrator", *(str(word) for word in words)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600, check=False)


def submit(job: Path, folder: Path, *, succeeds: bool = True, **settings: Any) -> Submitted:
    """Submit a job file and follow it to its end; a dot in a setting's name is written as two underscores."""
    given = {"run_root": str(folder / "runs"), **settings}
    words = [word for k, v in given.items() for word in ("--set", f"{k.replace('__', '.')}={json.dumps(v)}")]
    done = orchestrate("submit", job, "--follow", *words, folder=folder)
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("directory "))
    return Submitted(Path(line.split(maxsplit=1)[1]), done.stdout)
