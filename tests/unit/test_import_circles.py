"""Data flows one way: no module imports, in whatever place, what imports it."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import pytest

from tests.samples import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def names(path: Path, known: set[str]) -> Iterator[str]:
    """Yield the modules that a file imports, those for types and those inside functions too."""
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [package * bool(node.level), node.module]))  # the agent's are `.x`
            for each in node.names:
                inner = f"{module}.{each.name}"
                yield inner if inner in known else module


def test_no_module_imports_what_imports_it():
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "orchestrator").rglob("*.py")
    }
    assert len(files) > 100
    graph = {name: set(names(path, set(files))) & set(files) - {name} for name, path in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
