"""`torchrun [options] script args` and `python -m torch.distributed.run …` as a job file.

The options are those of `torch/distributed/run.py` of torch 2.13.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.hosts import Hosts, place
from orchestrator.importing.options import Parsed, Tool, both, count, drop_rest, parse
from orchestrator.importing.program import set_program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.importing.draft import Draft

_RENDEZVOUS = "hosts agree on one address and port; there is no other rendezvous"
_LOGS = "every rank has a log of its own in the run directory: orchestrate logs"
TOOL = Tool(
    "torchrun",
    values=(
        *both("nnodes nproc_per_node rdzv_backend rdzv_endpoint rdzv_id rdzv_conf max_restarts role"),
        *both("monitor_interval start_method event_log_handler log_dir local_ranks_filter node_rank"),
        *both("duplicate_stdout_filters duplicate_stderr_filters master_addr master_port local_addr"),
        *both("logs_specs numa_binding signals_to_handle shutdown_timeout"),
        *("-r|--redirects", "-t|--tee"),
    ),
    flags=(*both("standalone no_python run_path virtual_local_rank"), "-m|--module", "--use-env|--use_env"),
    reasons={
        "rdzv_backend": _RENDEZVOUS,
        "rdzv_id": _RENDEZVOUS,
        "rdzv_conf": _RENDEZVOUS,
        "standalone": "the address and a free port are chosen anyway",
        "max_restarts": "ranks that crash are not started again; max_restarts of the job file is about "
        "preemption, lost hosts and the time limit",
        "monitor_interval": "ranks are watched without polling",
        "start_method": "ranks are programs of their own, not forks",
        "event_log_handler": "events are in the run directory",
        "role": "all ranks have the same role",
        "node_rank": "every host gets its rank from its place among the hosts",
        "run_path": "the script is run by Python itself",
        "log_dir": _LOGS,
        "redirects": _LOGS,
        "tee": _LOGS,
        "local_ranks_filter": "orchestrate logs shows the ranks that are asked for",
        "duplicate_stdout_filters": "orchestrate logs can search",
        "duplicate_stderr_filters": "orchestrate logs can search",
        "logs_specs": _LOGS,
        "local_addr": "train.interface names the network interface",
        "numa_binding": "cores are not bound to ranks",
        "signals_to_handle": "signals go to the ranks themselves",
        "shutdown_timeout": "grace of the job file is the time between SIGTERM and SIGKILL",
        "virtual_local_rank": "ranks see all GPUs of their host's slots",
        "use_env": "LOCAL_RANK is in the environment anyway",
    },
)
_MAPPED = (
    *("nnodes", "nproc_per_node", "rdzv_endpoint", "master_addr", "master_port"),
    *("module", "no_python"),
)
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - what torchrun may be told, not a bind


def map_torchrun(words: Sequence[str], draft: Draft, source: str, *, in_slurm: bool = False) -> None:
    """Write into a draft what `torchrun WORDS` does, started on every host.

    Args:
        words: behind the name of the tool.
        draft: gets `cluster` and `train`.
        source: where the command stands.
        in_slurm: Slurm gives the hosts; `cluster` is written by who asks it, but for the slots.

    Raises:
        JobFileError: the command is wrong, or says what no job file can.
    """
    parsed = parse(TOOL, words, source)
    options = parsed.options
    draft.put("train.launcher", "torchrun")
    hosts = Hosts(source, "local", _nodes(parsed, draft, source), _slots(parsed, draft, source))
    if in_slurm:
        if hosts.slots is not None:
            draft.carry(f"{source}: --nproc_per_node", "cluster.slots", hosts.slots)
        if "nnodes" in options and hosts.nodes not in (None, draft.get("cluster.nodes")):
            draft.change(f"{source}: --nnodes", "from torchrun", "cluster.nodes", hosts.nodes)
    else:
        if (hosts.nodes or 1) > 1:
            hosts.backend = "ssh"
            what = "cluster.backend: ssh: one command starts every host; torchrun had to be started on each"
            draft.change(f"{source}: --nnodes", what)
        place(draft, hosts)
    if not in_slurm:
        _address(parsed, draft, source, several=(hosts.nodes or 1) > 1)
    elif {"rdzv_endpoint", "master_addr", "master_port"} & options.keys():
        draft.drop(f"{source}: address of rank 0", "it is found out when Slurm has given the hosts")
    flags = {"module": bool(options.get("module")), "no_python": bool(options.get("no_python"))}
    set_program(draft, parsed.words, source, **flags)
    drop_rest(TOOL, parsed, _MAPPED, draft, source)


def _nodes(parsed: Parsed, draft: Draft, source: str) -> int | None:
    text = str(parsed.options.get("nnodes", "1"))
    where = f"{source}: --nnodes"
    least, colon, most = text.partition(":")
    if colon and least != most:
        draft.change(where, f"the job always runs on {most} hosts; the number does not change while it runs")
    if not is_number(text.replace(":", "")):
        draft.change(where, f"{text} is known only when it runs")
        return None
    return count(most or least, where)


def _slots(parsed: Parsed, draft: Draft, source: str) -> int | None:
    text = str(parsed.options.get("nproc_per_node", "1"))
    where = f"{source}: --nproc_per_node"
    if is_number(text):
        return count(text, where)
    if text in ("gpu", "auto", "cpu", "xpu") or "$" in text:
        draft.change(where, f"{text} is known only on the hosts: cluster.slots says how many ranks each has")
        return None
    raise JobFileError(Problem("expected a number, gpu, cpu or auto", where, text, "write the number"))


def is_number(text: str) -> bool:
    """Return whether a text is a whole number without a sign."""
    return text.isascii() and text.isdigit()


def _address(parsed: Parsed, draft: Draft, source: str, *, several: bool) -> None:
    options = parsed.options
    host, _, port = str(options.get("rdzv_endpoint", "")).rpartition(":")
    if "rdzv_endpoint" in options and not port.isdigit():
        host, port = str(options["rdzv_endpoint"]), ""
    host, port = options.get("master_addr") or host, options.get("master_port") or port
    if host and (host not in _HERE or several):
        _carry_known(draft, f"{source}: address of rank 0", "train.master_addr", host)
    if str(port) not in ("", "0"):
        _carry_known(draft, f"{source}: port of rank 0", "train.master_port", port)


def _carry_known(draft: Draft, where: str, key: str, value: str) -> None:
    if "$" in str(value):
        draft.drop(where, f"{value} is known only when it runs; the job finds out")
    else:
        draft.carry(where, key, count(value, where) if key.endswith("port") else value)
