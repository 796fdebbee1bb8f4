"""What retention may delete once a run was resumed: the earlier runs' tags, and what was made for them."""

from __future__ import annotations

import json
import os

import pytest

from orchestrator.checkpoints.command import known_runs
from orchestrator.checkpoints.lineage import lineage_of
from orchestrator.checkpoints.owner import note_renamed
from orchestrator.checkpoints.prune import prune
from orchestrator.plan import KeepPlan
from orchestrator.rundir import write_json
from orchestrator.supervisor.keeping import start_keeping
from tests.unit.test_checkpoint_owner import begun
from tests.unit.test_checkpoints import NOW, OPTIM, save, stamp, universal


@pytest.fixture(autouse=True)
def _state_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "saved"
    made.mkdir()
    return made


@pytest.fixture
def first(tmp_path, folder):
    """A run that found step 1, saved 2 to 4, a minute apart, and has ended."""
    save(folder, "global_step1", ranks=4, at=NOW - 900)
    run = begun(tmp_path, folder, "first-1", started=NOW, ended=NOW + 250)
    for step in (2, 3, 4):
        save(folder, f"global_step{step}", ranks=4, at=NOW + 60 * step)
    return run


def resumed(root, folder, before, run_id="second-1", **changes):
    """Return a run that goes on ten seconds after another one has ended."""
    run = begun(root, folder, run_id, started=NOW + 260, resume_tag="global_step4", **changes)
    write_json(run.record_file, run.record() | {"resumes": before.run_id})
    return run


def left(folder) -> list[str]:
    return sorted(path.name.removeprefix("global_step") for path in folder.iterdir() if path.is_dir())


def pruned(run, folder, last=1, **options) -> list[str]:
    line = lineage_of(run, folder, known_runs(None))
    assert not prune(folder, KeepPlan(last, **options), line.foreign, needed=line.needed).failed
    return left(folder)


def test_the_earlier_runs_tags_count_and_go(tmp_path, folder, first):
    """But not what was there before both, nor, as long as the run is on, what it goes on from."""
    run = resumed(tmp_path, folder, first)
    for step in (5, 6):
        save(folder, f"global_step{step}", ranks=4, at=NOW + 300 + 60 * step)
    assert pruned(run, folder, 3) == ["1", "4", "5", "6"]
    assert pruned(run, folder, 1) == ["1", "4", "6"]
    run.write_verdict({"state": "SUCCEEDED", "summary": "", "ended": NOW + 900})
    assert pruned(run, folder, 1) == ["1", "6"]


def test_the_supervisor_of_the_resumed_run_does_so(tmp_path, folder, first):
    run = resumed(tmp_path, folder, first, keep=KeepPlan(2))
    keeping = start_keeping(run, run.plan())
    save(folder, "global_step5", ranks=4, at=NOW + 600)
    keeping.finish()
    assert left(folder) == ["1", "4", "5"]


@pytest.mark.parametrize(("backend", "said"), [("pdsh", True), ("local", False)])
def test_a_disk_that_only_the_hosts_see_is_told_of(tmp_path, folder, backend, said):
    run = begun(tmp_path, folder, backend=backend, keep=KeepPlan(2))
    start_keeping(run, run.plan()).finish()
    assert run.events_file.exists() is said  # nothing else is told there


def test_what_is_written_over_is_the_later_runs(tmp_path, folder, first):
    run = resumed(tmp_path, folder, first)
    for step in (3, 6, 7):  # 3 is saved anew: the run went back to before it
        save(folder, f"global_step{step}", ranks=4, at=NOW + 600 + 60 * step)
    assert pruned(run, folder) == ["1", "4", "7"]


def test_without_the_first_runs_note_nothing_but_new_names_goes(tmp_path, folder, first):
    """What it found there, it may have been, that is written over now."""
    run = resumed(tmp_path, folder, first)
    (first.path / "checkpoints.json").unlink()
    for step in (3, 6, 7):
        save(folder, f"global_step{step}", ranks=4, at=NOW + 600 + 60 * step)
    assert pruned(run, folder) == ["1", "2", "3", "4", "7"]


def test_a_mixture_of_both_is_nobodys(tmp_path, folder, first):
    run = resumed(tmp_path, folder, first)
    os.utime(folder / "global_step3" / OPTIM.format(0), (NOW + 600, NOW + 600))
    save(folder, "global_step7", ranks=4, at=NOW + 900)
    assert "3" in pruned(run, folder)


