"""NVIDIA's Xids: a driver tells by them of GPUs at fault, and of programs that did what they must not.

After the second kind the GPU is as well as before. Which is which, from NVIDIA's catalogue of Xids (r570).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

OF_PROGRAMS = {
    13: "a kernel failed, mostly by an index out of range",
    31: "a kernel used memory that is not its own",
    43: "a kernel failed, and its process was ended",
    45: "a process that used the GPU was ended",
}
"""What the program has done, by the Xid that tells of it."""


def of_program(event: Mapping[str, Any]) -> str:
    """Return what a program did on a GPU; "" for a fault that is the GPU's own.

    Args:
        event: a `gpu_fault`.
    """
    code = event.get("code")
    return OF_PROGRAMS.get(code, "") if event.get("what") == "xid" and isinstance(code, int) else ""


def fault_words(event: Mapping[str, Any]) -> str:
    """Return `GPU 5: xid 79`; of a program's own fault also whose it is and what it did."""
    code = "" if event.get("code") is None else f" {event['code']}"
    done = of_program(event)
    whose = f", of the script and not of the GPU: {done}" if done else ""
    where = "a GPU" if event.get("gpu") is None else f"GPU {event['gpu']}"
    return f"{where}: {event.get('what')}{code}{whose}"
