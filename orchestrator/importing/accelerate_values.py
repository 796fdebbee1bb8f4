"""Values of an Accelerate configuration as a job file has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from orchestrator.importing.accelerate_read import Settings


def precision_word(settings: Settings) -> str | None:
    """Return no, fp16, bf16 or fp8; None where nothing is said. YAML reads `no` without quotes as false."""
    value = settings.values.get("mixed_precision")
    if value is None and is_on(settings.get("fp16")):
        return "fp16"  # as files of Accelerate before 0.5 have it
    return "no" if value is False else None if value is None else str(value).lower()


def is_on(value: Any) -> bool:
    """Return what Accelerate makes of a flag that may be written as a word."""
    return str(value).lower() in ("true", "yes", "1", "on", "y", "t")


def value_of(settings: Settings, key: str) -> Any:
    """Return a field's value as the job file has it; None for one that says nothing.

    Raises:
        JobFileError: it is none that the field takes.
    """
    value = settings.get(key)
    text = str(value).lower()
    if text in ("auto", "none") and not key.endswith("_device"):
        return None
    try:
        if key in ("zero_stage", "gradient_accumulation_steps"):
            return int(str(value))
        if key == "gradient_clipping":
            return float(str(value))
    except ValueError:
        raise JobFileError(Problem("expected a number", settings.where(key), str(value))) from None
    if key.endswith("_device"):
        return text
    return text == "true" if key == "zero3_save_16bit_model" else str(value)
