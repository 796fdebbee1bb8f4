"""Rules of ZeRO++: hpZ, qwZ, qgZ, and the hosts under them."""

from __future__ import annotations

import pytest

from tests.facts import Case, assert_case, found, ids

HPZ = "deepspeed: {hpz: 4}"
QGZ = "deepspeed: {quantized_gradients: true}"
ALL = (
    "deepspeed: {hpz: node, quantized_weights: true, quantized_gradients: true, "
    "quantized_nontrainable_weights: true, precision: fp16}"
)
FILTERED = "cluster: {include: 'h0@h1:0,1'}"
MOE = "overrides: {expert_parallel: {enabled: true}}"

CASES = [
    Case("zeropp-below-stage-3", "deepspeed: {zero_stage: 2, hpz: 4}", HPZ),
    Case("hpz-off", "deepspeed: {hpz: 1}", "deepspeed: {hpz: 2}"),
    Case("hpz-node-of-one", "deepspeed: {hpz: node}, hosts: [1, 1]", "deepspeed: {hpz: node}"),
    Case("hpz-exceeds-world", "deepspeed: {hpz: 16}", "deepspeed: {hpz: 8}"),
    Case("hpz-world-size", "deepspeed: {hpz: 3}", "deepspeed: {hpz: 2}"),
    Case(
        "hpz-filter",
        f"deepspeed: {{hpz: 4}}, hosts: [4, 2], {FILTERED}, facts: {{unfiltered_world: 8}}",
        f"deepspeed: {{hpz: 2}}, hosts: [4, 2], {FILTERED}, facts: {{unfiltered_world: 8}}",
    ),
    Case("hpz-straddles-hosts", "deepspeed: {hpz: 2}, hosts: [3, 3]", "deepspeed: {hpz: 3}, hosts: [3, 3]"),
    Case("zeropp-uneven-hosts", "deepspeed: {hpz: 2}, hosts: [4, 2]", "deepspeed: {hpz: 2}, hosts: [4, 4]"),
    Case("zeropp-single-host", f"{HPZ}, hosts: [4]", HPZ),
    Case(
        "hpz-model-parallel",
        "deepspeed: {hpz: 4, overrides: {tensor_parallel: {autotp_size: 2}}}",
        "deepspeed: {overrides: {tensor_parallel: {autotp_size: 2}}}",
    ),
    Case("hpz-offload-param", "deepspeed: {hpz: 4, offload_param: cpu}", "deepspeed: {offload_param: cpu}"),
    Case(
        "hpz-memory",
        f"{HPZ}, facts: {{gpu_memory_needed: 90000000000, gpu_memory: 80000000000}}",
        f"{HPZ}, facts: {{gpu_memory_needed: 70000000000, gpu_memory: 80000000000}}",
    ),
    Case("quantization-device", f"{ALL}, facts: {{device: cpu}}", f"{ALL}, facts: {{device: cuda}}"),
    Case(
        "qgz-reduce-scatter",
        "deepspeed: {quantized_gradients: true, reduce_scatter: false}",
        "deepspeed: {quantized_gradients: true, reduce_scatter: true}",
    ),
    Case(
        "zero-gradient-scaling",
        "deepspeed: {overrides: {gradient_predivide_factor: 2.0}}",
        "deepspeed: {overrides: {gradient_predivide_factor: 1.0}}",
    ),
    Case(
        "qgz-muon",
        "deepspeed: {quantized_gradients: true, optimizer: {type: Muon}}",
        "deepspeed: {quantized_weights: true, optimizer: {type: Muon}}",
    ),
    Case(
        "qgz-expert-parallel",
        f"deepspeed: {{quantized_gradients: true, {MOE}}}",
        f"deepspeed: {{quantized_weights: true, {MOE}}}",
    ),
    Case(
        "qwz-torch-autocast",
        "deepspeed: {quantized_weights: true, overrides: {torch_autocast: {enabled: true}}}",
        "deepspeed: {quantized_weights: true, overrides: {torch_autocast: {enabled: false}}}",
    ),
    Case(
        "quantized-frozen-weights-fp16",
        "deepspeed: {quantized_nontrainable_weights: true, precision: bf16}",
        "deepspeed: {quantized_nontrainable_weights: true, precision: fp16}",
    ),
    Case(
        "qwz-fp32",
        "deepspeed: {quantized_weights: true, precision: fp32}",
        "deepspeed: {quantized_weights: true, precision: bf16}",
    ),
    Case("zeropp-odd-hosts", f"{QGZ}, hosts: [4, 4, 4]", f"{QGZ}, hosts: [4, 4, 4, 4]"),
    Case(
        "qgz-filter",
        f"{QGZ}, hosts: [3, 3], {FILTERED}, facts: {{unfiltered_world: 8, tensors: [4096, 48]}}",
        f"{QGZ}, hosts: [4, 4], {FILTERED}, facts: {{unfiltered_world: 8, tensors: [4096, 48]}}",
    ),
    Case("qgz-fallback", f"{QGZ}, facts: {{tensors: [4096, 248]}}", f"{QGZ}, facts: {{tensors: [4096, 48]}}"),
    Case("qgz-visible-gpus", f"{QGZ}, facts: {{gpus_per_host: 8}}", f"{QGZ}, facts: {{gpus_per_host: 4}}"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_fires_and_is_silent(case):
    assert_case(case)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_groups_that_fit_hosts_are_fine(size):
    line = f"deepspeed: {{hpz: {size}, quantized_weights: true, quantized_gradients: true, precision: bf16}}"
    assert set(ids(line)) <= {"hpz-off"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepspeed: {hpz: 2}, hosts: [3, 3]", "the hpZ group of ranks 2 to 3 lies on 2 hosts (h0, h1)"),
        ("deepspeed: {hpz: 4}, hosts: [2, 2]", "the hpZ group of ranks 0 to 3 lies on 2 hosts (h0, h1)"),
        ("deepspeed: {hpz: 2}, hosts: [3, 3, 3]", "9 ranks do not divide into hpZ groups of this size"),
        ("deepspeed: {hpz: 8}, hosts: [2, 2]", "an hpZ group is larger than the whole run of 4 ranks"),
        ("deepspeed: {hpz: 2}, hosts: [4, 2]", "hpZ needs the same number of slots everywhere: h0 has 4"),
        (f"{QGZ}, hosts: [4, 2]", "qgZ needs the same number of slots everywhere: h0 has 4 and h1 has 2"),
        (
            "deepspeed: {zero_stage: 1, quantized_weights: true}",
            "qwZ does nothing below ZeRO stage 3 (stage is 1)",
        ),
        (
            f"{QGZ}, facts: {{tensors: [300, 700]}}",
            "qgZ would leave 100% of the gradients as they are: their tensors do not divide by 16",
        ),
        (
            f"{QGZ}, hosts: [3, 3], {FILTERED}, facts: {{unfiltered_world: 8, tensors: [4096, 96]}}",
            "leaves 6 of 8 ranks, for which qgZ quantizes 2% of the gradients in place of 100%",
        ),
    ],
)
def test_what_is_said(line, expected):
    assert any(expected in finding.problem.what for finding in found(line)), found(line)


def test_a_group_larger_than_the_world_is_one_error():
    assert ids("deepspeed: {hpz: 8}, hosts: [2, 2]") == ["hpz-exceeds-world"]


def test_a_group_may_span_the_hosts_of_an_nvlink_domain():
    job = "deepspeed: {hpz: 8}, hardware: {nvlink_domain: 2}"
    assert ids(f"{job}, hosts: [4, 4, 4, 4]") == []
    assert ids(f"{job}, hosts: [2, 2, 2, 2]") == ["hpz-straddles-hosts"]
    assert ids(f"{job}, hosts: [4, 4, 4]") == ["hpz-world-size"]


@pytest.mark.parametrize("settings", ["hpz: 0", "hpz: 1", "quantized_weights: true"])
def test_unequal_hosts_are_fine_for_the_rest(settings):
    settings = settings.replace("hpz: 0", "overrides: {zero_optimization: {zero_hpz_partition_size: 0}}")
    assert set(ids(f"deepspeed: {{{settings}}}, hosts: [4, 2]")) <= {"hpz-off"}


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_below_stage_3_only_that_is_said(stage):
    line = f"{ALL.replace('{hpz', f'{{zero_stage: {stage}, hpz')}, hosts: [3, 3], facts: {{device: cpu}}"
    findings = [each for each in found(line) if each.rule != "fp16-on-cpu"]
    assert {each.rule for each in findings} == {"zeropp-below-stage-3"}
    assert [each.problem.where for each in findings] == [
        "deepspeed.hpz",
        "deepspeed.quantized_weights",
        "deepspeed.quantized_gradients",
        "deepspeed.quantized_nontrainable_weights",
    ]


@pytest.mark.parametrize("stage", ["auto", 3])
def test_a_stage_that_the_script_decides_on_is_checked_as_3(stage):
    line = f"raw: {{zero_optimization: {{stage: {stage}, zero_hpz_partition_size: 3}}}}"
    assert ids(line) == ["hpz-world-size", "hpz-straddles-hosts"]


@pytest.mark.parametrize(
    "more",
    [
        "pipeline: {stages: 2}",
        "sequence_parallel_size: 2",
        "expert_parallel: {enabled: true, autoep_size: 2}",
        "tensor_parallel: {autotp_size: 4}",
    ],
)
def test_every_other_parallelism_is_refused_with_hpz(more):
    (finding,) = found(f"deepspeed: {{hpz: 4, overrides: {{{more}}}}}")
    assert (finding.rule, finding.severity) == ("hpz-model-parallel", "error")
    assert finding.problem.where.startswith(f"deepspeed.overrides.{more.partition(':')[0]}")


def test_a_filter_that_leaves_whole_hosts_is_fine():
    line = f"{HPZ}, hosts: [4, 4], cluster: {{exclude: h2}}, facts: {{unfiltered_world: 12, tensors: [4096]}}"
    assert ids(line) == []


def test_the_key_that_decides_is_named():
    override = "overrides: {zero_optimization: {zero_hpz_partition_size: 3}}"
    (finding, _) = found(f"deepspeed: {{{override}}}")
    assert finding.problem.where == "deepspeed.overrides.zero_optimization.zero_hpz_partition_size"


def test_stage_1_may_scale_gradients_before_it_reduces_them():
    """It keeps them whole: `runtime/zero/stage_1_and_2.py` looks at partition_gradients too."""
    for stage, fires in ((1, False), (2, True), (3, True)):
        line = f"deepspeed: {{zero_stage: {stage}, overrides: {{prescale_gradients: true}}}}"
        assert ("zero-gradient-scaling" in ids(line)) is fires


def test_odd_hosts_are_warned_of_for_what_is_on():
    [weights] = [
        each for each in found("deepspeed: {quantized_weights: true}, hosts: [2, 2, 2]") if "odd" in each.rule
    ]
    assert "weights may be refused" in weights.problem.what
    assert "gradients" not in weights.problem.what


def test_nvlink_is_asked_about_only_where_groups_are_whole_hosts():
    line = "deepspeed: {{hpz: {}}}, hosts: [4, 4]"
    fixes = {
        size: next(
            each.problem.fix for each in found(line.format(size)) if each.rule == "hpz-straddles-hosts"
        )
        for size in (3, 8)
    }
    assert "hardware.nvlink_domain" in fixes[8]
    assert "hardware.nvlink_domain" not in fixes[3]


def test_what_is_left_to_try_where_a_gpu_is_too_small():
    full = "deepspeed: {hpz: 4, micro_batch_per_gpu: 1, offload_optimizer: cpu}"
    full += ", facts: {gpu_memory: 1, gpu_memory_needed: 2}"
    [problem] = [each.problem for each in found(full) if each.rule == "hpz-memory"]
    assert problem.fix == "remove hpz, or use offload or more hosts"
    plain = "deepspeed: {zero_stage: 1, micro_batch_per_gpu: 4}, model: {parameters: 7B}"
    [problem] = [
        each.problem
        for each in found(f"{plain}, facts: {{gpu_memory: 1, gpu_memory_needed: 2}}")
        if each.rule == "gpu-memory"
    ]
    assert problem.fix == (
        "use a higher ZeRO stage, offload, a smaller micro-batch, recomputation of activations "
        "(model.recompute) or more hosts"
    )
