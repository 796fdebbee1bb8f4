"""How long a command line takes to answer: ours, `deepspeed --help` and `accelerate launch --help`."""

from __future__ import annotations

import os
import sys

from benchmarks import bench

_JOB = str(bench.ROOT / "examples/zeropp_lm/job.yaml")
_OURS = ("orchestrate --help", "orchestrate render")
_THEIRS = ("deepspeed --help", "accelerate launch --help")


def contenders() -> dict[str, list[str]]:
    """Return the commands, by the name under which they are shown."""
    orchestrate = bench.program("orchestrate")
    return {
        "orchestrate --help": [orchestrate, "--help"],
        "orchestrate render": [orchestrate, "render", _JOB],
        "deepspeed --help": [bench.program("deepspeed"), "--help"],
        "accelerate launch --help": [bench.program("accelerate"), "launch", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }


def main() -> None:
    """Run the comparison."""
    args = bench.arguments("cli_start", __doc__, rounds=10).parse_args()
    commands = contenders()
    bench.need(*(argv[0] for argv in commands.values()))
    load = os.getloadavg()[0]
    runs = {name: _runner(argv) for name, argv in commands.items()}
    report = bench.Report(
        "cli_start",
        "seconds from command to end, output thrown away; render is of examples/zeropp_lm/job.yaml",
        bench.alternate(runs, args.rounds),
        versions=bench.versions("deepspeed", "accelerate", "torch", "click", "pydantic"),
        load_before=load,
    )
    for name, limit in zip(_OURS, (10, 5), strict=True):
        for peer in _THEIRS:
            ratio = report.ratio((peer, "s"), (name, "s"))
            report.goal(f"{peer} / {name}", ratio, limit, at_least=True)
    bench.finish(report, args.json)


def _runner(argv: list[str]):
    return lambda: {"s": bench.timed(argv)}


if __name__ == "__main__":
    main()
