"""Rules of precision, offload and DeepSpeed's own optimizer; of Slurm's options and DeepSpeed's version."""

from __future__ import annotations

import pytest

from tests.facts import Case, assert_case, found, ids

FP16 = "deepspeed: {precision: fp16}"
BF16 = "deepspeed: {precision: bf16}"
OFFLOAD = "deepspeed: {offload_optimizer: cpu}"
KEEP = "train: {checkpoint_dir: saved, keep_checkpoints: {last: 2}}"
ALL = "hpz: 4, quantized_weights: true, quantized_gradients: true, precision: bf16"

CASES = [
    Case(
        "unknown-key",
        "deepspeed: {overrides: {zero_optimization: {offload_param: {nvme_pth: x}}}}",
        "deepspeed: {overrides: {zero_optimization: {offload_param: {buffer_size: 5}}}}",
    ),
    Case("wrong-type", "raw: {zero_optimization: {stage: [3]}}", "raw: {zero_optimization: {stage: 3}}"),
    Case(
        "unknown-scheduler",
        "deepspeed: {scheduler: {type: WarmupDecayLr}}",
        "deepspeed: {scheduler: {type: CosineAnnealingLR}}",
    ),
    Case("two-precisions", "deepspeed: {precision: fp16, overrides: {bf16: {enabled: true}}}", FP16),
    Case("fp16-on-cpu", f"{FP16}, facts: {{device: cpu}}", f"{BF16}, facts: {{device: cpu}}"),
    Case(
        "fp16-old-gpu",
        f"{FP16}, facts: {{compute_capability: 5.2}}",
        f"{FP16}, facts: {{compute_capability: 7.0}}",
    ),
    Case(
        "bf16-before-ampere",
        f"{BF16}, facts: {{compute_capability: 7.5}}",
        f"{BF16}, facts: {{compute_capability: 8.0}}",
    ),
    Case("fp16-pretrained-in-bf16", f"{FP16}, model: {{config: t5-3b}}", f"{FP16}, model: {{config: gpt2}}"),
    Case(
        "fp16-settings-unused",
        "deepspeed: {precision: bf16, fp16: {loss_scale: 0}}",
        "deepspeed: {precision: fp16, fp16: {loss_scale: 0}}",
    ),
    Case(
        "client-optimizer-offload", OFFLOAD, "deepspeed: {offload_optimizer: cpu, optimizer: {type: AdamW}}"
    ),
    Case(
        "retention-shared-disk",
        f"cluster: {{shared_disk: false}}, {KEEP}",
        f"cluster: {{shared_disk: auto}}, {KEEP}",
    ),
    Case("accelerate-replaces-optimizer", f"{OFFLOAD}, train: {{launcher: accelerate}}", OFFLOAD),
    Case(
        "gpu-memory",
        "facts: {gpu_memory_needed: 90, gpu_memory: 80}",
        "facts: {gpu_memory_needed: 80, gpu_memory: 80}",
    ),
    Case(
        "host-memory",
        "facts: {host_memory_needed: 90, host_memory: 80}",
        "facts: {host_memory_needed: 80, host_memory: 80}",
    ),
    Case(
        "offload-settings-unused",
        "deepspeed: {pin_memory: true}",
        "deepspeed: {pin_memory: true, offload_param: cpu}",
    ),
    Case(
        "stage-3-settings-unused",
        "deepspeed: {zero_stage: 2, zero3_save_16bit_model: true}",
        "deepspeed: {zero_stage: 3, zero3_save_16bit_model: true}",
    ),
    Case(
        "stage-2-settings-unused",
        "deepspeed: {allgather_bucket_size: 500000000}",
        "deepspeed: {zero_stage: 2, allgather_bucket_size: 500000000}",
    ),
    Case(
        "untested-optimizer",
        "deepspeed: {optimizer: {type: SGD}}",
        "deepspeed: {optimizer: {type: SGD}, overrides: {zero_allow_untested_optimizer: true}}",
    ),
    Case(
        "muon-reduce-scatter",
        "deepspeed: {optimizer: {type: Muon}}",
        "deepspeed: {optimizer: {type: Muon}, reduce_scatter: false}",
    ),
    Case(
        "optimizer-max-grad-norm",
        "deepspeed: {optimizer: {type: AdamW, params: {lr: 1, max_grad_norm: 1.0}}}",
        "deepspeed: {optimizer: {type: AdamW, params: {lr: 1}}}",
    ),
    Case(
        "scheduler-warmup",
        "deepspeed: {scheduler: {type: WarmupLR, params: {warmup_num_steps: 0}}}",
        "deepspeed: {scheduler: {type: WarmupLR, params: {warmup_num_steps: 1}}}",
    ),
    Case(
        "configuration-not-passed", "train: {args: [--steps, '1']}", "train: {launcher: accelerate, args: []}"
    ),
    Case(
        "webhook-secret",
        "notify: [{webhook: 'https://chat.example.org/hooks/x7Hq2mP0aZk19LwQ'}]",
        "notify: [{webhook: 'https://chat.example.org/hooks/${HOOK}'}, {webhook: 'http://monitor/training-alerts'}]",
    ),
    Case(
        "slurm-gpu-binding",
        "cluster: {backend: slurm, nodes: 2, slots: 4, slurm: {extra: {gpus-per-task: 1}}}",
        "cluster: {backend: slurm, nodes: 2, slots: 4, slurm: {extra: {gpus-per-task: h100:4}}}",
    ),
    Case(
        "slurm-distribution",
        "cluster: {backend: slurm, nodes: 2, slots: 4, slurm: {extra: {distribution: cyclic}}}",
        "cluster: {backend: slurm, nodes: 2, slots: 4, slurm: {extra: {distribution: block}}}",
    ),
    Case(
        "removed-key",
        "raw: {zero_optimization: {stage: 3, mics_shard_size: 4}}",
        "raw: {zero_optimization: {stage: 3, mics_shard_size: 4}}, facts: {deepspeed: 0.19.6}",
    ),
    Case(
        "renamed-key",
        "raw: {zero_optimization: {stage: 2, cpu_offload: true}}",
        "raw: {zero_optimization: {stage: 2, offload_optimizer: {device: cpu}}}",
    ),
    Case(
        "old-deepspeed",
        f"deepspeed: {{{ALL}}}, facts: {{deepspeed: 0.19.7}}",
        f"deepspeed: {{{ALL}}}, facts: {{deepspeed: 0.19.8+cu128}}",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_fires_and_is_silent(case):
    assert_case(case)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("fp16_on_cpu: true", []),
        ("fp16_on_cpu: false", ["fp16-on-cpu"]),
        ("device: cuda", []),
        ("device: ''", []),
    ],
)
def test_fp16_is_for_cpus_that_have_it(more, expected):
    assert ids(f"{FP16}, facts: {{{'device: cpu, ' if more[0] == 'f' else ''}{more}}}") == expected


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (f"{FP16}, facts: {{device: cpu", "fp16-on-cpu"),
        ("raw: {elasticity: {}}, facts: {device: cuda", "removed-key"),
        (
            (
                "deepspeed: {scheduler: {type: WarmupCosineLR, params: {warmup_num_steps: 0}}}, "
                "facts: {device: cuda"
            ),
            "scheduler-warmup",
        ),
    ],
)
def test_what_nobody_has_looked_at_is_a_warning(line, rule):
    known = {"fp16-on-cpu": "fp16_on_cpu: false"}.get(rule, "deepspeed: 0.19.8")
    for more, severity in (("", "warning"), (f", {known}", "error")):
        (finding,) = [each for each in found(f"{line}{more}}}") if each.rule == rule]
        assert finding.severity == severity


