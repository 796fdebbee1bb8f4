"""What is in the hub's cache on this host's disk, as huggingface_hub lays it out; it is not imported."""

from __future__ import annotations

import json
import os
from typing import Dict, List, Tuple

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5")
_TRUE = ("1", "ON", "YES", "TRUE")


def is_offline(environ: Dict[str, str]) -> bool:
    """Tell whether the hub's client is told not to use the network (huggingface_hub/constants.py)."""
    return (environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or "").upper() in _TRUE


def caches(environ: Dict[str, str]) -> List[str]:
    """Return the folders where the hub's files may be, the usual one first.

    TRANSFORMERS_CACHE counts for transformers before version 5 only.
    """
    home = _home(environ)
    own = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    more = [environ[name] for name in ("TRANSFORMERS_CACHE",) if environ.get(name)]
    return [os.path.expandvars(os.path.expanduser(path)) for path in [own, *more]]


def _home(environ: Dict[str, str]) -> str:
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return os.path.expandvars(os.path.expanduser(home))


def token(environ: Dict[str, str]) -> str:
    """Return the token that the hub's client would show; "" for none. It goes nowhere but to the hub."""
    given = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
    if given:
        return given.strip()
    path = environ.get("HF_TOKEN_PATH") or os.path.join(_home(environ), "token")
    try:
        with open(os.path.expanduser(path), encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def snapshot(cache: str, kind: str, name: str, revision: str) -> str:
    """Return the folder of a revision in the cache; "" where it is not there.

    The cache has models--ORG--NAME/refs/REVISION, a file with the commit, and snapshots/COMMIT.
    """
    top = os.path.join(
        cache, ("datasets" if kind == "dataset" else "models") + "--" + name.replace("/", "--")
    )
    commit = revision
    try:
        with open(os.path.join(top, "refs", revision), encoding="ascii") as file:
            commit = file.read().strip()
    except (OSError, ValueError):
        pass  # the revision may be a commit itself
    folder = os.path.join(top, "snapshots", commit)
    return folder if os.path.isdir(folder) else ""


def prepared_dataset(environ: Dict[str, str], name: str) -> str:
    """Return the folder of a data set that the package datasets has prepared; "" where there is none."""
    root = environ.get("HF_DATASETS_CACHE") or os.path.join(_home(environ), "datasets")
    folder = os.path.join(os.path.expanduser(root), name.replace("/", "___"))
    return folder if os.path.isdir(folder) else ""


def absent(folder: str, kind: str) -> List[str]:
    """Return which files of a model or data set are not in its folder; a dangling link is no file."""
    if kind == "dataset":
        files = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
        return [] if any(map(os.path.isfile, files)) else ["all files"]
    lacks = [] if _is_file(folder, "config.json") else ["config.json"]
    if kind == "config":
        return [] if _any_of(folder, ("config.json", "tokenizer_config.json", "tokenizer.json")) else lacks
    return lacks + _absent_weights(folder)


def _absent_weights(folder: str) -> List[str]:
    """Return the shards that an index names and the folder lacks.

    Of two indexes one that is complete is enough; without any, one file of weights is.
    """
    found = []
    for index in filter(lambda name: _is_file(folder, name), _INDEXES):
        try:
            with open(os.path.join(folder, index), encoding="utf-8") as file:
                shards = sorted(set(json.load(file)["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError):
            found.append([index])
            continue
        found.append([shard for shard in shards if not _is_file(folder, shard)])
    if found:
        return min(found, key=len)
    names = os.listdir(folder)
    there = [name for name in names if name.endswith(_WEIGHTS) and _is_file(folder, name)]
    return [] if there else ["weights"]


def _any_of(folder: str, names: Tuple[str, ...]) -> bool:
    return any(_is_file(folder, name) for name in names)


def _is_file(folder: str, name: str) -> bool:
    return os.path.isfile(os.path.join(folder, name))
