"""Which tag a run can go on from, on files built like real ones (tests/train has DeepSpeed's own)."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from orchestrator.checkpoints import Kind, last_complete, latest, tags
from orchestrator.checkpoints.tag import step_of, temporary

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_700_000_000.0
OPTIM = "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt"
MODEL = {1: "mp_rank_00_model_states.pt", 3: "zero_pp_rank_{}_mp_rank_00_model_states.pt"}


def put(path: Path, content: dict | None = None) -> None:
    """Write a file as torch.save does: an uncompressed zip with the pickle first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickle.dumps(content or {}, protocol=2))
        archive.writestr(f"{path.stem}/data/0", bytes(1000))


def save(
    folder: Path, tag: str, ranks: int = 2, stage: int = 3, *, at: float = NOW, note: bool = True
) -> Path:
    """Write a tag of DeepSpeed, its files `at` that time and `latest` a second later."""
    step = step_of(tag) or 1
    config = {"zero_optimization": {"stage": stage}}
    model = {
        "module": {},
        "global_steps": step,
        "dp_world_size": ranks,
        "mp_world_size": 1,
        "ds_config": config,
    }
    for rank in range(ranks if stage == 3 else 1):
        put(folder / tag / MODEL[stage].format(rank), model)
    for rank in range(ranks):
        state = {"zero_stage": stage, "partition_count": ranks if stage == 3 else [ranks, ranks]}
        put(folder / tag / OPTIM.format(rank), {"optimizer_state_dict": state, "ds_config": config})
    stamp(folder / tag, at)
    if note:
        (folder / "latest").write_text(tag)
        os.utime(folder / "latest", (at + 1, at + 1))
    return folder / tag


def stamp(folder: Path, at: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (at, at))


def only(folder: Path, **options):
    (tag,) = tags(folder, **options)
    return tag


def cut(path: Path, size: int) -> None:
    """Cut a file off; its time stays, so that nothing but its content can give it away."""
    status = path.stat()
    os.truncate(path, size)
    os.utime(path, (status.st_atime, status.st_mtime))


def every_loss(folder: Path, tag: Path, spared: frozenset[str] = frozenset()):
    """Yield after the removal and after each of several truncations of each single file; then undo it."""
    for path in sorted(p for p in tag.rglob("*") if p.is_file() and p.name not in spared):
        whole, status = path.read_bytes(), path.stat()
        for size in (None, 0, 1, 30, len(whole) // 2, len(whole) - 22, len(whole) - 1):
            if size is None:
                path.unlink()
            else:
                cut(path, max(0, size))
            yield f"{path.name} {'removed' if size is None else f'cut to {size}'}"
            path.write_bytes(whole)
            os.utime(path, (status.st_atime, status.st_mtime))
    assert last_complete(folder) is not None  # undone, it is complete again


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("global_step120", 120), ("step-120", 120), ("checkpoint-120", 120), ("checkpoint_120", 120),
        ("epoch_3_step_120", 120), ("iter_0000120", 120), ("120", 120), ("epoch_3", None), ("best", None),
    ],
)  # fmt: skip
def test_a_step_is_read_from_a_name(name, step):
    assert step_of(name) == step


def test_temporary_names_are_known():
    assert all(
        map(temporary, ["a.pt.tmp", "tmp-checkpoint-120", ".metadata.tmp", ".model.pt.Ab3dE6", "x.part"])
    )
    assert not any(map(temporary, ["model.pt", "latest", "mp_rank_00_model_states.pt", "template.json"]))


@pytest.mark.parametrize("stage", [1, 3])
def test_a_whole_tag_is_complete(tmp_path, stage):
    path = save(tmp_path, "global_step120", ranks=3, stage=stage)
    tag = only(tmp_path)
    assert (tag.name, tag.path, tag.step, tag.complete, tag.why) == ("global_step120", path, 120, True, "")
    assert (tag.world_size, tag.stage, tag.modified, tag.kind) == (3, stage, NOW, Kind.DEEPSPEED)
    assert tag.size == sum(file.stat().st_size for file in path.iterdir())
    assert last_complete(tmp_path) == tag
    assert latest(tmp_path).why == ""


@pytest.mark.parametrize("note", [True, False])
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("stage", [1, 3])
def test_no_file_of_a_tag_can_go(tmp_path, stage, ranks, note):
    tag = save(tmp_path, "global_step120", ranks, stage, note=note)
    for loss in every_loss(tmp_path, tag):
        assert last_complete(tmp_path) is None, loss


def test_what_is_missing_is_said(tmp_path):
    tag = save(tmp_path, "global_step120", ranks=8)
    for rank in (5, 6, 7):
        (tag / OPTIM.format(rank)).unlink()
        (tag / MODEL[3].format(rank)).unlink()
    why = only(tmp_path).why
    assert "3 of 8 optimizer shards are missing: rank 5, 6, 7" in why
    assert "3 of 8 model shards are missing: rank 5, 6, 7" in why


