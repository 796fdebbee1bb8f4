"""LoRA with everything offloaded, and ZeRO inference: peak of a GPU beside what `plan` predicts.

Submits the `job.gpu.yaml` of examples/peft_lora_seq2seq and examples/zero_inference, two GPUs each, and reads
the peaks that the scripts print.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import bench

_JOBS = {"LoRA, ZeRO-3 + CPU": "peft_lora_seq2seq", "inference, ZeRO-3": "zero_inference"}
_PEAKS = re.compile(r"GPU peak per rank in bytes, (\w+): ([\d ]+)")
_WITHIN = 0.15
_GB = 1e9


def job_of(example: str) -> Path:
    """Return the job file that is submitted."""
    return bench.ROOT / "examples" / example / "job.gpu.yaml"


def log_of(example: str, folder: Path) -> str:
    """Submit an example's job and return what it said.

    Raises:
        SystemExit: it did not succeed.
    """
    argv = [sys.executable, "-m", "orchestrator", "submit", str(job_of(example)), "--follow"]
    own = [f"run_root={folder}", f"train.python={sys.executable}"]
    words = [word for setting in own for word in ("--set", setting)]
    environ = os.environ | {"XDG_STATE_HOME": str(folder / "state")}
    done = subprocess.run([*argv, *words], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def figures(example: str, log: str) -> bench.Figures:
    """Return the peak of each phase, the largest of all, and the predicted one, in GB."""
    phases = {name: max(map(int, peaks.split())) / _GB for name, peaks in _PEAKS.findall(log)}
    argv = [sys.executable, "-m", "orchestrator", "plan", str(job_of(example)), "--json"]
    plan = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    predicted, peak = plan["estimates"]["memory"]["gpu"]["total"] / _GB, max(phases.values())
    found = {f"{name} GB": value for name, value in phases.items()}
    return found | {"peak GB": peak, "predicted GB": predicted, "predicted/measured": predicted / peak}


def main() -> None:
    """Run both, or read what they said before."""
    parser = bench.arguments("example_memory", __doc__, rounds=1)
    parser.add_argument(
        "--logs", type=Path, metavar="FOLDER", help="of an earlier run: EXAMPLE.log, in place of a run"
    )
    args = parser.parse_args()
    samples = {}
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as name:
        for what, example in _JOBS.items():
            old = args.logs and args.logs / f"{example}.log"
            log = old.read_text() if old else log_of(example, Path(name))
            samples[what] = [figures(example, log)]
    report = bench.Report(
        "example_memory",
        "peak of one of two GPUs, all ranks' largest: LoRA on BART-large's shape, generation with T0_3B's",
        samples,
        versions=bench.versions("torch", "deepspeed", "transformers", "peft"),
        layout="rows",
    )
    off = [abs(report.values(what, "predicted/measured")[0] - 1) for what in _JOBS]
    report.goal("prediction off by", bench.summarise(off), _WITHIN)
    bench.finish(report, args.json)


if __name__ == "__main__":
    main()
