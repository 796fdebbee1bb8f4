"""One rank of a Slurm job ends badly: how soon does Slurm show all hosts as free again?

Two hosts of two ranks. Rank 3 exits with code 1; the others end at SIGTERM and would live for ten minutes.
Ours (grace time 5 s, which nobody needs here) beside a batch script by hand that runs
`srun --kill-on-bad-exit=1 torchrun`. sinfo is asked again and again, without a pause of more than 20 ms.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks import beds, bench, slurm_beds

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 5
_SCRIPT = str(bench.ROOT / "tests/testbed/rank_script.py")
_FAILING = 3
_BEHAVIOUR = ["--fail-rank", str(_FAILING), "--exit-code", "1", "--after", "2", "--sleep", "600"]
_FREE = "all hosts free"


class Failure:
    """A job one rank of which fails."""

    def __init__(self, site: slurm_beds.SlurmSite) -> None:
        self._site = site
        self._model = site.ours(site.fresh("model"), _SCRIPT, [])

    def ours(self) -> bench.Figures:
        """Let the batch script of a run do it."""
        folder = self._site.fresh("orchestrate")
        batch = self._site.ours(folder, _SCRIPT, ["--report", str(folder), *_BEHAVIOUR])
        figures = self._observe(folder, batch)
        failed = self._failed(folder)
        seen = {event["event"]: event["time"] - failed for event in beds.events(folder)}
        steps = {"all ranks ended": "rank_exit", "nothing left on hosts": "host_ended", "verdict": "verdict"}
        return {name: seen[event] for name, event in steps.items()} | figures

    def by_hand(self) -> bench.Figures:
        """Let srun start torchrun, and end it."""
        folder = self._site.fresh("by-hand")
        commands = self._site.srun_torchrun(folder, _SCRIPT, ["--report", str(folder), *_BEHAVIOUR])
        return self._observe(folder, self._site.by_hand(folder, self._model, *commands))

    def _failed(self, folder: Path) -> float:
        return float((folder / f"rank-{_FAILING}.exit").read_text())

    def _observe(self, folder: Path, batch: Path) -> bench.Figures:
        self._site.sbatch(batch)
        self._site.await_file(folder / f"rank-{_FAILING}.exit")
        free = self._site.await_idle() - self._failed(folder)
        told = [float(file.read_text()) for file in folder.glob("rank-*.sigterm")]
        self._site.clear()
        return {"ranks told": float(len(told)), _FREE: free}


def main() -> None:
    """Run the comparison."""
    args = bench.arguments("slurm_fail_fast", __doc__, rounds=5).parse_args()
    load = os.getloadavg()[0]
    with slurm_beds.site(nodes=2) as site:
        run = Failure(site)
        ways = {"orchestrate": run.ours, "srun --kill-on-bad-exit=1 torchrun": run.by_hand}
        samples = bench.alternate(ways, args.rounds)
        versions = slurm_beds.versions(site, "torch")
    report = bench.Report(
        "slurm_fail_fast",
        f"seconds after rank {_FAILING}'s exit, 2 hosts x 2 ranks; the others end at SIGTERM "
        f"(grace time {beds.GRACE} s)",
        samples,
        versions=versions,
        load_before=load,
    )
    report.goal(_FREE, bench.summarise(report.values("orchestrate", _FREE)), _SECONDS)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
