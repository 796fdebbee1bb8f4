"""From the command to the first training step, on two real hosts of two ranks, over pdsh.

Ours (`orchestrate submit`, backend pdsh, launcher torchrun) beside `deepspeed --launcher pdsh` and beside
two `torchrun` started by hand over ssh: same hosts, same python, same script, same DeepSpeed configuration,
one thread a rank. The script is a tiny ZeRO-3 + hpZ model, so that the launchers' share is as large as it can
be; `--script example` trains examples/zeropp_lm instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import beds, bench

if TYPE_CHECKING:
    from pathlib import Path

STAMP = str(bench.ROOT / "benchmarks/stamp.py")
_PATIENCE = 180
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3, "zero_hpz_partition_size": 2, "stage3_param_persistence_threshold": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": 0.001, "torch_adam": True}},
}
SCRIPTS = {
    "tiny": ("benchmarks/zero3_step.py", []),
    "example": ("examples/zeropp_lm/train.py", ["--steps", "1", "--deepspeed_config"]),
}


class Contenders:
    """The three ways to start the same training."""

    def __init__(self, site: beds.Site, script: str) -> None:
        config = site.folder / "ds_config.json"
        config.write_text(json.dumps(CONFIG))
        path, args = SCRIPTS[script]
        self._site = site
        self._script = [str(bench.ROOT / path), *args, str(config)]

    def ours(self) -> bench.Figures:
        """Submit a job and follow it to its end."""
        folder = self._site.fresh("orchestrate")
        started = time.time()
        figures = self._end(folder, started, [self._site.orchestrate(folder, STAMP, self._args(folder))])
        seen = {event["event"]: event["time"] - started for event in beds.events(folder)}
        return {"supervisor": seen["supervisor"], "hosts ready": seen["host_ready"]} | figures

    def deepspeed(self) -> bench.Figures:
        """Let DeepSpeed's launcher do it."""
        folder = self._site.fresh("deepspeed")
        started = time.time()
        return self._end(folder, started, [self._site.deepspeed(folder, STAMP, self._args(folder))])

    def torchrun(self) -> bench.Figures:
        """Start two torchrun by hand."""
        folder = self._site.fresh("torchrun")
        started = time.time()
        return self._end(folder, started, self._site.torchrun(folder, STAMP, self._args(folder)))

    def _args(self, folder: Path) -> list[str]:
        return [str(folder), *self._script]

    def _end(self, folder: Path, started: float, commands: list[subprocess.Popen[bytes]]) -> bench.Figures:
        """Wait for the end of a run; return when things happened, in seconds after the command."""
        for command in commands:
            try:
                code = command.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                code = -1
            if code:
                logs = "".join(file.read_text(errors="replace") for file in folder.glob("*.log"))
                sys.exit(f"{' '.join(map(str, command.args))} ended with {code}:\n{logs}")
        ended = time.time() - started
        began = [float(file.read_text()) - started for file in folder.glob("rank-*.began")]
        first = float((folder / "first-step").read_text()) - started
        self._site.clear()
        return {"last rank began": max(began), "first step": first, "end": ended}


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("first_step", __doc__, rounds=5)
    parser.add_argument("--script", choices=SCRIPTS, default="tiny", help="what to train (%(default)s)")
    args = parser.parse_args()
    bench.need("pdsh", "ssh", bench.program("deepspeed"))
    load = os.getloadavg()[0]
    with beds.site(nodes=2, slots=2) as site:
        run = Contenders(site, args.script)
        ways = {"orchestrate": run.ours, "deepspeed": run.deepspeed, "torchrun by hand": run.torchrun}
        samples = bench.alternate(ways, args.rounds)
    report = bench.Report(
        "first_step",
        f"seconds after the command, 2 hosts x 2 ranks, {SCRIPTS[args.script][0]}",
        samples,
        versions=bench.versions("deepspeed", "torch", pdsh=["pdsh", "-V"], ssh=["ssh", "-V"]),
        load_before=load,
    )
    for peer, limit in (("deepspeed", 0.9), ("torchrun by hand", 1.1)):
        ratio = report.ratio(("orchestrate", "first step"), (peer, "first step"))
        report.goal(f"orchestrate / {peer}", ratio, limit)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
