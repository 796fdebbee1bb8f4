"""The job file: `load_job` reads one into a `JobSpec`, or says all that is wrong with it."""

from orchestrator.job.load import LoadedJob, job_schema, load_job
from orchestrator.job.model import (
    Backend,
    ClusterSpec,
    DeepSpeedSpec,
    JobSpec,
    Launcher,
    SlurmSpec,
    SshSpec,
    TrainSpec,
)

__all__ = [
    "Backend",
    "ClusterSpec",
    "DeepSpeedSpec",
    "JobSpec",
    "Launcher",
    "LoadedJob",
    "SlurmSpec",
    "SshSpec",
    "TrainSpec",
    "job_schema",
    "load_job",
]
