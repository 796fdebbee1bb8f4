"""What we render, read by the installed DeepSpeed and Accelerate: nothing lost, nothing refused.

A world of N ranks is torch's own fake process group: DeepSpeed asks it for the world size and sends nothing.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from pathlib import Path

import pytest
from generated_configs import any_fields
from hypothesis import given, settings
from needs import needs

from orchestrator.configs import deepspeed_config, sizes
from orchestrator.configs.batch import GLOBAL, MICRO, STEPS, resolve_batch
from orchestrator.configs.versions import REMOVED, RENAMED
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec, load_job

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
installed = needs("deepspeed", "accelerate.utils")

EXAMPLES = Path(__file__).parents[2] / "examples"
TABLE = [
    {"zero_stage": 0, "micro_batch_per_gpu": 1},
    {"zero_stage": 1, "micro_batch_per_gpu": 2, "precision": "fp16", "offload_optimizer": "cpu"},
    {"zero_stage": 2, "global_batch": 16, "precision": "bf16", "gradient_clipping": 0.5},
    {
        "zero_stage": 3,
        "hpz": "node",
        "quantized_weights": True,
        "quantized_gradients": True,
        "global_batch": 8,
    },
    {
        "zero_stage": 3,
        "micro_batch_per_gpu": 1,
        "gradient_accumulation_steps": 4,
        "offload_optimizer": "nvme",
        "offload_optimizer_nvme_path": "/nvme/o",
        "offload_param": "nvme",
        "offload_param_nvme_path": "/nvme/p",
        "overrides": {
            "zero_optimization": {
                "reduce_bucket_size": 5e8,
                "stage3_prefetch_bucket_size": 0.9 * 1023 * 1023,
                "sub_group_size": 1e9,
                "offload_param": {"buffer_size": 1.5e8},
            }
        },
    },
]


def pool(hosts: int, slots: int) -> HostPool:
    return HostPool(tuple(Host(f"n{i}", tuple(range(slots))) for i in range(hosts)))


@contextlib.contextmanager
def world(size: int):
    """Make DeepSpeed see `size` ranks.

    On CPUs its backend would compile an operation for shared memory first (`build_shm_op`): half a minute of
    a C++ compiler where that was never done, for messages that nobody sends here.
    """
    import deepspeed
    import torch.distributed as td
    from torch.testing._internal.distributed.fake_pg import FakeStore

    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: (
        None
    )  # by that name: the attribute is torch itself
    td.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        deepspeed.init_distributed(dist_backend="fake", verbose=False)
        yield
    finally:
        td.destroy_process_group()


def assert_same(ours: dict, theirs_model) -> None:
    """Check that a section was read key by key as it was written."""
    names = {field.alias or name: name for name, field in type(theirs_model).model_fields.items()}
    for key, value in ours.items():
        read = getattr(theirs_model, names[key])
        if isinstance(value, dict):
            assert_same(value, read)
        elif isinstance(read, Path):
            assert str(read) == value, key
        else:
            assert value in (read, "auto"), key  # a script fills in what is auto


SECTIONS = {  # where DeepSpeed keeps what it has read of a section
    "zero_optimization": lambda read: read.zero_config,
    "fp16": lambda read: read.float16_config,
    "bf16": lambda read: read.bfloat16_config,
    "tensorboard": lambda read: read.monitor_config.tensorboard,
    "csv_monitor": lambda read: read.monitor_config.csv_monitor,
    "wandb": lambda read: read.monitor_config.wandb,
    "comms_logger": lambda read: read.comms_config.comms_logger,
}
PLAIN = {
    "flops_profiler": lambda read: read.flops_profiler_config,
    "activation_checkpointing": lambda read: read.activation_checkpointing_config,
}
ALONE = {
    "gradient_clipping": lambda read: read.gradient_clipping,
    "zero_force_ds_cpu_optimizer": lambda read: read.zero_force_ds_cpu_optimizer,
    GLOBAL: lambda read: read.train_batch_size,
    MICRO: lambda read: read.train_micro_batch_size_per_gpu,
    STEPS: lambda read: read.gradient_accumulation_steps,
}


def assert_loads(config: dict, ranks: int) -> None:
    """Check that DeepSpeed takes a configuration and has read all of it as it was written."""
    from deepspeed.runtime import config as theirs

    written = json.loads(json.dumps(config, allow_nan=False))
    with world(ranks):
        read = theirs.DeepSpeedConfig(written)
    assert read.world_size == ranks
    for key, value in config.items():
        if key in SECTIONS:
            assert_same(value, SECTIONS[key](read))
        elif key in PLAIN:
            assert {name: getattr(PLAIN[key](read), name) for name in value} == value
        elif key in ALONE:
            assert ALONE[key](read) == value, key
        else:
            assert key in ("optimizer", "scheduler", "checkpoint", "steps_per_print"), key
    for key in {"optimizer", "scheduler"} & config.keys():
        name, params = getattr(read, f"{key}_name"), getattr(read, f"{key}_params")
        assert (name.lower(), params) == (config[key]["type"].lower(), config[key].get("params"))
    assert_checkpoint(config.get("checkpoint", {}), read)


def assert_checkpoint(section: dict, read) -> None:
    assert read.load_universal_checkpoint == section.get("load_universal", False)
    assert read.use_node_local_storage == section.get("use_node_local_storage", False)
    validation = section.get("tag_validation", "Warn")
    assert read.checkpoint_tag_validation_enabled == (validation != "Ignore")
    assert read.checkpoint_tag_validation_fail == (validation == "Fail")


def built(fields: dict, hosts: HostPool, **more) -> dict:
    return deepspeed_config.build(DeepSpeedSpec.model_validate(fields), hosts, Path("/"), **more).config


@pytest.mark.parametrize("fields", TABLE)
def test_deepspeed_reads_what_we_render(fields):
    assert_loads(built(fields, pool(2, 2)), 4)


@settings(max_examples=120, deadline=None)
@given(any_fields())
def test_deepspeed_reads_generated_configurations(fields):
    assert_loads(built(fields, pool(2, 4)), 8)


@settings(max_examples=60, deadline=None)
@given(any_fields())
def test_accelerates_plugin_takes_generated_configurations(fields):
    from accelerate.utils import DeepSpeedPlugin

    config = built({"zero_stage": 2, **fields}, pool(2, 4), launcher="accelerate")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ACCELERATE_CONFIG_DS_FIELDS", "deepspeed_config_file,zero3_init_flag")
        plugin = DeepSpeedPlugin(hf_ds_config=json.loads(json.dumps(config)))
        plugin.set_mixed_precision("no")  # the launcher is told of none
    added = {key: {"enabled": False} for key in ("fp16", "bf16") if key not in config}
    assert plugin.deepspeed_config == config | added | {"steps_per_print": float("inf")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_the_installed_classes_take_every_example(path):
    from accelerate.utils import DeepSpeedPlugin

    job = load_job(path)
    if job.spec.deepspeed is None:
        pytest.skip("no DeepSpeed configuration")
    spec = job.spec.deepspeed
    if spec.config_file is not None and not spec.config_file.exists():
        # What `orchestrate init` writes beside the job file lies in a folder of the template's name.
        spec = spec.model_copy(update={"config_file": path.with_suffix("") / spec.config_file.name})
    made = deepspeed_config.build(
        spec, pool(2, 8), job.base_dir, launcher=job.spec.train.launcher, model=job.spec.model
    )
    filled = {key: value for key, value in made.config.items() if value != "auto"}
    if MICRO not in filled:  # the script will fill it in, and the others follow
        filled = {MICRO: 1, **{key: value for key, value in filled.items() if key not in (GLOBAL, STEPS)}}
        filled |= resolve_batch(filled, 16)
    assert_loads(filled, 16)
    if job.spec.train.launcher == "accelerate":
        plugin = DeepSpeedPlugin(hf_ds_config=json.loads(json.dumps(made.config)))
        assert plugin.zero_stage == filled["zero_optimization"]["stage"]


def test_batch_arithmetic_is_deepspeeds():
    """Ours gives DeepSpeed's numbers, and refuses exactly where DeepSpeed does."""
    rng, outcomes = random.Random(3), {"same": 0, "refused": 0}
    for ranks in (1, 3, 4, 8):
        for _ in range(150):
            numbers = {
                GLOBAL: rng.choice([1, 6, 8, 12, 24, 48]),
                MICRO: rng.randint(1, 4),
                STEPS: rng.randint(1, 3),
            }
            config = {key: number for key, number in numbers.items() if rng.random() < 0.6}
            if not {GLOBAL, MICRO} & config.keys():
                continue  # DeepSpeed refuses; we leave it to the script, which may give its own numbers
            expected = _their_batch(config, ranks)
            outcomes["same" if expected else "refused"] += 1
            assert _our_batch(config, ranks) == expected, (config, ranks)
    assert min(outcomes.values()) > 50


