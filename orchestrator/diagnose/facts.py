"""Facts of a failure that decide which advice fits; patterns files ask for them by these names.

start       no step was told of before it
later       at least one was
optimizer   memory was asked for by the optimizer's step or its states
states      by its states, when they were made
loading     by loading or building the model
backward    in the backward pass
evaluation  while generating or evaluating
saving      while saving a checkpoint
fragmented  PyTorch holds much memory that it does not use (a tenth of the card, or 2 GiB)
shared_gpu  another process holds memory of the same GPU
same_gpu    NCCL found two ranks on one GPU
stage0 … stage3, no_zero     ZeRO's stage; no DeepSpeed section
offload_optimizer, offload_param, hpz, quantized, fp16, bf16, offload_any
accumulates  gradient accumulation is more than one step
micro1      the micro batch is 1 already
checkpoints, no_checkpoints     whether the job file says where the script saves
simulated, slurm, pdsh, ssh, local     the backend
signal, oom_signal   killed by a signal; by SIGKILL
crash_signal, asked_signal     by one that a crash raises; by one that asks for the end, such as SIGTERM
many_ranks  several ranks said the same
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.diagnose.gather import Case
    from orchestrator.plan import LaunchPlan

_KILL = 9
_CRASH = frozenset(
    {4, 5, 6, 7, 8, 11, 31}
)  # SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS (Linux)
_RESERVED = re.compile(r"(\d+(?:\.\d+)?) ([KMG]iB) is reserved by PyTorch but unallocated")
_RESERVED_OLD = re.compile(
    r"(\d+(?:\.\d+)?) ([KMG]iB) already allocated;.*?(\d+(?:\.\d+)?) ([KMG]iB) reserved in total by PyTorch"
)
_CAPACITY = re.compile(
    r"total capacity of (\d+(?:\.\d+)?) ([KMG]iB)|(\d+(?:\.\d+)?) ([KMG]iB) total capacity"
)
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PLACES = {
    "optimizer": r"optimizer\.step|_optimizer_step|initialize_optimizer_states|in step\b.*optim|optim/adam"
    r"|_configure_zero_optimizer|setup_for_real_optimizer|fused_adam|exp_avg|multi_tensor_adam",
    "states": r"initialize_optimizer_states|_configure_zero_optimizer|setup_for_real_optimizer|exp_avg",
    "loading": r"from_pretrained|_load_state_dict|load_checkpoint|zero\.Init|partition_parameters\.py"
    r"|\.to\(device|in _move|module\.to\b|_configure_distributed_model|\.cuda\(\)",
    "backward": r"\.backward\(|in backward\b|_execution_engine|run_backward",
    "evaluation": r"\bgenerate\(|in generate\b|evaluat|prediction_step|in eval",
    "saving": r"save_checkpoint|save_16bit_model|_zero3_consolidated|consolidated_16bit|save_pretrained"
    r"|torch\.save",
}
_IN_USE = re.compile(r"([Pp]rocess \d+|this process) has [\d.]+ [KMG]iB memory in use")


def facts_of(case: Case, said: str) -> frozenset[str]:
    """Return the facts that hold.

    Args:
        case: the failure.
        said: traceback and message of the first failure, as one text.
    """
    found = {"start" if not case.step else "later"}
    found |= {name for name, places in _PLACES.items() if re.search(places, said)}
    if "loading" in found and "later" in found:
        found.discard("loading")  # stage 3 gathers parameters in the same module at every step
    if _is_fragmented(said):
        found.add("fragmented")
    if len(set(_IN_USE.findall(said))) > 1:
        found.add("shared_gpu")
    if "Duplicate GPU detected" in said:
        found.add("same_gpu")
    if any(one.signal for one in case.suspects):
        found.add("signal")
    signals = {one.signal or max((one.exit_code or 0) - 128, 0) for one in case.suspects} - {0}
    if _KILL in signals:
        found.add("oom_signal")
    if signals & _CRASH:
        found.add("crash_signal")
    if signals - _CRASH - {_KILL}:
        found.add("asked_signal")
    if len(case.suspects) > 1:
        found.add("many_ranks")
    return frozenset(found | _of_plan(case.plan))


def _is_fragmented(said: str) -> bool:
    new, old, capacity = _RESERVED.search(said), _RESERVED_OLD.search(said), _CAPACITY.search(said)
    if new:
        idle = _bytes(new[1], new[2])
    elif old:
        idle = _bytes(old[3], old[4]) - _bytes(old[1], old[2])
    else:
        return False
    whole = _bytes(capacity[1] or capacity[3], capacity[2] or capacity[4]) if capacity else 0.0
    return idle >= min(whole / 10 or 2**31, 2**31)


def _bytes(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]


def _of_plan(plan: LaunchPlan | None) -> set[str]:
    if plan is None:
        return set()
    found = {plan.backend, "checkpoints" if plan.checkpoint_dir else "no_checkpoints"}
    config = plan.deepspeed or {}
    zero: dict[str, Any] = config.get("zero_optimization") or {}
    found.add(f"stage{zero.get('stage', 0)}" if config else "no_zero")
    for name in ("offload_optimizer", "offload_param"):
        if (zero.get(name) or {}).get("device", "none") != "none":
            found |= {name, "offload_any"}
    if int(zero.get("zero_hpz_partition_size") or 1) > 1:
        found.add("hpz")
    if zero.get("zero_quantized_weights") or zero.get("zero_quantized_gradients"):
        found.add("quantized")
    found |= {name for name in ("fp16", "bf16") if (config.get(name) or {}).get("enabled") is True}
    if config.get("train_micro_batch_size_per_gpu") == 1:
        found.add("micro1")
    accumulation = config.get("gradient_accumulation_steps")
    if isinstance(accumulation, int) and accumulation > 1:
        found.add("accumulates")
    return found
