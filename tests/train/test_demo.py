"""The README's first command, with fewer steps."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.train


@pytest.mark.skipif(not (ROOT / ".venv/installed").exists(), reason="scripts/setup-env has not been run here")
def test_the_demo_trains_and_tells_where_everything_is(tmp_path):
    args = ["--deepspeed_config", "{ds_config}", "--save", "{run_dir}/checkpoints", "--steps", "3"]
    changes = ["--set", f"run_root={tmp_path}", "--set", f"train.args={json.dumps(args)}"]
    done = subprocess.run(
        [ROOT / "scripts/demo", *changes],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step 3/3 loss" in done.stdout
    assert "SUCCEEDED" in done.stdout
    (run_dir,) = (path.parent for path in tmp_path.glob("*/verdict.json"))
    assert str(run_dir) in done.stdout
    assert "ZeRO stage 3, hpZ groups of 2" in done.stdout
    tag = (run_dir / "checkpoints/latest").read_text()
    assert len(list((run_dir / "checkpoints" / tag).glob("*_optim_states.pt"))) == 4
