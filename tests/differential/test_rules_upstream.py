"""What rules refuse, against the installed DeepSpeed and Accelerate: the same, and nothing more."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import subprocess
import sys

import pytest
import yaml
from accelerate_launch import launched
from needs import needs

from orchestrator.rules import accelerate as ours
from orchestrator.rules import optimizer, shape
from tests.facts import facts, ids

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
installed = needs("deepspeed", "accelerate.utils")


@contextlib.contextmanager
def world(size: int):
    """Make DeepSpeed see `size` ranks, of which this is the first."""
    import deepspeed
    import torch.distributed as td
    from torch.testing._internal.distributed.fake_pg import FakeStore

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else compiled, for a minute
    td.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        deepspeed.init_distributed(dist_backend="fake", verbose=False)
        yield
    finally:
        td.destroy_process_group()


def their_group(size: int, monkeypatch) -> list[int] | None:
    """Return the hpZ group of rank 0 as DeepSpeed makes it in this world; None where it refuses to."""
    from deepspeed.utils import groups

    monkeypatch.setattr(groups, "_ZERO_PARAM_INTRA_PARALLEL_GROUP", None)
    try:
        groups._create_zero_param_parallel_group(size)
    except AssertionError:
        return None
    return groups._get_zero_param_intra_parallel_group_ranks()


def test_hpz_is_refused_where_deepspeed_asserts_and_where_it_clamps(monkeypatch):
    """On a single host, where groups cannot straddle."""
    made = {}
    for ranks in (2, 3, 4, 6, 8, 9, 12):
        with world(ranks):
            made |= {(ranks, size): their_group(size, monkeypatch) for size in range(2, ranks + 2)}
    for (ranks, size), group in made.items():
        found = ids(f"deepspeed: {{hpz: {size}}}, hosts: [{ranks}]")
        if group is None:
            assert "hpz-world-size" in found, (ranks, size)
        elif size > ranks:
            assert group == list(range(ranks)), (ranks, size)
            assert "hpz-exceeds-world" in found, (ranks, size)
        else:
            assert group == list(range(size)), (ranks, size)
            assert found == ["zeropp-single-host"], (ranks, size)


@pytest.mark.parametrize(("hosts", "works"), [(2, True), (3, False)])
def test_qgz_with_more_gpus_than_slots_is_as_we_say(monkeypatch, hosts, works):
    """Four ranks a host see eight GPUs: two hosts pass for one, three do not start."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.utils import groups

    monkeypatch.setattr(get_accelerator(), "device_count", lambda: 8)
    monkeypatch.setattr(groups, "_ALL_TO_ALL_GROUP", {})
    with world(4 * hosts), contextlib.nullcontext() if works else pytest.raises(AssertionError):
        assert list(groups._get_local_all_to_all_group()) == ["local_0"]
    line = f"deepspeed: {{quantized_gradients: true}}, hosts: [{', '.join('4' * hosts)}]"
    assert "qgz-visible-gpus" in ids(f"{line}, facts: {{gpus_per_host: 8}}")


AUTOCAST = "{torch_autocast: {enabled: true, dtype: bfloat16}}"
ADAM = "optimizer: {type: AdamW, params: {torch_adam: true%s}}"
REFUSED = [  # rule, what makes DeepSpeed refuse, what it takes
    ("two-precisions", "precision: bf16, overrides: {fp16: {enabled: true}}", "precision: bf16"),
    # fp16-on-cpu is not here: some CPUs compute in fp16
    ("quantization-device", "quantized_weights: true", ""),
    (
        "qwz-torch-autocast",
        f"zero_stage: 2, quantized_weights: true, overrides: {AUTOCAST}",
        f"overrides: {AUTOCAST}",
    ),
    ("qgz-reduce-scatter", "quantized_gradients: true, reduce_scatter: false", "reduce_scatter: false"),
    (
        "zero-gradient-scaling",
        "overrides: {gradient_predivide_factor: 2.0}",
        "overrides: {gradient_predivide_factor: 1.0}",
    ),
    (
        "zero-gradient-scaling",
        "zero_stage: 2, overrides: {prescale_gradients: true}",
        "zero_stage: 2, reduce_scatter: false, overrides: {prescale_gradients: true}",
    ),
    ("optimizer-max-grad-norm", ADAM % ", max_grad_norm: 1.0", ""),
    (
        "untested-optimizer",
        "optimizer: {type: SGD, params: {lr: 0.1}}",
        "zero_stage: 0, optimizer: {type: SGD, params: {lr: 0.1}}",
    ),
]


