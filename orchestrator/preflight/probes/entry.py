"""What the zip does when `node.sh` starts it in the agent's place: `agent RUN_DIR ATTEMPT_DIR HOST`."""

from __future__ import annotations

import json
import os


def main(argv: list[str]) -> int:
    """Visit this host; return the exit code of the command that was asked for, else 0."""
    _, run_dir, attempt_dir, alias = argv
    with open(os.path.join(attempt_dir, "control.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["run_dir"] = run_dir
    config["rendered"] = os.path.join(attempt_dir, "rendered")
    config["shared"] = not os.path.exists(os.path.join(run_dir, "pushed"))

    from .visit import Visit  # noqa: PLC0415 - a visit to a host without control.json needs none of it

    return Visit(config, alias).run()
