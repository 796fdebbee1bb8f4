"""The section of the job file that says who is told what of a run, and over which way."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from orchestrator.job.section import Section
from orchestrator.job.values import Line, Text, VariableName, Word
from orchestrator.notify.variables import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.job.yaml_source import KeyPath

Occasion = Literal["start", "restart", "hang", "straggler", "fault", "failure", "end"]
OCCASIONS: tuple[str, ...] = get_args(Occasion)
WAYS = ("command", "mail", "slack", "discord", "webhook")
_ADDRESS = re.compile(r"[^@\s,<>]+@[^@\s,<>]+\Z")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _address(value: str) -> str:
    if not _ADDRESS.match(value):
        raise ValueError("is no mail address such as name@example.org")
    return value


def _named(value: Any) -> Any:
    if "/" in str(value):
        raise ValueError(
            "is an address itself, which lets whoever reads it post; export it, and write the variable's name"
        )
    return value


def _url(value: str) -> str:
    bare = VARIABLE.sub("", value)
    if "$" in bare:
        raise ValueError("holds a $ that begins no variable; write ${NAME}")
    if not value.startswith(("http://", "https://", "${")):
        raise ValueError("is no address of the web: it begins with https://, http:// or ${NAME}")
    return value


_Named = Annotated[VariableName, BeforeValidator(_named)]
_WORD_OR_WORDS = WithJsonSchema(
    {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}}]}
)
_Occasions = Annotated[
    list[Occasion],
    BeforeValidator(_as_list),
    WithJsonSchema(
        {"anyOf": [{"enum": [*OCCASIONS]}, {"type": "array", "items": {"enum": [*OCCASIONS]}, "minItems": 1}]}
    ),
]
_Addresses = Annotated[
    list[Annotated[Word, AfterValidator(_address)]], BeforeValidator(_as_list), _WORD_OR_WORDS
]


class NotifySpec(Section):
    """One way to tell somebody of the run; values that are secret are named, not written."""

    on: _Occasions = Field(
        default=["hang", "end"],
        min_length=1,
        description="When: start (of the ranks), restart (another attempt), hang, straggler (a host that is "
        "slower than the others), fault (of a GPU, or memory that ran out), failure (every end but success "
        "and cancel), end (every end). Of a sweep start and end are told once, of all its points together.",
    )
    command: list[Text] | None = Field(
        default=None,
        min_length=1,
        description="A command that the supervisor runs, with the message as its input; {subject}, {text}, "
        "{run_id}, {event} and {state} are replaced.",
    )
    mail: _Addresses | None = Field(
        default=None, min_length=1, description="Mail addresses, by the machine's sendmail or by smtp."
    )
    slack: _Named | None = Field(
        default=None, description="Environment variable that holds the address of a Slack webhook."
    )
    discord: _Named | None = Field(
        default=None, description="Environment variable that holds the address of a Discord webhook."
    )
    webhook: Annotated[Line, AfterValidator(_url)] | None = Field(
        default=None,
        description="Any address that takes a POST of JSON; ${NAME} in it is an environment variable.",
    )
    smtp: Word | None = Field(
        default=None, description="Mail server, HOST or HOST:PORT (465: TLS from the start; else STARTTLS)."
    )
    sender: Annotated[Word, AfterValidator(_address)] | None = Field(
        default=None, description="Address that mails come from; default: user@host."
    )
    user: Word | None = Field(default=None, description="User to log in as at the mail server.")
    password: VariableName | None = Field(
        default=None, description="Environment variable that holds that user's password."
    )

    @property
    def way(self) -> str:
        """Return over which way it goes: one of WAYS."""
        return next(way for way in WAYS if getattr(self, way) is not None)

    @property
    def target(self) -> tuple[str, ...]:
        """Return the command's words, the addresses, or the one variable or URL."""
        value = getattr(self, self.way)
        return (value,) if isinstance(value, str) else tuple(value)

    @property
    def variables(self) -> tuple[str, ...]:
        """Return the environment variables that it needs."""
        return variables_of(self.way, self.target, self.password)


def variables_of(way: str, target: tuple[str, ...], password: str | None) -> tuple[str, ...]:
    """Return the environment variables that one way needs."""
    if way in ("slack", "discord"):
        return target
    named = VARIABLE.findall(target[0]) if way == "webhook" else []
    return (*named, *([password] if password else []))


def notify_contradictions(data: Any) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield key path, what and fix for every entry that names no way, or several."""
    entries = data.get("notify") if isinstance(data, dict) else None
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            yield from _of_entry(entry, ("notify", number))


def _of_entry(entry: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, str, str]]:
    ways = [way for way in WAYS if entry.get(way) is not None]
    if not ways:
        yield path, "says over no way to whom", f"add one of {', '.join(WAYS)}"
    for way in ways[1:]:
        yield (*path, way), f"{ways[0]} and {way} are both given", "make two entries of them"
    for key in ("smtp", "sender"):
        if entry.get(key) is not None and "mail" not in ways:
            yield (*path, key), f"{key} is for mail only", f"add mail, or remove {key}"
    for key, other in (("user", "password"), ("password", "user"), ("user", "smtp")):
        if entry.get(key) is not None and entry.get(other) is None:
            yield (*path, key), f"{key} needs {other} too", f"add {other}, or remove {key}"
