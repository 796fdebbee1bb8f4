"""Old checkpoints go while a run goes on, and only its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.contract.product import wait_until
from tests.unit.test_checkpoints import NOW, save

if TYPE_CHECKING:
    from tests.contract.product import Site

SAVING = Path(__file__).with_name("saving_script.py")


def test_a_run_keeps_its_last_checkpoints_and_everybody_elses(local: Site) -> None:
    folder = local.folder / "saved"
    save(folder, "global_step50", ranks=4, at=NOW)
    save(folder, "global_step500", ranks=4, at=NOW)
    run = local.submit(
        train={
            "script": str(SAVING),
            "checkpoint_dir": str(folder),
            "args": ["--tags", "4"],
            "keep_checkpoints": {"last": 2},
        }
    )
    run.succeed()
    wait_until(lambda: run.events("pruned"), run.story)
    wanted = ["global_step300", "global_step400", "global_step50", "global_step500"]
    # On a slow machine there is a look while the run goes on, too, and what is deleted is renamed before.
    wait_until(lambda: sorted(path.name for path in folder.glob("*global_step*")) == wanted, run.story)
    listed = local.orchestrate("checkpoint", "list", str(run.path)).stdout
    assert [line.split()[0] for line in listed.splitlines() if "complete" in line][-1] == "global_step400"
    shutil.rmtree(folder / "global_step400")  # as a user does who is not content with it
    said = local.orchestrate("checkpoint", "prune", str(run.path), "--keep-last", "1")
    assert said.returncode == 0, said.stderr
    assert "it was there before the run" in said.stdout
    assert (folder / "global_step300").exists()
