"""The job file as models: every key, its type, its default and what it is for.

The models check one value at a time. What two keys say together is checked by `contradictions.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.hosts.hostline import MAX_SLOTS
from orchestrator.job.checkpoint_spec import KeepSpec  # noqa: TC001 - as below
from orchestrator.job.container_spec import ContainerSpec  # noqa: TC001 - as below
from orchestrator.job.deepspeed_spec import Count, DeepSpeedSpec  # noqa: TC001 - as below
from orchestrator.job.login import Login  # noqa: TC001 - as below
from orchestrator.job.model_spec import HardwareSpec, ModelSpec  # noqa: TC001 - as below
from orchestrator.job.monitor_spec import MonitorSpec
from orchestrator.job.notify_spec import NotifySpec  # noqa: TC001 - as below
from orchestrator.job.section import Section as _Section
from orchestrator.job.slurm_spec import SlurmSpec  # noqa: TC001 - as below
from orchestrator.job.values import (  # noqa: TC001 - pydantic reads the annotations when it builds the models
    Duration,
    JobName,
    JobPath,
    Line,
    PythonCommand,
    Script,
    Text,
    VariableName,
    Word,
)

Backend = Literal["local", "pdsh", "ssh", "slurm"]
Launcher = Literal["torchrun", "deepspeed", "accelerate"]
_MOST_HOSTS = 100_000  # ten times the largest cluster; what is meant by more is a slip
Port = Annotated[int, Field(ge=1, le=65535)]


class SshSpec(_Section):
    """How hosts are reached; what is not said here is left to the user's own ssh configuration."""

    user: Word | None = Field(default=None, description="User to log in as.")
    port: Port | None = Field(default=None, description="Port of sshd on every host.")
    identity: JobPath | None = Field(default=None, description="Private key file.")
    jump: Word | None = Field(default=None, description="Jump hosts: user@host:port, several with commas.")
    config: JobPath | None = Field(
        default=None, description="ssh configuration to read in place of ~/.ssh/config."
    )
    known_hosts: JobPath | None = Field(default=None, description="File of the host keys to trust.")
    accept_new_host_keys: bool = Field(
        default=False,
        description="Trust and remember the key of a host never seen before (a changed key stays an error).",
    )
    connect_timeout: Count = Field(default=10, description="Seconds to wait for a connection.")
    options: dict[Line, Text] = Field(
        default_factory=dict, description="Any other ssh option, for example ServerAliveInterval: 15."
    )
    fanout: Count | None = Field(default=None, description="Most connections being opened at the same time.")


class ClusterSpec(_Section):
    """Where the job runs: who gives the hosts, and which of them are used."""

    backend: Backend = Field(
        description="local: hosts simulated on this machine; pdsh and ssh: the hosts of the hostfile; "
        "slurm: the hosts Slurm gives."
    )
    hostfile: JobPath | None = Field(
        default=None, description="DeepSpeed hostfile: one host a line, with slots=N."
    )
    nodes: Count | None = Field(
        default=None, le=_MOST_HOSTS, description="Number of hosts: the first N of the pool."
    )
    slots: Count | None = Field(
        default=None, le=MAX_SLOTS, description="Ranks on each host: its first K slots."
    )
    include: Text | None = Field(
        default=None, description="Hosts and slots to use, as in deepspeed --include."
    )
    exclude: Text | None = Field(
        default=None, description="Hosts and slots to leave out, as in deepspeed --exclude."
    )
    ssh: SshSpec = Field(default_factory=SshSpec, description="How hosts are reached (pdsh and ssh).")
    shared_disk: bool | Literal["auto"] = Field(
        default="auto", description="Whether hosts see the run directory under the same path; auto finds out."
    )
    control_address: Word | None = Field(
        default=None,
        description="Address of the submit host that hosts connect back to; found out when not given.",
    )
    control_port: int = Field(
        default=0, ge=0, le=65535, description="Port of the submit host for that; 0 takes a free one."
    )
    login: Login | None = Field(
        default=None,
        description="Host from which the job is submitted, when this machine is not part of the cluster.",
    )
    slurm: SlurmSpec | None = Field(default=None, description="What sbatch is asked for (backend slurm).")


