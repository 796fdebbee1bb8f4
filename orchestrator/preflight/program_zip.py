"""The zip file with the programs that visit hosts beside the probes: `python programs.pyz NAME REQUEST`."""

from __future__ import annotations

from orchestrator.archive import zipped
from orchestrator.preflight.package import sources

NAME = "programs.pyz"
"""How the file is called on the hosts; the command is `python programs.pyz pairwise|ops|reach REQUEST`."""
_OTHERS = ("agent/__init__", "agent/network", "preflight/probes/__init__", "preflight/probes/answers")


def program_zip() -> bytes:
    """Return the programs as one runnable zip file, laid out as that of the probes (preflight.package)."""
    return zipped(sources("programs", _OTHERS))
