from __future__ import annotations

import os
import shutil

import pytest

from orchestrator import registry
from orchestrator.checkpoints.command import known_runs
from orchestrator.errors import RunNotFoundError
from tests import samples


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def make(root, run_id: str, age: float):
    run = samples.run_dir(root, run_id)
    os.utime(run.plan_file, (1e9 - age, 1e9 - age))
    return run


def test_runs_are_found_by_id_beginning_path_and_last(tmp_path):
    first, second = make(tmp_path / "a", "zero-aaaa", 20), make(tmp_path / "b", "zero-abbb", 10)
    for run in (first, second):
        registry.remember(run.path)
    assert [run.path for run in registry.all_runs()] == [first.path, second.path]
    for word, run in (("zero-aaaa", first), ("zero-ab", second), ("last", second), ("a/zero-aaaa", first)):
        assert registry.find(word).path == run.path
    assert registry.find(str(second.path) + "/").path == second.path


def test_a_whole_id_counts_although_it_begins_another(tmp_path):
    for number, run_id in enumerate(("job-a", "job-ab")):
        make(tmp_path / "runs", run_id, number)
    assert registry.find("job-a", tmp_path / "runs").run_id == "job-a"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("gone", "RUN: no run has that id (got gone)\n  fix: one of: zero-abbb, zero-aaaa"),
        ("zero", "RUN: 2 runs have an id that begins so (got zero)\n  fix: one of: zero-abbb, zero-aaaa"),
    ],
)
def test_what_is_not_one_run_is_told_with_those_there_are(tmp_path, word, told):
    make(tmp_path / "runs", "zero-aaaa", 20)
    make(tmp_path / "runs", "zero-abbb", 10)
    with pytest.raises(RunNotFoundError) as caught:
        registry.find(word, tmp_path / "runs")
    assert str(caught.value) == told
    assert caught.value.exit_code == 2


def test_of_many_ids_the_latest_are_told_and_that_there_are_more(tmp_path):
    for number in range(8):
        make(tmp_path / "runs", f"zero-{number}", 8 - number)
    with pytest.raises(RunNotFoundError) as caught:
        registry.find("zero", tmp_path / "runs")
    told = "fix: one of: zero-7, zero-6, zero-5, zero-4, zero-3; 3 more in `orchestrate list -n 0`"
    assert told in str(caught.value)
    with pytest.raises(RunNotFoundError, match=r"is no run directory: it has no plan\.json"):
        registry.find(str(tmp_path), tmp_path / "runs")


def test_without_any_run_nothing_is_last():
    with pytest.raises(RunNotFoundError, match="orchestrate list"):
        registry.find("last")


def test_a_run_known_by_link_and_folder_is_one_run(tmp_path):
    run = make(tmp_path / "runs", "job-abcd", 0)
    registry.remember(run.path)
    registry.remember(run.path)
    assert len(registry.all_runs(tmp_path / "runs")) == 1


def test_links_to_deleted_runs_are_forgotten(tmp_path):
    run = make(tmp_path / "runs", "job-abcd", 0)
    registry.remember(run.path)
    shutil.rmtree(run.path)
    assert registry.all_runs() == []
    assert list(registry.state_dir().iterdir()) == []


def test_a_supervisor_forgets_no_run_on_a_disk_that_its_host_lacks(tmp_path):
    registry.remember(tmp_path / "elsewhere/job-aaaa")
    assert list(known_runs(None)) == []
    assert (registry.state_dir() / "job-aaaa").is_symlink()


def test_a_run_that_took_the_place_of_a_deleted_one_is_found(tmp_path):
    gone = make(tmp_path / "a", "job-abcd", 0)
    registry.remember(gone.path)
    shutil.rmtree(gone.path)
    again = make(tmp_path / "b", "job-abcd", 0)
    registry.remember(again.path)
    assert registry.find("job-abcd").path == again.path


def test_a_home_that_cannot_be_written_to_costs_only_the_link(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    run = make(tmp_path / "runs", "job-abcd", 0)
    registry.remember(run.path)
    assert registry.find("last", tmp_path / "runs").run_id == "job-abcd"


def test_the_state_directory_is_below_home_unless_said_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry.state_dir() == tmp_path / ".local/state/orchestrate/runs"
