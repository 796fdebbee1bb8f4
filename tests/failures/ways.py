"""The failures that are captured: how each is brought about, and what is expected of its diagnosis."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.contract.product import Run, take_hosts
from tests.testbed import processes

if TYPE_CHECKING:
    from collections.abc import Callable


class Way(NamedTuple):
    """One failure: what is expected of it, and how the job differs.

    Attributes:
        rank: who fails first; None for a host, or for all at once; -1 for whoever wrote its time first.
        act: done to the run once its ranks print.
    """

    category: str
    rank: int | None = 2
    way: str = ""
    job: dict[str, Any] = {}  # noqa: RUF012 - never changed
    act: Callable[[Run], None] | None = None
    host: str | None = None
    state: str = "FAILED"
    backend: str = "local"  # or `gpus`: the same on a machine that has four


def cancelled(run: Run) -> None:
    run.site.orchestrate("cancel", run.run_id, "--run-root", str(run.path.parent))


def kill(what: str) -> Callable[[Run], None]:
    def act(run: Run) -> None:
        (ready,) = [event for event in run.events("host_ready") if event["host"] == run.site.hosts[1]]
        os.kill(ready[what], signal.SIGKILL)

    return act


def kill_launcher(run: Run) -> None:
    (start,) = [event for event in run.events("rank_start") if event["rank"] == 3]
    shim = processes.read(processes.read(start["pid"]).parent)
    os.kill(shim.parent, signal.SIGKILL)


def pull_cable(run: Run) -> None:
    run.site.bed.nodes[1].pull_cable()


def preempt(run: Run) -> None:
    take_hosts(run.site)


def scancel(run: Run) -> None:
    run.site.bed.slurm.run("scancel", json.loads((run.path / "slurm.json").read_text())["job_id"])


DS = {"train": {"launcher": "deepspeed"}}
ACC = {"train": {"launcher": "accelerate"}, "deepspeed": {"zero_stage": 2, "micro_batch_per_gpu": 1}}
NO_MODULE = {"train": {"script": None, "module": "no_such_package.train"}}
NO_KEY = {"cluster": {"ssh": {"user": "stranger"}}}
NO_NAME = {"cluster": {"hostfile": "{folder}/unknown-hosts"}}
GPUS = {"train": {"env": {"DS_ACCELERATOR": None}}}
NO_INTERFACE = {"train": {"env": {"DS_ACCELERATOR": None, "NCCL_SOCKET_IFNAME": "=eth9"}}}
HANGS = {"monitor": {"sample_interval": 1, "hang": {"after": 6, "stop_after": 8}}}
CANCELS = {"cluster": {"slurm": {"partition": "cancelled"}}}
MINUTE = {"cluster": {"slurm": {"time": "1", "signal_before": 20}}}
WAYS = {
    "import": Way("import_error"),
    "import-name": Way("import_error", way="import_name"),
    "module": Way("import_error", -1, "value", NO_MODULE),
    "arguments": Way("bad_arguments", -1),
    "arguments-deepspeed": Way("bad_arguments", -1, "arguments", DS),
    "assertion": Way("assertion"),
    "assertion-accelerate": Way("assertion", way="assertion", job=ACC),
    "value": Way("script_error"),
    "value-deepspeed": Way("script_error", way="value", job=DS),
    "key": Way("script_error"),
    "nan": Way("nan_loss"),
    "silent": Way("exit_code"),
    "disk": Way("disk_full"),
    "file-size": Way("disk_full", way="file_size"),
    "permission": Way("permission"),
    "read-only": Way("permission", way="read_only"),
    "missing": Way("missing_file"),
    "port": Way("port_in_use"),
    "refused": Way("connection_refused"),
    "files": Way("script_error"),
    "memory": Way("host_oom"),
    "cgroup": Way("host_oom"),
    "kill": Way("killed"),
    "kill-deepspeed": Way("killed", way="kill", job=DS),
    "term": Way("killed"),
    "segv": Way("killed"),
    "segv-silent": Way("killed", way="segv_silent"),
    "abort": Way("killed"),
    "thread": Way("script_error"),
    "chain": Way("missing_file"),
    "caught": Way("script_error"),
    "symbol": Way("version_mismatch"),
    "exception-at-exit": Way("script_error", way="exception_at_exit"),
    "bar": Way("script_error"),
    "setup": Way("host_failed", None, "value", {"train": {"setup": ["true", "ls /gone"]}}, host="host-0"),
    "no-python": Way("host_failed", None, "value", {"train": {"python": "python9"}}, host="host-0"),
    "no-torch": Way("import_error", None, "value", {"train": {"python": "/usr/bin/python3"}}, host="host-0"),
    "cancelled": Way("cancelled", None, "sleeps", act=cancelled, state="CANCELLED"),
    "time-limit": Way("time_limit", None, "kill_late", {"time_limit": 6}, state="TIMEOUT"),
    "agent-killed": Way("host_lost", None, "peer_wait", act=kill("pid"), host="host-1"),
    "keeper-killed": Way("host_lost", None, "peer_wait", act=kill("keeper"), host="host-1"),
    "launcher-killed": Way("launcher", None, "peer_wait", act=kill_launcher, host="host-1"),
    "torch-memory": Way("host_oom", way="torch_memory"),
    "torch-save": Way("disk_full", way="torch_save"),
    "shape": Way("script_error"),
    "index": Way("script_error"),
    "state-dict": Way("checkpoint", way="state_dict"),
    "corrupt": Way("checkpoint"),
    "worker": Way("host_oom"),
    "no-cuda": Way("cuda_error", way="no_cuda"),
    "hub": Way("model_hub"),
    "peer-exit": Way("exit_code", way="peer_exit"),
    "peer-exit-deepspeed": Way("exit_code", way="peer_exit", job=DS),
    "peer-error": Way("script_error", way="peer_error"),
    "leaves": Way("exit_code"),
    "sleeps": Way("collective_timeout"),
    "barrier": Way("collective_timeout"),
    "store": Way("connection_refused", -1),
    "batch": Way("deepspeed_config", -1),
    "optimizer": Way("deepspeed_config", -1),
    "typo": Way("deepspeed_config", -1),
    "ds-checkpoint": Way("checkpoint", -1, "ds_checkpoint"),
    "cpu-adam": Way("build_failed", -1, "cpu_adam"),
    "fp16-on-cpu": Way("deepspeed_config", -1, "fp16"),
    "anomaly": Way("nan_loss"),
    "interface": Way("wrong_interface", -1, "alone", {"train": {"env": {"GLOO_SOCKET_IFNAME": "eth9"}}}),
    "host-lost": Way("host_lost", None, "peer_wait", {"lease": 6}, pull_cable, "node2", backend="pdsh"),
    "no-login": Way("ssh_lost", None, "value", NO_KEY, host="node1", backend="pdsh"),
    "no-name": Way("ssh_lost", None, "value", NO_NAME, host="node9", backend="pdsh"),
    "peer-error-hosts": Way("script_error", way="peer_error", backend="pdsh"),
    "peer-exit-hosts": Way("exit_code", way="peer_exit", backend="pdsh"),
    "kill-hosts": Way("killed", way="kill", backend="pdsh"),
    "batch-hosts": Way("deepspeed_config", -1, "batch", backend="pdsh"),
    "peer-error-slurm": Way("script_error", way="peer_error", backend="slurm"),
    "segv-slurm": Way("killed", way="segv", backend="slurm"),
    "port-slurm": Way("port_in_use", way="port", backend="slurm"),
    "preempted": Way("preempted", None, "peer_wait", CANCELS, preempt, None, "PREEMPTED", "slurm"),
    "scancel": Way("cancelled", None, "peer_wait", {}, scancel, None, "CANCELLED", "slurm"),
    "slurm-time": Way("time_limit", None, "peer_wait", MINUTE, None, None, "TIMEOUT", "slurm"),
    "hang": Way("hang", way="sleeps_long", job={"monitor": {"hang": {"after": 5, "stop_after": 3}}}),
    "gpu-oom": Way("cuda_oom", way="cuda_oom", job=GPUS, backend="gpus"),
    "gpu-oom-states": Way("cuda_oom", -1, "cuda_oom_states", GPUS, backend="gpus"),
    "gpu-assert": Way("cuda_error", way="device_assert", job=GPUS, backend="gpus"),
    "gpu-two-devices": Way("script_error", way="two_devices", job=GPUS, backend="gpus"),
    "gpu-ordinal": Way("cuda_error", -1, "ordinal", GPUS, backend="gpus"),
    "gpu-illegal-access": Way("cuda_error", way="illegal_access", job=GPUS, backend="gpus"),
    "gpu-overflow": Way("nan_loss", None, "overflow", GPUS, backend="gpus"),
    "gpu-hang": Way("hang", job=GPUS | HANGS, backend="gpus"),
    "nccl-error": Way("script_error", job=GPUS, backend="gpus"),
    "nccl-exit": Way("exit_code", job=GPUS, backend="gpus"),
    "nccl-kill": Way("killed", job=GPUS, backend="gpus"),
    "nccl-leaves": Way("exit_code", job=GPUS, backend="gpus"),
    "nccl-timeout": Way("collective_timeout", job=GPUS, backend="gpus"),
    "nccl-differ": Way("ranks_differ", job=GPUS, backend="gpus"),
    "nccl-detail": Way("ranks_differ", job=GPUS, backend="gpus"),
    "nccl-interface": Way("wrong_interface", -1, job=NO_INTERFACE, backend="gpus"),
    "nccl-same-gpu": Way("nccl_error", None, "same_gpu", GPUS, backend="gpus"),
    "nccl-of-cpu": Way("script_error", None, job=GPUS, backend="gpus"),
}
