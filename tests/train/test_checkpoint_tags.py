"""Tags that DeepSpeed itself saved, on two CPU ranks: without any one of its shards, none is complete."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from orchestrator.checkpoints import last_complete, latest, tags
from tests.train.ranks import run_ranks

RANKS = 2
SCRIPT = """
import sys, torch, deepspeed
stage, folder = int(sys.argv[1]), sys.argv[2]
config = {
    "train_micro_batch_size_per_gpu": 1,
    "optimizer": {"type": "AdamW", "params": {"torch_adam": True, "lr": 1e-3}},
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": stage},
}
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else compiled, for a minute
engine, *_ = deepspeed.initialize(model=torch.nn.Linear(32, 32), config=config)
for _ in range(2):
    engine.backward(engine(torch.randn(2, 32).bfloat16()).pow(2).mean())
    engine.step()
    engine.save_checkpoint(folder)
"""

pytestmark = pytest.mark.train


@pytest.fixture(scope="module", params=[1, 3])
def saved(request, tmp_path_factory):
    """Return (folder with the tags of steps 1 and 2, ZeRO stage)."""
    folder = tmp_path_factory.mktemp(f"stage{request.param}")
    script = folder / "save.py"
    script.write_text(SCRIPT)
    run_ranks(RANKS, script, request.param, folder / "saved")
    return folder / "saved", request.param


def test_what_deepspeed_saved_is_complete(saved):
    folder, stage = saved
    found = tags(folder)
    assert [(tag.step, tag.complete, tag.why) for tag in found] == [(1, True, ""), (2, True, "")]
    assert {(tag.world_size, tag.stage) for tag in found} == {(RANKS, stage)}
    assert last_complete(folder) == found[-1]
    assert (latest(folder).tag, latest(folder).why) == ("global_step2", "")


def test_no_shard_can_go(saved):
    folder, stage = saved
    files = sorted((folder / "global_step2").iterdir())
    assert len(files) == (2 * RANKS if stage == 3 else 1 + RANKS)
    for path in files:
        whole, status = path.read_bytes(), path.stat()
        path.unlink()
        assert last_complete(folder).step == 1, path
        for size in (0, 1, 100, len(whole) // 2, len(whole) - 98, len(whole) - 22, len(whole) - 1):
            path.write_bytes(whole[:size])
            os.utime(path, (status.st_atime, status.st_mtime))
            assert last_complete(folder).step == 1, (path, size)
        path.write_bytes(whole)
        os.utime(path, (status.st_atime, status.st_mtime))
    assert last_complete(folder).step == 2


def test_shards_whose_ranks_have_not_written_are_missed(saved, tmp_path):
    """The last rank lacks both its shards: by the names alone it would be a complete tag of one rank."""
    folder, _ = saved
    tag = tmp_path / "global_step2"
    tag.mkdir()
    for path in (folder / "global_step2").iterdir():
        if f"zero_pp_rank_{RANKS - 1}_" not in path.name:
            (tag / path.name).write_bytes(path.read_bytes())
    (found,) = tags(tmp_path)
    assert f"1 of {RANKS} optimizer shards are missing: rank {RANKS - 1}" in found.why


def test_no_file_of_torchs_own_format_can_go(tmp_path):
    words = "import sys, torch, torch.distributed.checkpoint as d; "
    words += "d.save({'a': torch.ones(99), 'b': torch.ones(9), 'n': 3}, checkpoint_id=sys.argv[1])"
    subprocess.run([sys.executable, "-W", "ignore", "-c", words, tmp_path / "step-3"], check=True)
    assert last_complete(tmp_path).step == 3
    for path in sorted((tmp_path / "step-3").iterdir()):
        whole = path.read_bytes()
        path.unlink()
        assert last_complete(tmp_path) is None, path
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            assert last_complete(tmp_path) is None, (path, size)
        path.write_bytes(whole)
    assert last_complete(tmp_path).step == 3
