"""What `orchestrate plan` of 10,000 hosts takes above start-up (`orchestrate --help`), screen and JSON.

The model is given in numbers: nothing is read or imported for it. The installed DeepSpeed is not asked
(`--quick`), because importing it takes what it takes, however many hosts there are; one host is there to see
what they cost.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks import bench

_SLOTS = 8
_SECONDS = 1.0
_START = "orchestrate --help"


def job_file(folder: Path, hosts: int) -> Path:
    """Write a hostfile with a line a host, and a job that says all a plan can use; return the job file."""
    hostfile = bench.write_hosts(folder, hosts, _SLOTS)
    path = folder / f"plan-{hosts}.yaml"
    path.write_text(
        f"name: scale\ncluster:\n  backend: pdsh\n  hostfile: {hostfile.name}\n"
        "train:\n  script: train.py\n"
        "deepspeed:\n  zero_stage: 3\n  hpz: node\n  quantized_weights: true\n  quantized_gradients: true\n"
        "  micro_batch_per_gpu: 1\n  gradient_accumulation_steps: 4\n  precision: fp16\n"
        "model:\n  parameters: 70B\n  hidden_size: 8192\n  layers: 80\n  attention_heads: 64\n"
        "  vocabulary: 32000\n  sequence_length: 4096\n"
        "hardware:\n  gpu: H100-80GB\n  link: 400Gbit/s\n  storage: 100GB/s\n  host_mtbf: 42d\n"
    )
    return path


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("plan", __doc__, rounds=7)
    parser.add_argument("--hosts", type=int, default=10_000, help="how many (%(default)s)")
    args = parser.parse_args()
    bench.need(bench.program("orchestrate"))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        one, many = (str(job_file(Path(name), hosts)) for hosts in (1, args.hosts))
        shown, listed = f"plan, {args.hosts} hosts", f"plan --json, {args.hosts} hosts"
        runs = {
            _START: _runner("--help"),
            "plan, 1 host": _runner("plan", one, "--quick"),
            shown: _runner("plan", many, "--quick"),
            listed: _runner("plan", many, "--quick", "--json"),
        }
        samples = bench.alternate(runs, args.rounds)
    report = bench.Report(
        "plan",
        f"`orchestrate plan --quick` of {args.hosts} hosts x {_SLOTS} slots, ZeRO++, 70B parameters",
        samples,
        versions=bench.versions("pydantic", "pyyaml", "click"),
        load_before=load,
    )
    for run in (shown, listed):
        pairs = zip(report.values(run, "s"), report.values(_START, "s"), strict=True)
        above = bench.summarise([planned - start for planned, start in pairs])
        report.goal(f"{run}: seconds above start-up", above, _SECONDS)
    bench.finish(report, args.json)


def _runner(*words: str):
    return lambda: bench.measured([bench.program("orchestrate"), *words])


if __name__ == "__main__":
    main()
