"""The section `cluster.slurm`: what sbatch is asked for."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from orchestrator.job import slurm_grammar as grammar
from orchestrator.job.section import Section
from orchestrator.job.values import Duration, Line, OptionName, OptionText, Word

_Count = Annotated[int, Field(ge=1)]


def _read_by(reader: Callable[[str], object]) -> AfterValidator:
    """Return a validator that keeps a text which `reader` can read."""

    def check(value: str) -> str:
        reader(value)
        return value

    return AfterValidator(check)


def _joined(value: Any) -> Any:
    """Turn a list of texts into one with commas."""
    is_words = isinstance(value, list) and value and all(isinstance(word, str) for word in value)
    return ",".join(value) if is_words else value


_Names = Annotated[Word, AfterValidator(grammar.check_names)]
_Time = Annotated[Line, _read_by(grammar.slurm_seconds)]
_Nodes = Annotated[Line, _read_by(grammar.node_names)]
_MailTypes = Annotated[
    Line,
    BeforeValidator(_joined),
    AfterValidator(grammar.mail_words),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class SlurmSpec(Section):
    """What sbatch is asked for; each key is the long option of sbatch with _ for -."""

    partition: _Names | None = Field(default=None, description="Partition, or several with commas.")
    account: Word | None = Field(default=None, description="Account to charge.")
    qos: Word | None = Field(default=None, description="Quality of service.")
    reservation: _Names | None = Field(default=None, description="Reservation to run in.")
    time: _Time | None = Field(
        default=None,
        description="Time limit of the allocation as sbatch has it: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, "
        "D-HH:MM:SS or UNLIMITED.",
    )
    gres: Annotated[Line, _read_by(grammar.gres_items)] | None = Field(
        default=None, description="Generic resources of each node, for example gpu:8 or gpu:h100:8."
    )
    gpus_per_node: Annotated[Line, _read_by(grammar.gpu_items)] | None = Field(
        default=None, description="GPUs of each node: 8 or h100:8."
    )
    cpus_per_task: _Count | None = Field(default=None, description="CPU cores of the one task on each node.")
    mem: Annotated[Line, AfterValidator(grammar.check_memory)] | None = Field(
        default=None, description="Memory of each node, for example 500G; 0 means all of it."
    )
    constraint: Line | None = Field(
        default=None, description="Features that the nodes must have, for example h100&ib."
    )
    exclusive: bool | Literal["user", "mcs", "topo"] = Field(
        default=False, description="Share the nodes with no other job, or only with those of the same user."
    )
    nodelist: _Nodes | None = Field(
        default=None,
        description="Hosts the allocation must contain, as Slurm writes them; cluster.include names all.",
    )
    exclude: _Nodes | None = Field(
        default=None,
        description="Hosts to leave out, in Slurm's notation; cluster.exclude does so for every backend.",
    )
    segment: _Count | None = Field(
        default=None, description="Nodes of each block of a block topology (Slurm 24.05 and later)."
    )
    switches: Annotated[Line, AfterValidator(grammar.check_switches)] | None = Field(
        default=None, description="Most leaf switches, with the longest wait for them: 2 or 2@1:00:00."
    )
    dependency: Annotated[Line, AfterValidator(grammar.check_dependency)] | None = Field(
        default=None, description="Jobs to wait for: afterok:12:13, several joined by , or ?, or singleton."
    )
    array: Annotated[Line, _read_by(grammar.array_indexes)] | None = Field(
        default=None, description="Indexes of a job array: 0-9, 0,3 or 0-20:5%4 for at most 4 at a time."
    )
    begin: Annotated[Line, AfterValidator(grammar.check_begin)] | None = Field(
        default=None, description="Earliest start: now+1hour, 16:00, tomorrow or 2030-01-31T12:00."
    )
    nice: Annotated[int, Field(ge=-2147483645, le=2147483645)] | None = Field(
        default=None, description="Added to the job's niceness: more means later."
    )
    licenses: Annotated[Line, AfterValidator(grammar.check_licenses)] | None = Field(
        default=None, description="Licences to hold, for example matlab:2,ansys."
    )
    comment: Line | None = Field(default=None, description="Comment that Slurm shows with the job.")
    mail_user: Word | None = Field(default=None, description="Who gets mail.")
    mail_type: _MailTypes | None = Field(
        default=None, description="What mail is sent for: END,FAIL or a list of such words."
    )
    requeue: bool = Field(
        default=True, description="Let Slurm queue the job again after preemption or the loss of a node."
    )
    signal_before: Duration = Field(
        default=120.0,
        ge=0,
        le=65535,
        description="Seconds before the time limit at which the run is told to save; 0 tells nothing.",
    )
    srun_args: list[Line] = Field(
        default_factory=list, description="More options of the srun that starts the hosts, one word each."
    )
    extra: dict[OptionName, OptionText] = Field(
        default_factory=dict,
        description="Any other sbatch option by its long name without dashes; an empty text for a flag.",
    )
