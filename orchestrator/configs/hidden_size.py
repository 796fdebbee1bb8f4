"""The width of a model, which sizes that are `auto` follow; read without torch or transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.job.model_spec import ModelSpec

_OTHER_NAMES = ("d_model", "n_embd", "dim", "emb_dim", "embed_dim", "hidden_dim")
"""What some configurations call it, and transformers maps to `hidden_size` (`attribute_map`)."""


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
    sizes = config.get("hidden_sizes")
    several = [size for size in sizes if _is_size(size)] if isinstance(sizes, list) else []
    found = [config.get("hidden_size"), max(several, default=None), *map(config.get, _OTHER_NAMES)]
    return next((size for size in found if _is_size(size)), None) or _in_config(config.get("text_config"))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
