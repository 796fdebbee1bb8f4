"""The section of the job file that says which checkpoints stay."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.job.deepspeed_spec import Count  # noqa: TC001 - as below
from orchestrator.job.section import Section
from orchestrator.job.values import Word  # noqa: TC001 - pydantic reads the annotations


class KeepSpec(Section):
    """Which checkpoints stay; the newest complete one and the one that `latest` names always do."""

    last: Count = Field(description="How many of the last complete ones stay.")
    best: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many of the best ones by metric stay as well."
    )
    metric: Word | None = Field(
        default=None,
        description="Name of the metric, which the script writes into the tag's metrics.json or passes to "
        "DeepSpeed's save_checkpoint in client_state; Trainer's log is read too.",
    )
    best_is: Literal["lowest", "highest"] = Field(
        default="lowest", description="Whether the lowest value of the metric is the best."
    )
