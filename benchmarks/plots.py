"""Draw docs/zeropp_{steps,losses}.svg, the README's figures of ZeRO++, from results/zeropp.json.

Needs the extra `[plots]`.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from benchmarks import bench

mpl.use("svg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RESULTS = bench.ROOT / "benchmarks/results/zeropp.json"
_COLOURS = {"ZeRO-3": "#444444", "hpZ": "#1b7f5c", "qwZ": "#c07a00", "qgZ": "#7b4fa6", "ZeRO++": "#c2272d"}
_NAME = re.compile(r"(?P<setting>\S+), g=(?P<accumulation>\d+), (?P<link>.+)")
_WIDTH, _HEIGHT = 6.4, 3.6  # inches
_SECONDS = (0.25, 0.5, 1, 2, 4)


def steps(axes: Axes, document: dict[str, Any]) -> None:
    """Draw the step time of each setting (g = 1) over the speed of the link, measured and predicted."""
    points: dict[str, list[tuple[float, float, float]]] = {}
    shaped = set()
    for name, (row, *_) in document["samples"].items():
        match = _NAME.fullmatch(name)
        if match and match["accumulation"] == "1":
            point = (row["link Gbit/s"], row["step s"], row["predicted s"])
            points.setdefault(match["setting"], []).append(point)
            shaped |= {point[0]} if match["link"] != "loopback" else set()
    for setting, found in points.items():
        links, measured, _ = zip(*sorted(found), strict=True)
        axes.plot(links, measured, "o-", color=_COLOURS[setting], label=setting)
        # NCCL's sockets are far from using what an open loopback device lets through.
        foretold = [(link, predicted) for link, _, predicted in sorted(found) if link in shaped]
        axes.plot(*zip(*foretold, strict=True), ":", color=_COLOURS[setting])
    axes.plot([], [], ":", color="gray", label="predicted by plan")
    axes.set(xscale="log", yscale="log", xlabel="link, Gbit/s each way (measured)", ylabel="step, s")
    ticks = sorted({round(point[0]) for found in points.values() for point in found})
    axes.set_xticks(
        ticks, [f"{tick}" if tick <= round(max(shaped)) else f"{tick}, loopback" for tick in ticks]
    )
    axes.set_yticks(_SECONDS, [f"{tick:g}" for tick in _SECONDS])
    axes.minorticks_off()


def losses(axes: Axes, document: dict[str, Any]) -> None:
    """Draw the loss of ZeRO-3 and of ZeRO++ over the steps, each the mean of five.

    Raises:
        KeyError: one of them was not measured.
    """
    for setting in ("ZeRO-3", "ZeRO++"):
        curve = document["raw"][f"loss, {setting}"][0]["losses"]
        smooth = [statistics.mean(curve[max(0, end - 5) : end]) for end in range(1, len(curve) + 1)]
        width = 3.5 if setting == "ZeRO-3" else 1.2
        axes.plot(range(1, len(curve) + 1), smooth, color=_COLOURS[setting], linewidth=width, label=setting)
    axes.set(xlabel="step", ylabel="loss, nats per byte")


def main() -> None:
    """Write both files."""
    document = json.loads(_RESULTS.read_text())
    plt.rcParams |= {
        "svg.hashsalt": "zeropp",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    for name, draw in {"steps": steps, "losses": losses}.items():
        figure, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        try:
            draw(axes, document)
        except KeyError as error:
            print(f"{name}: {_RESULTS.name} has no {error}", file=sys.stderr)
            continue
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(bench.ROOT / f"docs/zeropp_{name}.svg", metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main()
