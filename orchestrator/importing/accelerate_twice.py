"""What an Accelerate configuration and the DeepSpeed file that it names both say.

Accelerate 1.15 refuses in every rank what is said twice (`DeepSpeedPlugin._deepspeed_config_checks`), though
both may say the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.importing.accelerate_values import precision_word, value_of
from orchestrator.importing.draft import located

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.importing.accelerate_read import Settings

_ZERO = "zero_optimization"
PATHS = {  # key of Accelerate: what it fills in DeepSpeed's configuration, as DeepSpeedPlugin has it
    "gradient_accumulation_steps": ("gradient_accumulation_steps",),
    "gradient_clipping": ("gradient_clipping",),
    "zero_stage": (_ZERO, "stage"),
    "offload_optimizer_device": (_ZERO, "offload_optimizer", "device"),
    "offload_param_device": (_ZERO, "offload_param", "device"),
    "offload_param_nvme_path": (_ZERO, "offload_param", "nvme_path"),
    "offload_optimizer_nvme_path": (_ZERO, "offload_optimizer", "nvme_path"),
    "zero3_save_16bit_model": (_ZERO, "stage3_gather_16bit_weights_on_model_save"),
}
_SILENT = {
    "gradient_accumulation_steps": 1,
    "zero_stage": 0,
    "offload_optimizer_device": "none",
    "offload_param_device": "none",
    "zero3_save_16bit_model": False,
    "mixed_precision": "no",
}
"""What a DeepSpeed file means that does not say it, under Accelerate."""


@dataclass(frozen=True)
class Twice:
    """Keys that stand beside a DeepSpeed file which holds them: what both say alike, and what not.

    Attributes:
        alike: or `auto` in the file, which the field fills.
        differ: of these `prefer` says which counts.
        prefer: file or fields.
    """

    alike: list[str]
    differ: list[str]
    prefer: str | None


def held_by(path: str | Path) -> dict[str, Any] | None:
    """Return what DeepSpeed's file holds; None where it cannot be read here."""
    from orchestrator.configs.json_source import read_json_object  # noqa: PLC0415 - only in file mode

    try:
        return read_json_object(located(path), "deepspeed_config_file")
    except OrchestratorError:
        if located(path).is_file():
            raise  # it is there, and wrong
        return None


def find(held: dict[str, Any] | None, key: str) -> Any:
    """Return what DeepSpeed's file says of one of Accelerate's keys; None where it says nothing."""
    if key == "mixed_precision":
        sections = {kind: (held or {}).get(kind) for kind in ("fp16", "bf16")}
        on = {kind: s.get("enabled") for kind, s in sections.items() if isinstance(s, dict)}
        return next((kind for kind in on if on[kind] is True), "auto" if "auto" in on.values() else None)
    value: Any = held
    for step in PATHS[key]:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def is_alike(settings: Settings, key: str, held: dict[str, Any] | None) -> bool:
    """Return whether DeepSpeed's file says the same as a field, or leaves it to the field with `auto`."""
    if settings.get(key) is None:
        return True
    found = find(held, key)
    if held is None or found == "auto":
        return held is not None
    ours = precision_word(settings) if key == "mixed_precision" else value_of(settings, key)
    return ours is None or bool(ours == (_SILENT.get(key) if found is None else found))


def explained(
    settings: Settings, twice: list[str], path: str | Path, held: dict[str, Any] | None
) -> list[Problem]:
    """Return a problem for each key that is said twice, with what both files say."""
    head = (
        "names deepspeed_config_file and keys that it holds: Accelerate refuses this in every rank ("
        "`the following accelerate config variables will be ignored`)"
    )
    fix = f"--prefer file goes by {path}, --prefer fields by the keys below; or remove them"
    problems = [Problem(head, settings.name, fix=fix)]
    for key in twice:
        here, found = shown(settings.values.get(key)), shown(find(held, key))
        there = f"{path} cannot be read here" if held is None else f"{path} says {found}"
        problems.append(Problem(f"says {here}, and {there}", settings.where(key)))
    return problems


def shown(value: Any) -> str:
    """Return a value as both files write it."""
    return "nothing" if value is None else json.dumps(value)
