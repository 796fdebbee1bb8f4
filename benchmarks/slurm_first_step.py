"""From the start of a Slurm job to its first training step, on two hosts of two ranks.

Ours (`slurm.sbatch` as `submit` writes it, launcher torchrun) beside a batch script by hand, which runs
`srun torchrun`: the same `#SBATCH` lines, hosts, python, script, DeepSpeed configuration, one thread a rank.
Two scripts are trained: a tiny ZeRO-3 + hpZ model, so that the launchers' share is as large as it can be,
and that of examples/zeropp_lm. The clock starts when Slurm starts the batch script, in its first line.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from benchmarks import beds, bench, first_step, slurm_beds

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 1.1


class Training:
    """One script, started by both ways."""

    def __init__(self, site: slurm_beds.SlurmSite, script: str) -> None:
        config = site.folder / "ds_config.json"
        config.write_text(json.dumps(first_step.CONFIG))
        path, args = first_step.SCRIPTS[script]
        self._site = site
        self._script = [str(bench.ROOT / path), *args, str(config)]
        self._model = site.ours(site.fresh("model"), first_step.STAMP, [])

    def ours(self) -> bench.Figures:
        """Let the batch script of a run do it."""
        folder = self._site.fresh("orchestrate")
        batch = self._site.ours(folder, first_step.STAMP, [str(folder), *self._script])
        figures = self._run(folder, batch)
        began = slurm_beds.job_start(folder)
        seen = {event["event"]: event["time"] - began for event in beds.events(folder)}
        return {"supervisor": seen["supervisor"], "hosts ready": seen["host_ready"]} | figures

    def by_hand(self) -> bench.Figures:
        """Let srun start torchrun."""
        folder = self._site.fresh("by-hand")
        commands = self._site.srun_torchrun(folder, first_step.STAMP, [str(folder), *self._script])
        return self._run(folder, self._site.by_hand(folder, self._model, *commands))

    def _run(self, folder: Path, batch: Path) -> bench.Figures:
        """Submit and wait; return when things happened, in seconds after the job's start."""
        self._site.sbatch(batch)
        self._site.await_file(folder / "first-step")
        ended = self._site.await_idle()
        began = [float(file.read_text()) for file in folder.glob("rank-*.began")]
        first = float((folder / "first-step").read_text())
        self._site.clear()
        figures = {"last rank began": max(began), "first step": first, "hosts free": ended}
        start = slurm_beds.job_start(folder)
        return {name: when - start for name, when in figures.items()}


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("slurm_first_step", __doc__, rounds=5)
    parser.add_argument(
        "--script", choices=first_step.SCRIPTS, action="append", help="what to train (all of them)"
    )
    args = parser.parse_args()
    scripts = args.script or list(first_step.SCRIPTS)
    load = os.getloadavg()[0]
    with slurm_beds.site(nodes=2) as site:
        runs = {script: Training(site, script) for script in scripts}
        ways = {f"orchestrate, {script}": run.ours for script, run in runs.items()}
        ways |= {f"srun torchrun, {script}": run.by_hand for script, run in runs.items()}
        samples = bench.alternate(ways, args.rounds)
        versions = slurm_beds.versions(site, "deepspeed", "torch")
    report = bench.Report(
        "slurm_first_step",
        "seconds after the job's start, 2 hosts x 2 ranks; "
        + ", ".join(f"{script}: {first_step.SCRIPTS[script][0]}" for script in scripts),
        samples,
        versions=versions,
        load_before=load,
    )
    for script in scripts:
        ours, theirs = f"orchestrate, {script}", f"srun torchrun, {script}"
        report.goal(f"{ours} / {theirs}", report.ratio((ours, "first step"), (theirs, "first step")), _LIMIT)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
