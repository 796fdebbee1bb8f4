"""The words of `orchestrate checkpoint`, and the supervisor's own pruning, on tags built like real ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.checkpoints.consolidate import Consolidated, recipe_for
from orchestrator.checkpoints.find import tags
from orchestrator.checkpoints.making import publish, writing
from orchestrator.cli.checkpoint import _show_consolidated
from orchestrator.errors import CheckpointError, OrchestratorError
from orchestrator.plan import KeepPlan
from orchestrator.rundir import write_json
from orchestrator.states import State
from orchestrator.supervisor.keeping import start_keeping
from tests import samples
from tests.samples import click
from tests.unit.test_checkpoints import MODEL, NOW, OPTIM, cut, put, save, trainer, universal


@pytest.fixture(autouse=True)
def _state_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "saved"
    made.mkdir()
    return made


def run_of(tmp_path, folder, **changes):
    run = samples.run_dir(tmp_path / "runs", "job-abcd", State.RUNNING, checkpoint_dir=str(folder), **changes)
    write_json(run.record_file, run.record() | {"started": NOW})
    return run


def left(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def errors(*words) -> str:
    result = click("checkpoint", *words)
    assert isinstance(result.exception, OrchestratorError), result.output
    assert result.exception.exit_code == 2
    return str(result.exception)


# -- list -----------------------------------------------------------------------------------------------


def test_list_says_what_is_whole_and_what_is_not(folder):
    save(folder, "global_step1", at=NOW)
    save(folder, "global_step2", at=NOW + 60)
    (folder / "global_step2" / OPTIM.format(1)).unlink()
    lines = click("checkpoint", "list", str(folder)).output.splitlines()
    assert lines[0] == str(folder)
    assert lines[1].split() == ["tag", "step", "size", "state", "stage", "ranks", "saved"]
    assert lines[2].split()[:2] == ["global_step1", "1"]
    assert "complete, resumable" in lines[2]
    assert "latest, NOT COMPLETE: 1 of 2 optimizer shards are missing: rank 1 " in lines[3]
    assert lines[4].startswith("note: `latest` names global_step2, which is not complete")


def test_list_as_json(folder):
    path = save(folder, "global_step1", at=NOW)
    put(folder / "global_step1_whole" / "pytorch_model.bin")
    os.utime(folder / "global_step1_whole" / "pytorch_model.bin", (NOW - 60, NOW - 60))
    shown = json.loads(click("checkpoint", "list", "--json", str(folder)).output)
    assert (shown["folder"], shown["latest"], shown["notes"]) == (str(folder), "global_step1", [])
    whole, tag = shown["tags"]
    assert {key: tag[key] for key in ("name", "path", "kind", "step", "complete", "stage", "world_size")} == {
        "name": "global_step1",
        "path": str(path),
        "kind": "deepspeed",
        "step": 1,
        "complete": True,
        "stage": 3,
        "world_size": 2,
    }
    assert (tag["latest"], tag["resumable"], tag["weights"]) == (True, True, [])
    assert (whole["kind"], whole["resumable"], whole["weights"]) == ("weights", False, ["pytorch_model.bin"])


def test_list_of_a_run_is_that_of_its_checkpoint_dir(tmp_path, folder):
    save(folder, "global_step1")
    run_of(tmp_path, folder)
    output = click("checkpoint", "list", "job-a").output
    assert output.startswith(f"{folder} (run job-abcd)")
    assert "global_step1" in output


def test_list_of_an_empty_folder_and_of_a_missing_one(tmp_path, folder):
    assert click("checkpoint", "list", str(folder)).output == f"no checkpoints in {folder}\n"
    assert "no run has that id (got nowhere)" in errors("list", "nowhere")
    assert "there is no such folder here" in errors("list", "./nowhere")
    (folder / "latest").touch()
    assert "it is no folder" in errors("prune", str(folder / "latest"))
    run_of(tmp_path, tmp_path / "gone")
    assert "there is no such folder here" in errors("list", "job-abcd")


def test_a_run_that_does_not_say_where_it_saves(tmp_path):
    samples.run_dir(tmp_path / "runs", "job-abcd", State.RUNNING)
    assert "set train.checkpoint_dir" in errors("list", "job-abcd")


# -- prune ----------------------------------------------------------------------------------------------


def test_prune_of_a_folder(folder):
    for step in (1, 2, 3):
        save(folder, f"global_step{step}", at=NOW + 60 * step)
    dry = click("checkpoint", "prune", str(folder), "--keep-last", "1", "--dry-run").output
    assert "would go: 2 of 3" in dry
    assert len(left(folder)) == 3
    said = click("checkpoint", "prune", str(folder), "--keep-last", "1", "--json")
    told = json.loads(said.output)
    assert [tag["path"] for tag in told["deleted"]] == [str(folder / f"global_step{step}") for step in (1, 2)]
    assert told["kept"] == [{"path": str(folder / "global_step3"), "why": "among the last 1"}]
    assert left(folder) == ["global_step3"]


def test_prune_of_a_run_spares_what_was_there_before(tmp_path, folder):
    from orchestrator.checkpoints.owner import note_before

    save(folder, "global_step1", ranks=4, at=NOW - 60)
    note_before(run_of(tmp_path, folder, keep=KeepPlan(1)), folder)
    for step in (2, 3):
        save(folder, f"global_step{step}", ranks=4, at=NOW + 60 * step)
    output = click("checkpoint", "prune", "job-abcd").output
    assert "it was there before the run" in output
    assert left(folder) == ["global_step1", "global_step3"]


def test_prune_wants_numbers(tmp_path, folder):
    save(folder, "global_step1")
    assert "--keep-last must be given" in errors("prune", str(folder))
    run_of(tmp_path, folder)
    assert "its job file has no numbers" in errors("prune", "job-abcd")
    assert "need each other" in errors("prune", str(folder), "--keep-best", "2")
    assert "need each other" in errors("prune", str(folder), "--metric", "loss")
    assert "--best-is says nothing" in errors("prune", "job-abcd", "--best-is", "highest")


def test_prune_of_a_folder_of_runs_is_refused(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / "all" / name, "global_step1")
        save(tmp_path / "all" / name, "global_step2", at=NOW + 60)
    assert "its checkpoints lie in 2 folders" in errors("prune", str(tmp_path / "all"), "--keep-last", "1")
    assert len(tags(tmp_path / "all")) == 4


def test_what_could_not_be_deleted_is_a_failure(folder, monkeypatch):
    save(folder, "global_step1")
    save(folder, "global_step2", at=NOW + 60)

    def refuse(path):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    result = click("checkpoint", "prune", str(folder), "--keep-last", "1")
    assert result.return_value == 1
    assert "NOT deleted" in result.output


# -- the supervisor's -----------------------------------------------------------------------------------


def test_the_supervisor_prunes_what_its_run_saved_and_notes_it(tmp_path, folder):
    save(folder, "global_step1", ranks=4, at=NOW - 60)
    run = run_of(tmp_path, folder, keep=KeepPlan(2))
    keeping = start_keeping(run, run.plan())
    for step in (2, 3, 4, 5):
        save(folder, f"global_step{step}", ranks=4, at=NOW + 60 * step)
    keeping.finish()
    assert left(folder) == ["global_step1", "global_step4", "global_step5"]
    events = [json.loads(line) for line in run.events_file.read_text().splitlines()]
    assert [event["tags"] for event in events if event["event"] == "pruned"] == [
        ["global_step2", "global_step3"]
    ]


def test_it_waits_while_the_newest_is_being_written(tmp_path, folder):
    run = run_of(tmp_path, folder, keep=KeepPlan(1))
    keeping = start_keeping(run, run.plan())
    for step in (2, 3, 4):
        save(folder, f"global_step{step}", ranks=4, at=NOW + 60 * step)
    (folder / "global_step4" / OPTIM.format(3)).unlink()
    assert keeping.look() is False
    keeping.finish()
    assert left(folder) == ["global_step2", "global_step3", "global_step4"]


def test_a_run_without_retention_only_notes_what_was_there(tmp_path, folder):
    save(folder, "global_step1", at=NOW)
    run = run_of(tmp_path, folder)
    assert start_keeping(run, run.plan()) is None
    assert json.loads((run.path / "checkpoints.json").read_text())["before"] == ["global_step1"]


def test_a_disk_that_fails_costs_the_run_nothing(tmp_path, folder, monkeypatch, capsys):
    from orchestrator.checkpoints import prune

    def fail(*_):
        raise OSError(5, "Input/output error")

    run = run_of(tmp_path, folder, keep=KeepPlan(1))
    monkeypatch.setattr(prune, "settled", fail)
    keeping = start_keeping(run, run.plan())
    save(folder, "global_step2", ranks=4)
    keeping.finish()
    assert not keeping.is_alive()
    assert "Input/output error" in capsys.readouterr().err


def test_the_plan_keeps_what_the_job_file_says():
    plan = samples.plan(keep=KeepPlan(3, 1, "loss", lowest=False))
    assert type(plan).from_json(plan.to_json()) == plan


# -- consolidate ----------------------------------------------------------------------------------------


def recipe(folder, name=None, dtype=None):
    return recipe_for(next(tag for tag in tags(folder) if name in (None, tag.name)), dtype)


def test_shards_or_whole_weights(folder):
    save(folder, "global_step1")
    assert recipe(folder).kind == "shards"
    shutil.rmtree(folder / "global_step1")
    save(folder, "global_step1", stage=1)
    put(folder / "global_step1" / MODEL[1], {"dp_world_size": 2, "ds_config": {}, "stage": 0, "module": {}})
    assert recipe(folder).folder == str(folder)


def test_whole_16_bit_weights_in_a_tag_are_taken_for_16_bit(folder):
    tag = trainer(folder)
    put(tag / "pytorch_model.bin")
    assert recipe(folder).kind == "shards"
    whole = recipe(folder, dtype="bf16")
    assert (whole.kind, whole.files) == ("files", (str(tag / "pytorch_model.bin"),))


@pytest.mark.parametrize(
    "piece",
    [
        "layer_0_expert_1_mp_rank_00_model_states.pt",
        "mp_rank_01_model_states.pt",
        "layer_02-model_00-model_states.pt",
    ],
)
def test_pieces_that_deepspeed_does_not_join_are_refused(folder, piece):
    put(save(folder, "global_step1") / piece)
    with pytest.raises(CheckpointError, match=f"in pieces that DeepSpeed does not join, such as {piece}"):
        recipe(folder)


def test_a_converted_checkpoint_is_refused(folder):
    universal(folder)
    with pytest.raises(CheckpointError, match="name the tag that it came from"):
        recipe(folder)


def test_consolidate_refuses_before_anything_is_loaded(tmp_path, folder):
    save(folder, "global_step1")
    cut(folder / "global_step1" / OPTIM.format(0), 100)
    out = str(tmp_path / "out")
    assert "no checkpoint in it is complete: global_step1" in errors("consolidate", str(folder), out)
    assert "is not complete" in errors("consolidate", str(folder), out, "--tag", "global_step1")
    save(folder, "global_step2", at=NOW + 60)
    assert "one of: global_step2" in errors("consolidate", str(folder), out, "--tag", "global_step3")
    assert "there is no config.json" in errors("consolidate", str(folder), out, "--config", str(folder))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    assert "it is there already" in errors("consolidate", str(folder), out)
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_a_python_that_cannot_do_it_says_so(tmp_path, folder):
    save(folder, "global_step1")
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'no module named torch' >&2\nexit 3\n")
    bare.chmod(0o755)
    result = click("checkpoint", "consolidate", str(folder), str(tmp_path / "out"), "--python", str(bare))
    assert result.exception.exit_code == 1
    assert "failed: no module named torch" in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


def test_a_full_disk_is_seen_before_a_byte_is_written(tmp_path, folder):
    """The program asks for more than any disk has; it would write on its second line of input."""
    save(folder, "global_step1")
    answer = json.dumps({"needs": {"parameters": 10**15, "bytes": 4 * 10**15, "memory": 10**9}})
    greedy = tmp_path / "python"
    greedy.write_text(f"#!/bin/sh\nread request\necho '{answer}'\nread go && touch {tmp_path}/written\n")
    greedy.chmod(0o755)
    result = click("checkpoint", "consolidate", str(folder), str(tmp_path / "out"), "--python", str(greedy))
    assert result.exception.exit_code == 1
    assert "the disk lacks room: 4000.0 TB are needed" in str(result.exception)
    assert not (tmp_path / "written").exists()
    assert list(tmp_path.glob(".out*")) == []


def test_beside_the_weights_lies_what_the_model_needs_and_no_more(tmp_path):
    from orchestrator.checkpoints.consolidate import _copy_config

    (tmp_path / "out").mkdir()
    given = tmp_path / "given"
    given.mkdir()
    for name in ("tokenizer.json", "modeling_x.py", "zero_to_fp32.py", "train.py", "model.safetensors"):
        (given / name).write_text("{}")
    (given / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "who/x--modeling_x.Model"}}))
    _copy_config(given, tmp_path / "out")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"tokenizer.json", "modeling_x.py", "config.json"}


def test_a_command_for_a_run_elsewhere_is_said_again_there(monkeypatch, tmp_path):
    from orchestrator.cli import login
    from orchestrator.login import records

    asked = []
    there = type("Run", (), {"run_dir": "/there/runs/far-1"})()
    monkeypatch.setattr(records, "find", lambda word, root: there)
    monkeypatch.setattr(login, "_run_there", lambda run, words: asked.append(words) or 0)
    words = ["--keep-last", "2", "--dry-run"]
    assert click("checkpoint", "prune", "far-1", *words).return_value == 0
    assert "give an absolute path there" in errors("consolidate", "far-1", "out")
    assert click("checkpoint", "consolidate", "far-1", "/there/out", "--tag", "t").return_value == 0
    assert asked == [
        ["checkpoint", "prune", "/there/runs/far-1", "--keep-last=2", "--dry-run"],
        ["checkpoint", "consolidate", "/there/runs/far-1", "/there/out", "--tag=t", "--max-shard-size=5GB"],
    ]


def test_what_a_killed_try_left_is_used_up(tmp_path):
    making = tmp_path / ".out.incomplete"
    making.mkdir()
    (making / "model-00001-of-00009.safetensors").write_bytes(b"half")
    with writing(tmp_path / "out") as folder:
        assert folder == making
        assert [path.name for path in making.iterdir()] == [".lock"]
        with pytest.raises(CheckpointError, match="another process is writing it"), writing(tmp_path / "out"):
            pass
        (making / "model.safetensors").write_bytes(b"whole")
        publish(making, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert not making.exists()


def test_a_folder_that_cannot_get_its_name_is_refused_before_the_work(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with pytest.raises(CheckpointError, match="it is a link"), writing(tmp_path / "out"):
        pass
    with pytest.raises(CheckpointError, match="it is a disk of its own"), writing(Path("/proc")):
        pass


def test_words_count(capsys):
    _show_consolidated(
        Consolidated("out", "step1", 1000, ("model.safetensors",), ("float32",), {}, "here", 1)
    )
    assert "1,000 parameters of step1, float32, 1 file\n" in capsys.readouterr().out
