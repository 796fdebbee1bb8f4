"""Records as rows: which columns there are, and how a value is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HEAD = ("time", "attempt", "kind", "host", "rank", "gpu", "step")
_FIGURES = (
    *("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "samples_per_second"),
    *("step_time", "tflops", "mfu", "loss_scale", "epoch"),
    *("utilization", "memory", "memory_total", "temperature", "power", "clock", "throttled", "ecc_errors"),
    *("cpu", "cores", "load", "disk_free", "sent", "received", "read", "written", "log_bytes"),
)
_ORDER = {name: place for place, name in enumerate((*_HEAD, *_FIGURES))}
_BYTES = frozenset(
    {"memory", "memory_total", "disk_free", "sent", "received", "read", "written", "log_bytes"}
)
_SHORT = {
    "learning_rate": "lr",
    "tokens_per_second": "tokens/s",
    "samples_per_second": "samples/s",
    "step_time": "s/step",
    "memory_total": "of",
    "utilization": "busy",
    "sent": "sent/s",
    "received": "received/s",
    "read": "read/s",
    "written": "written/s",
}


def columns(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names that any of the records has: those we know in our order, then the others by name."""
    names = {name for record in records for name in record}
    return sorted(names, key=lambda name: (_ORDER.get(name, len(_ORDER)), name))


def worth_showing(names: Iterable[str], records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Leave out what is the same in all rows anyway, where it only says which records these are.

    Of a row alone nobody knows that the others of its run would say the same.
    """
    rows = list(records)
    known = ("attempt", "kind") if len(rows) == 1 else ("attempt", "kind", "rank", "host")
    same = {name for name in known if len({row.get(name) for row in rows}) < 2}
    return [name for name in names if name not in same]


def title(name: str) -> str:
    """Return what a column is called on a screen."""
    return _SHORT.get(name, name)


def shown(name: str, value: Any) -> str:
    """Return a value for a screen; "" for one that is not known."""
    if value is None:
        return ""
    if name == "time":
        return time.strftime("%m-%d %H:%M:%S", time.localtime(float(value)))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name in _BYTES:
        return _bytes(float(value))
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"
