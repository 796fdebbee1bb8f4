from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import orchestrator.agent
from orchestrator.bundle import agent_zip
from tests.samples import ROOT

SOURCES = sorted(Path(orchestrator.agent.__file__).parent.glob("*.py"))
OUTSIDE = {("deepspeed_launch.py", "deepspeed")}  # only run where the job's launcher is DeepSpeed's


def imported(tree: ast.AST) -> set[str]:
    """Return the first word of every absolute import, and "." for one of the agent's own."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0] if node.level == 0 else "." * node.level)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_agent_is_python_3_8_and_stands_alone(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), path.name, feature_version=(3, 8))
    foreign = {name for name in imported(tree) if name != "." and name not in sys.stdlib_module_names}
    assert {(path.name, name) for name in foreign} <= OUTSIDE


NEW_ANNOTATIONS = {"dict", "list", "set", "tuple", "type", "frozenset"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_is_evaluated_that_python_3_8_cannot(path):
    """`dict[str, int]` and `X | Y` are fine in annotations, which are never evaluated, and nowhere else."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    unevaluated = (
        {id(part) for node in ast.walk(tree) for part in annotation_parts(node)} if future else set()
    )
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and id(node) not in unevaluated
        ):
            assert node.value.id not in NEW_ANNOTATIONS, f"{path.name}:{node.lineno}"


def annotation_parts(node: ast.AST) -> list[ast.AST]:
    roots = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    return [part for root in roots if isinstance(root, ast.AST) for part in ast.walk(root)]


NEWER_THAN_3_8 = (
    "removeprefix",
    "removesuffix",
    "math.lcm",
    "zip(strict",
    "strict=",
    "pairwise",
    "functools.cache",
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_method_of_a_newer_python_is_called(path):
    code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
    assert [word for word in NEWER_THAN_3_8 if word in code] == []


def test_the_same_agent_is_the_same_bytes():
    assert agent_zip() == agent_zip()


def test_every_source_travels_with_its_bytecode(agent_file):
    import zipfile

    names = {f"agent/{path.name}{end}" for path in SOURCES for end in ("", "c")}
    assert set(zipfile.ZipFile(agent_file).namelist()) == names | {"__main__.py"}
    assert (ROOT / "orchestrator/agent/entry.py") in SOURCES
