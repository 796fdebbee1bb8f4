"""Data flows one way: no module of what comes before a run imports, in whatever place, what imports it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from tests.samples import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGES = (
    *("configs", "estimate", "forecast", "hosts", "huggingface", "importing", "init", "job", "plan"),
    *("preflight", "rules"),
)


def names(path: Path, known: set[str]) -> Iterator[str]:
    """Yield the modules that a file imports, those for types and those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                yield inner if inner in known else node.module


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_what_imports_it(package):
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "orchestrator" / package).rglob("*.py")
    }
    assert len(files) > 2
    graph = {name: set(names(path, set(files))) & set(files) - {name} for name, path in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
