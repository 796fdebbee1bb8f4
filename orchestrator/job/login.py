"""`cluster.login`: the host from which a job is submitted when this machine is not part of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from orchestrator.job.section import Section
from orchestrator.job.values import (
    Duration,
    JobPath,
    Line,
    Text,
    Word,
)

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema


def _rule(value: str) -> str:
    sign, _, pattern = value.partition(" ")
    if sign not in ("+", "-") or not pattern.strip():
        raise ValueError("expected a rule as rsync's filters have them: '+ PATTERN' or '- PATTERN'")
    return value


def _section(value: Any) -> Any:
    return {"host": value} if isinstance(value, str) else value


PushRule = Annotated[Text, AfterValidator(_rule)]


class LoginSpec(Section):
    """The login host, how it is reached, and what is sent there. A text stands for `host` alone."""

    host: Word = Field(description="The login host: user@host:port, or a name of the ssh configuration.")
    folder: Line = Field(
        default="~/orchestrate",
        description="Folder on the cluster for what is sent; relative paths such as run_root start there.",
    )
    python: Line | None = Field(
        default=None, description="Python 3.11 or newer on the login host; found on its PATH when not given."
    )
    setup: list[Text] = Field(
        default_factory=list, description="Shell lines before each command there, such as module load slurm."
    )
    push: list[PushRule] | None = Field(
        default=None,
        description="What of the workdir is sent, as rsync's filter rules, of which the first match counts: "
        "'- data/', '+ *.py'; git-tracked files when not given.",
    )
    push_limit: Annotated[int, Field(ge=1)] = Field(
        default=1024, description="Refuse to send a workdir of more than this many MiB."
    )
    idle: Duration = Field(default=14400.0, gt=0, description="Close the kept connection after this long.")
    identity: JobPath | None = Field(default=None, description="Private key file on this machine.")
    jump: Word | None = Field(default=None, description="Jump hosts: user@host:port, several with commas.")
    config: JobPath | None = Field(
        default=None, description="ssh configuration to read in place of ~/.ssh/config."
    )
    known_hosts: JobPath | None = Field(default=None, description="File of the host keys to trust.")
    accept_new_host_keys: bool = Field(
        default=False, description="Trust and remember the key of a login host never seen before."
    )
    connect_timeout: Annotated[int, Field(ge=1)] = Field(
        default=10, description="Seconds to wait for a connection."
    )
    options: dict[Line, Text] = Field(default_factory=dict, description="Any other ssh option.")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema of the section, or of the text that stands for it."""
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(schema)]}


Login = Annotated[LoginSpec, BeforeValidator(_section)]