def test_warm_up_of_no_steps_was_allowed_before():
    line = (
        "deepspeed: {scheduler: {type: WarmupLR, params: {warmup_num_steps: 0}}}, facts: {deepspeed: 0.18.0}"
    )
    assert "scheduler-warmup" not in ids(line)


@pytest.mark.parametrize(
    ("capability", "allowed", "expected"),
    [(6.1, "1", []), (6.1, "0", ["fp16-old-gpu"]), (5.2, "1", ["fp16-old-gpu"])],
)
def test_deprecated_gpus_may_be_allowed(capability, allowed, expected):
    environment = f"train: {{env: {{DS_ALLOW_DEPRECATED_FP16: '{allowed}'}}}}"
    assert ids(f"{FP16}, {environment}, facts: {{compute_capability: {capability}}}") == expected


@pytest.mark.parametrize(
    "name", ["bigscience/T0_3B", "bigscience/T0pp", "google/mt5-small", "google/flan-t5-xl", "google/ul2"]
)
def test_the_t5_family_was_pretrained_in_bf16(name):
    assert ids(f"{FP16}, model: {{config: {name}}}") == ["fp16-pretrained-in-bf16"]


@pytest.mark.parametrize(
    ("model", "facts", "expected"),
    [
        ("parameters: 7B, pretrained_in: bf16", "{}", ["fp16-pretrained-in-bf16"]),
        ("config: my/model", "{pretrained_in: bf16}", ["fp16-pretrained-in-bf16"]),
        ("config: t5-small, pretrained_in: fp32", "{}", []),
        ("config: facebook/opt-t0y", "{}", []),
    ],
)
def test_what_is_said_of_the_model_goes_before_its_name(model, facts, expected):
    assert ids(f"{FP16}, model: {{{model}}}, facts: {facts}") == expected


@pytest.mark.parametrize("value", ["false", "true"])
def test_an_own_optimizer_may_be_allowed_with_offload(value):
    line = f"deepspeed: {{offload_optimizer: cpu, force_ds_cpu_optimizer: {value}}}"
    assert ids(line) == ([] if value == "false" else ["client-optimizer-offload"])