def test_a_run_goes_back_to_the_tag_before(tmp_path):
    save(tmp_path, "global_step100", at=NOW)
    broken = save(tmp_path, "global_step120", at=NOW + 60)
    cut(broken / OPTIM.format(1), 500)
    assert [tag.complete for tag in tags(tmp_path)] == [True, False]
    assert last_complete(tmp_path).step == 100
    assert "global_step120, which is not complete" in latest(tmp_path).why
    assert "is cut off" in latest(tmp_path).why


def test_a_save_killed_before_latest_still_counts(tmp_path):
    save(tmp_path, "global_step100", at=NOW)
    save(tmp_path, "global_step120", at=NOW + 60, note=False)
    assert last_complete(tmp_path).step == 120


def test_one_witness_is_not_enough_for_a_tag_newer_than_latest(tmp_path):
    save(tmp_path, "global_step100", at=NOW)
    path = save(tmp_path, "global_step120", at=NOW + 60, note=False)
    for rank in range(2):
        put(path / OPTIM.format(rank), {"zero_stage": 3})
    stamp(path, NOW + 60)
    assert last_complete(tmp_path).step == 100
    assert last_complete(tmp_path, world_size=2).step == 120


def test_without_any_witness_only_the_caller_can_tell(tmp_path):
    path = save(tmp_path, "global_step120")
    for file in path.iterdir():
        put(file)
    stamp(path, NOW)
    assert only(tmp_path).why == "nothing in it says how many ranks saved it"
    assert last_complete(tmp_path, world_size=2).world_size == 2
    assert last_complete(tmp_path, world_size=4) is None


def test_a_tag_that_is_being_written_over_is_a_mixture(tmp_path):
    path = save(tmp_path, "last", at=NOW)
    os.utime(path / OPTIM.format(0), (NOW + 600, NOW + 600))
    assert last_complete(tmp_path) is None
    assert "a second save of it did not end" in only(tmp_path).why


def test_shards_of_two_saves_are_a_mixture(tmp_path):
    path = save(tmp_path, "last", ranks=4)
    save(tmp_path, "last", ranks=2)
    assert "it holds a shard of rank 3, but 2 ranks saved it" in only(tmp_path).why
    shutil.rmtree(path)
    save(tmp_path, "last", stage=3)
    put(path / MODEL[1], {"dp_world_size": 2})
    stamp(path, NOW)
    assert "two different saves" in only(tmp_path).why


def test_a_run_taken_back_goes_on_from_where_it_went_last(tmp_path):
    save(tmp_path, "global_step500", at=NOW)
    save(tmp_path, "global_step340", at=NOW + 60)
    assert last_complete(tmp_path).step == 340


def test_a_copied_folder_keeps_its_order(tmp_path):
    for number, step in enumerate((120, 100, 80)):  # the copying wrote the newest first, `latest` before all
        save(tmp_path, f"global_step{step}", at=NOW + 60 * number)
    (tmp_path / "latest").write_text("global_step120")
    os.utime(tmp_path / "latest", (NOW - 1, NOW - 1))
    assert last_complete(tmp_path).step == 120


@pytest.mark.parametrize("content", ["global_step9", "", "\xff", "../elsewhere"])
def test_latest_that_names_nothing_is_disregarded(tmp_path, content):
    save(tmp_path, "global_step120")
    (tmp_path / "latest").write_bytes(content.encode("latin-1"))
    assert last_complete(tmp_path).step == 120
    assert latest(tmp_path).why


def test_no_folder_and_an_empty_tag(tmp_path):
    assert tags(tmp_path / "none") == []
    assert last_complete(tmp_path / "none") is None
    (tmp_path / "global_step5").mkdir()
    assert only(tmp_path).why == "nothing is in it"


def test_the_remains_of_a_save_are_not_complete(tmp_path):
    path = save(tmp_path, "global_step120")
    put(path / f"{OPTIM.format(0)}.tmp")
    stamp(path, NOW)
    assert "the remains of a save" in only(tmp_path).why


def test_the_old_format_of_torch_is_not_believed(tmp_path):
    path = save(tmp_path, "global_step120")
    (path / OPTIM.format(0)).write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")
    assert "old format" in only(tmp_path).why


def test_nothing_of_a_pickle_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = save(tmp_path, "global_step120")
    for rank in range(2):
        put(path / MODEL[3].format(rank), {"trap": Trap(), "dp_world_size": 2})
    assert only(tmp_path).world_size == 2
    assert not (tmp_path / "sprung").exists()


def test_model_parallel_ranks_and_experts_are_counted(tmp_path):
    path = save(tmp_path, "global_step120", stage=1)
    state = {"dp_world_size": 2, "mp_world_size": 2, "num_experts": [4], "ds_config": {}}
    put(path / "mp_rank_00_model_states.pt", state)
    for expert in range(3):
        put(path / f"layer_0_expert_{expert}_mp_rank_00_model_states.pt")
    stamp(path, NOW)
    why = only(tmp_path).why
    assert "rank 0 (model-parallel 1), 1 (model-parallel 1)" in why
    assert "1 of 2 model shards are missing" in why
    assert "experts of layer 0 are missing: 3" in why


