"""The job file: `load_job` reads one into a `JobSpec`, or says all that is wrong with it."""

from orchestrator.job.container_spec import ContainerSpec
from orchestrator.job.deepspeed_spec import DeepSpeedSpec
from orchestrator.job.load import LoadedJob, job_schema, load_job
from orchestrator.job.model import (
    Backend,
    ClusterSpec,
    JobSpec,
    Launcher,
    SshSpec,
    TrainSpec,
)
from orchestrator.job.model_spec import HardwareSpec, ModelSpec
from orchestrator.job.slurm_spec import SlurmSpec

__all__ = [
    "Backend",
    "ClusterSpec",
    "ContainerSpec",
    "DeepSpeedSpec",
    "HardwareSpec",
    "JobSpec",
    "Launcher",
    "LoadedJob",
    "ModelSpec",
    "SlurmSpec",
    "SshSpec",
    "TrainSpec",
    "job_schema",
    "load_job",
]
