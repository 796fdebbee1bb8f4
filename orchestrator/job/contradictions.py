"""What the keys of a job file say together: contradictions and keys that need each other.

The checks read the raw data, so that they can be told in one go with the wrong values of single keys; data of
the wrong type is passed over here, because the models report it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from orchestrator.job.container_contradictions import container_contradictions
from orchestrator.job.model import Backend
from orchestrator.job.notify_spec import notify_contradictions
from orchestrator.job.slurm_contradictions import slurm_contradictions
from orchestrator.job.slurm_spec import SlurmSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.job.slurm_contradictions import Found
    from orchestrator.job.yaml_source import KeyPath

_SET_PER_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Contradiction:
    """Something that the keys say together and that cannot be: at which key, what, and the fix."""

    path: KeyPath
    what: str
    fix: str


def contradictions(data: Any) -> Iterator[Contradiction]:
    """Yield every contradiction of a job file's data."""
    cluster, train = _section(data, "cluster"), _section(data, "train")
    if cluster is not None:
        yield from _hosts(cluster)
        yield from (Contradiction(*found) for found in _slurm(data, cluster))
    yield from (Contradiction(*found) for found in notify_contradictions(data))
    if train is not None:
        yield from _elsewhere(cluster or {}, train)
        yield from _program(train)
        yield from _environment(train)
        yield from _retention(train)


def _retention(train: dict[str, Any]) -> Iterator[Contradiction]:
    keep = _section(train, "keep_checkpoints")
    if keep is None:
        return
    path = ("train", "keep_checkpoints")
    if train.get("checkpoint_dir") is None:
        what = "keep_checkpoints needs train.checkpoint_dir, the folder where the script saves"
        yield Contradiction(path, what, "add train.checkpoint_dir")
    if keep.get("best") and keep.get("metric") is None:
        what = "best needs metric: the name of what the best ones are best by"
        yield Contradiction((*path, "best"), what, "add metric: loss, or what the script calls it")
    if keep.get("metric") is not None and not keep.get("best"):
        what = "metric decides on nothing without best, the number of the best ones to keep"
        yield Contradiction((*path, "metric"), what, "add best: 1, or remove metric")


def _section(data: Any, key: str) -> dict[str, Any] | None:
    section = data.get(key) if isinstance(data, dict) else None
    return section if isinstance(section, dict) else None


def _hosts(cluster: dict[str, Any]) -> Iterator[Contradiction]:
    backend = cluster.get("backend")
    if backend in ("pdsh", "ssh") and "hostfile" not in cluster:
        what = f"backend {backend} needs cluster.hostfile"
        yield Contradiction(("cluster", "backend"), what, "add cluster.hostfile, or use backend: local")
    if backend == "slurm" and "hostfile" in cluster:
        what = "backend slurm gets its hosts from Slurm, not from a hostfile"
        yield Contradiction(("cluster", "hostfile"), what, "remove cluster.hostfile and say cluster.nodes")
    if cluster.get("include") and cluster.get("exclude"):
        what = "include and exclude cannot both be given"
        yield Contradiction(("cluster", "exclude"), what, "keep cluster.include or cluster.exclude")


def _slurm(data: dict[str, Any], cluster: dict[str, Any]) -> Iterator[Found]:
    """Yield what is wrong with Slurm's keys and with the container."""
    container = _section(data, "container")
    if container is not None:
        yield from container_contradictions(container, cluster)
    if cluster.get("backend") == "slurm":
        yield from slurm_contradictions(data, frozenset(SlurmSpec.model_fields))
        array = (_section(cluster, "slurm") or {}).get("array")
        if "parallel" in data and "%" in str(array):
            what = f"the array {array} says already how many points may run at once"
            yield ("parallel",), what, "keep one of the two"
    elif cluster.get("slurm") and cluster.get("backend") in get_args(Backend):
        what = f"the backend is {cluster['backend']}, which asks no Slurm for anything"
        yield ("cluster", "slurm"), what, "use backend: slurm, or remove cluster.slurm"


def _elsewhere(cluster: dict[str, Any], train: dict[str, Any]) -> Iterator[Contradiction]:
    if cluster.get("login") and "python" not in train:
        what = "cluster.login needs train.python: this machine's own Python says nothing about the cluster's"
        yield Contradiction(("train",), what, "add python: python3, or the path of an environment there")


def _program(train: dict[str, Any]) -> Iterator[Contradiction]:
    if "script" in train and "module" in train:
        what = "train.script and train.module are both given"
        yield Contradiction(("train", "module"), what, "keep one of them")
    if "script" not in train and "module" not in train:
        what = "neither train.script nor train.module is given"
        yield Contradiction(("train",), what, "add script: train.py, or module: package.train")


def _environment(train: dict[str, Any]) -> Iterator[Contradiction]:
    env, secrets = _section(train, "env") or {}, train.get("secrets")
    for i, name in enumerate(secrets if isinstance(secrets, list) else []):
        if name in env:
            what = f"{name} is in train.env too, where its value would be written out"
            yield Contradiction(
                ("train", "secrets", i), what, f"keep it in train.secrets and export {name} yourself"
            )
    for name in _SET_PER_RANK:
        if name in env:
            what = f"{name} is set for each rank by the launcher"
            yield Contradiction(("train", "env", name), what, "remove it; hosts and slots decide about ranks")
