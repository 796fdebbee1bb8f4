"""Read an Accelerate configuration, old or new, YAML or JSON, into one flat mapping with its places."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTION = "deepspeed_config"
_REFUSED_TYPES = {
    "FSDP": "FSDP shards the model in torch itself; say it with DeepSpeed's zero_stage: 3, or run the script "
    "with launcher: torchrun",
    "MEGATRON_LM": "Megatron-LM's parallelism is not DeepSpeed's; run its own script with launcher: torchrun",
    "TPU": "TPUs are started by torch_xla, not by ranks on hosts",
    "XLA": "TPUs are started by torch_xla, not by ranks on hosts",
}
_PLAIN_TYPES = ("NO", "MULTI_GPU", "MULTI_CPU")


@dataclass
class Settings:
    """What `accelerate launch` would go by.

    Attributes:
        values: keys of ClusterConfig and those of its deepspeed_config, which share no name.
        places: where each was said.
        of_file: the file's own document, empty without one.
        name: the file, or the command.
    """

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    of_file: Mapping[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """Return a value; None where it is not said, and for the words that mean so."""
        value = self.values.get(key)
        return None if value in ("", {}, []) else value

    def where(self, key: str) -> str:
        """Return where a key is said."""
        return self.places.get(key, self.name)


def default_path(environ: Mapping[str, str]) -> Path:
    """Return the file that `accelerate launch` reads when none is named.

    Source: `commands/config/config_args.py` of Accelerate 1.15; the JSON name is that of versions before 0.5.

    Raises:
        JobFileError: there is none.
    """
    home = Path(environ.get("HOME") or "~").expanduser()
    cache = environ.get("HF_HOME") or str(
        Path(environ.get("XDG_CACHE_HOME") or str(home / ".cache")) / "huggingface"
    )
    folder = Path(cache).expanduser() / "accelerate"
    for name in ("default_config.yaml", "default_config.json"):
        if (folder / name).is_file():
            return folder / name
    what = "there is no default configuration of Accelerate"
    raise JobFileError(Problem(what, "--accelerate-default", str(folder), "name a file, or set HF_HOME"))


def read_text(path: Path) -> str:
    """Return the text of a file that is to be imported.

    Raises:
        JobFileError: it cannot be read, is empty, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        fix = "name a file, or write a command line behind --"
        raise JobFileError(Problem("no such file", str(path), fix=fix)) from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start}"
        raise JobFileError(Problem(what, str(path), fix="save the file as UTF-8")) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise JobFileError(Problem(what, str(path), fix="name a file you may read")) from None
    if not text.strip():
        raise JobFileError(Problem("the file is empty", str(path), fix="run accelerate config to make one"))
    return text


def read_settings(path: Path) -> Settings:
    """Read an Accelerate configuration.

    Raises:
        JobFileError: it is no such file, or of a kind that no job file can say.
    """
    data, places = _document(path)
    _check_kind(path, data, places)
    settings = Settings(str(path), of_file=data)
    for key, value in data.items():
        if key != SECTION:
            settings.values[key], settings.places[key] = value, places[key]
    section = data.get(SECTION) or {}
    if not isinstance(section, dict):
        fix = "write its keys below it"
        raise JobFileError(Problem("is no mapping", places[SECTION], repr(section), fix))
    for key, value in section.items():
        settings.values[key], settings.places[key] = value, places[f"{SECTION}.{key}"]
    return settings


def _document(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the document, and the place of each key of its first two levels."""
    from orchestrator.job.yaml_source import parse_yaml  # noqa: PLC0415 - YAML is slow to import

    text = read_text(path)
    if path.suffix == ".json":
        from orchestrator.configs.json_source import read_json_object  # noqa: PLC0415

        data: Any = read_json_object(path, str(path))
        return data, {name: f"{path}: {name}" for name in _names(data)}
    source = parse_yaml(text, str(path))
    if not isinstance(source.data, dict):
        what = "is no Accelerate configuration: expected a mapping of keys"
        raise JobFileError(Problem(what, str(path), fix="name the file that accelerate config wrote"))
    return source.data, {name: source.where(tuple(name.split("."))) for name in _names(source.data)}


def _names(data: Mapping[str, Any]) -> list[str]:
    section = data.get(SECTION)
    inner = section if isinstance(section, dict) else {}
    return [*(str(key) for key in data), *(f"{SECTION}.{key}" for key in inner)]


def _check_kind(path: Path, data: Mapping[str, Any], places: Mapping[str, str]) -> None:
    if "zero_optimization" in data or "train_micro_batch_size_per_gpu" in data:
        what = "is a configuration of DeepSpeed, not of Accelerate"
        fix = f"name it beside a source: --deepspeed-config {path}; or set deepspeed.config_file to it"
        raise JobFileError(Problem(what, str(path), fix=fix))
    if data.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE":
        what = "SageMaker starts its own machines, which no job file can say"
        value = str(data["compute_environment"])
        fix = "make a configuration for your own machines"
        raise JobFileError(Problem(what, places["compute_environment"], value, fix))
    if "distributed_type" not in data:
        what = "is no Accelerate configuration: it has no distributed_type"
        raise JobFileError(Problem(what, str(path), fix="name the file that accelerate config wrote"))
    check_type(_word(data["distributed_type"]), places["distributed_type"])
    if data.get("parallelism_config"):
        what = "parallelism_config changes what each rank works on, which no field of the job file says"
        raise JobFileError(Problem(what, places["parallelism_config"], fix="remove it"))


def check_type(kind: str, where: str) -> None:
    """Raise JobFileError for a distributed_type that no job file can say."""
    if kind == "DEEPSPEED" or kind in _PLAIN_TYPES:
        return
    reason = _REFUSED_TYPES.get(kind, "only DEEPSPEED, MULTI_GPU, MULTI_CPU and NO can be imported")
    raise JobFileError(Problem(f"distributed_type {kind} cannot be imported", where, fix=reason))


def _word(value: Any) -> str:
    """Return a word as Accelerate means it; YAML reads `NO` without quotes as false."""
    return "NO" if value is False else str(value)
