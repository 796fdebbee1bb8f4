"""What a run on given ranks can go on from, and how a tag is made fit for them: all or nothing."""

from __future__ import annotations

import dataclasses
import os

import pytest

from orchestrator.checkpoints import last_complete
from orchestrator.checkpoints.aside import set_aside
from orchestrator.checkpoints.find import one_tag
from orchestrator.checkpoints.place import Place, choose
from orchestrator.checkpoints.tag import Kind
from orchestrator.checkpoints.universal import (
    converted,
    find_start,
    start_from,
    why_not_convertible,
    with_loading,
)
from orchestrator.configs.keep_batch import kept_batch
from orchestrator.errors import CheckpointError, JobFileError
from tests.shards import save_tag, save_universal, write_zip

ZERO3 = {"zero_optimization": {"stage": 3}}


# -- which one


def test_as_many_ranks_load_a_tag_as_it_is_whatever_hpz_is(tmp_path):
    save_tag(tmp_path)
    hpz = {"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 2}}
    for config in (ZERO3, hpz):
        start = find_start(tmp_path, config, 4)
        assert (start.name, start.universal, start.convert) == ("global_step4", False, False)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_other_ranks_need_its_universal_form(tmp_path, stage):
    tag = save_tag(tmp_path, stage=stage)
    config = {"zero_optimization": {"stage": stage}}
    start = find_start(tmp_path, config, 2)
    assert (start.name, start.universal, start.convert) == ("global_step4_universal", True, True)
    save_universal(tag)
    start = find_start(tmp_path, config, 2)
    assert (start.tag.path, start.name, start.convert) == (tag, "global_step4_universal", False)


def test_ranks_that_share_tensors_count_once(tmp_path):
    save_tag(tmp_path, ranks=2)
    config = ZERO3 | {"tensor_parallel": {"autotp_size": 2}}
    assert not find_start(tmp_path, config, 4).universal
    assert find_start(tmp_path, config, 8).convert


def test_a_script_that_cuts_its_tensors_up_itself_goes_on_as_it_was(tmp_path):
    """Megatron's ranks are in no configuration of DeepSpeed's: 4 of them are 2 data-parallel ones here."""
    for rank in ("0_mp_rank_00", "0_mp_rank_01", "1_mp_rank_00", "1_mp_rank_01"):
        states = tmp_path / "global_step4" / f"zero_pp_rank_{rank}_model_states.pt"
        write_zip(states, dp_world_size=2, mp_world_size=2, global_steps=4)
        write_zip(states.with_name(f"zero_pp_rank_{rank}_optim_states.pt"), partition_count=2, zero_stage=3)
    start = find_start(tmp_path, ZERO3, 4)
    assert (start.tag.world_size, start.tag.ranks) == (2, 4)
    assert not start.universal
    assert find_start(tmp_path, ZERO3, 8).convert


def test_a_universal_form_older_than_its_tag_is_of_an_earlier_save(tmp_path):
    tag = save_tag(tmp_path)
    made = save_universal(tag)
    for path in (*made.iterdir(), *made.rglob("*.pt")):
        os.utime(path, (1_000_000, 1_000_000))
    assert converted(one_tag(tag)) is None
    assert find_start(tmp_path, ZERO3, 2).convert


def test_only_a_universal_tag_is_left(tmp_path):
    tag = save_tag(tmp_path)
    save_universal(tag)
    for path in tag.iterdir():
        path.unlink()
    tag.rmdir()
    start = find_start(tmp_path, ZERO3, 4)
    assert (start.tag.kind, start.universal, start.convert) == (Kind.UNIVERSAL, True, False)


def test_a_tag_converted_later_is_no_later_one(tmp_path):
    """Nor where no `latest` tells: its files are the newest of all."""
    early, late = save_tag(tmp_path, "global_step4"), save_tag(tmp_path, "global_step8")
    (tmp_path / "latest").unlink()
    for path in (early, late):
        for file in path.iterdir():
            os.utime(file, (1_000_000 if path == early else 1_000_100,) * 2)
    save_universal(early)
    assert last_complete(tmp_path, universal=True).path == late
    next(late.iterdir()).unlink()
    assert last_complete(tmp_path, universal=True).path == early
    next(early.iterdir()).unlink()
    assert last_complete(tmp_path, universal=True).name == "global_step4_universal"


def test_without_zero_a_tag_fits_every_number_of_ranks(tmp_path):
    save_tag(tmp_path, stage=0, ranks=1)
    assert not find_start(tmp_path, {}, 16).universal
    assert "fits every number of ranks" in why_not_convertible(last_complete(tmp_path)).what


def test_a_script_with_its_own_configuration_knows_what_it_loads(tmp_path):
    save_tag(tmp_path)
    assert find_start(tmp_path, None, 2).name == "global_step4"


def test_stage_3_and_the_others_do_not_load_each_other(tmp_path):
    save_tag(tmp_path, stage=2)
    with pytest.raises(CheckpointError, match="saved at ZeRO stage 2, which stage 3 cannot load") as error:
        find_start(tmp_path, ZERO3, 4)
    assert "--set deepspeed.zero_stage=2" in str(error.value)
    assert find_start(tmp_path, {"zero_optimization": {"stage": 1}}, 4).name == "global_step4"


def test_nothing_complete_is_no_start(tmp_path):
    (save_tag(tmp_path) / "zero_pp_rank_3_mp_rank_00_model_states.pt").unlink()
    assert find_start(tmp_path, ZERO3, 2) is None
    assert find_start(tmp_path / "none", ZERO3, 2) is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.ACCELERATE, "Accelerate's save_state wrote it"),
        (Kind.TRAINER, "HF Trainer wrote it"),
        (Kind.DISTRIBUTED, "cuts it up anew"),
        (Kind.WEIGHTS, "whole weights"),
        (Kind.UNIVERSAL, "already"),
    ],
)
def test_what_deepspeed_cannot_convert_is_told_apart(tmp_path, kind, words):
    tag = dataclasses.replace(one_tag(save_tag(tmp_path)), kind=kind)
    assert words in why_not_convertible(tag).what
    if kind in {Kind.ACCELERATE, Kind.TRAINER}:
        with pytest.raises(CheckpointError, match=f"4 ranks saved it, and 2 cannot load it: {words}"):
            start_from(tag, ZERO3, 2)
    else:
        assert not start_from(tag, ZERO3, 2).convert


