"""What the supervisor has written down for the agents: `control.json`, as it is meant on this host."""

from __future__ import annotations

import json
import os
from typing import Any


def load(run_dir: str, attempt_dir: str, host_name: str) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Read control.json; return it with paths filled in, this host's entry, and whether the disk is shared.

    A pushed run directory holds a file `pushed`; the supervisor's own never does.
    """
    with open(os.path.join(attempt_dir, "control.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["run_dir"] = run_dir
    config["attempt_dir"] = attempt_dir
    config["logs"] = os.path.join(attempt_dir, "logs")
    config["errors"] = os.path.join(attempt_dir, "errors")
    shared = not os.path.exists(os.path.join(run_dir, "pushed"))
    # What is not shared has to be sent, as logs are.
    config["dumps"] = os.path.join(attempt_dir, "dumps") if shared else config["logs"]
    host = config["hosts"][host_name]
    config["world_info"] = os.path.join(attempt_dir, "rendered", "world_info.json")
    return config, host, shared
