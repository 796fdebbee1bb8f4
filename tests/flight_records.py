"""Files as c10d's flight recorder writes them (version 2.10), made from a few words."""

from __future__ import annotations

import pickle
from typing import Any


def entry(
    number: int,
    op: str = "all_reduce",
    *,
    size: int = 4,
    done: bool = True,
    group: tuple[str, str] = ("0", "default_pg"),
    p2p: bool = False,
) -> dict[str, Any]:
    """Return one collective."""
    frames = [
        {"name": op, "filename": "/x/site-packages/torch/distributed/distributed_c10d.py", "line": 3245},
        {"name": "step", "filename": "/home/me/train.py", "line": number},
    ]
    return {
        "record_id": number,
        "pg_id": 0,
        "process_group": group,
        "collective_seq_id": number,
        "p2p_seq_id": int(p2p),
        "op_id": number,
        "profiling_name": f"nccl:{op}",
        "time_created_ns": 1_000_000_000 * (100 + number),
        "input_sizes": [[size]],
        "input_dtypes": ["Float"],
        "output_sizes": [[size]],
        "output_dtypes": ["Float"],
        "state": "completed" if done else "started",
        "time_discovered_started_ns": None,
        "time_discovered_completed_ns": None,
        "retired": done,
        "timeout_ms": 600_000,
        "is_p2p": p2p,
        "frames": frames,
    }


def dump(entries: list[dict[str, Any]], world: int, groups: dict[str, list[int]] | None = None) -> bytes:
    """Return a file of one rank."""
    every = {"0": ("default_pg", list(range(world)))}
    every |= {name: ("tensor parallel", ranks) for name, ranks in (groups or {}).items()}
    config = {
        name: {"name": name, "desc": desc, "ranks": str(ranks)} for name, (desc, ranks) in every.items()
    }
    return pickle.dumps({"version": "2.10", "pg_config": config, "pg_status": {}, "entries": entries}, 2)