@pytest.mark.parametrize(
    ("script", "fires"),
    [
        ("deepspeed.initialize(model=m, optimizer=torch.optim.AdamW(p))", True),
        ("deepspeed.initialize(model=m, optimizer=DeepSpeedCPUAdam(p))", False),
        ("trainer = Seq2SeqTrainer(model, args)", False),
        ("accelerator = Accelerator()", False),
    ],
)
def test_a_script_that_copes_with_offload_is_left_alone(script, fires):
    assert ("client-optimizer-offload" in ids(f"{OFFLOAD}, facts: {{script: '{script}'}}")) is fires


def test_every_setting_of_stage_3_is_named_below_it():
    fields = (
        "prefetch_bucket_size: 1, param_persistence_threshold: 1, max_live_parameters: 1, "
        "max_reuse_distance: 1, sub_group_size: 1, zero3_init: true, zero3_save_16bit_model: true, "
        "moe_layer_cls_names: [Moe]"
    )
    given = [finding.problem.where for finding in found(f"deepspeed: {{zero_stage: 1, {fields}}}")]
    assert given == [f"deepspeed.{part.partition(':')[0]}" for part in fields.split(", ")]
    assert ids(f"deepspeed: {{{fields}}}") == []


@pytest.mark.parametrize(
    ("option", "fires"),
    [
        ("srun_args: [--gpu-bind=single:1]", True),
        ("srun_args: ['--gpu-bind=verbose,single:1']", True),
        ("srun_args: [--gpu-bind=none]", False),
        ("extra: {gpu_bind: single}", True),
        ("extra: {gpus_per_task: 2}", True),
    ],
)
def test_bindings_are_found_wherever_they_are(option, fires):
    line = f"cluster: {{backend: slurm, nodes: 2, slots: 4, slurm: {{{option}}}}}"
    assert ("slurm-gpu-binding" in ids(line)) is fires


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("0.13.1", ["#5054", "#5059", "#7606", "#7775"]),
        ("0.18.2", ["#7606", "#7775"]),
        ("0.19.6", ["ZeRO++ wants a newer DeepSpeed"]),
    ],
)
def test_bugs_are_named_until_the_version_that_fixed_them(version, names):
    (finding,) = [
        each
        for each in found(f"deepspeed: {{{ALL}}}, facts: {{deepspeed: {version}}}")
        if each.rule == "old-deepspeed"
    ]
    assert [name for name in names if name in finding.problem.what] == names
    assert finding.problem.what.count("#") == sum("#" in name for name in names)


def test_old_versions_are_fine_without_what_they_break():
    assert ids("deepspeed: {zero_stage: 2}, facts: {deepspeed: 0.13.1}") == []
    assert ids("facts: {deepspeed: 0.19.6, device: cpu}") == ["old-deepspeed"]


@pytest.mark.parametrize(
    ("name", "severity", "fix"),
    [
        ("warmuplr", "error", "did you mean WarmupLR?"),
        ("CosineAnealingLR", "error", "did you mean CosineAnnealingLR?"),
        ("Muonified", "warning", "use one of WarmupLR, WarmupDecayLR, WarmupCosineLR, LRRangeTest, OneCycle"),
    ],
)
def test_a_scheduler_that_looks_like_none_may_be_of_a_later_torch(name, severity, fix):
    line = f"deepspeed: {{scheduler: {{type: {name}}}}}"
    [finding] = [each for each in found(line) if each.rule == "unknown-scheduler"]
    assert (finding.severity, finding.problem.fix) == (severity, fix)
    assert finding.problem.where == "deepspeed.scheduler.type"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("{zero_optimization: true}", "{zero_optimization: auto}"),
        ("{fp16: []}", "{fp16: {}}"),
        (
            "{zero_optimization: {stage: 3, zero_hpz_partition_size: -1}}",
            "{zero_optimization: {stage: 3, zero_hpz_partition_size: 0}}",
        ),
        ("{zero_optimization: {sub_group_size: x}}", "{zero_optimization: {sub_group_size: auto}}"),
        ("{zero_optimization: {stage: true}}", "{zero_optimization: {stage: 0}}"),
    ],
)
def test_types_that_deepspeed_refuses(wrong, right):
    assert "wrong-type" in ids(f"raw: {wrong}")
    assert "wrong-type" not in ids(f"raw: {right}")


def test_a_later_deepspeed_may_know_more_keys():
    line = "deepspeed: {{overrides: {{zero_optimization: {{new: 1}}}}}}, facts: {{deepspeed: {}}}"
    severity = {
        version: next(each.severity for each in found(line.format(version)) if each.rule == "unknown-key")
        for version in ("0.19.8", "0.20.0", "null")
    }
    assert severity == {"0.19.8": "error", "0.20.0": "warning", "null": "warning"}
