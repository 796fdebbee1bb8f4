"""From the command to a job that Slurm has accepted: ours above plain `sbatch` of the very same script.

The job is held, so that slurmctld has nothing else to do. What is timed is a command from its start to its
end. The other contenders say what ours is made of: submitit's import, and a job file that is only checked.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from benchmarks import bench, slurm_beds

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 0.5
_SCRIPT = str(bench.ROOT / "tests/testbed/rank_script.py")
_OURS, _PLAIN = "orchestrate submit", "sbatch of its script"


class Submissions:
    """The ways to submit the same job."""

    def __init__(self, site: slurm_beds.SlurmSite) -> None:
        self._site = site
        folder = site.fresh("job")
        self._job = str(site.job(folder, _SCRIPT, [], slurm={"extra": {"hold": ""}}))
        site.ask(bench.program("orchestrate"), "submit", self._job)
        (self._script,) = map(str, folder.glob("runs/*/slurm.sbatch"))

    def ours(self) -> bench.Figures:
        """Submit the job file."""
        return self._timed([bench.program("orchestrate"), "submit", self._job])

    def plain(self) -> bench.Figures:
        """Submit the script that ours has written."""
        return self._timed(["sbatch", "--parsable", self._script])

    def dry(self) -> bench.Figures:
        """Check the job file and render everything; nothing is written."""
        return self._timed([bench.program("orchestrate"), "submit", "--dry-run", self._job])

    def imports(self) -> bench.Figures:
        """Import submitit."""
        return self._timed([sys.executable, "-c", "import submitit"])

    def _timed(self, argv: Sequence[str]) -> bench.Figures:
        seconds = bench.timed(argv, env=self._site.environ(), cwd=self._site.folder)
        self._site.clear()
        return {"s": seconds}


def main() -> None:
    """Run the comparison."""
    args = bench.arguments("slurm_submit", __doc__, rounds=10).parse_args()
    load = os.getloadavg()[0]
    with slurm_beds.site(nodes=2) as site:
        run = Submissions(site)
        ways = {_OURS: run.ours, _PLAIN: run.plain, "submit --dry-run": run.dry}
        samples = bench.alternate(ways | {"python: import submitit": run.imports}, args.rounds)
        versions = slurm_beds.versions(site, "submitit", "pydantic", "click")
    report = bench.Report(
        "slurm_submit",
        "seconds from a command's start to its end; a held job for 2 hosts",
        samples,
        versions=versions,
        load_before=load,
    )
    pairs = zip(report.values(_OURS, "s"), report.values(_PLAIN, "s"), strict=True)
    above = bench.summarise([ours - plain for ours, plain in pairs])
    report.goal("seconds above plain sbatch", above, _SECONDS)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
