"""The width of a model, which sizes that are `auto` follow; read without torch or transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.job.model_spec import ModelSpec

_NAMES = ("hidden_size", "d_model", "n_embd", "dim", "hidden_dim")
"""What configurations call it; transformers maps all of them to `hidden_size` (`attribute_map`)."""


def hidden_size(model: ModelSpec | None, base_dir: Path, environ: Mapping[str, str]) -> int | None:
    """Return the hidden size of the job's model, or None where it is not known.

    It is `model.hidden_size`, or it stands in the configuration that `model.config` names, if that is on this
    disk: a file, a folder, or in the cache of the Hugging Face hub.

    Args:
        model: section `model` of the job file.
        base_dir: folder where a relative path starts.
        environ: says where the cache is (`HF_HUB_CACHE`, `HF_HOME`).
    """
    if model is None:
        return None
    if model.hidden_size is not None:
        return model.hidden_size
    if model.config is None:
        return None
    for path in _places(model.config, base_dir, environ):
        try:
            found = _in_config(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
        if found is not None:
            return found
    return None


def _places(name: str, base_dir: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    path = base_dir / Path(name).expanduser()
    yield path
    yield path / "config.json"
    home = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    hub = Path(environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = hub / f"models--{name.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return
    yield repository / "snapshots" / commit / "config.json"


def _in_config(config: Any) -> int | None:
    """Return the size as Accelerate 1.15 and transformers take it: one number, or the largest of several."""
    if not isinstance(config, dict):
        return None
    for name in _NAMES:
        if isinstance(config.get(name), int):
            return _positive(config[name])
    sizes = config.get("hidden_sizes")
    if isinstance(sizes, list) and sizes and all(isinstance(size, int) for size in sizes):
        return _positive(max(sizes))
    return _in_config(config.get("text_config"))


def _positive(value: int) -> int | None:
    return value if value > 0 else None
