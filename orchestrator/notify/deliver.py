"""Deliver one message over one way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.notify.errors import DeliveryError
from orchestrator.notify.variables import filled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.notify.message import Message
    from orchestrator.plan import NotifyPlan

SECONDS = 10.0  # for each answer of the network
COMMAND_SECONDS = 60.0


def deliver(
    target: NotifyPlan, message: Message, values: Mapping[str, str], folder: Path, seconds: float = SECONDS
) -> None:
    """Deliver a message, once.

    Args:
        target: over which way, to whom.
        message: what.
        values: of the environment variables that the target names.
        folder: where a command runs, the job file's own.
        seconds: most to wait for each answer of the network.

    Raises:
        DeliveryError: it did not arrive; the words hold no secret.
    """
    absent = [name for name in target.variables if not values.get(name)]
    if absent:
        raise DeliveryError(f"{absent[0]} is not set where this runs", again=False)
    try:
        _deliver(target, message, values, folder, seconds)
    except DeliveryError as error:
        raise DeliveryError(_without(str(error), target, values), again=error.again) from None


def _deliver(
    target: NotifyPlan, message: Message, values: Mapping[str, str], folder: Path, seconds: float
) -> None:
    if target.way == "command":
        from orchestrator.notify.running import run_command  # noqa: PLC0415 - each way loads its own

        run_command(target.target, message, folder if folder.is_dir() else Path("/"), COMMAND_SECONDS)
    elif target.way == "mail":
        from orchestrator.notify.mailing import send_mail  # noqa: PLC0415

        password = values.get(target.options.get("password", ""))
        send_mail(message, target.target, target.options, password, seconds)
    else:
        from orchestrator.notify import bodies  # noqa: PLC0415
        from orchestrator.notify.post import post  # noqa: PLC0415

        make = {"slack": bodies.slack, "discord": bodies.discord, "webhook": bodies.webhook}[target.way]
        post(_url(target, values), make(message), seconds)


def _url(target: NotifyPlan, values: Mapping[str, str]) -> str:
    word = target.target[0]
    return (filled(word, values) if target.way == "webhook" else values[word]).strip()


def _without(words: str, target: NotifyPlan, values: Mapping[str, str]) -> str:
    """Return words without values of secrets: a server may answer with the address that it was asked at."""
    for name in target.variables:
        words = words.replace(values[name].strip(), f"${{{name}}}")
    return words
