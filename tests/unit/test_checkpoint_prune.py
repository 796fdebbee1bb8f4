"""Which checkpoints stay, on files built like real ones, and that nothing but what goes is touched."""

from __future__ import annotations

import json
import os
import shutil
import threading

import pytest

from orchestrator.checkpoints import last_complete, sightings, tags
from orchestrator.checkpoints.metric import metric_of
from orchestrator.checkpoints.prune import prune
from orchestrator.checkpoints.remove import finish, remove
from orchestrator.plan import KeepPlan
from tests.unit.test_checkpoints import (
    MODEL,
    NOW,
    OPTIM,
    accelerate,
    cut,
    put,
    save,
    stamp,
    trainer,
    universal,
)

MINE = ""


def ours(_seen) -> str:
    return MINE


def saved(folder, *steps, **options):
    """Write complete tags, a minute apart."""
    for step in steps:
        save(folder, f"global_step{step}", at=NOW + 60 * step, **options)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "latest")


def pruned(folder, last=1, foreign=ours, **options) -> list[str]:
    """Prune; return the names that are left, hidden ones too."""
    done = prune(folder, KeepPlan(last, **options), foreign)
    assert not done.failed
    return [name.removeprefix("global_step") for name in names(folder)]


def why(folder, name, last=1, foreign=ours, **options) -> str:
    """Return why a tag would stay."""
    done = prune(folder, KeepPlan(last, **options), foreign, dry_run=True)
    (choice,) = [each for each in done.choices if each.seen.path.name == name]
    return choice.why


def with_metric(folder, values: dict[int, float], name="loss"):
    for step, value in values.items():
        (folder / f"global_step{step}" / "metrics.json").write_text(json.dumps({name: value}))


@pytest.mark.parametrize(
    ("last", "left"), [(1, ["4"]), (2, ["3", "4"]), (4, ["1", "2", "3", "4"]), (9, ["1", "2", "3", "4"])]
)
def test_the_last_ones_stay(tmp_path, last, left):
    saved(tmp_path, 1, 2, 3, 4)
    assert pruned(tmp_path, last) == left
    assert last_complete(tmp_path).step == 4


def test_a_dry_run_touches_nothing(tmp_path):
    saved(tmp_path, 1, 2, 3)
    done = prune(tmp_path, KeepPlan(1), ours, dry_run=True)
    assert [seen.path.name for seen in done.gone] == ["global_step1", "global_step2"]
    assert len(names(tmp_path)) == 3


def test_a_half_written_tag_is_not_one_of_those_that_stay(tmp_path):
    saved(tmp_path, 1, 2, 3, 4)
    (tmp_path / "global_step3" / OPTIM.format(1)).unlink()
    assert pruned(tmp_path, 2) == ["2", "3", "4"]  # 4 and 2 count; 3 lies between and is nobody's loss
    assert why(tmp_path, "global_step3", 2) == "newer than global_step2, which is kept"


def test_the_remains_of_a_killed_save_go_with_their_age(tmp_path):
    saved(tmp_path, 1, 2, 3, 4)
    (tmp_path / "global_step2" / OPTIM.format(1)).unlink()
    assert pruned(tmp_path, 2) == ["3", "4"]


def test_a_save_under_way_stays_and_so_does_what_a_run_would_go_back_to(tmp_path):
    saved(tmp_path, 1, 2)
    under_way = save(tmp_path, "global_step3", at=NOW + 600, note=False)
    for path in under_way.glob("*rank_1*"):
        path.unlink()
    assert pruned(tmp_path, 1) == ["2", "3"]
    assert why(tmp_path, "global_step3") == "newer than global_step2, the newest complete one"


def test_a_tag_that_is_written_again_stays_whatever_its_step(tmp_path):
    """A second attempt began anew: it writes step 1 once more, while `latest` still names step 3."""
    saved(tmp_path, 1, 2, 3)
    again = tmp_path / "global_step1" / OPTIM.format(0)
    os.utime(again, (NOW + 3600, NOW + 3600))
    assert pruned(tmp_path, 1) == ["1", "3"]


def test_nothing_goes_where_nothing_is_complete(tmp_path):
    saved(tmp_path, 1, 2)
    for path in tmp_path.rglob("*optim_states.pt"):
        cut(path, 100)
    assert pruned(tmp_path, 1) == ["1", "2"]
    assert why(tmp_path, "global_step1") == "no checkpoint is complete"


def test_what_latest_names_stays(tmp_path):
    """`latest` of a folder whose newest tags were saved with save_latest=False."""
    saved(tmp_path, 1, 2)
    saved(tmp_path, 3, 4, note=False)
    assert pruned(tmp_path, 1) == ["2", "4"]
    assert why(tmp_path, "global_step2") == "`latest` names it"


def test_the_best_stay_as_well(tmp_path):
    saved(tmp_path, 1, 2, 3, 4, 5)
    with_metric(tmp_path, {1: 0.5, 2: 0.2, 3: 0.9, 4: 0.3, 5: 0.8})
    assert pruned(tmp_path, 1, best=2, metric="loss") == ["2", "4", "5"]
    assert pruned(tmp_path, 1, best=1, metric="loss", lowest=False) == ["5"]


