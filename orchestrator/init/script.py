"""What a training script expects, guessed from its text: never imported, never run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 2**20  # bytes


@dataclass(frozen=True)
class Script:
    """What a script's text shows.

    Attributes:
        exists: whether it is there.
        accelerate: whether it makes an `Accelerator`.
        trainer: whether it reads Hugging Face's TrainingArguments, which take `--deepspeed FILE`.
        config_option: the option by which it takes a DeepSpeed file, if any.
        saves: whether it speaks of checkpoints.
    """

    exists: bool = False
    accelerate: bool = False
    trainer: bool = False
    config_option: str = ""
    saves: bool = False

    @property
    def arguments(self) -> list[str]:
        """Return the arguments that hand DeepSpeed's configuration over."""
        return [self.config_option, "{ds_config}"] if self.config_option else []


def read_script(path: Path) -> Script:
    """Return what the text of a script shows; nothing at all for one that is not there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.stat().st_size < _LARGEST else ""
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return Script()
    trainer = re.search(r"\b(?:TrainingArguments|HfArgumentParser|SFTConfig|TrlParser)\b", text) is not None
    accelerate = re.search(r"\bAccelerator\(", text) is not None
    return Script(True, accelerate, trainer, _option(text, trainer), "checkpoint" in text)


def _option(text: str, trainer: bool) -> str:
    quoted = re.search(r"""["'](--deepspeed[-_]config|--ds[-_]config)["']""", text)
    if quoted:
        return quoted[1]
    if "add_config_arguments(" in text:  # deepspeed.add_config_arguments, which adds --deepspeed_config
        return "--deepspeed_config"
    return "--deepspeed" if trainer or re.search(r"""["']--deepspeed["']""", text) else ""
