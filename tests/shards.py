"""Checkpoints as their names and their few words make them: whole files of DeepSpeed's, without torch."""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_zip(path: Path, **said: object) -> None:
    """Write a file as torch.save does, with nothing in it but these words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(said))


def save_tag(folder: Path, name: str = "global_step4", *, ranks: int = 4, stage: int = 3) -> Path:
    """Write a complete tag of so many ranks, and `latest`."""
    tag = folder / name
    head = "zero_pp_rank_{}_" if stage == 3 else ""
    for rank in range(ranks if stage == 3 else 1):
        said = {"dp_world_size": ranks, "zero_optimization": 0, "stage": stage, "global_steps": 4}
        write_zip(tag / f"{head.format(rank)}mp_rank_00_model_states.pt", **said)
    for rank in range(ranks if stage else 0):
        said = {"partition_count": ranks, "zero_stage": stage}
        write_zip(tag / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt", **said)
    (folder / "latest").write_text(name)
    return tag


def save_universal(tag: Path) -> Path:
    """Write what a conversion of a tag leaves."""
    made = tag.with_name(f"{tag.name}_universal")
    for path in tag.glob("*model_states.pt"):
        made.mkdir(exist_ok=True)
        (made / path.name).write_bytes(path.read_bytes())
    write_zip(made / "zero/optimizer_state.pt", step=4)
    for state in ("fp32", "exp_avg", "exp_avg_sq"):
        write_zip(made / "zero/weight" / f"{state}.pt")
    return made
