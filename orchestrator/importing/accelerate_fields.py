"""DeepSpeed's settings of Accelerate as the section `deepspeed` of a job file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.accelerate_twice import PATHS, Twice, explained, find, held_by, is_alike, shown
from orchestrator.importing.accelerate_values import is_on, precision_word, value_of
from orchestrator.importing.draft import located
from orchestrator.rules.accelerate import IGNORED, ambiguous

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.importing.accelerate_read import Settings
    from orchestrator.importing.draft import Draft

_FIELDS = {
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "gradient_clipping",
    "zero_stage": "zero_stage",
    "offload_optimizer_device": "offload_optimizer",
    "offload_param_device": "offload_param",
    "offload_param_nvme_path": "offload_param_nvme_path",
    "offload_optimizer_nvme_path": "offload_optimizer_nvme_path",
    "zero3_save_16bit_model": "zero3_save_16bit_model",
}
_FILLED = ("gradient_accumulation_steps", "gradient_clipping")
_PRECISION = {"no": "fp32", "fp16": "fp16", "bf16": "bf16"}


def map_deepspeed(settings: Settings, draft: Draft, prefer: str | None) -> None:
    """Write the section `deepspeed`.

    Raises:
        JobFileError: a value is wrong, or the file says a thing twice and `prefer` does not say which counts.
    """
    draft.put("deepspeed", {})
    twice = ambiguous(settings.of_file)
    path = _file(settings, draft)
    if path is None:
        _field_mode(settings, draft)
    else:
        held = held_by(path)
        alike = [key for key in twice if is_alike(settings, key, held)]
        differ = [key for key in twice if key not in alike]
        if differ and prefer is None:
            raise JobFileError(*explained(settings, differ, path, held))
        _file_mode(settings, draft, held, Twice(alike, differ, prefer))
    _always(settings, draft)


def _file(settings: Settings, draft: Draft) -> str | Path | None:
    """Carry DeepSpeed's file; one that is not there from the folder of the command, but beside the file, too.

    Accelerate opens it from the folder it is started in.
    """
    value = settings.get("deepspeed_config_file")
    if value in (None, "none"):
        return None
    where, path = settings.where("deepspeed_config_file"), draft.path(str(value))
    beside = (draft.cwd / settings.name).parent / str(value)
    if not located(path).is_file() and settings.of_file and beside.is_file():
        draft.change(where, "found beside the file that names it", "deepspeed.config_file", beside)
        return beside
    draft.carry(where, "deepspeed.config_file", path)
    return path


def _file_mode(settings: Settings, draft: Draft, held: dict[str, Any] | None, twice: Twice) -> None:
    """Write what the fields add to a DeepSpeed file: they fill its `auto`s, and nothing else.

    Source: `DeepSpeedPlugin.fill_match` with must_match False.
    """
    for key in IGNORED:
        if settings.get(key) is None:
            continue
        where, found = settings.where(key), find(held, key)
        if key in twice.alike and found != "auto":
            draft.change(where, "DeepSpeed's file says the same; Accelerate refuses what is said twice")
        elif key in twice.differ and twice.prefer == "fields":
            _override(settings, draft, key)
        elif key in twice.differ and found != "auto":
            draft.drop(where, f"DeepSpeed's file says {shown(found)}")
        elif key == "mixed_precision":
            if found in (None, "auto"):
                _precision(settings, draft)
        elif key.endswith("_nvme_path") and found in (None, "auto"):
            _nvme_path(settings, draft, key, find(held, key.replace("nvme_path", "device")))
        elif found == "auto" or held is None:
            _field(settings, draft, key)
        else:
            draft.drop(where, f"Accelerate ignores it: DeepSpeed's file says {shown(found)}")


def _override(settings: Settings, draft: Draft, key: str) -> None:
    """Let a field go before what DeepSpeed's file says."""
    where = settings.where(key)
    if key == "mixed_precision":
        word = precision_word(settings)
        for kind in ("fp16", "bf16"):
            draft.put(f"deepspeed.overrides.{kind}.enabled", kind == word)
        draft.change(where, f"goes before DeepSpeed's file: {word}, as deepspeed.overrides")
        return
    value = value_of(settings, key)
    if value is not None:
        draft.change(
            where, "goes before DeepSpeed's file", "deepspeed.overrides." + ".".join(PATHS[key]), value
        )


def _field_mode(settings: Settings, draft: Draft) -> None:
    """Write the section as DeepSpeedPlugin does without a file: its defaults are stage 2 and 1 step."""
    for key in _FIELDS:
        if settings.get(key) is not None:
            _field(settings, draft, key)
    if draft.get("deepspeed.zero_stage") is None:
        draft.change(settings.name, "Accelerate's default", "deepspeed.zero_stage", 2)
    _precision(settings, draft)
    if draft.get("deepspeed.precision") is None:
        draft.put("deepspeed.precision", "fp32")
    # DeepSpeedPlugin: prepare() fills in what the script's Accelerator(...) says; batch sizes it does anyway
    for key in _FILLED:
        if draft.get(f"deepspeed.{key}") is None:
            draft.put(f"deepspeed.overrides.{key}", "auto")


def _precision(settings: Settings, draft: Draft) -> None:
    word = precision_word(settings)
    if word is None:
        return
    where = settings.where("mixed_precision")
    if word not in _PRECISION:
        what = "DeepSpeed has no such precision"
        raise JobFileError(Problem(what, where, word, "use no, fp16 or bf16"))
    draft.carry(where, "deepspeed.precision", _PRECISION[word])


def _field(settings: Settings, draft: Draft, key: str) -> None:
    value = value_of(settings, key)
    where = settings.where(key)
    if value is None:
        return
    if key.endswith("_nvme_path"):
        _nvme_path(settings, draft, key, None)
        return
    draft.carry(where, f"deepspeed.{_FIELDS[key]}", value)


def _nvme_path(settings: Settings, draft: Draft, key: str, of_file: Any) -> None:
    """Carry a path, which Accelerate parses and never exports, if the device is nvme.

    Args:
        settings: have the path.
        draft: gets it.
        key: of Accelerate.
        of_file: the device in DeepSpeed's file; None or `auto` where the settings decide.
    """
    value, where = value_of(settings, key), settings.where(key)
    said = settings.get(key.replace("nvme_path", "device"))
    device = str(said if of_file in (None, "auto") else of_file).lower()
    if value is not None and device == "nvme":
        what = "which Accelerate reads and never passes on; the job does"
        draft.change(where, what, f"deepspeed.{_FIELDS[key]}", value)
    elif value is not None:
        draft.drop(where, f"the device is {device}")


def _always(settings: Settings, draft: Draft) -> None:
    """Write what counts with a DeepSpeed file too."""
    init, names = settings.get("zero3_init_flag"), settings.get("deepspeed_moe_layer_cls_names")
    if init is not None:
        draft.carry(settings.where("zero3_init_flag"), "deepspeed.zero3_init", is_on(init))
    if names is not None:
        words = [word.strip() for word in str(names).split(",") if word.strip()]
        draft.carry(settings.where("deepspeed_moe_layer_cls_names"), "deepspeed.moe_layer_cls_names", words)
