"""From the job file to what sbatch is asked for: its options, its hosts, its `#SBATCH` lines. All pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import FilterError, JobFileError, Problem
from orchestrator.hosts.filters import apply_filters, named_hosts
from orchestrator.hosts.ranges import fold_names
from orchestrator.job.slurm_grammar import Resource, gpu_items, gres_items, node_names
from orchestrator.job.slurm_spec import SlurmSpec
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.hosts import HostPool
    from orchestrator.job import ClusterSpec, JobSpec

_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_@%+=:,./&|*()\[\]-]+\Z")
_NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True, slots=True)
class HostRequest:
    """The hosts that Slurm is asked for.

    Attributes:
        nodes: how many.
        slots: ranks on each of them: `cluster.slots`, or all of its GPUs.
        names: the hosts in the order of the filter, where the job file says which; else empty.
        nodelist: for `--nodelist`, or None.
        exclude: for `--exclude`, or None.
    """

    nodes: int
    slots: int
    names: tuple[str, ...] = ()
    nodelist: str | None = None
    exclude: str | None = None


def sbatch_options(spec: JobSpec) -> dict[str, str | None]:
    """Return sbatch's long options, without dashes, in the order a reader wants them; None marks a bare flag.

    The template adds those that belong to the run and not to the job file: job-name, output, open-mode,
    signal, requeue, array.

    Raises:
        FilterError, JobFileError: as for host_request.
    """
    slurm = spec.cluster.slurm or SlurmSpec()
    hosts = host_request(spec.cluster)
    options = {
        **_texts(slurm, "partition", "account", "qos", "reservation"),
        "nodes": str(hosts.nodes),
        "ntasks-per-node": "1",
        **_texts(slurm, "cpus_per_task", "gres"),
        **({} if _gres_gpus(slurm) else _texts(slurm, "gpus_per_node")),
        **_texts(slurm, "mem", "constraint"),
        **_exclusive(slurm),
        **_texts(slurm, "segment", "switches"),
        **({} if hosts.nodelist is None else {"nodelist": hosts.nodelist}),
        **({} if hosts.exclude is None else {"exclude": hosts.exclude}),
        **_texts(
            slurm, "time", "begin", "dependency", "nice", "licenses", "comment", "mail_user", "mail_type"
        ),
    }
    return options | {name: text or None for name, text in slurm.extra.items()}


def _texts(slurm: SlurmSpec, *keys: str) -> dict[str, str | None]:
    values = {key.replace("_", "-"): getattr(slurm, key) for key in keys}
    return {name: str(value) for name, value in values.items() if value is not None}


def _exclusive(slurm: SlurmSpec) -> dict[str, str | None]:
    if slurm.exclusive is False:
        return {}
    return {"exclusive": None if slurm.exclusive is True else slurm.exclusive}


def sbatch_line(option: str, value: str | None) -> str:
    """Return the `#SBATCH` line of one option, quoted as sbatch's own parser of scripts wants it.

    That parser (get_argument in src/sbatch/opt.c) is no shell: inside quotes of either kind a backslash still
    escapes whatever follows, and outside of them a `#` ends the line.

    Raises:
        ValueError: the value holds a newline or another character that no line can carry.
    """
    if value is None:
        return f"#SBATCH --{option}"
    if not value.isprintable():
        raise ValueError(f"--{option} cannot be written into a script: {value!r} holds a control character")
    if _PLAIN_VALUE.match(value):
        return f"#SBATCH --{option}={value}"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'#SBATCH --{option}="{quoted}"'


def gpu_count(slurm: SlurmSpec | None) -> int | None:
    """Return how many GPUs of each node are asked for, of all types together; None when none is."""
    if slurm is None:
        return None
    by_node = gpu_items(slurm.gpus_per_node) if slurm.gpus_per_node else ()
    return sum(item.count for item in _gres_gpus(slurm) or by_node) or None


def _gres_gpus(slurm: SlurmSpec) -> tuple[Resource, ...]:
    return tuple(item for item in gres_items(slurm.gres or "none") if item.name == "gpu")


def host_request(cluster: ClusterSpec) -> HostRequest:
    """Return which hosts Slurm is asked for.

    A filter that names hosts as a whole becomes an option of sbatch; what it says about slots is for
    filter_allocation, once the job has its hosts.

    Raises:
        FilterError: a filter is malformed, or says what no option of sbatch can.
        JobFileError: the number of hosts or of slots is not said.
    """
    slurm = cluster.slurm or SlurmSpec()
    slots = cluster.slots or gpu_count(slurm)
    names = _included(cluster) if cluster.include else _exactly(slurm.nodelist, cluster.nodes)
    nodes = cluster.nodes or len(names)
    if not nodes:
        fix = "add cluster.nodes: the number of hosts"
        raise JobFileError(Problem("Slurm has to be told how many hosts to give", "cluster.nodes", fix=fix))
    if slots is None:
        what = "neither cluster.slots nor a number of GPUs says how many ranks a host has"
        fix = "add cluster.slurm.gpus_per_node: 8, or cluster.slots where no GPU is needed"
        raise JobFileError(Problem(what, "cluster.slots", fix=fix))
    nodelist = fold_names(names) if cluster.include else slurm.nodelist
    return HostRequest(nodes, slots, names, nodelist, _excluded(cluster, slots) or slurm.exclude)


def _included(cluster: ClusterSpec) -> tuple[str, ...]:
    """Return the hosts of `cluster.include`, which have to be as many as the job's."""
    text = str(cluster.include)
    names = tuple(named_hosts(text, "include"))
    _check_names(names, "include")
    if cluster.nodes not in (None, len(names)):
        what = (
            f"names {counted(len(names), 'host')} and cluster.nodes is {cluster.nodes}: Slurm reads "
            '--nodelist as "the allocation contains all of these", so it can only say exactly which '
            "hosts to use"
        )
        exactly = f"name exactly {counted(cluster.nodes or 0, 'host')} or leave out cluster.nodes"
        fix = f"{exactly}; for a choice use cluster.exclude"
        raise FilterError(Problem(what, "include", text, f"{fix} or cluster.slurm.constraint"))
    return names


def _exactly(nodelist: str | None, nodes: int | None) -> tuple[str, ...]:
    """Return the hosts of `cluster.slurm.nodelist` if they are all that the job gets, else none."""
    names = node_names(nodelist) if nodelist else ()
    return names if len(names) == nodes else ()


def _excluded(cluster: ClusterSpec, slots: int) -> str | None:
    """Return the hosts that `cluster.exclude` leaves out: named without slots, or with all of them."""
    if not cluster.exclude:
        return None
    every = set(range(gpu_count(cluster.slurm) or slots))
    named = named_hosts(cluster.exclude, "exclude")
    whole = [name for name, ids in named.items() if ids is None or every.issubset(ids)]
    _check_names(whole, "exclude")
    return fold_names(whole) or None


def _check_names(names: Iterable[str], where: str) -> None:
    wrong = [name for name in names if not _NODE_NAME.match(name)]
    if wrong:
        fix = "use the names that sinfo -N shows"
        raise FilterError(*(Problem("is no name of a Slurm node", where, name, fix) for name in wrong))


def filter_allocation(pool: HostPool, include: str | None, exclude: str | None) -> HostPool:
    """Return what the filters leave of the hosts that a job got, in their order.

    A spec that names a host the job did not get is passed over: sbatch has heard of it already.

    Raises:
        FilterError: a slot does not exist on a host that the job got, or nothing is left.
    """
    return apply_filters(pool, include, exclude, partial=True)
