"""`orchestrate check` on 32 hosts, each with an sshd of its own, beside what only asks them for their names.

What is timed is the whole command, from its start to its end. `pdsh hostname` and `clush hostname` log in to
the same hosts and run nothing but `hostname`: the least that any look at all hosts costs. We start a python
on every host, which asks some dozen things of it, connects back, and looks for the master; and we read the
job file, write the files of a run, and take them back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from benchmarks import beds, bench

_PATIENCE = 120


class Check:
    """The ways to look at all hosts of a bed."""

    def __init__(self, site: beds.Site) -> None:
        self._site = site
        self._names = [node.name for node in site.bed.nodes]

    def ours(self, backend: str) -> bench.Figures:
        """Check a job on all hosts; see that it found all of them well."""
        folder = self._site.fresh(f"check-{backend}")
        script = folder / "train.py"
        script.write_text("")
        job = self._site.job(folder, str(script), [], backend)
        argv = [bench.program("orchestrate"), "check", str(job), "--json"]
        seconds, said = self._run(argv)
        report = json.loads(said)
        if not report["ok"] or list(report["hosts"]) != self._names:
            sys.exit(f"the check found something: {said}")
        if (folder / "runs").exists():
            sys.exit(f"the check has left {folder / 'runs'}")
        return {"end": seconds, "on the hosts": report["seconds"]}

    def pdsh(self) -> bench.Figures:
        """Ask all hosts for their names with pdsh, on all at once."""
        return self._names_by(self._site.everywhere("pdsh", "hostname"), **self._site.bed.pdsh_env())

    def clush(self) -> bench.Figures:
        """Ask all hosts for their names with clush, on all at once."""
        return self._names_by(self._site.everywhere("clush", "hostname"))

    def _names_by(self, argv: list[str], **environ: str) -> bench.Figures:
        seconds, said = self._run(argv, **environ)
        if sorted(line.rpartition(" ")[2] for line in said.splitlines()) != sorted(self._names):
            sys.exit(f"not every host has answered {argv[0]}: {said}")
        return {"end": seconds}

    def _run(self, argv: list[str], **environ: str) -> tuple[float, str]:
        """Run a command that must succeed; return its seconds and what it printed."""
        started = time.perf_counter()
        done = subprocess.run(
            argv,
            env=self._site.environ(**environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{argv[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return seconds, done.stdout


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("check", __doc__, rounds=5)
    parser.add_argument("--hosts", type=int, default=32, help="how many (%(default)s)")
    args = parser.parse_args()
    bench.need("pdsh", "clush", "ssh", bench.program("orchestrate"))
    load = os.getloadavg()[0]
    with beds.site(nodes=args.hosts, slots=1) as site:
        run = Check(site)
        ways = {
            "orchestrate check, pdsh": lambda: run.ours("pdsh"),
            "orchestrate check, ssh": lambda: run.ours("ssh"),
            "pdsh hostname": run.pdsh,
            "clush hostname": run.clush,
        }
        samples = bench.alternate(ways, args.rounds)
    report = bench.Report(
        "check",
        f"seconds of the whole command on {args.hosts} hosts; real sshd's, one machine",
        samples,
        versions=bench.versions("paramiko", pdsh=["pdsh", "-V"], clush=["clush", "--version"]),
        load_before=load,
    )
    for name in ("orchestrate check, pdsh", "orchestrate check, ssh"):
        report.goal(f"{name}, seconds", bench.summarise(report.values(name, "end")), 5)
        report.goal(f"{name} / pdsh hostname", report.ratio((name, "end"), ("pdsh hostname", "end")), 3)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
