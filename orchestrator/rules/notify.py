"""Rules about who is told of a run: addresses that are secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.errors import Problem
from orchestrator.notify.variables import VARIABLE
from orchestrator.rules.facts import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts

_TOKEN = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_.~=&-]{16,}")
_OWNED = ("hooks.slack.com", "discord.com", "discordapp.com", "ntfy.sh")


@rule("webhook-secret", "warning")
def webhook_secret(facts: Facts) -> Iterator[Problem]:
    """An address that lets whoever knows it post is written down in job.yaml and plan.json.

    Source: Slack's and Discord's documentation of incoming webhooks: the address is all that is asked for;
    `notify/store.py` keeps values of variables in a file of mode 600 for as long as the run lives.
    """
    for number, one in enumerate(facts.spec.notify):
        if one.webhook is not None and _is_secret(VARIABLE.sub("", one.webhook)):
            what = "holds a secret, which all who can read the run directory may use"
            fix = "export HOOK=… before submit, and write webhook: ${HOOK}"
            yield Problem(what, f"notify.{number}.webhook", fix=fix)


def _is_secret(url: str) -> bool:
    """Tell whether a part of an address looks like a token, or its host gives such addresses out."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as a part of an address in brackets that was a variable
        return False
    owned = (parts.hostname or "").endswith(_OWNED) and len(parts.path) > 1
    said = [*parts.path.split("/"), parts.query]
    return owned or parts.password is not None or any(_TOKEN.fullmatch(part) for part in said)
