"""Rules about hpZ, the second partition of the weights, and about the hosts under it.

DeepSpeed 0.19.8 builds hpZ groups from consecutive global ranks (`utils/groups.py`,
`_create_zero_param_parallel_group`) and looks at no host while it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.hosts.topology import rank_map, uneven_hosts
from orchestrator.rules.facts import FROZEN, HPZ, QGZ, QWZ, ZERO, rule
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts

_GIB = 2**30


@rule("zeropp-below-stage-3", "error")
def zeropp_below_stage_3(facts: Facts) -> Iterator[Problem]:
    """ZeRO++ does nothing below ZeRO stage 3, without a word.

    Source: `runtime/engine.py`, `_configure_zero_optimizer`: stages 1 and 2 get none of these settings.
    """
    if facts.stage is None or facts.stage >= 3:
        return
    for feature in (HPZ, QWZ, QGZ, FROZEN):
        if facts.on(feature):
            what = f"{feature.name} does nothing below ZeRO stage 3 (stage is {facts.stage})"
            stage = facts.word("zero_stage", ZERO, "stage")
            fix = f"set {stage}: 3, or remove {facts.word_feature(feature)}"
            yield Problem(what, facts.where_feature(feature), None, fix)


@rule("hpz-off", "note")
def hpz_off(facts: Facts) -> Iterator[Problem]:
    """An hpZ group of 0 or 1 ranks switches hpZ off.

    Source: `runtime/zero/partition_parameters.py`, `zero_hpz_partition_size > 1`.
    """
    value = facts.get(*HPZ.path)
    if value in (0, 1) and not _node_of_one(facts):
        fix = f"write {_of_a_host(facts)} to share the weights of a host, or remove it"
        yield Problem("hpZ is off", facts.where_feature(HPZ), str(value), fix)


@rule("hpz-node-of-one", "warning")
def hpz_node_of_one(facts: Facts) -> Iterator[Problem]:
    """`hpz: node` on hosts with one slot switches hpZ off.

    Source: as hpz-off; `node` stands for the slots of a host.
    """
    if _node_of_one(facts):
        fix = "use more slots on each host (cluster.slots), or remove it"
        yield Problem("hpZ is off: each host has a single slot", facts.where_feature(HPZ), "node", fix)


def _node_of_one(facts: Facts) -> bool:
    section = facts.spec.deepspeed
    single = all(len(host.slots) == 1 for host in facts.pool.hosts)
    return section is not None and section.hpz == "node" and facts.hpz == 1 and single


def _of_a_host(facts: Facts) -> str:
    """Return the setting that makes a host's slots one hpZ group, in the words of where hpZ is said."""
    word = facts.word_feature(HPZ)
    return f"{word}: node" if word == HPZ.field else f"{word}: {len(facts.pool.hosts[0].slots)}"


def _divisor(facts: Facts) -> str:
    return f"choose a divisor of the slots of each host, such as {_of_a_host(facts)}"


@rule("hpz-exceeds-world", "error")
def hpz_exceeds_world(facts: Facts) -> Iterator[Problem]:
    """An hpZ group may not have more ranks than the run.

    Source: `_create_zero_param_parallel_group` takes min(size, world) without a word, so every rank would
    keep a share of the weights of all.
    """
    ranks = facts.pool.world_size
    if facts.active(HPZ) and facts.hpz > ranks:
        what = f"an hpZ group is larger than the whole run of {counted(ranks, 'rank')}"
        yield Problem(what, facts.where_feature(HPZ), str(facts.hpz), f"write {_of_a_host(facts)}")


@rule("hpz-world-size", "error")
def hpz_world_size(facts: Facts) -> Iterator[Problem]:
    """The ranks have to divide into hpZ groups.

    Source: `_create_zero_param_parallel_group` asserts it in every rank.
    """
    ranks = facts.pool.world_size
    if facts.active(HPZ) and facts.hpz <= ranks and ranks % facts.hpz and not _filter_did_it(facts):
        what = f"{ranks} ranks do not divide into hpZ groups of this size"
        yield Problem(what, facts.where_feature(HPZ), str(facts.hpz), _divisor(facts))


@rule("hpz-filter", "error")
def hpz_filter(facts: Facts) -> Iterator[Problem]:
    """A filter may not leave a number of ranks that no longer divides into hpZ groups.

    Source: as hpz-world-size; without include and exclude the ranks would divide.
    """
    if not _filter_did_it(facts):
        return
    key = "cluster.include" if facts.spec.cluster.include else "cluster.exclude"
    ranks = facts.pool.world_size
    what = (
        f"leaves {ranks} of {facts.unfiltered_world} ranks, which do not divide into hpZ groups of "
        f"{facts.hpz}"
    )
    yield Problem(what, key, facts.spec.cluster.include or facts.spec.cluster.exclude, "leave whole hosts")


def _filter_did_it(facts: Facts) -> bool:
    cluster, ranks = facts.spec.cluster, facts.pool.world_size
    if not facts.active(HPZ) or not (cluster.include or cluster.exclude) or facts.hpz > ranks:
        return False
    before = facts.unfiltered_world
    return before is not None and before % facts.hpz == 0 and ranks % facts.hpz != 0


