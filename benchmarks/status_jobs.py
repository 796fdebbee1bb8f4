"""What Slurm is asked, and how long it takes, to know the state of 1,000 jobs.

Each run is a process of its own, as `orchestrate status` is one: its start and its imports count. The jobs
are single ones, held: an array that waits is one line of squeue and would be cheaper. How often squeue was
run is counted by a shim on the PATH.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import bench

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 1.0
_QUERIES = 1
_LOOK_UP = """
import sys
from orchestrator.slurm.queue import look_up
wanted = open(sys.argv[1]).read().split()
answer = look_up(wanted, max_age=float(sys.argv[2]))
if answer.error or len(answer.jobs) != len(wanted):
    raise SystemExit(f"{len(answer.jobs)} of {len(wanted)} jobs are known {answer.error}")
"""
_SUBMIT = 'for _ in $(seq "$1"); do sbatch --parsable --hold --output=/dev/null --wrap=true || exit; done'


class Counter:
    """Counts how often squeue is run."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        shim = folder / "squeue"
        shim.write_text(f'#!/bin/sh\necho >> "{self._log}"\nexec "{shutil.which("squeue")}" "$@"\n')
        shim.chmod(0o755)

    def take(self) -> int:
        """Return how often it was run since the last time."""
        count = len(self._log.read_text()) if self._log.exists() else 0
        self._log.unlink(missing_ok=True)
        return count


def contenders(folder: Path, ids: Path, jobs: int) -> dict[str, Callable[[], bench.Figures]]:
    """Return what is measured, by the name under which it is shown."""
    counter = Counter(folder)
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "XDG_STATE_HOME": str(folder)}

    def look_up(max_age: str) -> bench.Figures:
        counter.take()
        argv = [sys.executable, "-c", _LOOK_UP, str(ids), max_age]
        return {"s": bench.timed(argv, env=env), "squeue runs": counter.take()}

    return {
        f"look_up, {jobs} jobs": lambda: look_up("0"),
        f"look_up, {jobs} jobs, again at once": lambda: look_up("600"),
        "squeue --me": lambda: {"s": bench.timed(["squeue", "--me", "--states=all"])},
        "squeue --jobs of one job": lambda: {
            "s": bench.timed(["squeue", "--jobs", ids.read_text().split()[0]])
        },
        "python -c pass": lambda: {"s": bench.timed([sys.executable, "-c", "pass"])},
    }


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("status_jobs", __doc__, rounds=10)
    parser.add_argument("--jobs", type=int, default=1000, help="how many (%(default)s)")
    args = parser.parse_args()
    bench.need_testbed()
    bench.need("slurmctld", "squeue", "munged")
    load = os.getloadavg()[0]
    from tests.testbed import Testbed  # noqa: PLC0415 - only where a testbed can be had

    with Testbed.up(nodes=1, slots=1, slurm=True) as bed, tempfile.TemporaryDirectory() as name:
        os.environ |= bed.slurm.env
        ids = Path(name) / "ids"
        ids.write_text(bed.slurm.run("sh", "-c", _SUBMIT, "sh", str(args.jobs), check=True).stdout)
        time.sleep(1)  # for slurmctld to have no more to do
        runs = contenders(Path(name), ids, args.jobs)
        samples = bench.alternate(runs, args.rounds)
        versions = bench.versions(slurm=["squeue", "--version"])  # it wants the cluster's slurm.conf
    report = bench.Report(
        "status_jobs",
        f"the states of {args.jobs} held jobs, from a process's start to its end; a cluster of one host",
        samples,
        versions=versions,
        load_before=load,
    )
    ours = next(iter(runs))
    report.goal("seconds", bench.summarise(report.values(ours, "s")), _SECONDS)
    report.goal("runs of squeue", bench.summarise(report.values(ours, "squeue runs")), _QUERIES)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
