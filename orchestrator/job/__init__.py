"""The job file: `load_job` reads one into a `JobSpec`, or says all that is wrong with it."""

from orchestrator.job.container_spec import ContainerSpec
from orchestrator.job.load import LoadedJob, job_schema, load_job
from orchestrator.job.model import (
    Backend,
    ClusterSpec,
    DeepSpeedSpec,
    JobSpec,
    Launcher,
    SshSpec,
    TrainSpec,
)
from orchestrator.job.slurm_spec import SlurmSpec

__all__ = [
    "Backend",
    "ClusterSpec",
    "ContainerSpec",
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
