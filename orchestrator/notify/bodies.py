"""What a message looks like on each way that takes JSON or a mail."""

from __future__ import annotations

from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.notify.message import Message

_DISCORD_MOST = 2000  # characters of `content`: Discord's API refuses more with 400
_SLACK_MOST = 39_000  # characters of `text`: Slack cuts off at 40,000


def slack(message: Message) -> dict[str, Any]:
    """Return what Slack's incoming webhooks take; Mattermost's and Rocket.Chat's take it too.

    The three characters that Slack's own markup is made of are escaped, as its documentation asks: a script's
    last words must not become `<!everyone>`.
    """
    text = f"*{_slack_text(message.subject)}*\n{_slack_text(message.text)}"
    return {"text": text[:_SLACK_MOST]}


def _slack_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def discord(message: Message) -> dict[str, Any]:
    """Return what Discord's webhooks take; nobody is pinged by what a script has printed."""
    room = _DISCORD_MOST - len(message.subject) - 12
    text = message.text.replace("```", "'''")[:room]
    content = f"**{message.subject}**\n```\n{text}\n```"
    return {"content": content, "allowed_mentions": {"parse": []}}


def webhook(message: Message) -> dict[str, Any]:
    """Return all that is known, and the text, for any other program."""
    return {**message.values, "subject": message.subject, "text": f"{message.subject}\n{message.text}"}


def mail(message: Message, sender: str, to: Sequence[str]) -> EmailMessage:
    """Return a mail; later ones of a run follow the first one in a thread of mails."""
    made = EmailMessage()
    run = message.values["run_id"]
    made["Subject"] = f"[orchestrate] {message.subject}"
    made["From"] = sender
    made["To"] = ", ".join(to)
    made["Date"] = formatdate()
    made["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or None)
    made["References"] = f"<{run}@orchestrate.invalid>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    made.set_content(message.text)
    return made
