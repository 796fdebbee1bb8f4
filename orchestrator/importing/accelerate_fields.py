"""DeepSpeed's settings of Accelerate as the section `deepspeed` of a job file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, OrchestratorError, Problem
from orchestrator.importing.draft import located
from orchestrator.rules.accelerate import IGNORED, ambiguous

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.importing.accelerate_read import Settings
    from orchestrator.importing.draft import Draft

_ZERO = "zero_optimization"
_PATHS = {  # key of Accelerate: what it fills in DeepSpeed's configuration, as DeepSpeedPlugin has it
    "gradient_accumulation_steps": ("gradient_accumulation_steps",),
    "gradient_clipping": ("gradient_clipping",),
    "zero_stage": (_ZERO, "stage"),
    "offload_optimizer_device": (_ZERO, "offload_optimizer", "device"),
    "offload_param_device": (_ZERO, "offload_param", "device"),
    "offload_param_nvme_path": (_ZERO, "offload_param", "nvme_path"),
    "offload_optimizer_nvme_path": (_ZERO, "offload_optimizer", "nvme_path"),
    "zero3_save_16bit_model": (_ZERO, "stage3_gather_16bit_weights_on_model_save"),
}
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
        held = _held(path)
        if twice and prefer is None:
            raise JobFileError(*_explained(settings, twice, path, held))
        _file_mode(settings, draft, twice if prefer else [], held, prefer=prefer)
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


def _held(path: str | Path) -> dict[str, Any] | None:
    """Return what DeepSpeed's file holds; None where it cannot be read here."""
    from orchestrator.configs.json_source import read_json_object  # noqa: PLC0415 - only in file mode

    try:
        return read_json_object(located(path), "deepspeed_config_file")
    except OrchestratorError:
        if located(path).is_file():
            raise  # it is there, and wrong
        return None


def _find(held: dict[str, Any] | None, key: str) -> Any:
    """Return what DeepSpeed's file says of one of Accelerate's keys; None where it says nothing."""
    if key == "mixed_precision":
        kinds = [kind for kind in ("fp16", "bf16") if kind in (held or {})]
        said = {
            kind: (held or {})[kind].get("enabled") for kind in kinds if isinstance((held or {})[kind], dict)
        }
        return next(
            (kind for kind, on in said.items() if on is True), "auto" if "auto" in said.values() else None
        )
    value: Any = held
    for step in _PATHS[key]:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _explained(
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
        here, found = _said(settings.values.get(key)), _said(_find(held, key))
        there = f"{path} cannot be read here" if held is None else f"{path} says {found}"
        problems.append(Problem(f"says {here}, and {there}", settings.where(key)))
    return problems


def _said(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def _file_mode(
    settings: Settings, draft: Draft, twice: list[str], held: dict[str, Any] | None, *, prefer: str | None
) -> None:
    """Write what the fields add to a DeepSpeed file: they fill its `auto`s, and nothing else.

    Source: `DeepSpeedPlugin.fill_match` with must_match False.
    """
    for key in IGNORED:
        if settings.get(key) is None:
            continue
        where, found = settings.where(key), _find(held, key)
        if key in twice and prefer == "fields":
            _override(settings, draft, key)
        elif key in twice and found != "auto":
            draft.drop(where, f"DeepSpeed's file says {_said(found)}")
        elif key == "mixed_precision":
            if found in (None, "auto"):
                _precision(settings, draft)
        elif key.endswith("_nvme_path") and found in (None, "auto"):
            _nvme_path(settings, draft, key, _find(held, key.replace("nvme_path", "device")))
        elif found == "auto" or held is None:
            _field(settings, draft, key)
        else:
            draft.drop(where, f"Accelerate ignores it: DeepSpeed's file says {_said(found)}")


def _override(settings: Settings, draft: Draft, key: str) -> None:
    """Let a field go before what DeepSpeed's file says."""
    where = settings.where(key)
    if key == "mixed_precision":
        word = _word(settings)
        for kind in ("fp16", "bf16"):
            draft.put(f"deepspeed.overrides.{kind}.enabled", kind == word)
        draft.change(where, f"goes before DeepSpeed's file: {word}, as deepspeed.overrides")
        return
    value = _value(settings, key)
    if value is not None:
        draft.change(
            where, "goes before DeepSpeed's file", "deepspeed.overrides." + ".".join(_PATHS[key]), value
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
    word = _word(settings)
    if word is None:
        return
    where = settings.where("mixed_precision")
    if word not in _PRECISION:
        what = "DeepSpeed has no such precision"
        raise JobFileError(Problem(what, where, word, "use no, fp16 or bf16"))
    draft.carry(where, "deepspeed.precision", _PRECISION[word])


def _word(settings: Settings) -> str | None:
    from orchestrator.importing.accelerate import precision_word  # noqa: PLC0415 - it imports this module

    return precision_word(settings)


def _field(settings: Settings, draft: Draft, key: str) -> None:
    value = _value(settings, key)
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
    value, where = _value(settings, key), settings.where(key)
    said = settings.get(key.replace("nvme_path", "device"))
    device = str(said if of_file in (None, "auto") else of_file).lower()
    if value is not None and device == "nvme":
        what = "which Accelerate reads and never passes on; the job does"
        draft.change(where, what, f"deepspeed.{_FIELDS[key]}", value)
    elif value is not None:
        draft.drop(where, f"the device is {device}")


def _value(settings: Settings, key: str) -> Any:
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


def _always(settings: Settings, draft: Draft) -> None:
    """Write what counts with a DeepSpeed file too."""
    from orchestrator.importing.accelerate import is_on  # noqa: PLC0415 - it imports this module

    init, names = settings.get("zero3_init_flag"), settings.get("deepspeed_moe_layer_cls_names")
    if init is not None:
        draft.carry(settings.where("zero3_init_flag"), "deepspeed.zero3_init", is_on(init))
    if names is not None:
        words = [word.strip() for word in str(names).split(",") if word.strip()]
        draft.carry(settings.where("deepspeed_moe_layer_cls_names"), "deepspeed.moe_layer_cls_names", words)