def test_a_tag_without_a_metric_is_not_among_the_best_nor_is_a_broken_one(tmp_path):
    saved(tmp_path, 1, 2, 3)
    with_metric(tmp_path, {1: 0.1, 2: 0.2})
    cut(tmp_path / "global_step1" / OPTIM.format(0), 50)
    assert pruned(tmp_path, 1, best=2, metric="loss") == ["2", "3"]


def test_nothing_goes_while_nobody_tells_the_metric(tmp_path):
    """Its name may hold a typing error, which must not cost the best one."""
    saved(tmp_path, 1, 2, 3)
    with_metric(tmp_path, {1: 0.1, 2: 0.2})
    assert pruned(tmp_path, 1, best=1, metric="lsos") == ["1", "2", "3"]
    assert why(tmp_path, "global_step1", best=1, metric="lsos") == "no complete checkpoint tells lsos"
    assert pruned(tmp_path, 1, best=1, metric="loss") == ["1", "3"]


def test_of_two_equal_ones_the_newer_is_the_better(tmp_path):
    saved(tmp_path, 1, 2, 3)
    with_metric(tmp_path, {1: 0.1, 2: 0.1, 3: 0.2})
    assert pruned(tmp_path, 1, best=1, metric="loss") == ["2", "3"]


def test_metrics_that_come_long_after_the_save_change_nothing_else(tmp_path):
    saved(tmp_path, 1, 2)
    with_metric(tmp_path, {1: 0.1})
    late = tmp_path / "global_step1" / "metrics.json"
    os.utime(late, (NOW + 9999, NOW + 9999))
    assert [(tag.step, tag.complete) for tag in tags(tmp_path)] == [(1, True), (2, True)]
    late.write_text('{"loss": ')
    os.utime(late, (NOW + 9999, NOW + 9999))
    assert [(tag.step, tag.complete) for tag in tags(tmp_path)] == [(1, False), (2, True)]


