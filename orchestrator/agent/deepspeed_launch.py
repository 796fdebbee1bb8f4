"""`deepspeed.launcher.launch` with the world info from a file.

DeepSpeed's runner hands it over as one base64 argument (0.19.8, launcher/multinode_runner.py), and the
kernel refuses an argument over 128 KiB: about 2,500 hosts of 8 slots.
"""

from __future__ import annotations

import base64
import sys

from deepspeed.launcher import launch


def main() -> None:
    """Run DeepSpeed's launch.main with `WORLD_INFO.json ARGS...` from sys.argv."""
    with open(sys.argv[1], "rb") as file:
        world_info = base64.urlsafe_b64encode(file.read()).decode()
    sys.argv = ["deepspeed.launcher.launch", f"--world_info={world_info}", *sys.argv[2:]]
    launch.main()
