"""Numbers, times and events in few words."""

from __future__ import annotations

import math
import time
from typing import Any

from orchestrator.verdict.judge import signal_name

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NAMES = {
    "loss": "loss",
    "eval_loss": "eval loss",
    "tokens_per_second": "tokens/s",
    "samples_per_second": "samples/s",
    "step_time": "step time s",
    "learning_rate": "lr",
    "grad_norm": "grad norm",
    "tflops": "TFLOP/s",
    "mfu": "MFU",
    "loss_scale": "loss scale",
    "epoch": "epoch",
}


def short_number(value: float) -> str:
    """Return a number in at most six characters or so: 2.31, 12.3k, 3e-4, NaN."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    size = abs(value)
    for limit, unit in _UNITS:
        if size >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    if size and size < 0.001:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


def short_bytes(size: float) -> str:
    """Return bytes as `61 GiB`."""
    for limit, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Return `0:03:12`, or `2d 03:12:45`."""
    whole = max(0, int(seconds))
    days, rest = divmod(whole, 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}d {clock:0>8}" if days else clock


def clock(when: float) -> str:
    """Return the time of day, here, of an epoch time."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def rank_set(ranks: list[int]) -> str:
    """Return ranks as `0-3,8`; no more than six pieces of it."""
    pieces: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if pieces and rank == pieces[-1][1] + 1:
            pieces[-1][1] = rank
        else:
            pieces.append([rank, rank])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in pieces[:6]]
    return ",".join(shown) + (",…" if len(pieces) > 6 else "")


def one_line(text: object, most: int = 300) -> str:
    """Return a text without line ends and control characters, cut."""
    words = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return words if len(words) <= most else words[: most - 1] + "…"


def ended_how(event: dict[str, Any]) -> str:
    """Return how a process ended: `exit code 1` or `SIGKILL`."""
    number = event.get("signal")
    return (
        signal_name(number) if isinstance(number, int) and number else f"exit code {event.get('exit_code')}"
    )
