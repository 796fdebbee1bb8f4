"""Rules about quantized weights (qwZ), quantized gradients (qgZ) and quantized frozen weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.rules.facts import FROZEN, QGZ, QWZ, ZERO, rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.rules.facts import Facts

_ODD = {
    QGZ: "gradients would not be quantized (DeepSpeed #5054)",
    QWZ: "weights may be refused (DeepSpeed #4386)",
}
_NOTICED = 0.01  # share of the gradients that is worth a word


@rule("quantization-device", "error")
def quantization_device(facts: Facts) -> Iterator[Problem]:
    """Quantization needs CUDA (or ROCm): no other accelerator has the operator.

    Source: `ops/op_builder`: the quantizer is there for cuda and supa. On CPU 0.19.8 raises "This op had not
    been implemented on CPU backend", for qgZ not before the first backward.
    """
    if facts.device in ("", "cuda", "supa"):
        return
    for feature in facts.active(QWZ, QGZ, FROZEN):
        what = f"{feature.name} has no implementation for this device"
        fix = f"remove {facts.word_feature(feature)}"
        yield Problem(what, facts.where_feature(feature), facts.device, fix)


@rule("qgz-reduce-scatter", "error")
def qgz_reduce_scatter(facts: Facts) -> Iterator[Problem]:
    """QgZ needs reduce_scatter.

    Source: `runtime/zero/stage3.py` asserts it.
    """
    if facts.active(QGZ) and facts.get(ZERO, "reduce_scatter") is False:
        where = facts.where("reduce_scatter", ZERO, "reduce_scatter")
        fix = f"remove it, or {facts.word_feature(QGZ)}"
        yield Problem("qgZ is a kind of reduce-scatter, which is off", where, "false", fix)


@rule("zero-gradient-scaling", "error")
def zero_gradient_scaling(facts: Facts) -> Iterator[Problem]:
    """ZeRO with reduce_scatter can neither divide gradients before they are reduced, nor prescale them.

    Source: `runtime/zero/stage3.py` and `stage_1_and_2.py` (there where gradients are cut up, in stage 2)
    assert gradient_predivide_factor 1 and postscaled gradients where reduce_scatter is on, which it is by
    default, and gradients are averaged.
    """
    summed = facts.get("gradient_allreduce_op") == "sum"
    if facts.stage not in (2, 3) or facts.get(ZERO, "reduce_scatter") is False or summed:
        return
    what = "ZeRO does not do this with reduce_scatter, which is on by default"
    fix = "remove it, or set reduce_scatter: false"
    factor = facts.get("gradient_predivide_factor")
    if isinstance(factor, int | float) and factor != 1:
        yield Problem(what, facts.where("", "gradient_predivide_factor"), str(factor), fix)
    if facts.get("prescale_gradients") is True:
        yield Problem(what, facts.where("", "prescale_gradients"), "true", fix)


@rule("qgz-muon", "error")
def qgz_muon(facts: Facts) -> Iterator[Problem]:
    """QgZ does not go with the Muon optimizer.

    Source: `runtime/zero/stage3.py`: "Muon and all2all process group cannot be used together".
    """
    if facts.active(QGZ) and facts.optimizer == "muon":
        fix = f"remove {facts.word_feature(QGZ)}, or use another optimizer"
        yield Problem("qgZ does not go with Muon", facts.where_feature(QGZ), None, fix)


@rule("qgz-expert-parallel", "error")
def qgz_expert_parallel(facts: Facts) -> Iterator[Problem]:
    """QgZ does not go with expert parallelism (AutoEP).

    Source: `runtime/engine.py`, `_validate_zero3_moe_compatibility`.
    """
    if facts.active(QGZ) and facts.get("expert_parallel", "enabled") is True:
        fix = f"remove {facts.word_feature(QGZ)}, or expert_parallel"
        yield Problem("qgZ does not go with expert parallelism", facts.where_feature(QGZ), None, fix)


@rule("qwz-torch-autocast", "error")
def qwz_torch_autocast(facts: Facts) -> Iterator[Problem]:
    """QwZ does not go with torch_autocast.

    Source: `runtime/torch_autocast.py`, `_validate_auto_cast_settings`, asserts it.
    """
    if facts.on(QWZ) and facts.get("torch_autocast", "enabled") is True:
        fix = f"use bf16 or fp16 in place of torch_autocast, or remove {facts.word_feature(QWZ)}"
        yield Problem("qwZ does not go with torch_autocast", facts.where_feature(QWZ), None, fix)


@rule("quantized-frozen-weights-fp16", "error")
def quantized_frozen_weights_fp16(facts: Facts) -> Iterator[Problem]:
    """Frozen weights can only be quantized from fp16.

    Source: `runtime/zero/stage3.py`, `quantize_nontrainable_params`, asserts it; DeepSpeed #4885.
    """
    if facts.active(FROZEN) and facts.precision in ("bf16", "fp32"):
        what = "frozen weights can only be quantized from fp16"
        fix = f"{facts.arithmetic('fp16')}, or remove {facts.word_feature(FROZEN)}"
        yield Problem(what, facts.where_feature(FROZEN), f"precision {facts.precision}", fix)


@rule("qwz-fp32", "warning")
def qwz_fp32(facts: Facts) -> Iterator[Problem]:
    """QwZ takes fp32 weights through fp16.

    Source: `partition_parameters.py`, `CUDAQuantizer.quantize`, converts to half first: what is beyond 65504
    becomes infinite.
    """
    if facts.active(QWZ) and facts.precision == "fp32":
        what = "qwZ turns fp32 weights into fp16 before it quantizes them: beyond 65504 they become infinite"
        fix = f"{facts.arithmetic('bf16')}, or remove {facts.word_feature(QWZ)}"
        yield Problem(what, facts.where_feature(QWZ), "precision fp32", fix)


@rule("zeropp-odd-hosts", "warning")
def zeropp_odd_hosts(facts: Facts) -> Iterator[Problem]:
    """QwZ and qgZ want an even number of hosts.

    Source: DeepSpeed #5054 and its fix #5056 (qgZ falls back tensor by tensor unless elements divide by twice
    the ranks), #4386 (24 GPUs: "multiple of 8" for qwZ).
    """
    hosts = len(facts.pool.hosts)
    active = facts.active(QGZ, QWZ)
    if hosts > 1 and hosts % 2 and active:
        names = " and ".join(feature.name for feature in active)
        what = (
            f"{names} on {hosts} hosts: shapes of most models do not divide by an odd number, so "
            f"{' and '.join(_ODD[feature] for feature in active)}"
        )
        yield Problem(what, facts.where_feature(active[0]), None, "use an even number of hosts")


@rule("qgz-filter", "warning")
def qgz_filter(facts: Facts) -> Iterator[Problem]:
    """A filter may leave a number of ranks for which qgZ no longer quantizes.

    Source: as qgz-fallback; without include and exclude more of the model would be quantized.
    """
    if _filter_did_it(facts):
        cluster, ranks = facts.spec.cluster, facts.pool.world_size
        what = (
            f"leaves {ranks} of {facts.unfiltered_world} ranks, for which qgZ quantizes "
            f"{1 - _plain(facts, ranks):.0%} of the gradients in place of "
            f"{1 - _plain(facts, facts.unfiltered_world or ranks):.0%}"
        )
        key = "cluster.include" if cluster.include else "cluster.exclude"
        fix = "leave an even number of whole hosts, best a power of two"
        yield Problem(what, key, cluster.include or cluster.exclude, fix)


@rule("qgz-fallback", "warning")
def qgz_fallback(facts: Facts) -> Iterator[Problem]:
    """QgZ quantizes only tensors whose elements divide by twice the ranks.

    Source: `runtime/comm/coalesced_collectives.py`, `all_to_all_quant_reduce`: others are reduced as without
    qgZ, with a warning for each.
    """
    ranks = facts.pool.world_size
    share = _plain(facts, ranks)
    if share > _NOTICED and not _filter_did_it(facts):
        what = (
            f"qgZ would leave {share:.0%} of the gradients as they are: their tensors do not divide by "
            f"{2 * ranks}, twice the ranks"
        )
        fix = "use a number of ranks that divides the model's sizes, best a power of two"
        yield Problem(what, facts.where_feature(QGZ), None, fix)


def _filter_did_it(facts: Facts) -> bool:
    before, cluster = facts.unfiltered_world, facts.spec.cluster
    if before is None or not (cluster.include or cluster.exclude):
        return False
    return _plain(facts, before) + _NOTICED < _plain(facts, facts.pool.world_size)


def _plain(facts: Facts, ranks: int) -> float:
    """Return the share of the elements that qgZ would not quantize with so many ranks; 0 if not known."""
    sizes: Sequence[int] = (facts.tensors or ()) if facts.active(QGZ) and len(facts.pool.hosts) > 1 else ()
    return sum(size for size in sizes if size % (2 * ranks)) / (sum(sizes) or 1)


@rule("qgz-visible-gpus", "warning")
def qgz_visible_gpus(facts: Facts) -> Iterator[Problem]:
    """QgZ takes the GPUs that a rank sees for the size of a host.

    Source: `utils/groups.py`, `_get_local_all_to_all_group`, `device_count()`. With all 8 GPUs visible to 4
    ranks of each of two hosts, qgZ takes both for one host and silently does nothing; three do not start. The
    run shows ranks only their slots, unless the script sets CUDA_VISIBLE_DEVICES itself.
    """
    slots = max(len(host.slots) for host in facts.pool.hosts)
    gpus = facts.gpus_per_host
    if facts.active(QGZ) and len(facts.pool.hosts) > 1 and gpus is not None and gpus > slots:
        what = (
            f"qgZ takes the GPUs that a rank sees for the size of a host. Hosts have {gpus}, the run uses "
            f"{slots} and hides the others with CUDA_VISIBLE_DEVICES"
        )
        fix = f"use all {gpus}, or make sure that the script does not set CUDA_VISIBLE_DEVICES"
        yield Problem(what, facts.where_feature(QGZ), None, fix)
