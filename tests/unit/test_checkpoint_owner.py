"""Whose checkpoint it is: a run may delete only what it wrote itself, and what is in doubt it did not."""

from __future__ import annotations

import os

import pytest

from orchestrator import registry
from orchestrator.checkpoints import sightings
from orchestrator.checkpoints.command import known_runs
from orchestrator.checkpoints.owner import note_before, note_renamed, noted_before, of_deepspeed, owner_of
from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples
from tests.unit.test_checkpoints import NOW, put, save, trainer, universal

RIVAL = "the run rival-1 saved in this folder at the same time, or within a minute of it"


@pytest.fixture(autouse=True)
def _state_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def begun(root, folder, run_id="job-abcd", started=NOW, ended=None, **changes):
    """Return a run that has noted what was there, as its supervisor does."""
    run = samples.run_dir(root / "runs", run_id, State.RUNNING, checkpoint_dir=str(folder), **changes)
    write_json(run.record_file, run.record() | {"started": started})
    if ended is not None:
        run.write_verdict({"state": "SUCCEEDED", "summary": "", "ended": ended})
    note_before(run, folder)
    registry.remember(run.path)
    return run


def foreign(run, folder, name) -> str:
    owner = owner_of(run, folder, known_runs(None))
    (seen,) = [one for one in sightings(folder) if one.path.name == name]
    return owner.foreign(seen)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "saved"
    made.mkdir()
    return made


def test_what_came_since_is_its_own(tmp_path, folder):
    save(folder, "global_step1", ranks=4, at=NOW)
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    assert foreign(run, folder, "global_step2") == ""
    assert foreign(run, folder, "global_step1") == "it was there before the run"


def test_the_note_is_made_once(tmp_path, folder):
    """A run that is queued again goes on with its own checkpoints."""
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    note_before(run, folder)
    assert foreign(run, folder, "global_step2") == ""


def test_an_earlier_runs_tag_that_is_written_over_stays_the_earlier_runs(tmp_path, folder):
    save(folder, "global_step2", ranks=4, at=NOW)
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    assert foreign(run, folder, "global_step2") == "it was there before the run"


def test_a_tag_that_was_set_aside_is_there_under_its_new_name(tmp_path, folder):
    """Fewer ranks save in its place: what they write under the old name is theirs."""
    (save(folder, "global_step2", ranks=8, at=NOW) / "more").mkdir()
    save(folder, "global_step3", ranks=8, at=NOW)
    run = begun(tmp_path, folder)
    (folder / "global_step2").rename(folder / "global_step2_of_8_ranks")
    note_renamed(run, "global_step2", "global_step2_of_8_ranks")
    note_renamed(run, "global_step7", "global_step7_of_8_ranks")  # its own, of an earlier attempt
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    assert foreign(run, folder, "global_step2") == ""
    for name in ("global_step2_of_8_ranks", "global_step3"):
        assert foreign(run, folder, name) == "it was there before the run"
    assert noted_before(run) == {"global_step2_of_8_ranks", "global_step3"}


def test_deep_folders_are_noted_too(tmp_path, folder):
    trainer(folder / "project")
    run = begun(tmp_path, folder)
    assert "before the run" in foreign(run, folder, next(iter(sightings(folder))).path.name)


def test_without_a_note_nothing_is_its_own(tmp_path, folder):
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    (run.path / "checkpoints.json").unlink()
    assert foreign(run, folder, "global_step2") == "nobody noted what was there before the run"


def test_what_came_after_its_end_is_not_its_own(tmp_path, folder):
    run = begun(tmp_path, folder, ended=NOW + 100)
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    save(folder, "global_step3", ranks=4, at=NOW + 160)
    assert foreign(run, folder, "global_step2") == ""
    assert foreign(run, folder, "global_step3") == "it was written after the run"


def test_what_was_only_renamed_or_copied_with_its_times_is_not_its_own(tmp_path, folder):
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=4, at=NOW - 3600)
    assert foreign(run, folder, "global_step2") == "it was written before the run"


def test_copies_in_a_folder_of_their_own_are_not_its_own(tmp_path, folder):
    """Another engine's folder has a `latest` of its own."""
    run = begun(tmp_path, folder)
    save(folder / "backup", "global_step2", ranks=4, at=NOW + 60, note=False)
    save(folder / "critic", "global_step3", ranks=4, at=NOW + 60)
    assert foreign(run, folder, "global_step2") == "no `latest` lies beside it, as where DeepSpeed saves"
    assert foreign(run, folder, "global_step3") == ""