def accelerate(folder: Path) -> Path:
    """Write what `save_state` leaves for a DeepSpeed run of two ranks."""
    path = folder / "checkpoints" / "checkpoint_3"
    save(path, "pytorch_model")
    for rank in range(2):
        put(path / f"random_states_{rank}.pkl", {"torch_cuda_manual_seed": []})
    return path


def trainer(folder: Path) -> Path:
    """Write what Trainer leaves for a DeepSpeed run of two ranks."""
    path = folder / "checkpoint-120"
    save(path, "global_step120")
    for rank in range(2):
        put(path / f"rng_state_{rank}.pth")
    (path / "trainer_state.json").write_text('{"global_step": 120}')
    return path


def plain_trainer(folder: Path) -> Path:
    path = folder / "checkpoint-120"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        put(path / name)
    (path / "trainer_state.json").write_text('{"global_step": 120}')
    safetensors(path / "model.safetensors")
    return path


def plain_accelerate(folder: Path) -> Path:
    path = folder / "checkpoint_120"
    for name in ("optimizer.bin", "random_states_0.pkl"):
        put(path / name)
    safetensors(path / "model.safetensors")
    return path


def sharded_weights(folder: Path) -> Path:
    path = folder / "step-120"
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    path.mkdir()
    for name in names:
        safetensors(path / name)
    index = {"metadata": {}, "weight_map": dict(zip("ab", names, strict=True))}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def safetensors(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(400))


def universal(folder: Path) -> Path:
    path = folder / "global_step120_universal"
    put(path / "mp_rank_00_model_states.pt", {"dp_world_size": 2, "global_steps": 120})
    put(path / "zero" / "optimizer_state.pt")
    for parameter in ("a.weight", "b.weight"):
        for state in ("exp_avg", "exp_avg_sq", "fp32"):
            put(path / "zero" / parameter / f"{state}.pt")
    return path


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (accelerate, Kind.ACCELERATE),
        (trainer, Kind.TRAINER),
        (plain_trainer, Kind.TRAINER),
        (plain_accelerate, Kind.ACCELERATE),
        (sharded_weights, Kind.WEIGHTS),
    ],
)
def test_no_file_of_the_other_layouts_can_go(tmp_path, make, kind):
    path = make(tmp_path)
    assert last_complete(tmp_path).path == path
    assert last_complete(tmp_path).kind is kind
    # Accelerate names the tag itself when it loads, so nothing reads its `latest`.
    spared = frozenset({"latest"}) if kind is Kind.ACCELERATE else frozenset()
    for loss in every_loss(tmp_path, path, spared):
        assert last_complete(tmp_path) is None, loss


def test_a_universal_tag_is_taken_only_when_asked_for(tmp_path):
    path = universal(tmp_path)
    assert only(tmp_path).complete
    assert last_complete(tmp_path) is None
    assert last_complete(tmp_path, universal=True).path == path
    for file in sorted(path.rglob("*.pt")):
        whole = file.read_bytes()
        file.unlink()
        assert not any(tag.complete for tag in tags(tmp_path)), file
        file.write_bytes(whole[:-1])
        assert not any(tag.complete for tag in tags(tmp_path)), file
        file.write_bytes(whole)
    (path / "tmp").mkdir()
    assert "a conversion that did not end" in only(tmp_path).why


def test_exported_weights_are_not_resumed_beside_checkpoints(tmp_path):
    save(tmp_path, "global_step120")
    export = tmp_path / "export"
    export.mkdir()
    safetensors(export / "model.safetensors")
    assert {tag.name for tag in tags(tmp_path)} == {"global_step120", "export"}
    assert last_complete(tmp_path).name == "global_step120"


def test_accelerates_folder_may_be_the_one_given(tmp_path):
    path = accelerate(tmp_path)
    assert last_complete(path).path == path
    (path / "random_states_1.pkl").unlink()
    assert only(path).why == "1 of 2 random states are missing: rank 1"


def test_ranks_without_a_device_share_accelerates_random_states(tmp_path):
    path = accelerate(tmp_path)
    (path / "random_states_1.pkl").unlink()
    put(path / "random_states_0.pkl", {"torch_manual_seed": 1})
    assert last_complete(tmp_path).path == path
    (path / "random_states_0.pkl").unlink()
    assert last_complete(tmp_path) is None


def test_thousands_of_shards(tmp_path):
    ranks = 1024
    path = save(tmp_path, "global_step120", ranks)
    assert last_complete(tmp_path).world_size == ranks
    (path / OPTIM.format(ranks - 1)).unlink()
    assert only(tmp_path).why == f"1 of {ranks} optimizer shards are missing: rank {ranks - 1}"
