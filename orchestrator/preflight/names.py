"""Which models and data sets a job names, so that the hosts can be asked whether they get at them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.job import JobSpec

Kind = Literal["model", "config", "dataset", "path"]
_MODEL = ("model_name_or_path", "model_name", "model_id", "model_path", "pretrained_model_name_or_path")
_CONFIG = ("tokenizer_name", "tokenizer_name_or_path", "config_name", "tokenizer")
_DATASET = ("dataset_name", "dataset_name_or_path", "dataset_id")
_PATH = ("train_file", "validation_file", "test_file", "data_dir", "data_path", "dataset_path", "train_data")
_EITHER: dict[str, Kind] = {"model": "model", "dataset": "dataset"}  # many scripts mean a kind of model by it
_SURE = ("model_name_or_path", "pretrained_model_name_or_path")  # of them, names without a / count too
_REVISIONS = ("model_revision", "revision")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?\Z")


@dataclass(frozen=True)
class Asset:
    """Something that the ranks will want to read.

    Attributes:
        name: on the hub (org/name), or a path.
        kind: model, with weights; config: a model's configuration or tokenizer; dataset; path: only a path.
        where: key path in the job file.
        revision: branch, tag or commit on the hub.
        sure: whether it can be nothing else; `--tokenizer bpe` may be a word of the script's own.
    """

    name: str
    kind: Kind
    where: str
    revision: str = "main"
    sure: bool = True


def names_in_job(spec: JobSpec) -> tuple[Asset, ...]:
    """Return what the job names in `model.config` and in the arguments of its script, each once."""
    found: dict[str, Asset] = {}
    for asset in (*_in_args(spec.train.args), *_in_model(spec)):
        found.setdefault(asset.name, asset)
    return tuple(found.values())


def _in_model(spec: JobSpec) -> Iterator[Asset]:
    """Weights are not asked for here: a script that trains from scratch reads none."""
    name = spec.model.config if spec.model else None
    if name and _HUB_NAME.match(name) and not name.endswith(".json"):
        yield Asset(name, "config", "model.config")


def _in_args(args: Sequence[str]) -> Iterator[Asset]:
    revision = next((value for _, flag, value in _flags(args) if flag in _REVISIONS), "main")
    for index, flag, value in _flags(args):
        kind = _kind(flag, value)
        if kind is not None:
            at = revision if kind in ("model", "config") else "main"
            sure = flag in (*_SURE, *_PATH) or "/" in value
            yield Asset(value, kind, f"train.args[{index}]", at, sure)


def _flags(args: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield (index of the value, flag without dashes, value) of each `--flag value` and `--flag=value`."""
    for index, word in enumerate(args):
        flag, is_joined, value = word.partition("=")
        if not flag.startswith("-"):
            continue
        if is_joined:
            yield index, _plain(flag), value
        elif index + 1 < len(args) and not args[index + 1].startswith("-"):
            yield index + 1, _plain(flag), args[index + 1]


def _plain(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _kind(flag: str, value: str) -> Kind | None:
    """Return what a flag's value is, or None for what is no model or data set, or known in the run only."""
    known: dict[str, Kind] = {
        **dict.fromkeys(_MODEL, "model"),
        **dict.fromkeys(_CONFIG, "config"),
        **dict.fromkeys(_DATASET, "dataset"),
        **dict.fromkeys(_PATH, "path"),
    }
    if not value or "{" in value or "://" in value:
        return None
    kind = known.get(flag)
    if kind is None and flag in _EITHER and "/" in value:
        kind = _EITHER[flag]
    if kind is None:
        return None
    is_path = value.startswith(("/", "./", "../", "~")) or not _HUB_NAME.match(value)
    return "path" if is_path and kind != "model" else kind
