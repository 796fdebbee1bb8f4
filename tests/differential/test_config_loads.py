"""What we render, read by the installed DeepSpeed and Accelerate: nothing lost, nothing refused.

A world of N ranks is torch's own fake process group: DeepSpeed asks it for the world size and sends nothing.
"""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from pathlib import Path

import pytest
import yaml

from orchestrator.configs import accelerate_config, deepspeed_config
from orchestrator.configs.batch import GLOBAL, MICRO, STEPS, resolve_batch
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("deepspeed", reason="needs DeepSpeed installed")
    pytest.importorskip("accelerate", reason="needs Accelerate installed")
    import deepspeed
    import torch.distributed as td
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env
    from deepspeed.runtime import config as theirs
    from deepspeed.runtime.zero import config as their_zero
    from deepspeed.runtime.zero.offload_config import (
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )
    from torch.testing._internal.distributed.fake_pg import FakeStore

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours

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
    """Make DeepSpeed see `size` ranks."""
    td.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        deepspeed.init_distributed(dist_backend="fake", verbose=False)
        yield
    finally:
        td.destroy_process_group()


def generated(count: int, seed: int = 7):
    """Yield random fields; about every second one is refused by one rule or another."""
    rng = random.Random(seed)
    choices = {
        "zero_stage": [0, 1, 2, 3, 3, 3],
        "hpz": ["node", 1, 2, 4],
        "quantized_weights": [True, False],
        "quantized_gradients": [True, False],
        "micro_batch_per_gpu": [1, 2, 3],
        "global_batch": [8, 16, 24, 48],
        "gradient_accumulation_steps": [1, 2, 3],
        "gradient_clipping": [0, 0.3, 1],
        "precision": ["fp32", "fp16", "bf16"],
        "offload_optimizer": ["none", "cpu"],
        "offload_param": ["none", "cpu"],
    }
    for _ in range(count):
        yield {key: rng.choice(values) for key, values in choices.items() if rng.random() < 0.45}


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
            assert read == value, key


def assert_loads(config: dict, ranks: int) -> None:
    written = json.loads(json.dumps(config, allow_nan=False))
    with world(ranks):
        read = theirs.DeepSpeedConfig(written)
    assert (read.world_size, read.train_batch_size) == (ranks, config[GLOBAL])
    assert (read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps) == (
        config[MICRO],
        config[STEPS],
    )
    assert_same(config.get("zero_optimization", {}), read.zero_config)
    assert read.gradient_clipping == config.get("gradient_clipping", 1.0)
    assert read.bfloat16_config.enabled == config.get("bf16", {}).get("enabled", False)
    assert read.float16_config.enabled == config.get("fp16", {}).get("enabled", False)


@pytest.mark.parametrize("fields", TABLE)
def test_deepspeed_reads_what_we_render(fields):
    hosts = pool(2, 2)
    assert_loads(
        deepspeed_config.build(
            DeepSpeedSpec.model_validate(fields | _paths(fields)), hosts, Path("/")
        ).config,
        4,
    )


def _paths(fields: dict) -> dict:
    return {key: Path(value) for key, value in fields.items() if key.endswith("_path")}


def test_deepspeed_reads_generated_configurations():
    loaded = 0
    for fields in generated(400):
        hosts = pool(2, 4)
        try:
            config = deepspeed_config.build(DeepSpeedSpec.model_validate(fields), hosts, Path("/")).config
        except JobFileError:
            continue
        if GLOBAL in config:
            assert_loads(config, 8)
            loaded += 1
    assert loaded > 100


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
    assert set(deepspeed_config._REMOVED) == set(theirs._REMOVED_TOP_LEVEL_CONFIG_KEYS)
    assert set(deepspeed_config._REMOVED_ZERO) == set(theirs._REMOVED_ZERO_CONFIG_KEYS)


def test_sizes_to_round_are_the_whole_numbers_of_the_installed_deepspeed():
    models = (
        their_zero.DeepSpeedZeroConfig,
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )
    whole = {
        field.alias or name
        for model in models
        for name, field in model.model_fields.items()
        if field.annotation is int
    }
    assert whole - {"zero_hpz_partition_size"} == deepspeed_config._WHOLE


@pytest.fixture
def written(tmp_path):
    """Return a function that writes both files for two hosts of two ranks and returns the YAML's path."""

    def write(stage: int = 3, **more) -> Path:
        ds = deepspeed_config.build(
            DeepSpeedSpec(zero_stage=stage, micro_batch_per_gpu=2, gradient_clipping=0.7, precision="bf16"),
            pool(2, 2),
            tmp_path,
        )
        (tmp_path / "ds.json").write_text(json.dumps(ds), encoding="utf-8")
        config = accelerate_config.build(
            ds,
            ds_config_path=str(tmp_path / "ds.json"),
            world_size=4,
            num_machines=2,
            main_process_port=29511,
        )
        config["deepspeed_config"] |= more.pop("deepspeed", {})
        path = tmp_path / "accelerate.yaml"
        path.write_text(yaml.safe_dump(config | more), encoding="utf-8")
        return path

    return write


def rank_environment(path: Path) -> tuple[dict[str, str], object]:
    """Return what `accelerate launch` would give each rank, by the steps of its `launch_command`."""
    flags = ["--machine_rank", "1", "--main_process_ip", "127.0.0.1", "--config_file", str(path)]
    args = launch_command_parser().parse_args([*flags, "train.py", "--lr", "1e-4"])
    args, defaults, from_file = _validate_launch_command(args)
    assert args.use_deepspeed
    assert not args.cpu
    fields = [*defaults.deepspeed_config, *(["mixed_precision"] if from_file else [])]
    args.deepspeed_fields_from_accelerate_config = ",".join(fields)
    return prepare_deepspeed_cmd_env(args)[1], args


def test_accelerate_reads_what_we_render(written):
    config = load_config_from_file(str(written()))
    assert isinstance(config, ClusterConfig)
    assert (config.num_processes, config.num_machines, config.machine_rank) == (4, 2, 0)
    assert (config.distributed_type, config.main_process_port) == ("DEEPSPEED", 29511)
    assert config.mixed_precision is None


def test_accelerate_launches_torchrun_with_our_ranks(written):
    environment, args = rank_environment(written())
    assert (args.nproc_per_node, args.nnodes, args.node_rank) == ("2", "2", 1)
    assert args.rdzv_endpoint == "127.0.0.1:29511"
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_CONFIG_FILE"] == args.deepspeed_config_file


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_plugin_in_each_rank_takes_the_file_as_it_is(written, monkeypatch, stage):
    for name, value in rank_environment(written(stage))[0].items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    assert (plugin.zero_stage, plugin.gradient_clipping, plugin.gradient_accumulation_steps) == (
        stage,
        0.7,
        1,
    )
    assert plugin.zero3_init_flag is (stage == 3)
    assert plugin.deepspeed_config["train_micro_batch_size_per_gpu"] == 2


@pytest.mark.parametrize("more", [{"deepspeed": {"zero_stage": 3}}, {"mixed_precision": "no"}])
def test_the_keys_we_leave_out_would_be_refused(written, monkeypatch, more):
    for name, value in rank_environment(written(**more))[0].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="will be ignored"):
        DeepSpeedPlugin()
