"""A tag is made fit for any ranks all or nothing, by a process that can be ended and leaves nothing."""

from __future__ import annotations

import ast
import dataclasses
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from orchestrator.agent.processes import read_process
from orchestrator.checkpoints import converter, tags
from orchestrator.checkpoints.find import one_tag
from orchestrator.checkpoints.tag import Kind
from orchestrator.checkpoints.universal import converted
from orchestrator.checkpoints.universal_make import Conversion, conversion_for, notes_of
from orchestrator.checkpoints.universal_needs import free_memory, needs
from orchestrator.errors import CheckpointError
from tests.samples import plan
from tests.shards import save_tag, save_universal


@pytest.fixture
def fake(tmp_path):
    """Return a function that writes a program to run in place of Python: $1 is TAG, $2 OUTPUT."""

    def write(script: str) -> str:
        path = tmp_path / "python"
        path.write_text(f'#!/bin/bash\nshift 2; cd "$1" || exit 9\n{script}\n')
        path.chmod(0o755)
        return str(path)

    return write


MAKE = """
mkdir -p "$2/zero/weight" && cp *model_states.pt "$2"
for state in optimizer_state weight/fp32 weight/exp_avg weight/exp_avg_sq; do
    cp *rank_0_*optim_states.pt "$2/zero/$state.pt"
done
echo '{"phase": "extract", "done": 1, "of": 4}'
echo '{"deepspeed": "0.19.8", "notes": ["a buffer is not loaded"]}'
"""


def test_a_conversion_appears_whole_under_its_name(tmp_path, fake):
    saved = tmp_path / "checkpoints [1] +é"  # DeepSpeed puts paths into patterns
    tag = one_tag(save_tag(saved))
    seen = []
    notes = Conversion(tag, fake(MAKE)).run(lambda *told: seen.append(told))
    made = converted(tag)
    assert (made.kind, made.complete, made.step, made.world_size) == (Kind.UNIVERSAL, True, 4, 4)
    assert notes == notes_of(made.path) == ["a buffer is not loaded"]
    assert seen == [("extract", 0.25)]
    assert (saved / "latest_universal").read_text() == "global_step4_universal"
    assert (saved / "latest").read_text() == "global_step4"
    assert {path.name for path in saved.iterdir()} == {
        "latest",
        "latest_universal",
        "global_step4",
        "global_step4_universal",
    }


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo \'{"problem": {"what": "no Adam", "fix": "go on"}}\'; exit 1', "no Adam"),
        ("mkdir $2; echo ImportError: torch >&2; exit 3", r"exit code 3\): ImportError: torch"),
        ("mkdir $2; kill -9 $$", "killed by signal 9"),
    ],
)
def test_a_conversion_that_fails_leaves_nothing(tmp_path, fake, script, words):
    tag = one_tag(save_tag(tmp_path / "saved"))
    with pytest.raises(CheckpointError, match=words):
        Conversion(tag, fake(script)).run()
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"latest", "global_step4"}


def test_a_conversion_can_be_ended_with_all_its_processes(tmp_path, fake):
    tag = one_tag(save_tag(tmp_path / "saved"))
    conversion = Conversion(
        tag, fake(f"sleep 300 & echo $! >{tmp_path}/pid; mkdir $2; echo >{tmp_path}/on; wait")
    )
    raised = []

    def run() -> None:
        with pytest.raises(CheckpointError, match="was ended") as error:
            conversion.run()
        raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not (tmp_path / "on").exists():
        time.sleep(0.01)
    assert [found.name for found in tags(tmp_path / "saved")] == [
        "global_step4"
    ]  # what is made is no tag yet
    conversion.end()
    thread.join()
    assert raised
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"latest", "global_step4"}
    sleeper = int((tmp_path / "pid").read_text())
    while read_process(sleeper) is not None:
        time.sleep(0.01)


