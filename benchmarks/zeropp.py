"""What ZeRO++ brings on a slow link, beside what `plan` predicts: four GPUs as two hosts of two.

The product itself (`orchestrate submit`, backend local) trains examples/zeropp_lm with ZeRO-3, hpZ, qwZ, qgZ
and all three. Between the two simulated hosts NCCL uses sockets on a loopback device of our own, which is
shaped while the training runs. ZeRO-3 and ZeRO++ also train 200 steps over NVLink, for their losses, and
ZeRO-3 in turns with the same training started by hand with torchrun. Needs root, `ip` and `tc` (Debian's
iproute2), and nvcc for qwZ and qgZ.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import bench, shaped_link
from benchmarks.zeropp_cases import TOKENS, WORLD, Case, predict
from benchmarks.zeropp_run import Ground, Phase, Training, by_hand, submitted
from orchestrator.estimate import find_gpu

if TYPE_CHECKING:
    from collections.abc import Callable

_LINKS = ((None, 5), (25.0, 3), (10.0, 3))  # Gbit/s each way, steps
_SLOWEST = ((10.0, 2),)
_LOSS_STEPS = 200
_RAMP = 20  # steps in which the learning rate grows
_HAND_STEPS = 60
_GB = 1e9
_REHEARSAL = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@dataclass
class Results:
    """Everything that was measured so far, written down after each training."""

    gpu: str
    file: Path | None
    versions: dict[str, str]
    samples: dict[str, list[bench.Figures]] = field(default_factory=dict)
    raw: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, name: str, case: Case, training: Training) -> None:
        """Take in a training."""
        self.raw.setdefault(name, []).append(asdict(training))
        for phase in training.phases:
            label = "loopback" if phase.wanted is None else f"{phase.wanted:g} Gbit/s"
            row = figures(case, training, phase, self.gpu)
            self.samples.setdefault(f"{name}, {label}", []).append(row)

    def report(self) -> bench.Report:
        """Return what there is."""
        report = bench.Report(
            "zeropp",
            f"two simulated hosts of two {self.gpu}, Llama of 1.0 G weights, micro-batch 2 x {TOKENS}; "
            "link: measured each way while both are full; sent: over the link in a step, both directions; "
            "losses and turns by hand: 0.3 G weights over NVLink, losses at micro-batch 8 where not small",
            self.samples,
            versions=self.versions,
            load_before=self.load,
            layout="rows",
            raw=self.raw,
        )
        _goals(report)
        return report


def figures(case: Case, training: Training, phase: Phase, gpu: str) -> bench.Figures:
    """Return one row of the table: measured, predicted, and how far apart they are."""
    seconds = statistics.median(phase.seconds)
    expected = predict(case, phase.gigabits, gpu)
    sent, peak = expected.sent / _GB, expected.peak / _GB
    row = {"link Gbit/s": phase.gigabits, "step s": seconds, "predicted s": expected.seconds}
    row |= {"tokens/s": case.tokens / seconds, "MFU %": 100 * _mfu(case, seconds, gpu)}
    row |= {"sent GB": phase.sent / _GB, "predicted GB": sent}
    if training.peak is not None:
        row |= {"peak GB": training.peak, "predicted peak GB": peak}
    return row | {"loss": training.losses[-1]}


def _mfu(case: Case, seconds: float, gpu: str) -> float:
    """Return the part of the GPUs' peak that the model's own arithmetic is."""
    shape = case.shape()
    flops = 6 * shape.parameters + 12 * (shape.layers or 0) * (shape.hidden_size or 0) * TOKENS
    return case.tokens * flops / seconds / WORLD.size / (find_gpu(gpu).tflops_16 * 1e12)


def _goals(report: bench.Report) -> None:
    """Set the goals for which there are figures."""
    for accumulation, limit in ((1, 3), (4, 6)):
        names = [f"{setting}, g={accumulation}, 10 Gbit/s" for setting in ("ZeRO-3", "ZeRO++")]
        if all(name in report.samples for name in names):
            ratio = report.ratio((names[0], "step s"), (names[1], "step s"))
            report.goal(f"ZeRO-3 / ZeRO++, 10 Gbit/s, g={accumulation}", ratio, limit, at_least=True)
    rows = [row for name, runs in report.samples.items() for row in runs if "loopback" not in name]
    for measured, predicted, limit in (
        ("peak GB", "predicted peak GB", 0.10),
        ("sent GB", "predicted GB", 0.05),
        ("step s", "predicted s", 0.15),
    ):
        off = [abs(row[predicted] / row[measured] - 1) for row in rows if row.get(measured)]
        if off:
            report.goal(f"{measured} predicted, off by", bench.summarise(off), limit)
    _goals_of_pairs(report)


def _goals_of_pairs(report: bench.Report) -> None:
    for name in ("loss", "small-batch loss"):
        both = [report.raw.get(f"{name}, {setting}") for setting in ("ZeRO-3", "ZeRO++")]
        if all(both):
            last = [statistics.mean(runs[0]["losses"][-10:]) for runs in both]
            what = f"{name} of ZeRO++ / of ZeRO-3, mean of the last 10 of {_LOSS_STEPS} steps, off by"
            report.goal(what, bench.summarise([abs(last[1] / last[0] - 1)]), 0.01)
    ours, hand = (report.raw.get(name, []) for name in ("submitted", "by hand"))
    if ours and hand:
        pairs = [_speed(one) / _speed(other) for one, other in zip(ours, hand, strict=False)]
        report.goal("tokens/s submitted / by hand", bench.summarise(pairs), 0.98, at_least=True)


def _speed(training: dict[str, Any]) -> float:
    """Return steps a second, of the second half of a training."""
    seconds = training["seconds"]
    return 1 / statistics.median(seconds[len(seconds) // 2 :])


def cases(
    size: str, environ: dict[str, str]
) -> dict[str, tuple[Callable[[Ground, Case], Training], str, Case]]:
    """Return every training by a name of its own: how it is started, what its results are called, what it is.

    What matters most comes first, since time may run out.
    """
    base = Case("ZeRO-3", size=size, environ=environ)
    found: dict[str, tuple[Callable[[Ground, Case], Training], str, Case]] = {}
    for accumulation, settings, phases in (
        (1, ("ZeRO-3", "hpZ", "ZeRO++"), _LINKS),
        (4, ("ZeRO-3", "hpZ", "ZeRO++"), _SLOWEST),
        (1, ("qwZ", "qgZ"), _LINKS),
    ):
        for setting in settings:
            name = f"{setting}, g={accumulation}"
            case = replace(base, setting=setting, accumulation=accumulation, phases=phases)
            found[name] = (submitted, name, case)
    small = replace(base, size="300m" if size == "1b" else size, one_host=True, warm_up=_LOSS_STEPS)
    usual = {"micro_batch": 8, "betas": (0.9, 0.95)}  # as in the example's job.gpu.yaml, its ramp too
    for name, changes in (("loss", usual), ("small-batch loss", {})):
        for setting in ("ZeRO-3", "ZeRO++"):
            case = replace(small, setting=setting, ramp=_RAMP, **changes)
            found[f"{name}, {setting}"] = (submitted, f"{name}, {setting}", case)
    short = replace(small, warm_up=_HAND_STEPS)
    for turn, (start, name) in enumerate(((submitted, "submitted"), (by_hand, "by hand")) * 2):
        found[f"{name} {turn // 2 + 1}"] = (start, name, short)
    for setting in ("qwZ", "qgZ"):
        name = f"{setting}, g=4"
        found[name] = (submitted, name, replace(base, setting=setting, accumulation=4, phases=_SLOWEST))
    return found


def main() -> None:
    """Run every training that there is time for."""
    parser = bench.arguments("zeropp", __doc__, rounds=1)
    parser.add_argument(
        "--only", metavar="PART", action="append", help="trainings whose name has this in it; may be repeated"
    )
    parser.add_argument("--seconds", type=float, default=3600, help="begin no training after so long")
    parser.add_argument(
        "--rehearse", action="store_true", help="try the command on CPUs with a tiny model: no real figures"
    )
    parser.add_argument(
        "--again",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing: predict anew beside what the first FILE has measured, after it has taken in "
        "what the others have",
    )
    args = parser.parse_args()
    if args.again:
        return _again(*args.again)
    bench.need("ip", "tc", "unshare")
    shaped_link.enter_namespace("benchmarks.zeropp")
    began = time.monotonic()
    versions = bench.versions("torch", "deepspeed", "transformers")
    results = Results("H200" if args.rehearse else _gpu(), args.json, versions)
    chosen = cases("tiny" if args.rehearse else "1b", _REHEARSAL if args.rehearse else {})
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as name:
        ground = Ground(Path(name), ease=100 if args.rehearse else 1)
        for what, (start, called, case) in chosen.items():
            needs_gpu = args.rehearse and case.setting in {"qwZ", "qgZ", "ZeRO++"}
            wanted = any(part in what for part in args.only or [""])
            if not wanted or needs_gpu or time.monotonic() - began > args.seconds:
                continue
            _train(results, what, lambda: start(ground, case), called, case)  # noqa: B023 - called at once
    bench.finish(results.report(), args.json)
    return None


def _again(file: Path, *others: Path) -> None:
    """Write the predictions of this version beside measured figures; machine and date stay theirs.

    Args:
        file: results, which is written.
        others: results of another day, whose trainings come in place of those of the same name.
    """
    document = json.loads(file.read_text())
    kept = {key: document[key] for key in ("date", "machine", "added") if key in document}
    for other in others:
        new = json.loads(other.read_text())
        document["raw"] |= new["raw"]
        came = {"names": list(new["raw"])} | {key: new[key] for key in ("date", "machine", "versions")}
        kept["added"] = [*kept.get("added", ()), came]
    gpu = document["setting"].partition(" of two ")[2].partition(",")[0]
    results = Results(gpu, file, document["versions"])
    known = {called: case for _, called, case in cases("1b", {}).values()}
    for name, trainings in document["raw"].items():
        for raw in trainings:
            phases = [Phase(**phase) for phase in raw["phases"]]
            results.add(name, known[name], Training(**raw | {"phases": phases}))
    report = results.report()
    report.print()
    file.write_text(json.dumps(report.to_json() | kept, indent=1) + "\n")


def _train(results: Results, what: str, start: Callable[[], Training], called: str, case: Case) -> None:
    began = time.monotonic()
    try:
        results.add(called, case, start())
        said = "done"
    except RuntimeError as error:
        said = f"failed: {error}"
    print(f"{what}: {said} after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if results.file is not None:  # a machine may be taken away at any time
        results.file.write_text(json.dumps(results.report().to_json(), indent=1) + "\n")


def _gpu() -> str:
    """Return the kind of GPU here.

    Raises:
        SystemExit: there are not enough.
    """
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        names = []
    names = [name for name in names if name]
    if len(names) < WORLD.size:
        sys.exit(f"this comparison needs {WORLD.size} GPUs; nvidia-smi shows {len(names)}; or --rehearse")
    return names[0]


if __name__ == "__main__":
    main()
