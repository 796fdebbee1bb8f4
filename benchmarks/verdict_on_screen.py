"""One rank raises: how soon does the terminal say which one, and why?

Two real hosts of two ranks, over pdsh and ssh. Rank 3 raises an exception two seconds after all have started;
the other ranks would live for ten minutes and end on SIGTERM. Ours is `submit --follow`: its screen is done
when the sentence that names the rank is there, with the lines it rests on and what to try. The peers' screens
are done when they name the rank: `torchrun` by "Root Cause", `deepspeed` by what "exits with return code".
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from benchmarks import beds, bench

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

_SCRIPT = str(bench.ROOT / "tests/contract/gated_script.py")
_FAILING = 3
_SAID = "CUDA out of memory. Tried to allocate 2.50 GiB"
_BEHAVIOUR = ["--fail-rank", str(_FAILING), "--raise", _SAID, "--after", "2", "--sleep", "600"]
_PATIENCE = 90
_ERROR, _VERDICT, _BACK = "exception on screen", "verdict on screen", "terminal is back"
_MARKS = {"orchestrate": "what to try", "torchrun": "Root Cause", "deepspeed": "exits with return code"}


class Screen:
    """A run whose rank fails, as the terminal it was started from shows it."""

    def __init__(self, site: beds.Site) -> None:
        self._site = site

    def ours(self) -> bench.Figures:
        """Submit a job and follow it."""
        folder = self._site.fresh("orchestrate")
        started = self._site.orchestrate(folder, _SCRIPT, ["--report", str(folder), *_BEHAVIOUR])
        return self._observe("orchestrate", folder, [started])

    def torchrun(self) -> bench.Figures:
        """Start torchrun on each host by ssh; either terminal counts."""
        folder = self._site.fresh("torchrun")
        started = self._site.torchrun(folder, _SCRIPT, ["--report", str(folder), *_BEHAVIOUR])
        return self._observe("torchrun", folder, started)

    def deepspeed(self) -> bench.Figures:
        """Let DeepSpeed's launcher start it."""
        folder = self._site.fresh("deepspeed")
        started = self._site.deepspeed(folder, _SCRIPT, ["--report", str(folder), *_BEHAVIOUR])
        return self._observe("deepspeed", folder, [started])

    def _observe(
        self, contender: str, folder: Path, started: Sequence[subprocess.Popen[bytes]]
    ) -> bench.Figures:
        """Return when the screen showed what, seconds after the rank raised; what never came is absent."""
        moment = folder / f"rank-{_FAILING}.exit"
        if beds.wait_for(moment.exists, _PATIENCE) is None:
            logs = "".join(log.read_text(errors="replace") for log in folder.glob("*.log"))
            sys.exit(f"not every rank has started in {_PATIENCE} s:\n{logs}")
        marks = {_ERROR: _SAID, _VERDICT: _MARKS[contender]}
        seen = {
            figure: beds.wait_for(lambda text=text: _shows(folder, text), 60)
            for figure, text in marks.items()
        }
        seen[_BACK] = beds.wait_for(lambda: any(one.poll() is not None for one in started), 60)
        failed = float(moment.read_text())
        self._site.clear()
        return {figure: at - failed for figure, at in seen.items() if at is not None}


def _shows(folder: Path, text: str) -> bool:
    return any(text in log.read_text(errors="replace") for log in folder.glob("*.log"))


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("verdict_on_screen", __doc__, rounds=3)
    args = parser.parse_args()
    bench.need("pdsh", "ssh", bench.program("deepspeed"))
    load = os.getloadavg()[0]
    with beds.site(nodes=2, slots=2) as site:
        run = Screen(site)
        ways = {"orchestrate": run.ours, "torchrun": run.torchrun, "deepspeed": run.deepspeed}
        samples = bench.alternate(ways, args.rounds, warm_ups=0)
    report = bench.Report(
        "verdict_on_screen",
        f"seconds after rank {_FAILING} raised, 2 hosts x 2 ranks, until the terminal shows it; a figure "
        "that is absent did not come about in a minute",
        samples,
        versions=bench.versions("deepspeed", "torch", pdsh=["pdsh", "-V"]),
        load_before=load,
    )
    found = report.values("orchestrate", _VERDICT)
    if len(found) < args.rounds:
        sys.exit(f"{_VERDICT} did not come about in {args.rounds - len(found)} of our runs")
    report.goal(_VERDICT, bench.summarise(found), 3)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
