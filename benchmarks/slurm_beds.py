"""The testbed's Slurm cluster as the comparisons use it: our batch scripts and ones written by hand.

A script by hand has the `#SBATCH` lines of ours, so that both ask Slurm for the same; ours is written by
`submit --no-start` and handed to the same plain sbatch. Both begin with a line that notes the time.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import beds, bench
from orchestrator.slurm.executor import foreign_variables
from tests.testbed import Testbed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STARTED = "job-started"
_PATIENCE = 180
_ASKED = {"gpus_per_node": "2", "time": "30"}


class SlurmSite(beds.Site):
    """A cluster and a folder for one benchmark."""

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of Slurm's clients and ours; no outer job's variables are in it."""
        own = super().environ(**more)
        foreign = foreign_variables(own)
        return {name: value for name, value in own.items() if name not in foreign} | self.bed.slurm.env

    def job(self, folder: Path, script: str, args: Sequence[str], backend: str = "slurm", **job: Any) -> Path:
        """Write a job file for all hosts of the cluster; `slurm` holds more of its section `slurm`."""
        slots = self.bed.options.slots_of(1)
        asked = _ASKED | {"gpus_per_node": str(slots)} | job.pop("slurm", {})
        cluster = {"backend": backend, "nodes": len(self.bed.nodes), "slots": slots, "slurm": asked}
        return super().job(folder, script, args, backend, cluster=cluster, **job)

    # -- batch scripts

    def ours(self, folder: Path, script: str, args: Sequence[str]) -> Path:
        """Return the batch script of a run that is written and not submitted."""
        path = self.job(folder, script, args)
        told = self.ask(bench.program("orchestrate"), "submit", str(path), "--no-start", "--json")
        batch = Path(json.loads(told)["run_dir"]) / "slurm.sbatch"
        head, _, rest = batch.read_text().partition("\n\n")  # first #! and #SBATCH, then what is run
        batch.write_text(f"{head}\n{_note(folder / _STARTED)}\n{rest}")
        return batch

    def by_hand(self, folder: Path, ours: Path, *commands: str) -> Path:
        """Return a batch script that asks for what one of ours asks for, and runs these commands."""
        lines = [line for line in ours.read_text().splitlines() if line.startswith("#SBATCH")]
        lines = [line for line in lines if "--output" not in line] + [f"#SBATCH --output={folder}/slurm.out"]
        batch = folder / "slurm.sbatch"
        batch.write_text("\n".join(["#!/usr/bin/env bash", *lines, _note(folder / _STARTED), *commands, ""]))
        return batch

    def srun_torchrun(self, folder: Path, script: str, args: Sequence[str]) -> list[str]:
        """Return the commands that start a torchrun on each host by one srun, as one would by hand."""
        variables = [f"export {name}={value}" for name, value in beds.RANK_ENVIRONMENT.items()]
        launcher = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(self.bed.nodes)}"),
            f"--nproc-per-node={self.bed.options.slots_of(1)}",
        ]
        meeting = f'--node-rank="$SLURM_NODEID" --master-addr="$master" --master-port={29500 + self.turn}'
        line = f"exec {shlex.join(launcher)} {meeting} {shlex.join([script, *args])}"
        return [
            *variables,
            'export master=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f"cd {shlex.quote(str(folder))}",
            f"srun --ntasks-per-node=1 --kill-on-bad-exit=1 bash -c {shlex.quote(line)}",
        ]

    # -- Slurm

    def ask(self, *argv: str) -> str:
        """Return what a command on the submit side prints; SystemExit when it fails."""
        done = subprocess.run(
            argv, env=self.environ(), cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"`{shlex.join(argv)}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def sbatch(self, batch: Path) -> str:
        """Submit a batch script; return the job's id."""
        return self.ask("sbatch", "--parsable", str(batch)).strip()

    def idle(self) -> bool:
        """Say whether Slurm shows every host as free."""
        shown = self.ask("sinfo", "--noheader", "--partition=main", "--format=%T %D").split()
        return shown == ["idle", str(len(self.bed.nodes))]

    def await_file(self, file: Path) -> None:
        """Wait for a file that a job of the file's folder writes; SystemExit with all its words in vain."""
        if beds.wait_for(file.exists, _PATIENCE) is None:
            names = ("*.out", "*.log", "runs/*/*.out", "runs/*/attempt-*/*.log", "runs/*/attempt-*/logs/*")
            logs = [log for name in names for log in sorted(file.parent.glob(name))]
            said = "\n".join(f"--- {log}\n{log.read_text(errors='replace')}" for log in logs)
            sys.exit(f"no {file} in {_PATIENCE} s\n{said}")

    def await_idle(self) -> float:
        """Wait until Slurm shows every host as free; return when that was (epoch seconds)."""
        when = beds.wait_for(self.idle, _PATIENCE)
        if when is None:
            sys.exit(f"hosts are not free after {_PATIENCE} s: {self.ask('sinfo')}\n{self.ask('squeue')}")
        return when

    def clear(self) -> None:
        """End every job, then whatever is left."""
        self.bed.slurm.cancel_all()
        super().clear()


def _note(file: Path) -> str:
    """Return a line of bash that writes the time (epoch seconds) into a file, without starting a program."""
    return f'echo "$EPOCHREALTIME" >{shlex.quote(str(file))}'


def job_start(folder: Path) -> float:
    """Return when Slurm started the batch script of a folder (epoch seconds)."""
    return float((folder / _STARTED).read_text())


@contextlib.contextmanager
def site(nodes: int, slots: int = 2) -> Iterator[SlurmSite]:
    """Bring a cluster up for one benchmark; afterwards nothing of it is left.

    Raises:
        SystemExit: no testbed can be had here.
    """
    bench.need_testbed()
    bench.need("slurmctld", "slurmd", "srun", "munged", bench.program("orchestrate"))
    with (
        tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as name,
        Testbed.up(nodes=nodes, slots=slots, slurm=True) as bed,
    ):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that this cleans up too
        place = SlurmSite(bed, Path(name))
        try:
            yield place
        finally:
            place.clear()


def versions(place: SlurmSite, *packages: str) -> dict[str, str]:
    """Return the versions of packages and of Slurm."""
    return bench.versions(*packages) | {"slurm": place.ask("sinfo", "--version").split()[-1]}
