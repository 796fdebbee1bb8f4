"""What 10,000 hosts cost: `render --output` of all files, beside the same job on one host.

The one-host job is the start-up (Python, imports, templates); what is above it is the price of the hosts.
Memory is the peak of the whole process, as the kernel counts it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from benchmarks import bench

_LAUNCHERS = ("torchrun", "deepspeed", "accelerate")
_SLOTS = 8
_SECONDS = 0.3
_MEGABYTES = 100


def job_file(folder: Path, hosts: int, launcher: str) -> Path:
    """Write a hostfile with a line a host, and a job that uses it; return the job file."""
    hostfile = bench.write_hosts(folder, hosts, _SLOTS)
    path = folder / f"{launcher}-{hosts}.yaml"
    path.write_text(
        f"name: scale\ncluster:\n  backend: pdsh\n  hostfile: {hostfile.name}\n"
        f"train:\n  script: train.py\n  launcher: {launcher}\n"
        "deepspeed:\n  zero_stage: 3\n  hpz: node\n  micro_batch_per_gpu: 1\n"
    )
    return path


def render(job: Path, output: Path) -> bench.Figures:
    """Render a job into a fresh folder; return seconds, peak MB and the size of what was written."""
    found = bench.measured([bench.program("orchestrate"), "render", str(job), "--output", str(output)])
    written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    shutil.rmtree(output)
    return found | {"written KB": written / 1024}


def main() -> None:
    """Run the comparison."""
    parser = bench.arguments("render_scale", __doc__, rounds=7)
    parser.add_argument("--hosts", type=int, default=10_000, help="how many (%(default)s)")
    args = parser.parse_args()
    bench.need(bench.program("orchestrate"))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {
            f"{launcher}, {hosts} hosts": _runner(job_file(folder, hosts, launcher), folder / "out")
            for launcher in _LAUNCHERS
            for hosts in (1, args.hosts)
        }
        samples = bench.alternate(runs, args.rounds)
    report = bench.Report(
        "render_scale",
        f"`orchestrate render --output` of {args.hosts} hosts x {_SLOTS} slots, one hostfile line each",
        samples,
        versions=bench.versions("pydantic", "jinja2", "pyyaml"),
        load_before=load,
    )
    for launcher in _LAUNCHERS:
        _add_goals(report, launcher, f"{launcher}, {args.hosts} hosts")
    bench.finish(report, args.json)


def _runner(job: Path, output: Path):
    return lambda: render(job, output)


def _add_goals(report: bench.Report, launcher: str, many: str) -> None:
    pairs = zip(report.values(many, "s"), report.values(f"{launcher}, 1 hosts", "s"), strict=True)
    above = bench.summarise([all_hosts - one for all_hosts, one in pairs])
    report.goal(f"{launcher}: seconds above start-up", above, _SECONDS)
    report.goal(f"{launcher}: peak MB", bench.summarise(report.values(many, "peak MB")), _MEGABYTES)


if __name__ == "__main__":
    main()
