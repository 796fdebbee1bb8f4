"""The far side's own environment, made by the program that is sent for it; no network, no ssh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest

from orchestrator.login.install import Program
from tests.samples import ROOT

BOOTSTRAP = ROOT / "orchestrator/login/bootstrap.py"


def bootstrap(home, archive: bytes, pins=(), size: int | None = None, **environ: str) -> list[dict]:
    """Run the bootstrap program in a home of its own; return what it says after its mark."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}
    order = json.dumps({"size": len(archive) if size is None else size, "pins": list(pins)}).encode() + b"\n"
    done = subprocess.run(
        [sys.executable, "-c", BOOTSTRAP.read_text(), "mark", "v1"],
        input=order + archive,
        env=given | {"HOME": str(home)} | environ,
        capture_output=True,
        check=True,
        timeout=300,
    )
    mark, *lines = done.stdout.decode().rstrip("\n").split("\n")
    assert mark == "\x1emark"
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def program() -> Program:
    return Program("local")


def test_what_is_sent_runs_alone_there(program, tmp_path):
    env = tmp_path / ".local/share/orchestrate/v1"
    (env / "lib/__pycache__").mkdir(parents=True)  # as of one that was removed while it ran
    hello, end = bootstrap(tmp_path, program.archive(packages=True))
    assert program.fits(hello)
    assert end == {"ok": True, "why": ""}
    done = subprocess.run(
        [
            env / "bin/python",
            "-I",
            "-c",
            "import orchestrator, yaml; print(orchestrator.__file__, yaml.__file__)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(env)) for path in done.stdout.split())
    assert [path.name for path in env.parent.iterdir()] == ["v1"]
    assert bootstrap(tmp_path, b"")[0]["there"] is True


def test_what_does_not_run_there_is_not_left_there(program, tmp_path):
    _, end = bootstrap(tmp_path, program.archive(packages=False))
    assert not end["ok"]
    assert "ModuleNotFoundError" in end["why"]
    assert list((tmp_path / ".local/share/orchestrate").iterdir()) == []


def test_a_connection_that_ends_in_the_middle_leaves_nothing(program, tmp_path):
    archive = program.archive(packages=True)
    with pytest.raises(subprocess.CalledProcessError):
        bootstrap(tmp_path, archive[:-1], size=len(archive))
    assert list((tmp_path / ".local/share/orchestrate").iterdir()) == []


def make_wheel(folder) -> None:
    """Write a wheel of one empty module."""
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_another_python_gets_its_packages_by_pip(program, tmp_path):
    make_wheel(tmp_path)
    local = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    archive = program.archive(packages=True)
    _, end = bootstrap(tmp_path, archive, ["tiny==2.0"], **local)
    assert end["why"].startswith("pip: ")
    assert "tiny==2.0" in end["why"]
    _, end = bootstrap(tmp_path, archive, ["tiny==1.0"], **local)
    assert end["ok"], end
    env = tmp_path / ".local/share/orchestrate/v1"
    subprocess.run([env / "bin/python", "-I", "-c", "import tiny"], check=True)
