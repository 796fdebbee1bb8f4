"""What is exported runs with plain `accelerate launch`, and the script sees what it saw before."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.samples import ROOT, orchestrate

pytestmark = pytest.mark.train
SCRIPT = """
import json
import deepspeed
from accelerate import Accelerator

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else compiled, for a minute
accelerator = Accelerator()
config = dict(accelerator.state.deepspeed_plugin.deepspeed_config)
config["steps_per_print"] = None  # infinite
said = {"precision": accelerator.mixed_precision, "config": config}
print("SEEN " + json.dumps(said, sort_keys=True), flush=True)
accelerator.end_training()
"""


def seen(config, here):
    """Return what a rank sees of the configuration."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config]
    done = subprocess.run(
        [*command, "--main_process_port", "0", "show.py"],
        cwd=here,
        env={**os.environ, "HF_HOME": str(here)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {line.partition("SEEN ")[2] for line in done.stdout.splitlines() if "SEEN " in line}
    (said,) = {text.replace(', "nvme_path": null', "") for text in found}
    return json.loads(said)


def test_the_exported_configuration_launches_as_the_imported_one_did(tmp_path):
    original = (ROOT / "tests" / "data" / "seeds" / "zero3_offload_plugin.yaml").read_text()
    text = original.replace("fp16", "bf16").replace(": cpu", ": none")  # CPUs train in bf16, with no offload
    text = text.replace("num_processes: 2", "num_processes: 1")  # each costs the start of a torch
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "show.py").write_text(SCRIPT)
    assert orchestrate("import", "a.yaml", "--script", "show.py", cwd=tmp_path).returncode == 0
    assert orchestrate("export", "accelerate", "job.yaml", "-o", "out.yaml", cwd=tmp_path).returncode == 0
    assert seen("out.yaml", tmp_path) == seen("a.yaml", tmp_path)