# One process for all starts, since DeepSpeed keeps its groups for the life of a process.
STARTS = """
import json, sys, torch, deepspeed
import torch.distributed as td
from torch.testing._internal.distributed.fake_pg import FakeStore

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else compiled, for a minute
td.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
deepspeed.init_distributed(dist_backend="fake", verbose=False)
outcomes = []
for config, own in json.load(sys.stdin):
    model = torch.nn.Linear(8, 8)
    weights = list(model.parameters())
    given = {"optimizer": torch.optim.AdamW(weights)} if own else {"model_parameters": weights}
    try:
        deepspeed.initialize(model=model, config=config, **given)
        outcomes.append("")
    except Exception as error:
        outcomes.append(f"{type(error).__name__}: {error}")
print("OUTCOMES" + json.dumps(outcomes))
"""


def started(*jobs: tuple[str, bool]) -> list[str]:
    """Return what DeepSpeed raises as it starts each job, "" for nothing, as the only rank of a CPU.

    Args:
        jobs: each a line for `facts`, and whether the script brings its own optimizer.
    """
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    given = json.dumps([[facts(line).config, own] for line, own in jobs])
    command = [sys.executable, "-c", STARTS]
    done = subprocess.run(
        command, input=given, env=os.environ | rank, capture_output=True, text=True, timeout=300, check=False
    )
    assert "OUTCOMES" in done.stdout, done.stderr
    return json.loads(done.stdout.rpartition("OUTCOMES")[2])


def _line(settings: str) -> str:
    optimizer = "" if "optimizer" in settings else ADAM % ""
    inside = ", ".join(part for part in (settings, optimizer) if part)
    return f"deepspeed: {{{inside}}}, hosts: [1], facts: {{device: cpu}}"


JOBS = [(rule, _line(refused), _line(taken)) for rule, refused, taken in REFUSED]
OFFLOADED = [
    f"deepspeed: {{zero_stage: 2, offload_optimizer: cpu, force_ds_cpu_optimizer: {force}}}, hosts: [1]"
    for force in ("true", "false")
]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """Return what DeepSpeed raises by the job's line; "" for nothing."""
    configured = [line for _, *lines in JOBS for line in lines]
    jobs = [*((line, False) for line in configured), *((line, True) for line in OFFLOADED)]
    return dict(zip((line for line, _ in jobs), started(*jobs), strict=True))


@pytest.mark.parametrize(("rule", "refused", "taken"), JOBS)
def test_what_is_refused_is_what_deepspeed_refuses_when_it_starts(outcomes, rule, refused, taken):
    assert rule in ids(refused)
    assert outcomes[refused]
    assert rule not in ids(taken)
    assert not outcomes[taken]


def test_an_own_optimizer_with_offload_is_refused_unless_it_is_allowed(outcomes):
    forced, allowed = (outcomes[line] for line in OFFLOADED)
    assert forced.startswith(
        "ZeRORuntimeException: You are using ZeRO-Offload with a client provided optimizer"
    )
    assert allowed == ""
    assert [("client-optimizer-offload" in ids(line)) for line in OFFLOADED] == [True, False]


def test_optimizers_are_the_tested_ones():
    """Names of DeepSpeed's own that end in a supported class, whatever the device."""
    import torch
    from deepspeed.runtime import config as theirs
    from deepspeed.runtime.zero import utils as zero_utils

    classes = " ".join(kind.__name__.lower() for kind in zero_utils.ZERO_SUPPORTED_OPTIMIZERS)
    for name in theirs.DEEPSPEED_OPTIMIZERS:
        supported = name in classes and not name.startswith("mu")
        supported |= name == "muon" and "MuonWithAuxAdam" in inspect.getsource(zero_utils)
        assert (name in optimizer._SUPPORTED) is supported, name
    assert torch.optim.SGD not in zero_utils.ZERO_SUPPORTED_OPTIMIZERS


