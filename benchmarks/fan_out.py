"""Starting one command on 32 hosts, each with an sshd of its own: ours beside pdsh alone and clush.

What is timed is the way from the tool's own start to the last host's answer. For pdsh and clush the answer
is a line that the command prints; for us it is the word "ready" of the last agent, from the start of the
supervisor process (its imports included). The command comes in two kinds:

- `echo`: a shell's own echo; the least there is.
- `agent start`: a bash that becomes the same python as ours, which imports all modules of our agent from the
  same zip file, and prints. So the hosts do the same work as for us, but for our control channel and checks.

The goals compare like with like: agents started by us and `agent start` by pdsh.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import beds, bench
from orchestrator.bundle import agent_zip

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE = 120
_IMPORTS = "from agent import keeper, main, launch, commands; print('started', flush=True)"


class FanOut:
    """The ways to start a command on all hosts of a bed."""

    def __init__(self, site: beds.Site) -> None:
        self._site = site
        archive = site.folder / "agent.pyz"
        archive.write_bytes(agent_zip())
        script = site.folder / "start.sh"
        code = f"import sys; sys.path.insert(0, {str(archive)!r}); {_IMPORTS}"
        script.write_text(f"cd /\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} </dev/null\n")
        self.commands = {"echo": "echo started", "agent start": f"exec bash {script}"}

    def pdsh(self, command: str) -> bench.Figures:
        """Start a command with pdsh alone, on all hosts at once."""
        environ = self._site.environ(**self._site.bed.pdsh_env())
        return self._lines(self._site.everywhere("pdsh", command), environ)

    def clush(self, command: str) -> bench.Figures:
        """Start a command with clush, on all hosts at once."""
        return self._lines(self._site.everywhere("clush", command), self._site.environ())

    def _lines(self, argv: list[str], environ: dict[str, str]) -> bench.Figures:
        """Run a tool; return when the last host's line came, and when the tool had ended."""
        started = time.time()
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(argv, env=environ, text=True, **options) as process:
            said = [(time.time() - started, line) for line in process.stdout or []]
        ended = time.time() - started
        answers = [when for when, line in said if line.rstrip().endswith("started")]
        if process.returncode or len(answers) != len(self._site.bed.nodes):
            sys.exit(f"{argv[0]} ended with {process.returncode}: {''.join(line for _, line in said)}")
        return {"last host": answers[-1], "end": ended}

    def ours(self, backend: str) -> bench.Figures:
        """Submit a job whose script is not there: every agent starts, says so, and no rank is started."""
        folder = self._site.fresh(f"orchestrate-{backend}")
        started = time.time()
        command = self._site.orchestrate(folder, "not-there.py", [], backend)
        command.wait(_PATIENCE)
        events = beds.events(folder)
        ready = [event["time"] for event in events if event["event"] == "host_ready"]
        if len(ready) != len(self._site.bed.nodes):
            sys.exit(f"only {len(ready)} hosts were ready: {(folder / 'submit.log').read_text()}")
        supervisor = _supervisor_start(folder)
        figures = {"last host": ready[-1] - supervisor, "end": time.time() - supervisor}
        spoke = next(event["time"] for event in events if event["event"] == "supervisor")
        more = {"supervisor's own start": spoke - supervisor, "from the command": ready[-1] - started}
        self._site.clear()
        return figures | more


def _supervisor_start(folder: Path) -> float:
    """Return when the supervisor process started (epoch seconds), as the kernel knows it."""
    (file,) = folder.glob("runs/*/record.json")
    ticks = json.loads(file.read_text())["supervisor"]["started"]
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("fan_out", __doc__, rounds=5)
    parser.add_argument("--hosts", type=int, default=32, help="how many (%(default)s)")
    args = parser.parse_args()
    bench.need("pdsh", "clush", "ssh", bench.program("orchestrate"))
    load = os.getloadavg()[0]
    with beds.site(nodes=args.hosts, slots=1) as site:
        run = FanOut(site)
        echo, agent = run.commands["echo"], run.commands["agent start"]
        ways = {
            "orchestrate, pdsh": lambda: run.ours("pdsh"),
            "orchestrate, ssh": lambda: run.ours("ssh"),
            "pdsh, agent start": lambda: run.pdsh(agent),
            "clush, agent start": lambda: run.clush(agent),
            "pdsh, echo": lambda: run.pdsh(echo),
            "clush, echo": lambda: run.clush(echo),
        }
        samples = bench.alternate(ways, args.rounds)
    report = bench.Report(
        "fan_out",
        f"seconds from the tool's start to the last of {args.hosts} hosts' answer; real sshd's, one machine",
        samples,
        versions=bench.versions("paramiko", pdsh=["pdsh", "-V"], clush=["clush", "--version"]),
        load_before=load,
    )
    for name in ("orchestrate, pdsh", "orchestrate, ssh"):
        ratio = report.ratio((name, "last host"), ("pdsh, agent start", "last host"))
        report.goal(f"{name} / pdsh, agent start", ratio, 1.2)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
