"""The hub: a repository that is there before the training, and the adapters in it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import HfApi

if TYPE_CHECKING:
    from pathlib import Path


def open_repository(name: str) -> str:
    """Return the full name of a repository of ours, made where it is not there yet.

    To be called before the training, which is not to end with "not logged in".

    Raises:
        SystemExit: there is no login, no network, or the name is another's.
    """
    try:
        return HfApi().create_repo(name, exist_ok=True).repo_id
    except Exception as error:  # noqa: BLE001 - its own errors and its web library's have no base in common
        first = str(error).strip().splitlines()[0]
        raise SystemExit(f"--push_to_hub {name}: {first}; `hf auth login`, and look at the name") from None


def upload(folder: Path, repository: str) -> str:
    """Send all files of a folder to a repository; return the address of what came of it.

    `push_to_hub` of the model would save it once more, on this rank alone: its weights are cut up.
    """
    return str(HfApi().upload_folder(repo_id=repository, folder_path=folder))
