from __future__ import annotations

import subprocess

import pytest

from orchestrator.errors import SubmitError
from orchestrator.snapshot import take_snapshot


def copied(target) -> set[str]:
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}


def git(folder, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "work dir"
    for name in ("train.py", "pkg/mod ü.py", ".hidden/x", "__pycache__/c.pyc", "runs/old/plan.json", ".env"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "train.py").chmod(0o755)
    return folder


def test_without_git_all_is_copied_but_hidden_folders_caches_and_runs(tree, tmp_path):
    count = take_snapshot(tree, tmp_path / "copy", leave_out=tree / "runs")
    assert copied(tmp_path / "copy") == {"train.py", "pkg/mod ü.py", ".env"}
    assert count == 3
    assert (tmp_path / "copy/train.py").stat().st_mode & 0o111


def test_with_git_the_tracked_files_are_copied_as_they_stand_now(tree, tmp_path):
    git(tree, "init")
    git(tree, "add", "train.py", "pkg", ".env")
    git(tree, "commit", "-m", "x")
    (tree / "train.py").write_text("changed since")
    (tree / "untracked.py").touch()
    (tree / ".env").unlink()
    take_snapshot(tree, tmp_path / "copy", leave_out=tree / "runs")
    assert copied(tmp_path / "copy") == {"train.py", "pkg/mod ü.py"}
    assert (tmp_path / "copy/train.py").read_text() == "changed since"


def test_of_a_folder_in_a_work_tree_only_that_folder_is_copied(tree, tmp_path):
    git(tree, "init")
    git(tree, "add", "train.py", "pkg")
    take_snapshot(tree / "pkg", tmp_path / "copy", leave_out=tree / "runs")
    assert copied(tmp_path / "copy") == {"mod ü.py"}


def test_links_to_nothing_and_to_folders_do_not_stop_it(tree, tmp_path):
    git(tree, "init")
    (tree / "broken").symlink_to("nowhere")
    (tree / "folder").symlink_to("pkg")
    git(tree, "add", "train.py", "broken", "folder")
    take_snapshot(tree, tmp_path / "copy", leave_out=tree / "runs")
    assert (tmp_path / "copy/train.py").exists()


def test_a_file_that_cannot_be_copied_is_told_by_name(tree, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/pkg").touch()  # where a folder has to be
    with pytest.raises(SubmitError) as caught:
        take_snapshot(tree, tmp_path / "copy", leave_out=tree / "runs")
    (problem,) = caught.value.problems
    assert problem.where == "train.snapshot"
    assert "copy/pkg" in str(problem)
