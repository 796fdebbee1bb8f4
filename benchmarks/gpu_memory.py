"""How near the estimate of a GPU's memory comes: predicted against `torch.cuda.max_memory_allocated`.

A Llama of 1.3 billion parameters is trained for four steps with each of some settings, on four GPUs of this
machine. With hpZ its groups are of two ranks, or of all four.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import bench
from benchmarks.memory_cases import CASES, Case, estimate

_GPUS = 4
_WITHIN = 0.10
_SECONDS = 180


def measure(case: Case, folder: Path) -> dict[str, float]:
    """Train with the case's settings; return rank 0's bytes of each phase.

    Raises:
        SystemExit: the training failed.
    """
    config, output = folder / "ds_config.json", folder / "peaks.json"
    config.write_text(json.dumps(case.config()))
    output.unlink(missing_ok=True)
    ranks = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={_GPUS}"]
    script = ["-m", "benchmarks.memory_step", str(config), str(output)]
    argv = [sys.executable, *ranks, *script, *(["--recompute"] if case.recompute else [])]
    done = subprocess.run(argv, cwd=bench.ROOT, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if not output.exists():
        sys.exit(f"the training ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    found: dict[str, float] = json.loads(output.read_text())
    return found


def compare(case: Case, folder: Path) -> bench.Figures:
    """Return the measured peak and the predicted one, and their parts, in GB."""
    found, predicted = measure(case, folder), estimate(case, _GPUS)
    peak = max(found["forward"], found["backward"], found["update"])
    figures: dict[str, Any] = {
        "measured peak GB": peak,
        "predicted peak GB": predicted.total,
        "backward GB": found["backward"],
        "predicted backward GB": predicted.backward,
        "update GB": found["update"],
        "predicted update GB": predicted.update,
        "between steps GB": found["steady"],
    }
    gigabytes = {name: value / 1e9 for name, value in figures.items()}
    return gigabytes | {"step s": found["s"], "predicted/measured": predicted.total / peak}


def main() -> None:
    """Run every case once."""
    parser = bench.arguments("gpu_memory", __doc__, rounds=1)
    args = parser.parse_args()
    import torch  # noqa: PLC0415 - --help can do without

    if torch.cuda.device_count() < _GPUS:
        sys.exit(f"this comparison needs {_GPUS} GPUs; torch sees {torch.cuda.device_count()}")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        runs = {what: _runner(case, Path(name)) for what, case in CASES.items()}
        samples = bench.alternate(runs, args.rounds, warm_ups=0)
    report = bench.Report(
        "gpu_memory",
        f"predicted and measured peak of one GPU, Llama 1.3B, bf16, {_GPUS} ranks on "
        f"{torch.cuda.get_device_name(0)}",
        samples,
        versions=bench.versions("torch", "deepspeed", "transformers"),
        load_before=load,
    )
    off = [abs(report.values(what, "predicted/measured")[0] - 1) for what in CASES]
    report.goal("prediction off by", bench.summarise(off), _WITHIN)
    bench.finish(report, args.json)


def _runner(case: Case, folder: Path):
    return lambda: compare(case, folder)


if __name__ == "__main__":
    main()
