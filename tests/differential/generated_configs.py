"""Sections `deepspeed` of job files, drawn at random: any of the fields, none that contradict each other."""

from __future__ import annotations

from hypothesis import strategies as st

COUNTS = st.integers(1, 10**6)
SIZES = st.one_of(st.integers(0, 10**10), st.floats(0, 1e10))
WORDS = st.sampled_from(["a", "train-1", "x/y"])


def section(**keys):
    return st.fixed_dictionaries({}, optional=keys)


def monitor(*names):
    return section(enabled=st.booleans(), **dict.fromkeys(names, WORDS))


@st.composite
def any_fields(draw):
    """Draw a section `deepspeed` that uses any of the fields and contradicts itself nowhere."""
    fields = draw(ANY_FIELDS)
    stage = fields.get("zero_stage", 0)
    for name, least in (("offload_optimizer", 1), ("offload_param", 3)):
        device = fields.get(name)
        if device == "nvme":
            fields[f"{name}_nvme_path"] = f"/local/{name}"
        if device in ("cpu", "nvme") and stage < (3 if device == "nvme" else least):
            fields[name] = "none"
            fields.pop(f"{name}_nvme_path", None)
    steps, micro = fields.setdefault("gradient_accumulation_steps", 1), draw(st.integers(1, 4))
    which = draw(st.sampled_from(["micro", "global", "both"]))
    fields |= {"micro_batch_per_gpu": micro} if which != "global" else {}
    return fields | ({"global_batch": micro * steps * 8} if which != "micro" else {})


ANY_FIELDS = section(
    zero_stage=st.sampled_from([0, 1, 2, 3, 3, 3]),
    hpz=st.sampled_from(["node", 1, 2, 4]),
    quantized_weights=st.booleans(),
    quantized_gradients=st.booleans(),
    quantized_nontrainable_weights=st.booleans(),
    gradient_accumulation_steps=st.integers(1, 5),
    gradient_clipping=st.floats(0, 10),
    precision=st.sampled_from(["fp32", "fp16", "bf16"]),
    fp16=section(
        loss_scale=st.floats(0, 2**20),
        initial_scale_power=st.integers(0, 32),
        loss_scale_window=COUNTS,
        hysteresis=st.integers(0, 9),
        min_loss_scale=COUNTS,
        auto_cast=st.booleans(),
    ),
    offload_optimizer=st.sampled_from(["none", "cpu", "nvme"]),
    offload_param=st.sampled_from(["none", "cpu", "nvme"]),
    pin_memory=st.booleans(),
    force_ds_cpu_optimizer=st.booleans(),
    zero3_init=st.booleans(),
    zero3_save_16bit_model=st.booleans(),
    moe_layer_cls_names=st.lists(WORDS, unique=True),
    optimizer=st.fixed_dictionaries(
        {"type": st.sampled_from(["AdamW", "Lion"])}, optional={"params": st.just({"lr": 1e-4})}
    ),
    scheduler=st.just({"type": "WarmupLR", "params": {"warmup_num_steps": 10}}),
    reduce_bucket_size=st.one_of(COUNTS, st.floats(1, 1e10)),
    **dict.fromkeys(
        (
            "allgather_bucket_size",
            "prefetch_bucket_size",
            "param_persistence_threshold",
            "max_live_parameters",
            "max_reuse_distance",
            "sub_group_size",
        ),
        SIZES,
    ),
    overlap_comm=st.booleans(),
    contiguous_gradients=st.booleans(),
    reduce_scatter=st.booleans(),
    activation_checkpointing=section(
        number_checkpoints=COUNTS,
        **dict.fromkeys(
            (
                "partition_activations",
                "cpu_checkpointing",
                "contiguous_memory_optimization",
                "synchronize_checkpoint_boundary",
                "profile",
            ),
            st.booleans(),
        ),
    ),
    checkpoint=section(
        load_universal=st.booleans(),
        tag_validation=st.sampled_from(["Ignore", "Warn", "Fail"]),
        use_node_local_storage=st.booleans(),
    ),
    flops_profiler=section(
        enabled=st.booleans(),
        profile_step=COUNTS,
        module_depth=st.integers(-1, 9),
        top_modules=COUNTS,
        detailed=st.booleans(),
        output_file=WORDS,
    ),
    comms_logger=section(
        enabled=st.booleans(),
        verbose=st.booleans(),
        prof_all=st.booleans(),
        debug=st.booleans(),
        prof_ops=st.lists(st.sampled_from(["all_reduce", "all_gather"])),
    ),
    tensorboard=monitor("output_path", "job_name"),
    csv_monitor=monitor("output_path", "job_name"),
    wandb=monitor("group", "team", "project"),
)