@rule("hpz-straddles-hosts", "error")
def hpz_straddles_hosts(facts: Facts) -> Iterator[Problem]:
    """An hpZ group has to lie within one host, or within one NVLink domain that the job file declares.

    Source: groups are consecutive ranks, whatever hosts they are on; a group on two hosts gathers in
    backward over the network, which is what hpZ is there to avoid. Nothing warns.
    """
    ranks = rank_map(facts.pool)
    if not facts.active(HPZ) or facts.hpz > ranks.world_size:
        return
    domain = _domain(facts)
    inside = next((first for first in ranks.first_ranks[::domain] if first % facts.hpz), None)
    if inside is None:
        return
    first = inside - inside % facts.hpz
    last = min(first + facts.hpz, ranks.world_size) - 1
    low, high = ranks.locate(first)[0], ranks.locate(last)[0]
    names = ", ".join(host.name for host in facts.pool.hosts[low : high + 1][:4])
    what = f"the hpZ group of ranks {first} to {last} lies on {high - low + 1} hosts ({names})"
    fix = f"choose a divisor of the slots of {domain} hosts (hardware.nvlink_domain)"
    if domain == 1:
        whole = facts.hpz % len(facts.pool.hosts[0].slots) == 0
        fix = _divisor(facts)
        fix += "; if one NVLink network joins these hosts, say it as hardware.nvlink_domain" if whole else ""
    yield Problem(what, facts.where_feature(HPZ), str(facts.hpz), fix)


def _domain(facts: Facts) -> int:
    """Return how many neighbouring hosts NVLink joins."""
    hardware = facts.spec.hardware
    return (hardware.nvlink_domain if hardware else None) or 1


@rule("zeropp-uneven-hosts", "error")
def zeropp_uneven_hosts(facts: Facts) -> Iterator[Problem]:
    """HpZ and qgZ need the same number of slots on every host.

    Source: hpZ groups of one size then straddle hosts or leave links idle; qgZ takes `device_count()` of
    each rank's host for the size of all (`utils/groups.py`, `_get_local_all_to_all_group`).
    """
    active = facts.active(HPZ, QGZ)
    different = uneven_hosts(facts.pool) if active else ""
    if different:
        what = f"{active[0].name} needs the same number of slots everywhere: {different}"
        feature = facts.word_feature(active[0])
        fix = f"use the same number of slots on every host (cluster.slots), or remove {feature}"
        yield Problem(what, facts.where_feature(active[0]), None, fix)


@rule("zeropp-single-host", "warning")
def zeropp_single_host(facts: Facts) -> Iterator[Problem]:
    """HpZ and qgZ gain nothing on a single host.

    Source: DeepSpeed's ZeRO++ tutorial ("do not set on single node"); `runtime/zero/stage3.py`,
    `__avg_scatter_grads`, takes the plain reduce-scatter for one host.
    """
    if len(facts.pool.hosts) == 1:
        for feature in facts.active(HPZ, QGZ):
            what = f"{feature.name} gains nothing on a single host: it saves traffic between hosts"
            yield Problem(what, facts.where_feature(feature), None, f"remove {facts.word_feature(feature)}")


@rule("hpz-model-parallel", "error")
def hpz_model_parallel(facts: Facts) -> Iterator[Problem]:
    """HpZ does not go with tensor, pipeline, sequence or expert parallelism.

    Source: groups are cut from the whole world, not from data-parallel ranks (`utils/groups.py` has a TODO
    to assert it); `runtime/engine.py`, `_validate_zero3_moe_compatibility`, for experts.
    """
    for what, path in _parallelism(facts) if facts.active(HPZ) else ():
        fix = f"remove {facts.word_feature(HPZ)}, or that parallelism"
        yield Problem(f"hpZ does not go with {what}", facts.where("", *path), None, fix)


def _parallelism(facts: Facts) -> Iterator[tuple[str, tuple[str, ...]]]:
    sizes = (
        ("tensor parallelism", ("tensor_parallel", "autotp_size")),
        ("pipeline parallelism", ("pipeline", "stages")),
        ("sequence parallelism", ("sequence_parallel_size",)),
    )
    for what, path in sizes:
        size = facts.get(*path)
        if isinstance(size, int) and size > 1:
            yield f"{what} of {size} ranks", path
    if facts.get("expert_parallel", "enabled") is True:
        yield "expert parallelism (AutoEP)", ("expert_parallel",)


@rule("hpz-offload-param", "warning")
def hpz_offload_param(facts: Facts) -> Iterator[Problem]:
    """HpZ with offloaded parameters is reported not to train.

    Source: DeepSpeed #6926, ms-swift #3697, LlamaFactory #6372: loss constant or 0, grad_norm 0; open. Right
    on the CPU accelerator of 0.19.8, unproven on GPUs. The second copy lives where parameters do.
    """
    if facts.active(HPZ) and facts.offloads("offload_param"):
        what = (
            "hpZ with offload_param has been reported to leave the loss constant on GPUs (DeepSpeed #6926), "
            "and keeps its second copy of the weights in pinned RAM"
        )
        fix = (
            f"offload the optimizer alone, or remove {facts.word_feature(HPZ)}; else watch loss and "
            "grad_norm of the first steps"
        )
        yield Problem(what, facts.where_feature(HPZ), None, fix)


@rule("hpz-memory", "warning")
def hpz_memory(facts: Facts) -> Iterator[Problem]:
    """A run with hpZ should fit into the GPU's memory.

    Source: hpZ adds 2P/z bytes to each GPU (`partition_parameters.py`, `_partition_param_sec`); the estimate
    is the planner's.
    """
    needed, there = facts.gpu_memory_needed, facts.gpu_memory
    if facts.active(HPZ) and needed is not None and there is not None and needed > there:
        what = (
            f"with hpZ a GPU needs about {needed / _GIB:.1f} GiB and has {there / _GIB:.1f}: the second copy "
            f"of the weights is cut up over {facts.hpz} ranks only"
        )
        fix = f"remove {facts.word_feature(HPZ)}, or use {facts.less_memory}"
        yield Problem(what, facts.where_feature(HPZ), str(facts.hpz), fix)
