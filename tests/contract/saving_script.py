"""A stand-in for a script that saves checkpoints: whole files of DeepSpeed's names, without torch.

Rank 0 saves a tag at the start when told to, `--tags N` at once, and one when SIGTERM comes. `--until N` sets
how often the run has to be started before it ends by itself.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import sys
import time
import zipfile
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--resume", default="")
parser.add_argument("--at-start", action="store_true")
parser.add_argument("--at-term", action="store_true")
parser.add_argument("--tags", type=int, default=0)
parser.add_argument("--until", type=int, default=1)
parser.add_argument("--report", type=Path)
args = parser.parse_args()

attempt = int(os.environ["ORCHESTRATE_ATTEMPT"])
world = int(os.environ["WORLD_SIZE"])
folder = Path(os.environ.get("ORCHESTRATE_CHECKPOINT_DIR", "."))


def save(tag: str) -> None:
    """Write the shards of every rank, then the file that DeepSpeed writes last."""
    if os.environ["RANK"] != "0":
        return
    (folder / tag).mkdir(parents=True)
    names = [f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in range(world)]
    names += [f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(world)]
    said = pickle.dumps({"dp_world_size": world, "partition_count": world})
    for name in names:
        with zipfile.ZipFile(folder / tag / name, "w") as archive:
            archive.writestr("archive/data.pkl", said)
    (folder / "latest").write_text(tag)


def on_term(number: int, _frame: object) -> None:
    """Save, and end well."""
    signal.signal(number, signal.SIG_IGN)  # Slurm's slurmstepd and our agent may both send it
    print(f"signal {number}, attempt {attempt}", flush=True)
    if args.at_term:
        save(f"global_step{attempt}0")
    sys.exit(0)


signal.signal(signal.SIGTERM, on_term)
told = os.environ.get("ORCHESTRATE_RESUME_TAG", "")
print(f"attempt {attempt} resume {args.resume or '-'} told {told or '-'}", flush=True)
if args.at_start:
    save(f"global_step{attempt}")
for step in range(1, args.tags + 1):
    save(f"global_step{step}00")
if attempt < args.until:
    time.sleep(900)
