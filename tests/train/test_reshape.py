"""A checkpoint of two ranks goes on with one: what DeepSpeed loads of it is what the unbroken run had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.checkpoints.find import one_tag
from orchestrator.checkpoints.universal import find_start
from tests.samples import orchestrate
from tests.train.ranks import run_ranks

SCRIPT = Path(__file__).with_name("reshape_script.py")
STEPS = 10

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


def train(folder: Path, ranks: int, stage: int, tag: str = "none", hpz: int = 1) -> dict:
    said = run_ranks(ranks, SCRIPT, stage, hpz, STEPS, folder, tag)
    told = json.loads(next(line for line in said.splitlines() if line.startswith("TOLD "))[5:])
    return told | {"losses": {int(step): loss for step, loss in told["losses"].items()}}


@pytest.fixture(scope="module", params=[3, 1])
def saved(request, tmp_path_factory):
    """Return (stage, folder with the tag of step 5, what the unbroken run said)."""
    folder = tmp_path_factory.mktemp(f"stage{request.param}")
    return request.param, folder, train(folder, 2, request.param)


@pytest.fixture(scope="module")
def reshaped(saved):
    """Return what `orchestrate checkpoint reshape` said of the tag."""
    done = orchestrate("checkpoint", "reshape", str(saved[1]), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_rank_goes_on_with_the_curve_of_two(saved, reshaped):
    stage, folder, whole = saved
    name = Path(reshaped["universal"]).name
    alone = train(folder, 1, stage, name)
    later = {step: loss for step, loss in whole["losses"].items() if step > STEPS // 2}
    # bf16 sums in another order, and the losses are about 30: relative to that
    assert alone["losses"] == pytest.approx(later, rel=1e-3)
    assert (alone["steps"], alone["rate"]) == (STEPS, pytest.approx(whole["rate"]))
    assert alone["decay"] == whole["decay"] == [0.5, 0.0]
    assert alone["calls"] == STEPS - STEPS // 2  # the note says so: buffers begin anew
    assert "calls" in " ".join(reshaped["notes"])


def test_the_universal_form_is_complete_and_none_of_its_files_can_go(saved, reshaped):
    stage, folder, _ = saved
    made = Path(reshaped["universal"])
    tag = one_tag(made)
    assert (tag.complete, tag.why, tag.stage, tag.world_size, tag.step) == (True, "", stage, 2, STEPS // 2)
    assert not find_start(folder, {"zero_optimization": {"stage": stage}}, 1).convert
    for path in [made / "zero/optimizer_state.pt", made / "zero/first.weight/fp32.pt"]:
        whole = path.read_bytes()
        path.unlink()
        assert not one_tag(made).complete, path
        path.write_bytes(whole)
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == set()


def test_each_rank_reads_no_more_than_it_needs_of_the_common_state(saved, reshaped):
    """DeepSpeed leaves rank 0's whole shard in there."""
    stage, folder, _ = saved
    shard = next(folder.glob("global_step5/*rank_0_*optim_states.pt")).stat().st_size
    common = (Path(reshaped["universal"]) / "zero/optimizer_state.pt").stat().st_size
    assert common < shard / 2 if stage == 3 else common < shard


@pytest.mark.parametrize("saved", [3], indirect=True)
def test_another_hpz_on_as_many_ranks_loads_the_tag_itself(saved):
    stage, folder, whole = saved
    again = train(folder, 2, stage, "global_step5", hpz=2)
    later = {step: loss for step, loss in whole["losses"].items() if step > STEPS // 2}
    assert again["losses"] == pytest.approx(later, rel=1e-6)
