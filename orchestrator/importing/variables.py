"""Environment variables of a command: those that the job passes on, and those that hold secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.importing.options import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.importing.draft import Draft

_SECRET = re.compile(
    r"(_|\b)(TOKEN|KEY|PASSWORD|PASSWD|SECRET|CREDENTIALS?)\Z|PASSWORD|SECRET", re.IGNORECASE
)
_SECRET_OPTION = re.compile(
    r"\A(TOKEN|PASSWORD)\Z|(HUB|HF|AUTH|ACCESS|API|WANDB|GITHUB)_TOKEN\Z|(API|ACCESS|SECRET|PRIVATE)_KEY\Z|PASSWORD"
)  # stricter: --eos_token and --text_key hold no secret
OF_THE_LAUNCHER = names(
    "MASTER_ADDR MASTER_PORT RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE NODE_RANK GROUP_RANK "
    "LOCAL_SIZE CROSS_RANK CROSS_SIZE NNODES_RANK MACHINE_RANK"
)
"""Variables that the launcher or the agent sets."""


def masked(words: Sequence[str]) -> list[str]:
    """Return a command line without the values of secrets, to be shown or written."""
    found, hide = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = is_secret_option(name) if name.startswith("-") else is_secret(name)
        found.append("…" if hide else f"{name}=…" if equals and secret else word)
        hide = secret and not equals and word.startswith("-")
    return found


def is_secret(name: str) -> bool:
    """Return whether the name of a variable is that of a secret."""
    return _SECRET.search(name) is not None


def is_secret_option(word: str) -> bool:
    """Return whether an option of a script takes a secret."""
    name = word.lstrip("-").upper().replace("-", "_")
    return word.startswith("-") and _SECRET_OPTION.search(name) is not None


def warn_of_secrets(draft: Draft) -> None:
    """Name the arguments of the script that hold a secret: they are written out."""
    for word in draft.get("train.args") or []:
        name = word.partition("=")[0]
        if is_secret_option(name):
            what = "its value stands in the job file now: hand it over in the environment, by train.secrets"
            draft.change(f"argument {name}", what)


def set_variable(draft: Draft, name: str, value: str, source: str) -> None:
    """Write a variable: into train.env, or train.secrets without its value."""
    if name in OF_THE_LAUNCHER:
        draft.drop(f"{source}: {name}", "is set for each rank by the launcher")
    elif is_secret(name):
        secrets = draft.get("train.secrets") or []
        if name not in secrets:
            draft.put("train.secrets", [*secrets, name])
        what = f"its value is not written out: export {name} before submit, which passes it on"
        draft.change(f"{source}: {name}", f"train.secrets: {name}, {what}")
    else:
        draft.carry(source, f"train.env.{name}", value)