def test_what_somebody_put_there_in_between_stays(tmp_path, folder, first):
    save(folder, "global_step9", ranks=4, at=NOW + 255)
    run = resumed(tmp_path, folder, first)
    save(folder, "global_step10", ranks=4, at=NOW + 900)
    assert pruned(run, folder) == ["1", "10", "4", "9"]


def test_a_run_that_was_not_resumed_is_a_stranger(tmp_path, folder, first):
    run = begun(tmp_path, folder, "second-1", started=NOW + 260)
    save(folder, "global_step7", ranks=4, at=NOW + 900)
    assert pruned(run, folder) == ["1", "2", "3", "4", "7"]
    assert first.verdict_file.exists()


def test_a_line_may_be_long_and_a_deleted_run_ends_it(tmp_path, folder, first):
    second = resumed(tmp_path, folder, first)
    save(folder, "global_step5", ranks=4, at=NOW + 600)
    second.write_verdict({"state": "FAILED", "summary": "", "ended": NOW + 610})
    third = begun(tmp_path, folder, "third-1", started=NOW + 700)
    write_json(third.record_file, third.record() | {"resumes": second.run_id})
    save(folder, "global_step8", ranks=4, at=NOW + 900)
    assert lineage_of(third, folder, known_runs(None)).run_ids == {"first-1", "second-1", "third-1"}
    first.plan_file.unlink()
    assert pruned(third, folder) == ["1", "2", "3", "4", "8"]


# -- what was made for a run ----------------------------------------------------------------------------


def converted(folder, of="global_step4", run_id="second-1", at=NOW + 258):
    """Write a universal checkpoint as our conversion for a run leaves it."""
    made = universal(folder).rename(folder / f"{of}_universal")
    (made / "reshaped.json").write_text(json.dumps({"of": of, "ranks": 4, "for": run_id}))
    (folder / "latest_universal").write_text(made.name)
    stamp(made, at)
    return made


def test_a_converted_form_goes_with_its_tag_and_so_does_the_file_that_names_it(tmp_path, folder, first):
    converted(folder)
    run = resumed(tmp_path, folder, first)
    save(folder, "global_step7", ranks=4, at=NOW + 900)
    assert pruned(run, folder) == ["1", "4", "4_universal", "7"]
    run.write_verdict({"state": "SUCCEEDED", "summary": "", "ended": NOW + 990})
    assert pruned(run, folder) == ["1", "7"]
    assert not (folder / "latest_universal").exists()


@pytest.mark.parametrize("run_id", ["", "another-1"])
def test_what_was_converted_by_hand_or_for_another_run_stays(tmp_path, folder, first, run_id):
    converted(folder, run_id=run_id)
    run = resumed(tmp_path, folder, first)
    run.write_verdict({"state": "SUCCEEDED", "summary": "", "ended": NOW + 990})
    save(folder, "global_step7", ranks=4, at=NOW + 900)
    assert pruned(run, folder) == ["1", "4_universal", "7"]


def test_the_newest_converted_form_stays_until_something_newer_is_complete(tmp_path, folder, first):
    converted(folder)
    run = resumed(tmp_path, folder, first)
    run.write_verdict({"state": "FAILED", "summary": "", "ended": NOW + 990})
    assert pruned(run, folder) == ["1", "4", "4_universal"]


def test_what_was_set_aside_goes_with_its_age_and_may_be_the_best(tmp_path, folder, first):
    """Fewer ranks went on from step 2: 3 and 4 are of another branch, and 4 was the best so far."""
    (folder / "global_step4" / "metrics.json").write_text('{"loss": 0.1}')
    run = resumed(tmp_path, folder, first)
    for step in (3, 4):
        aside = f"global_step{step}_of_4_ranks"
        (folder / f"global_step{step}").rename(folder / aside)
        note_renamed(run, f"global_step{step}", aside)
    assert pruned(run, folder) == ["1", "2", "3_of_4_ranks", "4_of_4_ranks"]
    for step, loss in ((5, 0.3), (6, 0.2)):
        saved = save(folder, f"global_step{step}", ranks=2, at=NOW + 600 + 60 * step)
        (saved / "metrics.json").write_text(json.dumps({"loss": loss}))
    assert pruned(run, folder, best=1, metric="loss") == ["1", "4_of_4_ranks", "6"]
    assert pruned(run, folder) == ["1", "6"]