def test_the_schedulers_are_those_of_deepspeed_and_torch():
    from deepspeed.runtime import lr_schedules as ours
    from torch.optim import lr_scheduler as torchs

    known = {name for name in optimizer._SCHEDULERS if hasattr(ours, name) or hasattr(torchs, name)}
    assert known == set(optimizer._SCHEDULERS)
    assert set(ours.VALID_LR_SCHEDULES) <= known
    theirs = {name for name, kind in vars(torchs).items() if inspect.isclass(kind)}
    theirs = {name for name in theirs if issubclass(getattr(torchs, name), torchs.LRScheduler)}
    assert theirs - {"LRScheduler", "_LRScheduler"} <= known


def test_warmup_of_no_steps_is_refused_by_deepspeed_too():
    import torch
    from deepspeed.runtime import lr_schedules as schedulers

    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    for name in optimizer._WARMUP:
        more = {} if name == "WarmupLR" else {"total_num_steps": 10}
        with pytest.raises(ValueError, match="positive integer"):
            getattr(schedulers, name)(adam, warmup_num_steps=0, **more)
        getattr(schedulers, name)(adam, warmup_num_steps=1, **more)


VALUES = {
    "gradient_accumulation_steps": [1, None],
    "gradient_clipping": [1.0],
    "zero_stage": [3],
    "offload_optimizer_device": ["cpu"],
    "offload_param_device": ["none"],
    "offload_param_nvme_path": ["/n"],
    "offload_optimizer_nvme_path": ["/n"],
    "zero3_save_16bit_model": [True],
    "zero3_init_flag": [True],
    "deepspeed_multinode_launcher": ["standard"],
    "deepspeed_moe_layer_cls_names": ["Moe"],
}


def generated():
    """Yield each key alone, all together, none, and `mixed_precision` in its ways."""
    for key, values in VALUES.items():
        yield from ({"deepspeed_config": {key: value}} for value in values)
    yield {"deepspeed_config": {key: values[0] for key, values in VALUES.items()}}
    for value in ("no", "bf16", None):
        yield {"deepspeed_config": {}, "mixed_precision": value}


def their_refusal(folder, config: dict, monkeypatch) -> str:
    """Return what Accelerate raises in a rank, by the steps of `accelerate launch`; "" for nothing."""
    from accelerate.utils import DeepSpeedPlugin

    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with monkeypatch.context() as patch:
        for name, value in launched(["--config_file", str(path)])[0].items():
            patch.setenv(name, value)
        try:
            DeepSpeedPlugin()
        except ValueError as error:
            return str(error)
    return ""


def test_what_is_ambiguous_is_what_accelerate_refuses(tmp_path, monkeypatch):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3}}), encoding="utf-8")
    seen = set()
    for more in generated():
        config = {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": "DEEPSPEED",
            "num_machines": 1,
            "num_processes": 2,
            "machine_rank": 0,
            "main_process_port": 29533,
            **more,
        }
        config["deepspeed_config"] = {**more["deepspeed_config"], "deepspeed_config_file": str(file)}
        said = their_refusal(tmp_path, config, monkeypatch)
        found = ours.ambiguous(config)
        assert bool(said) == bool(found), more
        seen |= set(found)
        if said:
            assert str(list(ours.IGNORED)) in said  # the message lists all keys, whichever was given
    assert seen == set(ours.IGNORED)


def test_the_keys_of_zero_optimization_are_those_of_deepspeed():
    from deepspeed.runtime.zero import config, offload_config

    classes = {
        (): config.DeepSpeedZeroConfig,
        ("offload_param",): offload_config.DeepSpeedZeroOffloadParamConfig,
        ("offload_optimizer",): offload_config.DeepSpeedZeroOffloadOptimizerConfig,
    }
    for path, kind in classes.items():
        aliases = {field.alias for field in kind.model_fields.values() if field.alias}
        assert shape.KEYS["zero_optimization", *path] == set(kind.model_fields) | aliases