def test_what_a_killed_conversion_left_is_cleared_and_what_another_one_makes_is_not(tmp_path, fake):
    saved = tmp_path / "saved"
    tag = one_tag(save_tag(saved))
    left = saved / ".global_step4_universal.making.abcdefgh"
    (left / "universal").mkdir(parents=True)
    (left / "lock").touch()
    busy = saved / ".global_step4_universal.making.ijklmnop"
    busy.mkdir()
    with (busy / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Conversion(tag, fake(MAKE)).run()
        assert not left.exists()
        assert busy.exists()


def test_the_earlier_form_of_a_tag_saved_twice_is_replaced(tmp_path, fake):
    saved = tmp_path / "saved"
    tag = save_tag(saved)
    old = save_universal(tag)
    (old / "old").touch()
    for path in (*old.iterdir(), *old.rglob("*.pt")):
        os.utime(path, (1_000_000, 1_000_000))
    Conversion(one_tag(tag), fake(MAKE)).run()
    assert not (old / "old").exists()
    assert converted(one_tag(tag)) is not None


def test_another_checkpoint_of_that_name_stays(tmp_path, fake):
    tag = save_tag(tmp_path / "saved", "best")
    other = save_tag(tmp_path / "saved", "best_universal")
    with pytest.raises(CheckpointError, match="the name of another checkpoint"):
        Conversion(one_tag(tag), fake(MAKE)).run()
    assert one_tag(other).complete
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"latest", "best", "best_universal"}


def test_a_tag_that_is_saved_again_meanwhile_is_a_mixture(tmp_path, fake):
    tag = one_tag(save_tag(tmp_path / "saved"))
    with pytest.raises(CheckpointError, match="it was saved again"):
        Conversion(tag, fake(f"touch -d '1 minute' *_states.pt\n{MAKE}")).run()
    assert converted(tag) is None


def test_metrics_that_come_meanwhile_do_no_harm(tmp_path, fake):
    tag = one_tag(save_tag(tmp_path / "saved"))
    Conversion(tag, fake(f"echo '{{}}' >metrics.json\n{MAKE}")).run()
    assert converted(tag) is not None


def test_workers_do_not_outlive_a_program_that_was_killed(tmp_path, fake):
    """They hold its stdout open: who reads that would wait for them, and they for work."""
    tag = one_tag(save_tag(tmp_path / "saved"))
    with pytest.raises(CheckpointError, match="killed by signal 9"):
        Conversion(tag, fake(f"(sleep 20; touch {tmp_path}/late) & kill -9 $$")).run()
    assert not (tmp_path / "late").exists()


def test_what_it_takes_is_told_before(tmp_path):
    tag = save_tag(tmp_path)
    for path in tag.glob("*optim*"):
        with path.open("ab") as file:
            file.truncate(1 << 30)  # a sparse GiB
    found = needs(one_tag(tag))
    assert 8.4 * 2**30 < found.disk < 9.6 * 2**30  # twice the states, and a shard
    assert 4 * 2**30 < found.kept < 4.3 * 2**30
    assert found.memory > found.shard == 1 << 30
    assert free_memory() > 0


def test_too_little_room_is_refused_before_anything_is_written(tmp_path, fake):
    tag = save_tag(tmp_path / "saved")
    shard = next(tag.glob("*optim*"))
    with shard.open("ab") as file:
        file.truncate(1 << 42)
    conversion = Conversion(dataclasses.replace(one_tag(tag), complete=True), fake(MAKE))
    with pytest.raises(CheckpointError, match="on this disk while it runs"):
        conversion.run()
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"latest", "global_step4"}


def test_the_python_of_the_run_converts_after_its_setup(tmp_path, fake):
    tag = one_tag(save_tag(tmp_path / "saved"))
    fake(MAKE)
    folder = str(tmp_path)
    conversion = conversion_for(tag, plan(python="python", setup=(f"export PATH='{folder}':$PATH",)))
    assert conversion.run() == ["a buffer is not loaded"]


def test_the_program_is_one_for_any_python_of_a_training():
    sources = list(Path(converter.__file__).parent.glob("*.py"))
    assert len(sources) == 5
    for path in sources:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
        assert "orchestrator" not in path.read_text(encoding="utf-8")
