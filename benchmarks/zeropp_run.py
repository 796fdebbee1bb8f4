"""One training of `zeropp`: submitted or started by hand, and watched while the link is changed under it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import shaped_link
from benchmarks.zeropp_cases import WORLD, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STEP = re.compile(r"step (\d+)/\d+ loss (\S+) tokens/s (\d+)")
_HELD_OUT = re.compile(r"held-out loss ([\d.]+)")
_PEAK = re.compile(r"peak memory (\S+) GB")
_PATIENCE = 240  # seconds for one training


@dataclass
class Phase:
    """What was seen at one speed of the link.

    Attributes:
        wanted: Gbit/s each way; None for a link that was left alone.
        gigabits: what the link was measured to let through each way.
        seconds: of each step.
        sent: bytes over the link in a step, both directions.
    """

    wanted: float | None
    gigabits: float
    seconds: list[float] = field(default_factory=list)
    sent: float = 0.0


@dataclass
class Training:
    """What one training gave: phases, each step's loss and seconds, and rank 0's last words.

    Attributes:
        phases: in their order.
        losses: nats per token, of each step.
        seconds: of each step.
        held_out: loss on text that training never saw.
        peak: the most memory of rank 0's GPU, GB; None without a GPU.
    """

    phases: list[Phase] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    held_out: float | None = None
    peak: float | None = None


class Ground:
    """Where trainings run: a folder, and a link whose speeds are measured once each.

    Args:
        folder: for jobs and runs.
        ease: what the speeds are divided by, to try the command on a slow machine.
    """

    def __init__(self, folder: Path, ease: float = 1.0) -> None:
        self.folder = folder
        self._ease = ease
        self._speeds: dict[float | None, float] = {}
        self._turn = 0

    def link(self, gigabits: float | None) -> float:
        """Shape the link; return what it lets through each way, Gbit/s."""
        shaped_link.shape(None if gigabits is None else gigabits / self._ease)
        if gigabits not in self._speeds:
            self._speeds[gigabits] = shaped_link.measure()
        return self._speeds[gigabits]

    def fresh(self, case: Case) -> Path:
        """Return a new folder with the case's files; the link is as fast as it can be."""
        for gigabits, _ in case.phases:
            self.link(gigabits)  # measured while nothing else uses it
        self.link(None)
        self._turn += 1
        place = self.folder / f"{self._turn:02}"
        place.mkdir()
        (place / "ds.json").write_text(json.dumps(case.config()))
        (place / "job.yaml").write_text(json.dumps(case.job(sys.executable)))  # JSON is YAML
        return place


def submitted(ground: Ground, case: Case) -> Training:
    """Train a case with the product.

    Raises:
        RuntimeError: the run did not succeed; the message holds what was said.
    """
    place = ground.fresh(case)
    environ = os.environ | {"XDG_STATE_HOME": str(ground.folder / "state")}
    argv = [sys.executable, "-m", "orchestrator", "submit", "job.yaml", "--json"]
    said = subprocess.run(argv, cwd=place, env=environ, capture_output=True, text=True, check=False)
    if said.returncode:
        raise RuntimeError(said.stdout + said.stderr)
    run = Path(json.loads(said.stdout)["run_dir"])
    verdict = run / "verdict.json"
    log = run / "attempt-1/logs/host-0.rank0.out"
    try:
        found = _watched(ground, case, _lines(log, verdict.exists))
    finally:
        if not verdict.exists():  # interrupted, or it took too long
            subprocess.run([*argv[:3], "cancel", str(run)], cwd=place, env=environ, check=False)
    if not verdict.exists() or json.loads(verdict.read_text())["state"] != "SUCCEEDED":
        errors = log.with_suffix(".err")
        raise RuntimeError((verdict.read_text() if verdict.exists() else "no end")[:1500] + _tail(errors))
    return found


def by_hand(ground: Ground, case: Case) -> Training:
    """Start the same training with a torchrun for each half of the GPUs.

    Raises:
        RuntimeError: a torchrun failed.
    """
    place = ground.fresh(case)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = [_torchrun(place, case, host, port) for host in range(WORLD.nodes)]
    log = place / "0.log"
    try:
        found = _watched(ground, case, _lines(log, lambda: started[0].poll() is not None))
        codes = [process.wait(_PATIENCE) for process in started]
    except subprocess.TimeoutExpired:
        codes = [1]
    finally:
        for process in started:
            process.terminate()  # torchrun ends its ranks
            process.wait()
    if any(codes):
        raise RuntimeError(_tail(log))
    return found


def _torchrun(place: Path, case: Case, host: int, port: int) -> subprocess.Popen[bytes]:
    train = case.job(sys.executable)["train"]
    words = [str(word).replace("{ds_config}", str(place / "ds.json")) for word in train["args"]]
    first = host * WORLD.gpus_per_node
    own = {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(first, first + WORLD.gpus_per_node))),
        "NCCL_SOCKET_IFNAME": "=lo",
        "NCCL_HOSTID": f"by-hand-{host}",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={WORLD.nodes}", f"--node-rank={host}"),
        *(f"--nproc-per-node={WORLD.gpus_per_node}", "--master-addr=127.0.0.1", f"--master-port={port}"),
    ]
    with (place / f"{host}.log").open("wb") as output:
        return subprocess.Popen(
            [*launcher, train["script"], *words],
            env=os.environ | own | train["env"],
            stdout=output,
            stderr=output,
        )


def _lines(log: Path, over: Callable[[], bool]) -> Iterator[str]:
    """Yield a log's lines as they come, until it is over."""
    deadline = time.monotonic() + _PATIENCE
    while not log.exists() and not over() and time.monotonic() < deadline:
        time.sleep(0.01)
    if not log.exists():
        return
    with log.open(errors="replace") as file:
        rest, ended = "", False
        while time.monotonic() < deadline:
            piece = file.read()
            *whole, rest = (rest + piece).split("\n")
            yield from whole
            if ended and not piece:
                return
            ended = over()
            time.sleep(0 if piece else 0.003)


def _watched(ground: Ground, case: Case, lines: Iterator[str]) -> Training:
    """Read a training's log as it grows; change the link one step before a phase begins; count bytes."""
    found = Training()
    begins, wanted = {}, {}
    for first, last, gigabits in case.boundaries():
        wanted[first - 1], begins[first] = gigabits, last
    last = sent = 0
    for line in lines:
        if match := _HELD_OUT.match(line):
            found.held_out = float(match[1])
        if match := _PEAK.search(line):
            found.peak = float(match[1])
        if not (match := _STEP.match(line)):
            continue
        step, seconds = int(match[1]), case.tokens / float(match[3])
        found.losses.append(float(match[2]))
        found.seconds.append(seconds)
        if step <= last:
            phase = found.phases[-1]
            phase.seconds.append(seconds)
            phase.sent = (shaped_link.sent() - sent) / len(phase.seconds)
        if step in wanted:
            found.phases.append(Phase(wanted[step], ground.link(wanted[step])))
        if step in begins:
            last, sent = begins[step], shaped_link.sent()
    return found


def _tail(file: Path) -> str:
    return file.read_text(errors="replace")[-1500:] if file.exists() else ""
