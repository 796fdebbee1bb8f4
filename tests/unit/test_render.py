"""What is rendered: golden files, shells and ssh that read it, templates of the user's own."""

from __future__ import annotations

import shutil

import pytest
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from orchestrator import prepare, submit
from orchestrator.job import load_job
from tests import samples

GOLDEN = samples.ROOT / "tests/golden"
JOBS = sorted(path.stem for path in (GOLDEN / "jobs").glob("*.yaml"))


class _Rendered(SingleFileSnapshotExtension):
    """One text file a job, in tests/golden/test_render."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"

    @classmethod
    def dirname(cls, *, test_location) -> str:
        return str(GOLDEN / "test_render")


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Return a function that prepares a golden job in a folder that holds all it names."""

    def make(name: str) -> prepare.Prepared:
        shutil.copytree(GOLDEN / "jobs", tmp_path, dirs_exist_ok=True)
        workdir = tmp_path / "work dir's $HOME"
        for path in (workdir / "tr'ain $x.py", tmp_path / "keys/my key", tmp_path / "ssh config"):
            path.parent.mkdir(exist_ok=True)
            path.touch()
        (tmp_path / "secret.env").write_text('FILED="it\'s"\n')
        monkeypatch.setenv("HOME", str(tmp_path / "home of me"))
        monkeypatch.setattr("sys.executable", "/opt/orchestrate/bin/python")
        job = load_job(tmp_path / f"{name}.yaml")
        return prepare.prepare(job, {"TOKEN": "hush"}, f"{name}-abcd")

    return make


@pytest.mark.parametrize("name", JOBS)
def test_rendered_files_are_as_they_were(prepared, snapshot, tmp_path, name):
    files = prepared(name).files
    shown = "".join(f"# ---- {file.path}{' (program)' * file.executable}\n{file.text}" for file in files)
    assert shown.replace(str(tmp_path), "/home/alice/job") == snapshot(extension_class=_Rendered)


@pytest.mark.parametrize("name", JOBS)
def test_submit_writes_what_render_returns(prepared, name, monkeypatch):
    monkeypatch.setattr(submit, "_need_tools", lambda _backend: None)  # pdsh need not be installed here
    ready = prepared(name)
    written = submit.create(ready).path
    for file in ready.files:
        path = written / file.path
        assert path.read_text(encoding="utf-8") == file.text
        assert bool(path.stat().st_mode & 0o100) == file.executable