def test_states_on_nvme_are_not_converted(tmp_path):
    tag = save_tag(tmp_path)
    (tag / "offloaded_tensors").mkdir()
    assert "NVMe" in why_not_convertible(one_tag(tag)).what


def test_the_engine_is_told_what_it_loads():
    assert with_loading({"bf16": 1}, universal=False) == {"bf16": 1}
    assert with_loading({}, universal=True) == {"checkpoint": {"load_universal": True}}
    asked = {"checkpoint": {"load_universal": True, "tag_validation": "Fail"}}
    assert with_loading(asked, universal=False)["checkpoint"] == {
        "load_universal": False,
        "tag_validation": "Fail",
    }


# -- the batch


BATCH = {
    "train_batch_size": 32,
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 2,
}


@pytest.mark.parametrize(("ranks", "steps"), [(4, 2), (2, 4), (8, 1), (1, 8)])
def test_the_accumulation_steps_keep_the_global_batch(ranks, steps):
    kept = kept_batch(BATCH, ranks)
    assert (kept["train_batch_size"], kept["train_micro_batch_size_per_gpu"]) == (32, 4)
    assert kept["gradient_accumulation_steps"] == steps


def test_a_batch_that_cannot_be_kept_is_refused_with_what_would_do():
    with pytest.raises(JobFileError, match="global batch of 32 samples cannot be kept by 16 ranks") as error:
        kept_batch(BATCH, 16)
    assert "--set deepspeed.micro_batch_per_gpu=2" in str(error.value)
    assert kept_batch(BATCH, 16, 2)["gradient_accumulation_steps"] == 1
    with pytest.raises(JobFileError, match=r"take 1 or 2 or 4 ranks"):
        kept_batch(BATCH, 3)


def test_a_batch_that_only_the_script_knows_stays_its_own():
    assert kept_batch({"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto"}, 2) == {}


# -- names that are saved again


def test_fewer_ranks_do_not_save_into_shards_of_more(tmp_path):
    tag = save_tag(tmp_path, "global_step4")
    save_tag(tmp_path, "global_step8")
    (save_tag(tmp_path, "global_step12") / "zero_pp_rank_0_mp_rank_00_model_states.pt").unlink()
    save_tag(tmp_path, "global_step16", ranks=2)
    save_tag(tmp_path, "global_step2")
    start = start_from(one_tag(tag), ZERO3, 2)
    moved = dict(set_aside(tmp_path, start, 2))
    assert moved == {
        "global_step8": "global_step8_of_4_ranks",
        "global_step12": "global_step12_of_4_ranks",
    }
    assert one_tag(tmp_path / "global_step8_of_4_ranks").complete
    assert set_aside(tmp_path, start, 2) == []
    assert set_aside(tmp_path, start, 1) == [("global_step16", "global_step16_of_2_ranks")]


def test_as_many_ranks_save_over_what_was_there(tmp_path):
    tag = save_tag(tmp_path, "global_step4")
    save_tag(tmp_path, "global_step8")
    assert set_aside(tmp_path, start_from(one_tag(tag), ZERO3, 4), 4) == []


def test_a_tag_without_a_step_is_saved_again(tmp_path):
    tag = save_tag(tmp_path, "best")
    write_zip(tag / "more.pt")
    start = start_from(one_tag(tag), ZERO3, 2)
    assert set_aside(tmp_path, start, 2) == [("best", "best_of_4_ranks")]


def test_what_was_set_aside_is_gone_on_from_only_by_its_name(tmp_path):
    tag = save_tag(tmp_path, "global_step4")
    save_tag(tmp_path, "global_step8")
    set_aside(tmp_path, start_from(one_tag(tag), ZERO3, 2), 2)
    assert last_complete(tmp_path).path == tag
    assert choose(Place(tmp_path), "global_step8_of_4_ranks").step == 8
