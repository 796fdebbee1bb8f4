"""One rank ends badly: how soon is every other rank told, and how soon is nothing left on any host?

Two real hosts of two ranks, over pdsh. Rank 3 exits with code 1; the other ranks ignore SIGTERM, have a child
each, and would live for ten minutes. Ours stops them with SIGTERM, and SIGKILL after a grace time of 5 s.
`deepspeed` is watched for a minute and then ended from outside, process by process.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from benchmarks import beds, bench

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = str(bench.ROOT / "tests/testbed/rank_script.py")
_FAILING = 3
_RANKS = 4
_PATIENCE = 60
_BEHAVIOUR = ["--fail-rank", str(_FAILING), "--exit-code", "1", "--after", "2"]
_BEHAVIOUR += ["--sleep", "600", "--ignore-sigterm", "--children", "1"]
_TOLD = "SIGTERM everywhere"
_GONE = "nothing left on hosts"


class Failure:
    """A run one rank of which fails, watched from outside."""

    def __init__(self, site: beds.Site, watch: float) -> None:
        self._site = site
        self._watch = watch

    def ours(self) -> bench.Figures:
        """Submit a job."""
        folder = self._site.fresh("orchestrate")
        self._site.orchestrate(folder, _SCRIPT, ["--report", str(folder), *_BEHAVIOUR])
        return self._observe(folder)

    def deepspeed(self) -> bench.Figures:
        """Let DeepSpeed's launcher start it."""
        folder = self._site.fresh("deepspeed")
        self._site.deepspeed(folder, _SCRIPT, ["--report", str(folder), *_BEHAVIOUR])
        return self._observe(folder)

    def _observe(self, folder: Path) -> bench.Figures:
        failed = self._failure(folder)
        gone = beds.wait_for(lambda: not self._site.on_hosts(), self._watch, every=0.1)
        told = [float(file.read_text()) for file in folder.glob("rank-*.sigterm")]
        left = len(self._site.on_hosts())
        figures = {"ranks told": float(len(told)), "processes left": float(left)}
        if len(told) == _RANKS - 1:
            figures[_TOLD] = max(told) - failed
        if gone is not None:
            figures[_GONE] = gone - failed
        self._site.clear()
        return figures

    def _failure(self, folder: Path) -> float:
        """Wait until the rank has failed, with every other rank there; return when."""
        file = folder / f"rank-{_FAILING}.exit"
        if beds.wait_for(file.exists, _PATIENCE) is None or len(list(folder.glob("rank-*.json"))) < _RANKS:
            logs = "".join(log.read_text(errors="replace") for log in folder.glob("*.log"))
            sys.exit(f"not every rank has started in {_PATIENCE} s:\n{logs}")
        return float(file.read_text())


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("fail_fast", __doc__, rounds=3)
    parser.add_argument("--watch", type=float, default=60, help="seconds to watch a run (%(default)g)")
    args = parser.parse_args()
    bench.need("pdsh", "ssh", bench.program("deepspeed"))
    load = os.getloadavg()[0]
    with beds.site(nodes=2, slots=2) as site:
        run = Failure(site, args.watch)
        ways = {"orchestrate": run.ours, "deepspeed": run.deepspeed}
        samples = bench.alternate(ways, args.rounds, warm_ups=0)
    report = bench.Report(
        "fail_fast",
        f"seconds after rank {_FAILING}'s exit, 2 hosts x 2 ranks, of which 3 are to be told; every run is "
        f"watched for up to {args.watch:g} s; a figure that is absent did not come about in that time",
        samples,
        versions=bench.versions("deepspeed", "torch", pdsh=["pdsh", "-V"]),
        load_before=load,
    )
    for figure, limit in ((_TOLD, 2), (_GONE, beds.GRACE + 2)):
        found = report.values("orchestrate", figure)
        if len(found) < args.rounds:
            sys.exit(f"{figure} did not come about in {args.rounds - len(found)} of our runs")
        report.goal(figure, bench.summarise(found), limit)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
