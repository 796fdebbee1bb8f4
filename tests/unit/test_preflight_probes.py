"""The probes themselves: they stand alone, run under Python 3.8, and read what hosts have."""

from __future__ import annotations

import ast
import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.preflight import probes
from orchestrator.preflight.package import check_zip
from orchestrator.preflight.probes import disks, gpus, machine, software
from tests.asleep import await_sleep
from tests.unit.test_agent_syntax import NEWER_THAN_3_8, imported

SOURCES = sorted(Path(probes.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_probes_are_python_3_8_and_bring_along_what_they_import(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, path.name, feature_version=(3, 8))
    foreign = {name for name in imported(tree) if name != "." and name not in sys.stdlib_module_names}
    assert foreign <= {"orchestrator"}
    assert [word for word in NEWER_THAN_3_8 if word in ast.unparse(tree)] == []


def names() -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(check_zip())).namelist())


def test_the_zip_runs_by_itself(tmp_path):
    """In a python that cannot see the checkout, nor anything that is installed."""
    archive = tmp_path / "agent.pyz"
    archive.write_bytes(check_zip())
    words = "from orchestrator.preflight.probes import visit, catalogue; print(*catalogue.PROBES)"
    code = f"import sys; sys.path.insert(0, {str(archive)!r}); {words}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd="/", capture_output=True, text=True, check=True
    )
    assert "gpus" in done.stdout.split()
    assert "orchestrator/cli/main.py" not in names()


def test_bytecode_of_another_python_does_no_harm(tmp_path):
    """Zipimport passes over a pyc with a foreign magic number and compiles the source."""
    archive = tmp_path / "agent.pyz"
    with zipfile.ZipFile(io.BytesIO(check_zip())) as made, zipfile.ZipFile(archive, "w") as other:
        for name in made.namelist():
            data = made.read(name)
            other.writestr(name, b"\0\0\r\n" + data[4:] if name.endswith(".pyc") else data)
    code = f"import sys; sys.path.insert(0, {str(archive)!r}); import orchestrator.preflight.probes.visit"
    assert subprocess.run([sys.executable, "-I", "-c", code], cwd="/", check=False).returncode == 0


def test_every_module_comes_with_its_bytecode():
    empty = {"orchestrator/__init__.py", "orchestrator/preflight/__init__.py"}
    sources = {name for name in names() if name.endswith(".py")} - {"__main__.py"} - empty
    assert {f"{name}c" for name in sources} <= names()
    assert check_zip() == check_zip()


def test_versions_are_those_of_importlib_metadata():
    from importlib import metadata

    found = software.installed(sys.path)
    found.pop(":torch", None)
    assert found
    assert found == {name: metadata.version(name) for name in found}


def test_the_first_on_the_path_counts(tmp_path):
    for folder, version in (("a", "2.0+cu121"), ("b", "1.0")):
        (tmp_path / folder / f"torch-{version}.dist-info").mkdir(parents=True)
    (tmp_path / "b" / "numpy-1.26.4-py3.8.egg-info").mkdir()
    paths = [str(tmp_path / "none"), str(tmp_path / "a"), str(tmp_path / "b")]
    assert software.installed(paths) == {"torch": "2.0+cu121", "numpy": "1.26.4"}


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("cuda: Optional[str] = None\nhip = None\n", None),
        ("__version__ = '2.4.0+cu121'\ncuda = '12.1'\n", "12.1"),
        ("cuda: Optional[str] = '13.0'\n", "13.0"),
    ],
)
def test_the_cuda_of_torch_is_read_from_its_file(tmp_path, text, cuda):
    (tmp_path / "version.py").write_text(text)
    assert software._torch_cuda(str(tmp_path)) == cuda


def test_a_table_of_nvidia_smi():
    text = "0, GPU-a, NVIDIA H200, 143771\n1, GPU-b, [N/A], x, y\n\nNo devices were found\n"
    rows = gpus.parse_table(text, ("index", "uuid", "name", "memory"))
    assert rows == [
        {"index": "0", "uuid": "GPU-a", "name": "NVIDIA H200", "memory": "143771"},
        {"index": "1", "uuid": "GPU-b", "name": "[N/A]", "memory": "x, y"},
    ]