@pytest.mark.parametrize("where", [".", "..", "inner"])
def test_two_runs_at_once_leave_each_others_alone(tmp_path, folder, where):
    run = begun(tmp_path, folder)
    (folder / "inner").mkdir()
    begun(tmp_path, folder / where, "rival-1", started=NOW + 30, ended=NOW + 90)
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    save(folder, "global_step9", ranks=4, at=NOW + 900)
    assert foreign(run, folder, "global_step2") == RIVAL
    assert foreign(run, folder, "global_step9") == ""


def test_a_rival_that_still_runs_is_one(tmp_path, folder):
    run = begun(tmp_path, folder)
    begun(tmp_path, folder, "rival-1", started=NOW + 30)
    save(folder, "global_step9", ranks=4, at=NOW + 900)
    assert "rival-1" in foreign(run, folder, "global_step9")


def test_a_rival_whose_supervisor_is_gone_is_none_for_what_came_later(tmp_path, folder):
    run = begun(tmp_path, folder)
    rival = begun(tmp_path, folder, "rival-1", started=NOW + 30)
    write_json(rival.record_file, rival.record() | {"supervisor": samples.supervisor_record(2**22 + 1)})
    rival.add_event("supervisor")
    os.utime(rival.events_file, (NOW + 90, NOW + 90))
    save(folder, "global_step9", ranks=4, at=NOW + 900)
    assert foreign(run, folder, "global_step9") == ""


def test_a_run_that_goes_on_where_another_ended_owns_what_it_saves_at_once(tmp_path, folder):
    begun(tmp_path, folder, "before-1", started=NOW - 900, ended=NOW - 5)
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=4, at=NOW + 20)
    assert foreign(run, folder, "global_step2") == ""


def test_another_folders_runs_are_no_rivals(tmp_path, folder):
    run = begun(tmp_path, folder)
    begun(tmp_path, tmp_path / "elsewhere", "other-1")
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    assert foreign(run, folder, "global_step2") == ""


@pytest.mark.parametrize(("ranks", "own"), [(4, True), (2, True), (1, True), (3, False), (8, False)])
def test_the_number_of_ranks_has_to_fit(tmp_path, folder, ranks, own):
    """Data-parallel ranks: with model parallelism they are a part of all (four in this plan)."""
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=ranks, at=NOW + 60)
    assert (foreign(run, folder, "global_step2") == "") is own


def test_an_attempt_on_other_hosts_counts(tmp_path, folder):
    run = begun(tmp_path, folder)
    again = samples.plan(samples.pool("a slots=3\nb slots=3\n"), run_id=run.run_id)
    run.attempt(2).path.mkdir()
    run.attempt(2).plan_file.write_text(again.to_json())
    save(folder, "global_step2", ranks=6, at=NOW + 60)
    assert foreign(run, folder, "global_step2") == ""


def test_another_users_are_not_its_own(tmp_path, folder):
    if os.getuid():
        pytest.skip("only root can give a folder away")
    run = begun(tmp_path, folder)
    os.chown(save(folder, "global_step2", ranks=4, at=NOW + 60), 12345, -1)
    assert foreign(run, folder, "global_step2") == "another user wrote it"


def test_a_link_is_nobodys_own(tmp_path, folder):
    run = begun(tmp_path, folder)
    save(tmp_path / "other", "global_step2", ranks=4, at=NOW + 60)
    (folder / "global_step2").symlink_to(tmp_path / "other" / "global_step2")
    assert foreign(run, folder, "global_step2") == "a link leads to it"


def test_converted_ones_and_weights_are_not_saves(tmp_path, folder):
    run = begun(tmp_path, folder)
    made = universal(folder)
    assert foreign(run, folder, made.name).startswith("universal:")


def test_of_a_plain_folder_only_deepspeeds_may_go(folder):
    save(folder, "global_step2")
    put(folder / "weights" / "pytorch_model.bin")
    (folder / "step_3").mkdir()
    said = {one.path.name: of_deepspeed(folder, one) for one in sightings(folder)}
    assert said == {
        "global_step2": "",
        "weights": "weights: DeepSpeed did not write it",
        "step_3": "deepspeed: DeepSpeed did not write it",
    }


def test_what_another_run_waits_to_go_on_from_stays(tmp_path, folder):
    run = begun(tmp_path, folder)
    save(folder, "global_step2", ranks=4, at=NOW + 60)
    told = {"checkpoint_dir": str(folder), "resume_tag": "global_step2"}
    new = samples.run_dir(tmp_path / "runs", "job-next", State.PENDING, **told)
    registry.remember(new.path)
    assert foreign(run, folder, "global_step2") == "the run job-next is to go on from it"
    new.write_verdict({"state": "FAILED", "summary": "", "ended": NOW + 90})
    assert foreign(run, folder, "global_step2") == ""
