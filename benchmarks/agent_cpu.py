"""What watching a host costs it: our agent with all its sampling on, beside others that do as much or less.

Eight ranks print ten lines a second each. The agent takes samples every 10 s, notes four times a second how
long the 17 logs are, and where the host does not see the run directory sends them too. The peers look at the
same processes at the same time: `top -b -d 10`, and psutil (host and trees of processes, every 10 s, and
every second, the usual interval of a monitor). CPU is what the scheduler counts for all threads
(/proc/PID/task/*/schedstat), so that short turns count too; the keeper's is in the agent's.

`--local` needs no testbed and leaves out the agent that sends: for a machine with GPUs, which ours asks too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import bench

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIMIT = 1.0  # percent of a core
_RANKS = 8
_WRITES = """
import sys, time
for step in range(1, 1_000_000):
    print(f"step {step} loss 2.345 tokens/s 4745 step_time 0.10s", flush=True)
    if step % 10 == 0:
        print(f"{step}% |####    | {step}/1000", end="\\r", file=sys.stderr, flush=True)
    time.sleep(0.1)
"""
_PSUTIL = """
import json, sys, time, psutil
seconds, roots = float(sys.argv[1]), list(map(int, sys.argv[2:]))
known = {}
with open("/dev/null", "w") as out:
    while True:
        ranks = {}
        for root in roots:
            try:
                for one in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]:
                    one = known.setdefault(one.pid, one)
                    ranks[one.pid] = one.cpu_percent(), one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        host = [psutil.cpu_percent(), psutil.virtual_memory(), psutil.disk_usage("/"), psutil.getloadavg()]
        json.dump([host, ranks, psutil.net_io_counters(), psutil.disk_io_counters()], out)
        time.sleep(seconds)
"""


def cpu(pid: int) -> float:
    """Return the seconds that a process's threads have run."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def megabytes(pid: int) -> float:
    """Return what of a process is resident in memory."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


@contextlib.contextmanager
def run_of(cluster: Mapping[str, object], folder: Path, script: Path) -> Iterator[Path]:
    """Run a script on a cluster until the block is over; yield the run's directory once all ranks run.

    Raises:
        SystemExit: the run has ended.
    """
    job = {
        "name": "agent-cpu",
        "cluster": dict(cluster),
        "train": {"script": str(script), "python": sys.executable},
        "run_root": str(folder / "runs"),
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    orchestrate = [sys.executable, "-m", "orchestrator"]
    environ = os.environ | {"XDG_STATE_HOME": str(folder)}
    words = [*orchestrate, "submit", str(folder / "job.yaml"), "--json"]
    said = json.loads(subprocess.run(words, env=environ, check=True, capture_output=True).stdout)
    run = Path(said["run_dir"])
    try:
        while len(events(run, "rank_start")) < _RANKS:
            if (run / "verdict.json").exists():
                raise SystemExit((run / "verdict.json").read_text())
            time.sleep(0.2)
        yield run
    finally:
        words = [*orchestrate, "cancel", said["run_id"]]
        subprocess.run(words, env=environ, check=False, capture_output=True)


def events(run: Path, kind: str) -> list[dict[str, int]]:
    """Return a run's events of a kind."""
    with contextlib.suppress(FileNotFoundError):
        found = map(json.loads, (run / "events.jsonl").read_text().splitlines())
        return [event for event in found if event["event"] == kind]
    return []


@contextlib.contextmanager
def sending(apart: Path, script: Path) -> Iterator[Path]:
    """Run a script on a host that does not see the run directory; yield that."""
    from tests.testbed import Testbed  # noqa: PLC0415 - only where a testbed can be had

    with Testbed.up(nodes=1, slots=_RANKS, private_dirs=(str(apart),)) as bed:
        far = {"backend": "pdsh", "hostfile": str(bed.hostfile), "ssh": {"config": str(bed.client.config)}}
        with run_of(far, apart, script) as run:
            yield run


def gpus() -> str:
    """Say which GPUs are here."""
    if shutil.which("nvidia-smi") is None:
        return "without GPUs"
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    names = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split("\n")[:-1]
    return f"and {len(names)} {names[0]}" if names else "without GPUs"


def agent_of(run: Path) -> list[int]:
    """Return the pids of the agent and its keeper."""
    ready = events(run, "host_ready")[0]
    return [ready["pid"], ready["keeper"]]


def windows(watchers: Mapping[str, list[int]], rounds: int, seconds: float) -> dict[str, list[bench.Figures]]:
    """Measure all watchers at the same time, in one stretch after another."""
    samples: dict[str, list[bench.Figures]] = {name: [] for name in watchers}
    for number in range(rounds):
        before = {name: sum(map(cpu, pids)) for name, pids in watchers.items()}
        began = time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        for name, pids in watchers.items():
            percent = (sum(map(cpu, pids)) - before[name]) / passed * 100
            samples[name].append({"% of a core": percent, "MB": sum(map(megabytes, pids))})
            print(f"round {number + 1}  {name}: {percent:.2f} %", file=sys.stderr)
    return samples


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("agent_cpu", __doc__, rounds=3)
    parser.add_argument("--seconds", type=float, default=60, help="of each round (%(default)s)")
    parser.add_argument(
        "--local", action="store_true", help="without a testbed: the agent that sends nothing"
    )
    args = parser.parse_args()
    if not args.local:
        bench.need_testbed()
        bench.need("pdsh")
    bench.need("top")
    load = os.getloadavg()[0]
    os.environ["DS_ACCELERATOR"] = "cpu"  # a slot is a rank, however many GPUs there are

    with contextlib.ExitStack() as stack:
        folder, apart = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        script = folder / "writes.py"
        script.write_text(_WRITES)
        local = stack.enter_context(run_of({"backend": "local", "nodes": 1, "slots": _RANKS}, folder, script))
        ranks = [str(event["pid"]) for event in events(local, "rank_start")]
        peers = {
            "top -b -d 10": ["top", "-b", "-d", "10"],
            "psutil every 10 s": [sys.executable, "-c", _PSUTIL, "10", *ranks],
            "psutil every second": [sys.executable, "-c", _PSUTIL, "1", *ranks],
        }
        watchers = {"our agent": agent_of(local)}
        if not args.local:
            sent = stack.enter_context(sending(apart, script))
            watchers["our agent, which also sends the logs"] = agent_of(sent)
        for name, words in peers.items():
            process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.DEVNULL))
            stack.callback(process.kill)
            watchers[name] = [process.pid]
        time.sleep(5)  # for what all of them do once
        samples = windows(watchers, args.rounds, args.seconds)
    setting = f"a host of {_RANKS} ranks {gpus()}; all look at the same time, {args.seconds:g} s a round"
    versions = bench.versions("psutil", top=["top", "--version"])
    name = "agent_cpu_gpus" if args.local else "agent_cpu"
    report = bench.Report(name, setting, samples, versions=versions, load_before=load, layout="rows")
    for watcher in watchers:
        if watcher.startswith("our"):
            report.goal(watcher, bench.summarise(report.values(watcher, "% of a core")), _LIMIT)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