def smi(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return the answer on a host whose nvidia-smi is this shell script."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return gpus.gpus({}, {})


def test_a_driver_that_does_not_answer_is_told_in_its_words(tmp_path, monkeypatch):
    said = "echo 'NVIDIA-SMI has failed: no driver'; exit 9"
    assert "ended with 9: NVIDIA-SMI has failed" in str(smi(tmp_path, said, monkeypatch)["failure"])


def test_gpus_and_their_processes_are_asked_for(tmp_path, monkeypatch):
    script = """case $1 in
        --query-gpu=*) echo '0, GPU-a, NVIDIA H200, 143771, 5, 580.1, 0, [N/A], 0' ;;
        --query-compute-apps=*) echo 'GPU-a, 438, 21090, python3 -c a, b' ;;
        *) echo 'GPU-a, No, No' ;;
    esac"""
    answer = smi(tmp_path, script, monkeypatch)
    assert answer["gpus"][0]["memory.used"] == "5"
    assert answer["processes"][0]["process_name"] == "python3 -c a, b"
    assert answer["remapped"][0]["remapped_rows.pending"] == "No"


def test_an_nvidia_smi_that_does_not_know_remapped_rows_is_no_broken_driver(tmp_path, monkeypatch):
    script = """case $1 in
        --query-gpu=*) echo '0, GPU-a, NVIDIA V100, 143771, 5, 450.1, 0, [N/A], 0' ;;
        --query-compute-apps=*) ;;
        *) echo 'Option is not recognized'; exit 6 ;;
    esac"""
    answer = smi(tmp_path, script, monkeypatch)
    assert (len(answer["gpus"]), "failure" in answer, "remapped" in answer) == (1, False, False)


def test_a_sweep_from_the_swept_directory_answers_and_takes_it_back(tmp_path):
    run_dir = tmp_path / ".check-1"
    run_dir.mkdir()
    (run_dir / "pushed").touch()
    (run_dir / "agent.pyz").write_bytes(check_zip())
    (run_dir / "hang.sh").write_text("sleep 600 & echo $!; wait\n")
    config = {"check": {"sweep": str(run_dir)}}
    code = "import sys; sys.path.insert(0, sys.argv[1]); from orchestrator.preflight.probes import sweeping; "
    code += f"print(sweeping.sweep({config}, {{}}))"
    with subprocess.Popen(["sh", str(run_dir / "hang.sh")], stdout=subprocess.PIPE, text=True) as hung:
        assert hung.stdout is not None
        sleeper = int(hung.stdout.readline())
        await_sleep(sleeper)  # which was another `sh hang.sh` until it had become that
        words = [sys.executable, "-I", "-c", code, str(run_dir / "agent.pyz")]
        try:
            done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False)
            assert (done.stdout, hung.wait(120)) == ("{'ended': 1}\n", -9), done.stderr
        finally:
            hung.kill()
            os.kill(sleeper, signal.SIGKILL)
    assert not run_dir.exists()


def test_a_folder_that_does_not_exist_yet_is_judged_by_what_does(tmp_path):
    found = disks._folder(str(tmp_path / "a/b/c"))
    assert (found["existing"], found["writable"]) == (str(tmp_path), "")
    assert found["free"] > 0
    assert list(tmp_path.iterdir()) == []


def test_speed_of_a_folder_leaves_nothing_there(tmp_path):
    found = disks._measure(str(tmp_path / "nvme"))
    assert found["existing"] == str(tmp_path)
    assert min(found["write"], found["read"]) > 0
    assert list(tmp_path.iterdir()) == []


def test_this_machine():
    found = machine.machine({}, {})
    assert 0 < found["available"] <= found["memory"]
    assert found["cpus"] >= 1
    assert "lo" in machine.interfaces({}, {})["interfaces"]


def test_processes_of_runs_are_found_by_their_mark(monkeypatch):
    monkeypatch.setattr(machine, "_MOST_LEFT", 1 << 20)  # others may be testing on this machine
    environ = {**os.environ, "ORCHESTRATE_RUN_HOST": "other-run/1/0"}
    own = {**os.environ, "ORCHESTRATE_RUN_HOST": ".check-1/check/0"}
    with (
        subprocess.Popen(["sleep", "600"], env=environ) as sleeper,
        subprocess.Popen(["sleep", "600"], env=own) as mine,
    ):
        try:
            await_sleep(sleeper.pid, mine.pid)
            found = {each["pid"]: each for each in machine.leftovers({"run_id": "x"}, {})["processes"]}
        finally:
            sleeper.kill()
            mine.kill()
    assert found[sleeper.pid] == {"pid": sleeper.pid, "run": "other-run", "command": "sleep 600"}
    assert mine.pid not in found