class TrainSpec(_Section):
    """What runs on the hosts: the training script and everything around it."""

    script: Script | None = Field(
        default=None, description="Training script; a relative path starts at workdir."
    )
    module: Word | None = Field(
        default=None, description="Training module, as in python -m; in place of script."
    )
    args: list[Text] = Field(
        default_factory=list,
        description="Arguments of the script. {ds_config}, {accelerate_config}, {run_dir}, {run_id}, "
        "{hostfile}, {checkpoint_dir} and {resume_tag} are replaced; numbers and words such as yes arrive as "
        "they are written.",
    )
    launcher: Launcher = Field(default="torchrun", description="What starts the ranks on each host.")
    python: PythonCommand | None = Field(
        default=None,
        description="Python on the hosts: a command or a path; default: the one that runs orchestrate.",
    )
    workdir: JobPath | None = Field(
        default=None, description="Folder the script runs in; default: the job file's folder."
    )
    setup: list[Text] = Field(
        default_factory=list, description="Shell lines before the launcher, such as module load or source."
    )
    env: dict[VariableName, Text] = Field(default_factory=dict, description="Environment variables to set.")
    env_file: JobPath | None = Field(default=None, description="File of KEY=VALUE lines to set as well.")
    secrets: list[VariableName] = Field(
        default_factory=list,
        description="Variables to pass on from the environment of submit; their values are not written out.",
    )
    snapshot: bool = Field(
        default=False,
        description="Run from a copy of the workdir's git-tracked files, made at submit and kept in the run.",
    )
    master_addr: Word | None = Field(
        default=None, description="Address of rank 0's host; found out when not given."
    )
    master_port: Port | None = Field(default=None, description="Port of rank 0; a free one when not given.")
    interface: Word | None = Field(
        default=None, description="Network interface for gloo and NCCL; found out when not given."
    )
    checkpoint_dir: JobPath | None = Field(
        default=None,
        description="Folder where the script saves checkpoints, which may begin with {run_dir}; "
        "{checkpoint_dir} in args, ORCHESTRATE_CHECKPOINT_DIR for the ranks.",
    )
    resume: Literal["restart", "always", "never"] = Field(
        default="restart",
        description="When ranks are told of the last complete tag in checkpoint_dir: after a restart of this "
        "run, in its first attempt too, or never.",
    )
    resume_args: list[Text] = Field(
        default_factory=list,
        description="Arguments added when there is such a tag, for example --resume and {resume_tag}; "
        "ORCHESTRATE_RESUME_TAG tells it too.",
    )
    keep_checkpoints: KeepSpec | None = Field(
        default=None,
        description="Which checkpoints stay when a new one has come into checkpoint_dir; default: all. Only "
        "what this run saved is ever deleted, or a run that it goes on from.",
    )

    def script_path(self, base_dir: Path) -> Path | None:
        """Return the absolute path of the script, or None for a module.

        Args:
            base_dir: folder of the job file, used where `workdir` is not given.
        """
        return None if self.script is None else self.workdir_path(base_dir) / self.script.expanduser()

    def workdir_path(self, base_dir: Path) -> Path:
        """Return the absolute path of the folder the script runs in."""
        return base_dir if self.workdir is None else base_dir / self.workdir.expanduser()


class JobSpec(_Section):
    """One training job."""

    name: JobName = Field(
        default="job", description="Name of the job: shown in lists and part of its run ids."
    )
    cluster: ClusterSpec = Field(description="Where the job runs.")
    train: TrainSpec = Field(description="What runs there.")
    deepspeed: DeepSpeedSpec | None = Field(default=None, description="DeepSpeed's configuration.")
    model: ModelSpec | None = Field(default=None, description="What is trained, for estimates and auto.")
    hardware: HardwareSpec | None = Field(default=None, description="What the hosts are made of, for plan.")
    container: ContainerSpec | None = Field(
        default=None, description="The container that the training runs in on every host."
    )
    monitor: MonitorSpec = Field(
        default_factory=MonitorSpec, description="How the run is watched: measurements, hangs, patterns."
    )
    notify: list[NotifySpec] = Field(
        default_factory=list, description="Whom the run tells of itself, on which occasions, over which way."
    )
    matrix: dict[Line, list[Text]] | None = Field(
        default=None,
        description="Parameters of a sweep, each with its values: a key path such as deepspeed.zero_stage, "
        "or a name that stands for {name} in args, resume_args, env and checkpoint_dir of train, where "
        "{array_index} is the number of the point. Every combination is a run.",
    )
    parallel: Count | None = Field(
        default=None,
        description="Most points of a sweep at a time; default: no limit on slurm, 1 elsewhere.",
    )
    run_root: JobPath = Field(
        default=Path("runs"), validate_default=True, description="Folder of the run directories."
    )
    time_limit: Duration | None = Field(
        default=None,
        gt=0,
        description="Longest run: seconds, 2h30m, HH:MM:SS or D-HH:MM:SS; no limit when not given.",
    )
    grace: Duration = Field(
        default=10.0, ge=0, description="Seconds between SIGTERM and SIGKILL when ranks are ended."
    )
    lease: Duration = Field(
        default=30.0,
        ge=2,
        description="Seconds that hosts go on with no contact to the supervisor before they end their ranks.",
    )
    start_timeout: Duration = Field(
        default=120.0, gt=0, description="Seconds in which every host must have started."
    )
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        default=3,
        description="How often a run is started again after preemption or a lost host (slurm). Restarts at "
        "the job's time limit do not count: each needs a new checkpoint. 0: never, not then either.",
    )
    templates: JobPath | None = Field(
        default=None, description="Folder of templates that replace those of the same name."
    )
