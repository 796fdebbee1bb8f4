"""Taking in the growing logs of 1,000 hosts x 8 ranks: the collector beside `tail -F` and `pdsh ... tail -F`.

Another process makes 17,000 files, of which 8,000 grow by 6 lines a second each (see growing_logs.py). The
collector reads them all, parses, and writes metrics.jsonl; the peers copy them to a pipe and know nothing
of them. CPU is user and system time of the contender's processes in the seconds that the files grow;
memory is the peak of the largest process. The lag is from the writing of a line of a step, which holds its
time, to the moment that it can be read: in metrics.jsonl, or in the pipe. That all bytes were taken in is
checked for the collector.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import bench
from orchestrator.monitor.records import Records
from orchestrator.states import State
from tests import samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rundir import RunDir
    from tests.testbed import Testbed

_LINES, _CPU, _MEGABYTES, _LAG = 50_000, 0.25, 150, 1.0
_WALL = re.compile(rb" wall ([\d.]+)\n")
_TICK = os.sysconf("SC_CLK_TCK")
_SLOTS = 8


class Load:
    """A run's directory whose logs grow for a while."""

    def __init__(self, root: Path, hosts: int, rate: float, seconds: float) -> None:
        names = "".join(f"worker-{index} slots={_SLOTS}\n" for index in range(hosts))
        self.run: RunDir = samples.run_dir(
            root, "job-made", State.RUNNING, hosts=samples.pool(names), backend="pdsh"
        )
        self.logs = self.run.attempt(1).logs
        self.hosts, self.rate, self.seconds = hosts, rate, seconds
        for index in range(hosts):
            (self.logs / f"worker-{index}.log").write_text("[orchestrate 12:00:00] agent 999\n")
            for rank in range(index * _SLOTS, (index + 1) * _SLOTS):
                for stream in ("out", "err"):
                    (self.logs / f"worker-{index}.rank{rank}.{stream}").write_text("starting\n")

    @contextlib.contextmanager
    def growing(self) -> Iterator[subprocess.Popen[str]]:
        """Prepare the writer; it begins when a line is written to it."""
        words = [str(self.logs), str(self.hosts), str(_SLOTS), str(self.rate), str(self.seconds)]
        command = [sys.executable, "-m", "benchmarks.growing_logs", *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            try:
                yield writer
            finally:
                writer.kill()


def grow(writer: subprocess.Popen[str], pids: list[int]) -> bench.Figures:
    """Have the files grow; return lines a second, and CPU (cores) and memory of processes meanwhile."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    before, began = sum(map(_cpu, pids)), time.time()
    writer.stdin.write("go\n")
    writer.stdin.flush()
    told = json.loads(writer.stdout.readline())
    used = sum(map(_cpu, pids)) - before
    memory = max(_peak(pid) for pid in pids)
    return {
        "lines/s": told["lines"] / told["seconds"],
        "CPU": used / (time.time() - began),
        "peak MB": memory,
    }


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _peak(pid: int) -> float:
    found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def collector(root: Path, hosts: int, rate: float, seconds: float) -> bench.Figures:
    """Measure ours."""
    with tempfile.TemporaryDirectory(dir=root) as name:
        load = Load(Path(name), hosts, rate, seconds)
        command = [sys.executable, "-m", "orchestrator.collector", str(load.run.path), "1"]
        lags: list[float] = []
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(load.run, lags, over))
        with (
            load.growing() as writer,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process,
        ):
            time.sleep(3)  # for what is there already
            watcher.start()
            figures = grow(writer, [process.pid])
            assert process.stdin is not None
            process.communicate(b"end\n")
        over.set()
        watcher.join()
        _check(load)
        return figures | _lag(lags)


def _watch(run: RunDir, lags: list[float], over: threading.Event) -> None:
    records = Records(run.metrics_file)
    while not over.wait(0.02):
        found = list(records.new())
        now = time.time()
        lags += [now - record["wall"] for record in found if "wall" in record]


def _check(load: Load) -> None:
    taken = json.loads((load.run.path / ".metrics.json").read_text())["files"]
    wrong = [path.name for path in load.logs.glob("*.out") if taken[path.name][0] != path.stat().st_size]
    if wrong:
        sys.exit(f"not all of {len(wrong)} files was taken in, such as {wrong[0]}")


def _lag(lags: list[float]) -> bench.Figures:
    ordered = sorted(lags)
    return {"lag median s": ordered[len(ordered) // 2], "lag p99 s": ordered[int(0.99 * len(ordered))]}


def tail(root: Path, hosts: int, rate: float, seconds: float) -> bench.Figures:
    """Measure `tail -F` of all the files."""
    with tempfile.TemporaryDirectory(dir=root) as name:
        load = Load(Path(name), hosts, rate, seconds)
        files = sorted(path.name for path in load.logs.iterdir() if path.suffix != ".times")
        with load.growing() as writer:
            command = [
                "sh",
                "-c",
                f"ulimit -n $(ulimit -Hn); cd {load.logs}; exec tail -q -n 0 -F $(cat ../names)",
            ]
            (load.logs.parent / "names").write_text("\n".join(files))
            return _piped(command, writer, lambda pid: [pid])


def pdsh_tail(bed: Testbed, root: Path, hosts: int, rate: float, seconds: float) -> bench.Figures:
    """Measure `pdsh ... tail -F`, each host of the testbed with its share of the files."""
    with tempfile.TemporaryDirectory(dir=root) as name:
        load = Load(Path(name), hosts, rate, seconds)
        names = [node.name for node in bed.nodes]
        for index, node in enumerate(names):
            own = [
                p.name
                for p in load.logs.iterdir()
                if p.suffix != ".times" and _host(p.name) % len(names) == index
            ]
            (load.logs.parent / f"names.{node}").write_text("\n".join(own))
        inner = f"ulimit -n 20000; cd {load.logs}; exec tail -q -n 0 -F $(cat ../names.$(hostname))"
        command = ["pdsh", "-S", "-w", ",".join(names), f"sh -c {shlex.quote(inner)}"]
        with load.growing() as writer:
            return _piped(command, writer, _family, bed.pdsh_env())


def _host(name: str) -> int:
    return int(name.removeprefix("worker-").partition(".")[0])


def _family(pid: int) -> list[int]:
    """Return a process and those below it: pdsh and its ssh's, not the tails on the hosts."""
    found, parents = [pid], {pid}
    for path in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda p: int(p.parent.name)):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) in parents:
                parents.add(int(path.parent.name))
                found.append(int(path.parent.name))
    return found


