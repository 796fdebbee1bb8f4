"""Our agents on 64 hosts of a Slurm cluster, each with a slurmd of its own, beside `srun hostname`.

The clock starts in the first line of the batch script. Ours stops when the last agent has said that it is
ready; the job's script is not there, so that no rank is started (torch on 64 hosts would be too much for one
machine). The peers are sruns in batch scripts by hand, with the same `#SBATCH` lines:

- `srun hostname`: the least there is.
- `srun, agent start`: the same python as ours imports all modules of our agent from the same zip file and
  prints the time. So the hosts do the same work as for us, but for our control channel and checks.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from benchmarks import beds, bench, slurm_beds
from orchestrator.bundle import agent_zip

if TYPE_CHECKING:
    from pathlib import Path

_IMPORTS = "from agent import keeper, main, launch, commands; import time; print(time.time(), flush=True)"
_OURS, _HOSTNAME, _PYTHON = "orchestrate", "srun hostname", "srun, agent start"
_LAST, _END = "last host", "end"


class Starts:
    """The ways to start something on all hosts."""

    def __init__(self, site: slurm_beds.SlurmSite) -> None:
        self._site = site
        self._model = site.ours(site.fresh("model"), "not-there.py", [])
        archive = site.folder / "agent.pyz"
        archive.write_bytes(agent_zip())
        code = f"import sys; sys.path.insert(0, {str(archive)!r}); {_IMPORTS}"
        self._python = shlex.join([sys.executable, "-c", code])

    def ours(self) -> bench.Figures:
        """Start every agent, and no rank."""
        folder = self._site.fresh("orchestrate")
        self._site.sbatch(self._site.ours(folder, "not-there.py", []))
        self._site.await_file(folder / "job-started")
        free = self._site.await_idle()
        events = beds.events(folder)
        ready = [event["time"] for event in events if event["event"] == "host_ready"]
        if len(ready) != len(self._site.bed.nodes):
            sys.exit(f"only {len(ready)} hosts were ready: {events}")
        times = {"supervisor": events[0]["time"], "first host": ready[0], _LAST: ready[-1]}
        return self._after_start(folder, times | {_END: events[-1]["time"], "hosts free": free})

    def hostname(self) -> bench.Figures:
        """Run hostname everywhere."""
        folder = self._site.fresh("hostname")
        names = self._srun(folder, "hostname")
        if len(set(names)) != len(self._site.bed.nodes):
            sys.exit(f"not every host has answered: {names}")
        return self._after_start(folder, self._ends(folder))

    def python(self) -> bench.Figures:
        """Import everywhere what our agent imports."""
        folder = self._site.fresh("agent-start")
        times = list(map(float, self._srun(folder, self._python)))
        return self._after_start(folder, {"first host": min(times), _LAST: max(times)} | self._ends(folder))

    def _srun(self, folder: Path, command: str) -> list[str]:
        """Run a command on all hosts; return the lines they print."""
        said, ended = folder / "said", folder / "ended"
        commands = [f"srun {command} >{said} && echo $EPOCHREALTIME >{ended}.new && mv {ended}.new {ended}"]
        self._site.sbatch(self._site.by_hand(folder, self._model, *commands))
        self._site.await_file(ended)
        return said.read_text().split()

    def _ends(self, folder: Path) -> bench.Figures:
        return {_END: float((folder / "ended").read_text()), "hosts free": self._site.await_idle()}

    def _after_start(self, folder: Path, times: bench.Figures) -> bench.Figures:
        self._site.clear()
        start = slurm_beds.job_start(folder)
        return {name: when - start for name, when in times.items()}


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("slurm_scale", __doc__, rounds=5)
    parser.add_argument("--hosts", type=int, default=64, help="how many (%(default)s)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with slurm_beds.site(nodes=args.hosts, slots=1) as site:
        run = Starts(site)
        ways = {_OURS: run.ours, _PYTHON: run.python, _HOSTNAME: run.hostname}
        samples = bench.alternate(ways, args.rounds)
        versions = slurm_beds.versions(site)
    report = bench.Report(
        "slurm_scale",
        f"seconds from the job's start until the last of {args.hosts} hosts has answered (ours, agent start) "
        "or srun has ended (hostname); a slurmd per host, one machine; no goal",
        samples,
        versions=versions,
        load_before=load,
    )
    for peer, figure in ((_PYTHON, _LAST), (_HOSTNAME, _END)):
        pairs = zip(report.values(_OURS, _LAST), report.values(peer, figure), strict=True)
        samples[f"{_OURS} / {peer}"] = [{"ratio": ours / theirs} for ours, theirs in pairs]
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
