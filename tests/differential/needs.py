"""The installed packages that a module of tests compares with, imported where its tests run.

Collecting costs every worker an import of what stands at a module's top: torch and DeepSpeed take seconds.
"""

from __future__ import annotations

import pytest


def needs(*names: str):
    """Return a fixture for a module: it imports these packages, or skips the module's tests."""

    @pytest.fixture(autouse=True, scope="module")
    def installed() -> None:
        for name in names:
            pytest.importorskip(name, reason=f"needs {name} installed")

    return installed
