"""How often `orchestrate top` draws a run of 1,000 hosts x 8 ranks anew, and what share of a core that takes.

The run directory is a made one that goes on as a real one would: ten steps a second, and every host's
samples as often as a run of that size takes them. The screen is a terminal of 160 x 50 characters that
answers as terminals do and counts the frames (Textual marks each by synchronized output, Rich by moving the
cursor home). The peer draws the same values, read the same way, as a rich.live screen: a grid of hosts, the
last loss, the slowest ranks and the events.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import bench
from orchestrator.agent.processes import read_process
from tests.made_run import BEGAN, made_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.rundir import RunDir

_SLOTS = 8
_STEPS_A_SECOND = 10
_SAMPLE_SECONDS = 100.0  # between two samples of one of 1,000 hosts: monitor.sample_interval at `auto`
_SETTLE, _MEASURED = 6.0, 10.0  # seconds
_FRAMES, _CORE = 4.0, 0.5
_ASKS = re.compile(rb"\x1b\[\?2026\$p")
_PEER = """
import sys, time
from pathlib import Path
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from orchestrator.monitor.top.reading import Reader
from orchestrator.rundir import RunDir

reader = Reader(RunDir(Path(sys.argv[1])))

def screen():
    run = reader.look().snapshot
    grid = Text()
    for host in run.hosts:
        grid.append(host.mark.sign, host.mark.colour)
    table = Table("rank", "host", "step", "clock", "why")
    for one in run.slowest[:10]:
        table.add_row(str(one.rank), one.host, str(one.step), str(one.clock), one.why)
    events = Table("events")
    for event in run.events[-10:]:
        events.add_row(event.text)
    return Group(Text(f"{run.run_id} {run.state} {run.step} {run.values.get('loss')}"), grid, table, events)

with Live(screen(), screen=True, auto_refresh=False) as live:
    while True:
        time.sleep(0.15)
        live.update(screen(), refresh=True)
"""


class Growing(threading.Thread):
    """Appends what a run of that size would be told, until it is stopped."""

    def __init__(self, run: RunDir, hosts: int) -> None:
        super().__init__(daemon=True)
        records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
        self._step = next(record for record in reversed(records) if record["kind"] == "step")
        self._samples: dict[str, list[dict[str, Any]]] = {}
        for record in records[-hosts * 17 * 2 :]:
            if record["kind"] != "step":
                self._samples.setdefault(record["host"], []).append(record)
        self._run, self._over = run, threading.Event()

    def run(self) -> None:
        """Write at every step."""
        hosts = itertools.cycle(self._samples)
        each = len(self._samples) / _SAMPLE_SECONDS / _STEPS_A_SECOND
        owed = 0.0
        with self._run.metrics_file.open("a") as file:
            for number in itertools.count(1):
                owed += each
                told = [
                    self._step | {"step": 60 + number, "loss": 2 + 1 / number, "time": BEGAN + 90 + number}
                ]
                while owed >= 1:
                    owed -= 1
                    told += self._samples[next(hosts)][:17]
                file.write("".join(json.dumps(record) + "\n" for record in told))
                file.flush()
                if self._over.wait(1 / _STEPS_A_SECOND):
                    return

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self.join()


class Screen:
    """A terminal of 160 x 50 characters around a program."""

    def __init__(self, argv: list[str], frame: bytes) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        env = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(bench.ROOT)}
        for name in ("COLUMNS", "LINES"):
            env.pop(name, None)
        self._process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)
        self._frame = frame

    def watch(self, seconds: float) -> bench.Figures:
        """Read for some seconds; return frames and kB a second, and the share of a core."""
        end = time.monotonic() + seconds
        frames, size, began, cpu = 0, 0, time.monotonic(), self._cpu()
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._ours], [], [], left)[0]:
                break
            data = os.read(self._ours, 1 << 20)
            if _ASKS.search(data):
                os.write(self._ours, b"\x1b[?2026;2$y")
            frames += data.count(self._frame)
            size += len(data)
        passed = time.monotonic() - began
        core = (self._cpu() - cpu) / passed
        return {"frames/s": frames / passed, "share of a core": core, "kB/s": size / passed / 1e3}

    def _cpu(self) -> float:
        """Return the CPU seconds of all threads so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the program."""
        if read_process(self._process.pid) is not None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)


def measured(hosts: int, argv: list[str], frame: bytes) -> bench.Figures:
    """Return the figures of a program that is given a growing run's directory as its last word."""
    with tempfile.TemporaryDirectory() as name:
        run = made_run(Path(name), hosts=hosts, slots=_SLOTS, slow=min(7, hosts - 1), over=False)
        growing = Growing(run, hosts)
        screen = Screen([*argv, str(run.path)], frame)
        growing.start()
        try:
            screen.watch(_SETTLE)
            return screen.watch(_MEASURED)
        finally:
            screen.close()
            growing.stop()


def contenders(hosts: int) -> dict[str, Callable[[], bench.Figures]]:
    """Return what is measured, by the name under which it is shown."""
    ours = [sys.executable, "-m", "orchestrator", "top"]
    peer = [sys.executable, "-c", _PEER]
    return {
        f"top, {hosts} hosts": lambda: measured(hosts, ours, b"\x1b[?2026h"),
        f"rich.live, {hosts} hosts": lambda: measured(hosts, peer, b"\x1b[H"),
        "top, 4 hosts": lambda: measured(4, ours, b"\x1b[?2026h"),
    }


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("top_frames", __doc__, rounds=3)
    parser.add_argument("--hosts", type=int, default=1000, help="how many (%(default)s)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    samples = bench.alternate(contenders(args.hosts), args.rounds, warm_ups=0)
    report = bench.Report(
        "top_frames",
        f"a growing run of {args.hosts} hosts x {_SLOTS} ranks in a terminal of 160 x 50, "
        f"{_MEASURED:g} s after {_SETTLE:g} s",
        samples,
        versions=bench.versions("textual", "rich"),
        load_before=load,
        layout="rows",
    )
    ours = f"top, {args.hosts} hosts"
    report.goal("frames a second", bench.summarise(report.values(ours, "frames/s")), _FRAMES, at_least=True)
    report.goal("share of a core", bench.summarise(report.values(ours, "share of a core")), _CORE)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
