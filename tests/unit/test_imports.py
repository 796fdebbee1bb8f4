"""Nothing heavy is imported on the way to what has to be quick."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tests.samples import ROOT

HEAVY = {"torch", "deepspeed", "accelerate", "transformers", "submitit", "paramiko", "numpy"}
LATER = HEAVY | {
    "pydantic",
    "yaml",
    "jinja2",
    "rich",
    "asyncio",
    "textual",
    "aiohttp",
    "tensorboard",
    "prometheus_client",
}  # heavy too, where there is nothing to check
PROGRAM = """
import sys
from orchestrator.cli.main import main
sys.argv[0] = "orchestrate"
try:
    main()
finally:
    print("\\nLOADED", *(name for name in sys.modules if "." not in name))
"""


def loaded(here, *words: str) -> set[str]:
    """Run the command and return the packages it imported."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(
        command, cwd=here, env=environ, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["logs", "--help"],
        ["list"],
        ["list", "--json"],
        ["list", "--state", "active", "--name", "zero"],
        ["metrics"],
        ["status"],
        ["logs"],
        ["completion", "bash"],
        ["checkpoint", "--help"],
        ["report", "--help"],
        ["checkpoint", "list", "."],
    ],
    ids=" ".join,
)
def test_looking_needs_next_to_nothing(zero_run, here, words):
    modules = loaded(here, *words)
    assert {"orchestrator", "click"} <= modules
    assert modules & LATER == set()


@pytest.mark.parametrize(
    "words",
    [["render", "job.yaml"], ["submit", "--dry-run", "job.yaml"], ["hosts", "job.yaml"], ["schema"]],
    ids=lambda words: words[0],
)
def test_checking_a_job_needs_no_training_package(here, words):
    assert loaded(here, *words) & HEAVY == set()


def test_importing_the_package_imports_only_itself():
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}

    def modules(program: str) -> set[str]:
        command = [sys.executable, "-c", f"import sys{program}; print(*sys.modules)"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert modules(", orchestrator") - modules("") - {"__future__"} == {"orchestrator"}


def test_training_packages_are_imported_by_name_where_they_are_meant_to_be():
    """Only inside functions: a module that imports one at its top makes every command pay for it."""
    found = set()
    for path in (ROOT / "orchestrator").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            found |= {
                (path.name, name.partition(".")[0]) for name in names if name.partition(".")[0] in HEAVY
            }
    # paramiko, itself imported only by the launcher; DeepSpeed, on a host, by the launcher that is its own
    assert {name for name, _ in found} <= {"remote.py", "deepspeed_launch.py"}