@pytest.mark.parametrize(
    ("state", "value"),
    [
        ({"loss": 2.5}, 2.5), ({"loss": 3}, 3.0), ({"loss": "low"}, None), ({}, None),
        ({"loss": [1.0]}, None), ({"loss": 2.5, "more": {"loss": 1.0}}, 2.5), ({"loss": float("nan")}, None),
        ({"loss_a": 1.0}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stage", [1, 3])
def test_a_metric_in_the_client_state(tmp_path, state, value, stage):
    tag = save(tmp_path, "global_step7", stage=stage)
    put(tag / MODEL[stage].format(0), {"module": {}, "dp_world_size": 2, "lr_scheduler": {"x": 1.0}, **state})
    (seen,) = sightings(tmp_path)
    assert metric_of(seen, "loss") == value


def test_a_metric_in_trainers_log(tmp_path):
    tag = trainer(tmp_path)
    log = [{"loss": 3.0, "step": 10}, {"eval_loss": 2.5, "step": 10}, {"loss": 2.0, "step": 20}]
    (tag / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    (seen,) = sightings(tmp_path)
    assert (metric_of(seen, "loss"), metric_of(seen, "eval_loss"), metric_of(seen, "f1")) == (2.5, 2.5, None)


def test_trainers_best_model_stays(tmp_path):
    """load_best_model_at_end loads it at the end of the training."""
    for step in (1, 2, 3):
        tag = trainer(tmp_path / "made").rename(tmp_path / f"checkpoint-{step}")
        stamp(tag, NOW + 60 * step)
    best = {"best_model_checkpoint": str(tmp_path / "checkpoint-1"), "log_history": []}
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text(json.dumps(best))
    shutil.rmtree(tmp_path / "made")
    stamp(tmp_path / "checkpoint-3", NOW + 180)
    assert pruned(tmp_path, 1) == ["checkpoint-1", "checkpoint-3"]


def test_accelerates_folders_go_as_a_whole(tmp_path):
    made = accelerate(tmp_path)
    base = made.parent
    stamp(made, NOW)
    for number in (4, 5):
        shutil.copytree(made, base / f"checkpoint_{number}")
        stamp(base / f"checkpoint_{number}", NOW + 60 * number)
    assert len(tags(tmp_path)) == 3
    assert pruned(tmp_path, 1)
    assert names(base) == ["checkpoint_5"]


def test_each_folder_keeps_its_own(tmp_path):
    """An actor and a critic, each with its engine and its save_dir."""
    saved(tmp_path / "actor", 1, 2, 3)
    saved(tmp_path / "critic", 1, 2)
    pruned(tmp_path, 1)
    assert (names(tmp_path / "actor"), names(tmp_path / "critic")) == (["global_step3"], ["global_step2"])


def test_converted_and_exported_ones_stay_and_do_not_count(tmp_path):
    saved(tmp_path, 1, 2, 3)
    made = universal(tmp_path)
    stamp(made, NOW + 100)
    (tmp_path / "export").mkdir()
    put(tmp_path / "export" / "pytorch_model.bin")
    foreign = {made.name: "universal", "export": "weights"}
    left = pruned(tmp_path, 1, lambda seen: foreign.get(seen.path.name, ""))
    assert set(left) == {made.name.removeprefix("global_step"), "3", "export"}


def test_others_tags_stay_and_do_not_count(tmp_path):
    saved(tmp_path, 1, 2, 3, 4)
    left = pruned(tmp_path, 2, lambda seen: "theirs" if seen.step in (1, 4) else "")
    assert left == ["1", "2", "3", "4"]
    left = pruned(tmp_path, 1, lambda seen: "theirs" if seen.step in (1, 4) else "")
    assert left == ["1", "3", "4"]


def test_names_of_another_kind_are_somebodys_own_choice(tmp_path):
    saved(tmp_path, 1, 2, 3)
    for name in ("best", "global_step1_copy", "my_favourite"):
        save(tmp_path, name, at=NOW + 30, note=False)
    assert pruned(tmp_path, 1) == ["best", "1_copy", "3", "my_favourite"]
    assert why(tmp_path, "best") == "its name has no number"
    assert why(tmp_path, "global_step1_copy") == "it is not named as global_step3 is"


def test_a_copy_made_last_stops_nothing_for_long(tmp_path):
    saved(tmp_path, 1, 2)
    save(tmp_path, "mine_7", at=NOW + 600, note=False)
    assert pruned(tmp_path, 1) == ["1", "2", "mine_7"]
    saved(tmp_path, 30)
    assert pruned(tmp_path, 1) == ["30", "mine_7"]


# -- links ----------------------------------------------------------------------------------------------


def test_what_a_link_leads_to_stays(tmp_path):
    saved(tmp_path, 1, 2, 3)
    (tmp_path / "good").symlink_to("global_step1")
    from orchestrator.checkpoints.owner import of_deepspeed

    assert pruned(tmp_path, 1, lambda seen: of_deepspeed(tmp_path, seen)) == ["1", "3", "good"]
    assert why(tmp_path, "global_step1", foreign=lambda seen: of_deepspeed(tmp_path, seen)) == (
        "the link good leads to it"
    )


def test_a_folder_behind_a_link_is_not_deleted(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    saved(elsewhere, 1, 2)
    saved(folder, 3, 4)
    (folder / "global_step1").symlink_to(elsewhere / "global_step1")
    (folder / "old").symlink_to(elsewhere)
    from orchestrator.checkpoints.owner import of_deepspeed

    pruned(folder, 1, lambda seen: of_deepspeed(folder, seen))
    assert names(elsewhere) == ["global_step1", "global_step2"]
    assert names(folder) == ["global_step1", "global_step4", "old"]


def test_links_in_a_tag_are_removed_and_not_followed(tmp_path):
    saved(tmp_path / "c", 1, 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("x")
    (tmp_path / "c" / "global_step1" / "data").symlink_to(tmp_path / "data")
    pruned(tmp_path / "c", 1)
    assert (tmp_path / "data" / "precious").exists()
    assert names(tmp_path / "c") == ["global_step2"]


# -- deleting -------------------------------------------------------------------------------------------


def test_who_is_killed_in_the_middle_leaves_nothing_that_counts(tmp_path):
    saved(tmp_path, 1, 2)
    hidden = tmp_path / ".global_step1.pruned.0a1b2c"
    (tmp_path / "global_step1").rename(hidden)
    (hidden / OPTIM.format(0)).unlink()
    assert [tag.step for tag in tags(tmp_path)] == [2]
    assert pruned(tmp_path, 5) == ["2"]


def test_somebody_elses_hidden_folders_stay(tmp_path):
    saved(tmp_path, 1)
    for name in (".git", ".x.pruned.xyz", ".global_step1.pruned", "pruned.0a1b2c"):
        (tmp_path / name).mkdir()
    (tmp_path / ".a.pruned.0a1b2c").symlink_to(tmp_path / ".git")
    assert finish([tmp_path]) == []
    assert len(names(tmp_path)) == 6


def test_a_tag_that_changes_before_it_is_deleted_stays(tmp_path):
    saved(tmp_path, 1, 2)
    first, _ = sightings(tmp_path)
    put(first.path / OPTIM.format(2))
    assert remove(first) == "somebody is writing to it"
    assert names(tmp_path) == ["global_step1", "global_step2"]


def test_what_cannot_be_deleted_is_said_and_finished_later(tmp_path, monkeypatch):
    """A file that a process has open stays on NFS until it closes it."""
    saved(tmp_path, 1, 2)

    def refuse(path):
        raise OSError(39, "Directory not empty")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", refuse)
        done = prune(tmp_path, KeepPlan(1), ours)
    assert "cannot be deleted yet: Directory not empty" in done.failed[tmp_path / "global_step1"]
    assert [tag.step for tag in tags(tmp_path)] == [2]
    assert pruned(tmp_path, 1) == ["2"]


def test_two_at_once_delete_everything_once(tmp_path):
    saved(tmp_path, *range(1, 9))
    failed: list[object] = []

    def work():
        failed.extend(prune(tmp_path, KeepPlan(1), ours).failed.values())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [why for why in failed if why != "somebody is writing to it"] == []
    assert pruned(tmp_path, 1) == ["8"]
