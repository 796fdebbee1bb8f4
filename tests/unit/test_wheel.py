"""The wheel is complete: what it installs renders a job without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True, timeout=300)
    return next(folder.glob("*.whl"))


def test_templates_and_types_are_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    templates = {f"orchestrator/job_templates/{path.name}" for path in (ROOT / "job_templates").iterdir()}
    assert templates <= names
    starts = ROOT / "examples" / "templates"
    files = [path.relative_to(starts) for path in starts.rglob("*") if path.is_file()]
    assert {f"orchestrator/init/templates/{path}" for path in files} <= names
    assert {"orchestrator/py.typed", "orchestrator/agent/rank.py"} <= names
    pages = [path.name for path in (ROOT / "orchestrator/report/templates").iterdir()]
    assert {f"orchestrator/report/templates/{page}" for page in pages} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "examples/"))]


def test_an_installed_wheel_renders(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "job.yaml").write_text("cluster: {backend: local}\ntrain: {script: train.py}\n")
    (tmp_path / "train.py").touch()
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "render", "job.yaml"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "attempt-1/rendered/node.sh" in done.stdout
    where = "import orchestrator, pathlib; print(pathlib.Path(orchestrator.__file__).parent)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(tmp_path / "site" / "orchestrator")