def _their_batch(config: dict, ranks: int) -> dict | None:
    from deepspeed.runtime import config as theirs

    try:
        with world(ranks):
            read = theirs.DeepSpeedConfig(dict(config))
    except AssertionError:
        return None
    return {
        GLOBAL: read.train_batch_size,
        MICRO: read.train_micro_batch_size_per_gpu,
        STEPS: read.gradient_accumulation_steps,
    }


def _our_batch(config: dict, ranks: int) -> dict | None:
    try:
        return resolve_batch(config, ranks)
    except JobFileError:
        return None


def test_removed_keys_are_those_of_the_installed_deepspeed():
    from deepspeed.runtime import config as theirs

    refused = {key for key, change in REMOVED.items() if not change.silent}
    zero = {f"zero_optimization.{key}" for key in theirs._REMOVED_ZERO_CONFIG_KEYS}
    assert refused == set(theirs._REMOVED_TOP_LEVEL_CONFIG_KEYS) | zero


def test_old_names_are_those_that_the_installed_deepspeed_still_takes():
    from deepspeed.runtime.zero import config as their_zero

    deprecated = {
        f"zero_optimization.{field.alias or name}"
        for name, field in their_zero.DeepSpeedZeroConfig.model_fields.items()
        if (field.json_schema_extra or {}).get("deprecated")
    }
    assert set(RENAMED) == deprecated


def test_sizes_to_round_are_the_whole_numbers_of_the_installed_deepspeed():
    from deepspeed.runtime.zero import config, offload_config

    models = (
        config.DeepSpeedZeroConfig,
        offload_config.DeepSpeedZeroOffloadOptimizerConfig,
        offload_config.DeepSpeedZeroOffloadParamConfig,
    )
    whole = {
        field.alias or name
        for model in models
        for name, field in model.model_fields.items()
        if field.annotation is int
    }
    assert whole - {"zero_hpz_partition_size"} == sizes._WHOLE
