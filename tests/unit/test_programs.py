"""The programs of `orchestrate check` travel alone and run under Python 3.8."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import orchestrator.preflight.programs
from orchestrator.preflight.program_zip import program_zip
from tests.programs import write_programs

SOURCES = sorted(Path(orchestrator.preflight.programs.__file__).parent.glob("*.py"))
OURS = {"orchestrator.agent", "orchestrator.preflight.probes"}  # of which the zip has what is needed
NEWER_THAN_3_8 = ("removeprefix", "removesuffix", "strict=", "functools.cache", "itertools.pairwise")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_program_is_python_3_8_and_needs_nothing_but_torch(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, path.name, feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    names |= {str(node.module) for node in froms}
    foreign = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= {"torch", "torch.distributed"} | OURS
    assert [word for word in NEWER_THAN_3_8 if word in text] == []


def test_the_zip_is_always_the_same_and_has_every_source(tmp_path):
    assert program_zip() == program_zip()
    names = set(zipfile.ZipFile(write_programs(tmp_path)).namelist())
    assert {f"orchestrator/preflight/programs/{path.name}" for path in SOURCES} <= names


def test_it_needs_nothing_of_ours_that_is_installed(tmp_path):
    """-I -S: neither the folder it is started from nor site-packages are looked at."""
    path = write_programs(tmp_path)
    words = [sys.executable, "-I", "-S", str(path), "reach", '{"names": [], "workdir": "/", "timeout": 1}']
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/", timeout=120)
    assert done.stdout.startswith('ORCH-CHECK {"probe":"reach"')
    wrong = subprocess.run([*words[:4], "rm", "{}"], capture_output=True, text=True, check=False, timeout=120)
    assert (wrong.returncode, wrong.stderr) == (1, "no program 'rm'; there are pairwise, ranks, ops, reach\n")
