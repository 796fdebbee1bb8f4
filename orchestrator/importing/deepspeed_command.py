"""`deepspeed [options] script args` as a job file.

The options are those of `deepspeed/launcher/runner.py` of DeepSpeed 0.19.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.draft import located
from orchestrator.importing.hosts import Hosts, place, pool_of
from orchestrator.importing.options import Parsed, Tool, count, drop_rest, parse
from orchestrator.importing.program import set_program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.importing.draft import Draft

DEFAULT_HOSTFILE = Path("/job/hostfile")
"""Where DeepSpeed looks for a hostfile when none is named."""
_CORES = "cores are not bound to ranks; srun's --cpu-bind can be given as cluster.slurm.srun_args"
_ELASTIC = "DeepSpeed's elasticity does not work with current torch; max_restarts starts a run again"
TOOL = Tool(
    "deepspeed",
    values=(
        *("-H|--hostfile", "-i|--include", "-e|--exclude", "--num_nodes", "--num_gpus|--num_accelerators"),
        *("--min_elastic_nodes", "--max_elastic_nodes", "--master_port", "--master_addr", "--node_rank"),
        *("--launcher", "--launcher_args", "--enable_each_rank_log", "--autotuning", "--bind_core_list"),
        *("--venv_script", "--log_level", "--ssh_port"),
    ),
    flags=(
        *("--module", "--no_python", "--no_local_rank", "--no_ssh", "--no_ssh_check", "--force_multi"),
        *("--save_pid", "--elastic_training", "--bind_cores_to_rank", "-q|--quiet"),
    ),
    reasons={
        "node_rank": "every host gets its rank from its place in the hostfile",
        "launcher_args": "options of the launcher go to cluster.ssh or cluster.slurm.srun_args",
        "no_ssh_check": "orchestrate check says whether the hosts can be reached",
        "save_pid": "orchestrate status and cancel know the run by its id",
        "enable_each_rank_log": "every rank has a log of its own in the run directory: orchestrate logs",
        "autotuning": "the autotuner is no part of a run; orchestrate plan --suggest ranks settings",
        "elastic_training": _ELASTIC,
        "min_elastic_nodes": _ELASTIC,
        "max_elastic_nodes": _ELASTIC,
        "bind_cores_to_rank": _CORES,
        "bind_core_list": _CORES,
        "log_level": "the launcher's own messages are not shown",
        "quiet": "the launcher's own messages are not shown",
    },
)
_MAPPED = (
    *("hostfile", "include", "exclude", "num_nodes", "num_gpus", "master_port", "master_addr", "launcher"),
    *("module", "no_python", "no_local_rank", "no_ssh", "force_multi", "venv_script", "ssh_port"),
)


def map_deepspeed_command(words: Sequence[str], draft: Draft, source: str, *, in_slurm: bool = False) -> None:
    """Write into a draft what `deepspeed WORDS` does.

    Args:
        words: behind the name of the tool.
        draft: gets `cluster` and `train`.
        source: where the command stands.
        in_slurm: Slurm gives the hosts; `cluster` is written by who asks it.

    Raises:
        JobFileError: the command is wrong, or says what no job file can.
    """
    parsed = parse(TOOL, words, source)
    options = parsed.options
    draft.put("train.launcher", "deepspeed")
    if in_slurm:
        _slots_in_slurm(parsed, draft, source)
    else:
        place(draft, _hosts(parsed, draft, source))
    _train(parsed, draft, source)
    flags = {"module": bool(options.get("module")), "no_python": bool(options.get("no_python"))}
    set_program(draft, parsed.words, source, **flags)
    drop_rest(TOOL, parsed, _MAPPED, draft, source)


def _train(parsed: Parsed, draft: Draft, source: str) -> None:
    options = parsed.options
    if options.get("master_addr"):
        draft.carry(f"{source}: --master_addr", "train.master_addr", options["master_addr"])
    if "master_port" in options:
        port = count(options["master_port"], f"{source}: --master_port")
        draft.carry(f"{source}: --master_port", "train.master_port", port)
    if options.get("venv_script"):
        setup = [*(draft.get("train.setup") or []), f"source {options['venv_script']}"]
        draft.carry(f"{source}: --venv_script", "train.setup", setup)
    if "ssh_port" in options and draft.get("cluster.backend") in ("pdsh", "ssh"):
        port = count(options["ssh_port"], f"{source}: --ssh_port")
        draft.carry(f"{source}: --ssh_port", "cluster.ssh.port", port)
    if "no_local_rank" not in options:
        what = "the script is not given --local_rank=N; it reads LOCAL_RANK, as with --no_local_rank"
        draft.change(source, what)


def _slots_in_slurm(parsed: Parsed, draft: Draft, source: str) -> None:
    options = parsed.options
    if "num_gpus" in options:
        number = count(options["num_gpus"], f"{source}: --num_gpus")
        draft.carry(f"{source}: --num_gpus", "cluster.slots", number)
    for name in ("include", "exclude"):
        if options.get(name):
            draft.carry(f"{source}: --{name}", f"cluster.{name}", options[name])
    for name in ("hostfile", "num_nodes", "launcher", "no_ssh"):
        if name in options:
            draft.drop(f"{source}: --{name}", "Slurm gives the hosts, and srun starts one agent on each")


def _hosts(parsed: Parsed, draft: Draft, source: str) -> Hosts:
    options = parsed.options
    hosts = Hosts(source, "pdsh")
    if "num_nodes" in options:
        hosts.nodes = count(options["num_nodes"], f"{source}: --num_nodes")
    if "num_gpus" in options:
        hosts.slots = count(options["num_gpus"], f"{source}: --num_gpus")
    hosts.include, hosts.exclude = options.get("include") or None, options.get("exclude") or None
    if (hosts.nodes or hosts.slots) and (hosts.include or hosts.exclude):
        what = "DeepSpeed refuses --num_nodes and --num_gpus beside --include and --exclude"
        raise JobFileError(Problem(what, source, fix="keep one of the two"))
    if "hostfile" in options:
        hosts.hostfile = draft.path(options["hostfile"])
    elif DEFAULT_HOSTFILE.is_file():
        hosts.hostfile = str(DEFAULT_HOSTFILE)
    _backend(parsed, draft, source, hosts)
    if hosts.hostfile is None and hosts.backend != "slurm" and (hosts.nodes or 1) == 1:
        _this_machine(draft, hosts)
    elif hosts.hostfile is not None and not located(hosts.hostfile).is_file():
        what = "is not there; DeepSpeed would train on this machine alone, the job refuses to start"
        draft.change(f"{source}: --hostfile", what)
    return hosts


def _backend(parsed: Parsed, draft: Draft, source: str, hosts: Hosts) -> None:
    """Choose the backend by DeepSpeed's launcher."""
    launcher, where = parsed.options.get("launcher", "pdsh").lower(), f"{source}: --launcher"
    if "no_ssh" in parsed.options:
        hosts.backend = "ssh"
        draft.change(f"{source}: --no_ssh", "cluster.backend: ssh: one command starts every host over ssh")
    elif launcher == "slurm":
        pool = pool_of(hosts.hostfile)
        if pool is not None:
            hosts.nodes = hosts.nodes or len(pool.hosts)
            hosts.slots = hosts.slots or min(len(host.slots) for host in pool.hosts)
        hosts.backend, hosts.hostfile, hosts.nodes = "slurm", None, hosts.nodes or 1
        draft.change(where, "cluster.backend: slurm: sbatch asks for the hosts; the hostfile is not used")
    elif launcher in ("openmpi", "mvapich", "mpich", "impi"):
        what = f"cluster.backend: pdsh: {launcher} is not used; NCCL moves the data as before"
        draft.change(where, f"{what}, options of mpirun are gone")
    elif launcher != "pdsh":
        fix = "use pdsh, openmpi, mvapich, mpich, impi or slurm"
        raise JobFileError(Problem("is no launcher of DeepSpeed", where, launcher, fix))


def _this_machine(draft: Draft, hosts: Hosts) -> None:
    """Say what DeepSpeed does without a hostfile: it uses this machine."""
    hosts.backend = "local"
    visible = (draft.get("train.env") or {}).get("CUDA_VISIBLE_DEVICES")
    name, _, ids = (hosts.include or "").partition(":")
    if hosts.include and name in ("localhost", "127.0.0.1") and ids:
        draft.carry(f"{hosts.source}: --include", "train.env.CUDA_VISIBLE_DEVICES", ids)
        hosts.include, hosts.slots = None, len(ids.split(","))
    elif visible and hosts.slots is None and not (hosts.include or hosts.exclude):
        hosts.slots = len(str(visible).split(","))
    elif hosts.include == "localhost":
        hosts.include = None
    if hosts.include or hosts.exclude:
        what = "there is no hostfile, so this machine is the only host: say cluster.slots"
        draft.drop(f"{hosts.source}: {hosts.include or hosts.exclude}", what)
        hosts.include = hosts.exclude = None