def _piped(command, writer, family, environ=None) -> bench.Figures:
    lags: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | (environ or {})) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout.fileno(), lags))
        reader.start()
        time.sleep(8)  # for every file to be open and watched
        figures = grow(writer, family(process.pid))
        process.terminate()
        reader.join(10)
    return figures | _lag(lags)


def _read(handle: int, lags: list[float]) -> None:
    while data := os.read(handle, 1 << 20):
        now = time.time()
        lags += [now - float(wall) for wall in _WALL.findall(data)[::10]]


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("monitor_intake", __doc__, rounds=3)
    parser.add_argument("--hosts", type=int, default=1000, help="of 8 ranks each (%(default)s)")
    parser.add_argument("--rate", type=float, default=48_000 * 1.25, help="lines a second (%(default)g)")
    parser.add_argument("--seconds", type=float, default=30.0, help="that files grow, each run (%(default)g)")
    args = parser.parse_args()
    bench.need("tail", "pdsh")
    bench.need_testbed()
    load = os.getloadavg()[0]
    from tests.testbed import Testbed  # noqa: PLC0415 - only where a testbed can be had

    what = (args.hosts, args.rate, args.seconds)
    with tempfile.TemporaryDirectory() as name, Testbed.up(nodes=4, slots=1) as bed:
        root = Path(name)
        contenders = {
            "collector": lambda: collector(root, *what),
            "tail -F": lambda: tail(root, *what),
            "pdsh ... tail -F": lambda: pdsh_tail(bed, root, *what),
        }
        found = bench.alternate(contenders, args.rounds, warm_ups=0)
    report = bench.Report(
        "monitor_intake",
        f"{args.hosts} hosts x {_SLOTS} ranks, {args.hosts * 18} files of which {args.hosts * _SLOTS} grow, "
        f"for {args.seconds:g} s; CPU in cores",
        found,
        versions=bench.versions(tail=["tail", "--version"]),
        load_before=load,
    )
    ours = {figure: bench.summarise(report.values("collector", figure)) for figure in found["collector"][0]}
    report.goal("lines a second", ours["lines/s"], _LINES, at_least=True)
    report.goal("CPU, cores", ours["CPU"], _CPU)
    report.goal("peak MB", ours["peak MB"], _MEGABYTES)
    report.goal("lag, 99th percentile, s", ours["lag p99 s"], _LAG)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
