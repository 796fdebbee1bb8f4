"""The table of hosts: those columns of which anything is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.report.units import value_words

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALL_SEEN = 12  # rows that are seen at a glance, and stay in the order of ranks
_MOST = 1000  # rows: a browser sorts them at once, and they are less than a megabyte


class Column(NamedTuple):
    """One column: the key in a host's row, its head, its unit, and what its head says under the pointer."""

    key: str
    name: str
    unit: str
    words: str


COLUMNS = (
    Column("step_time", "step time", "seconds", "mean of the ranks that told it"),
    Column("gpu_utilization", "GPU busy", "share", "mean of its GPUs"),
    Column("gpu_memory", "GPU memory", "bytes", "highest of any of its GPUs"),
    Column("temperature", "GPU °C", "celsius", "highest of any of its GPUs"),
    Column("power", "GPU power", "watts", "mean of its GPUs"),
    Column("cpu", "CPU cores", "", "mean of the cores in use"),
    Column("memory", "memory", "bytes", "highest in use"),
    Column("network", "network", "bytes_per_second", "mean of sent and received together"),
    Column("disk_free", "disk free", "bytes", "lowest"),
)


def host_table(hosts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return columns and rows; of many hosts those of note come first, of very many some are left out."""
    columns = [column for column in COLUMNS if any(column.key in host for host in hosts)]
    order: Sequence[int] = range(len(hosts))
    if len(hosts) > _ALL_SEEN:
        order = sorted(order, key=lambda i: (not notes(hosts[i]), i))
    shown = [hosts[i] for i in order[:_MOST]]
    return {
        "columns": columns,
        "rows": [_row(host, columns) for host in shown],
        "left": len(hosts) - len(shown),
        "noted": sum(bool(notes(host)) for host in hosts),
    }


def _row(host: dict[str, Any], columns: list[Column]) -> dict[str, Any]:
    span = host["span"]
    return {
        "host": host["host"],
        "ranks": "" if not span else (str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"),
        "first": span[0] if span else -1,
        "state": host["state"],
        "ended": host["ended"],
        "cells": [(host.get(c.key, ""), value_words(host.get(c.key), c.unit)) for c in columns],
        "notes": notes(host),
        "tone": "bad" if host["state"] == "failed" or "cause" in host["ended"] else "",
    }


def notes(host: dict[str, Any]) -> str:
    """Return what is to be said of a host; "" of most."""
    found = ["failed first"] if "cause" in host["ended"] else []
    found += host["said"]
    throttled = host.get("throttled", 0)
    found += [f"clock held down in {100 * throttled:.0f} % of samples"] if throttled > 0.005 else []
    found += [f"{host['ecc_errors']:.0f} ECC errors"] if host.get("ecc_errors") else []
    found += [host["message"]] if host["message"] else []
    return "; ".join(found)
