"""Accelerate's configurations as job files: every key, every launcher, old files, and what is refused."""

from __future__ import annotations

import json

import pytest
import yaml

from orchestrator.errors import JobFileError
from orchestrator.importing.make import Wish, make
from orchestrator.job import load_job

BASE = {"distributed_type": "DEEPSPEED", "num_processes": 8, "deepspeed_config": {"zero_stage": 3}}


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Return a function that imports a configuration and gives the job file's data and the notes."""
    monkeypatch.chdir(tmp_path)

    def run(changes=None, section=None, *, name="accelerate.yaml", **wish):
        document = {**BASE, **(changes or {})}
        document["deepspeed_config"] = {**document["deepspeed_config"], **(section or {})}
        text = json.dumps(document) if name.endswith(".json") else yaml.safe_dump(document)
        (tmp_path / name).write_text(text)
        wish.setdefault("script", "train.py")
        made = make(Wish((name,), tmp_path / "job.yaml", tmp_path, **wish), {"HOME": str(tmp_path)})
        (tmp_path / "job.yaml").write_text(made.text)
        load_job(tmp_path / "job.yaml")
        return yaml.safe_load(made.text), {
            (note.kind, note.source.rpartition(": ")[2]): note for note in made.notes
        }

    return run


def refused(run, *args, **kwargs) -> str:
    with pytest.raises(JobFileError) as caught:
        run(*args, **kwargs)
    return str(caught.value)


def test_one_machine_is_a_local_job(imported):
    data, _ = imported()
    assert data["cluster"] == {"backend": "local", "slots": 8}
    assert data["train"] == {"script": "train.py", "launcher": "accelerate"}


@pytest.mark.parametrize(
    ("launcher", "backend"),
    [
        (None, "pdsh"),
        *[(name, "pdsh") for name in ("pdsh", "openmpi", "mvapich", "mpich", "impi")],
        ("standard", "ssh"),
        ("nossh", "ssh"),
        ("slurm", "slurm"),
    ],
)
def test_every_launcher_has_a_backend_and_says_what_differs(imported, launcher, backend):
    section = {"deepspeed_hostfile": "hosts"} | (
        {"deepspeed_multinode_launcher": launcher} if launcher else {}
    )
    data, notes = imported({"num_machines": 2, "num_processes": 16, "machine_rank": 1}, section)
    assert data["cluster"]["backend"] == backend
    assert (data["cluster"]["nodes"], data["cluster"]["slots"]) == (2, 8)
    assert data["cluster"].get("hostfile") == (None if backend == "slurm" else "hosts")
    assert ("not carried", "machine_rank") in notes
    if launcher not in (None, "pdsh"):
        assert notes["changed", "deepspeed_config.deepspeed_multinode_launcher"].text.startswith(
            f"cluster.backend: {backend}"
        )


def test_an_unknown_launcher_is_refused(imported):
    text = refused(imported, {"num_machines": 2}, {"deepspeed_multinode_launcher": "telnet"})
    assert "is no launcher that Accelerate or DeepSpeed knows (got telnet)" in text


def test_without_a_hostfile_one_is_named_for_the_user_to_write(imported):
    data, notes = imported({"num_machines": 2})
    assert data["cluster"]["hostfile"] == "hostfile"
    texts = [note.text for note in notes.values()]
    assert any("hostfile named None" in text for text in texts) or any("for you to write" in t for t in texts)


def test_processes_have_to_fit_the_machines(imported):
    text = refused(imported, {"num_machines": 3, "num_processes": 8})
    assert "8 processes cannot be spread evenly over 3 machines" in text


def test_a_filter_decides_on_hosts_as_it_does_under_accelerate(imported):
    section = {"deepspeed_hostfile": "hosts", "deepspeed_inclusion_filter": "a:0,1@b"}
    data, _ = imported({"num_machines": 2}, section)
    assert data["cluster"] == {"backend": "pdsh", "hostfile": "hosts", "include": "a:0,1@b"}
    both = {**section, "deepspeed_exclusion_filter": "c"}
    data, notes = imported({"num_machines": 2}, both)
    assert data["cluster"]["exclude"] == "c"
    assert "include" not in data["cluster"]
    assert ("not carried", "deepspeed_config.deepspeed_inclusion_filter") in notes


def test_gpu_ids(imported, tmp_path):
    data, _ = imported({"gpu_ids": "0,2", "num_processes": 2})
    assert data["train"]["env"] == {"CUDA_VISIBLE_DEVICES": "0,2"}
    assert "env" not in imported({"gpu_ids": "all"})[0]["train"]
    (tmp_path / "hosts").write_text("a slots=4\nb slots=4\n")
    several = {"gpu_ids": "0,2", "num_processes": 4, "num_machines": 2}
    data, _ = imported(several, {"deepspeed_hostfile": "hosts"})
    assert data["cluster"]["include"] == "a:0,2@b:0,2"
    assert "slots" not in data["cluster"]


@pytest.mark.parametrize("word", ["no", False])
def test_every_field(imported, word):
    section = {
        "gradient_accumulation_steps": "4",
        "gradient_clipping": 0.5,
        "offload_optimizer_device": "nvme",
        "offload_optimizer_nvme_path": "/nvme/opt",
        "offload_param_device": "cpu",
        "offload_param_nvme_path": "/nvme/param",
        "zero3_init_flag": "false",
        "zero3_save_16bit_model": True,
        "deepspeed_moe_layer_cls_names": "MixtralSparseMoeBlock, Qwen2MoeSparseMoeBlock",
    }
    extra = {"mixed_precision": word, "main_process_ip": "10.0.0.1", "main_process_port": 29501}
    data, notes = imported(extra, section)
    assert data["deepspeed"] == {
        "zero_stage": 3,
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 0.5,
        "precision": "fp32",
        "offload_optimizer": "nvme",
        "offload_param": "cpu",
        "offload_optimizer_nvme_path": "/nvme/opt",
        "zero3_init": False,
        "zero3_save_16bit_model": True,
        "moe_layer_cls_names": ["MixtralSparseMoeBlock", "Qwen2MoeSparseMoeBlock"],
    }
    assert (data["train"]["master_addr"], data["train"]["master_port"]) == ("10.0.0.1", 29501)
    assert "never passes on" in notes["changed", "deepspeed_config.offload_optimizer_nvme_path"].text
    assert ("not carried", "deepspeed_config.offload_param_nvme_path") in notes


def test_old_and_other_keys_are_carried_or_named(imported):
    data, notes = imported(
        {
            "dynamo_backend": "INDUCTOR",
            "command_file": None,
            "commands": None,
            "downcast_bf16": "no",
            "fsdp_config": {},
            "same_network": True,
            "tpu_name": "my-tpu",
            "debug": True,
            "enable_cpu_affinity": True,
            "rdzv_backend": "c10d",
            "main_training_function": "go",
            "some_new_key": 1,
        }
    )
    env = data["train"]["env"]
    assert env == {"ACCELERATE_DEBUG_MODE": "true", "ACCELERATE_CPU_AFFINITY": "1"}
    dropped = {source for kind, source in notes if kind == "not carried"}
    assert dropped == {"dynamo_backend", "tpu_name", "rdzv_backend", "main_training_function", "some_new_key"}


def test_without_deepspeed_the_variables_that_the_script_reads_are_set(imported):
    changes = {
        "distributed_type": "MULTI_GPU",
        "mixed_precision": "bf16",
        "dynamo_config": {"dynamo_backend": "EAGER"},
    }
    data, _ = imported({**changes, "deepspeed_config": {}})
    assert "deepspeed" not in data
    assert data["train"]["launcher"] == "torchrun"
    assert data["train"]["env"] == {
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_DYNAMO_BACKEND": "EAGER",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distributed_type": "FSDP"}, "distributed_type FSDP cannot be imported"),
        ({"distributed_type": "MEGATRON_LM"}, "Megatron-LM's parallelism"),
        ({"distributed_type": "XLA"}, "TPUs are started by torch_xla"),
        ({"distributed_type": "MULTI_NPU"}, "only DEEPSPEED, MULTI_GPU, MULTI_CPU and NO"),
        ({"compute_environment": "AMAZON_SAGEMAKER"}, "SageMaker starts its own machines"),
        ({"parallelism_config": {"tp_size": 2}}, "parallelism_config changes"),
        ({"mixed_precision": "fp8"}, "DeepSpeed has no such precision"),
        ({"num_processes": "many"}, "expected a number of 1 or more"),
        ({"main_process_port": "http"}, "is no port"),
    ],
)
def test_what_no_job_file_can_say_is_refused_with_its_place(imported, changes, message):
    text = refused(imported, changes)
    assert message in text
    assert "accelerate.yaml:" in text


def test_json_is_read_too(imported):
    assert imported(name="old.json")[0]["cluster"]["slots"] == 8


def test_scenario_1_is_explained_key_by_key(imported, tmp_path):
    held = {
        "gradient_accumulation_steps": 10,
        "zero_optimization": {"stage": 3, "offload_param": {"device": "none"}},
    }
    (tmp_path / "ds.json").write_text(json.dumps(held))
    section = {
        "deepspeed_config_file": "ds.json",
        "gradient_accumulation_steps": 1,
        "offload_param_device": "cpu",
    }
    text = refused(imported, {"mixed_precision": "bf16"}, section)
    assert "Accelerate refuses this in every rank" in text
    assert f"gradient_accumulation_steps: says 1, and {tmp_path}/ds.json says 10" in text
    assert f'offload_param_device: says "cpu", and {tmp_path}/ds.json says "none"' in text
    assert f'mixed_precision: says "bf16", and {tmp_path}/ds.json says nothing' in text
    assert "--prefer file" in text
    data, notes = imported(None, section, prefer="file")
    assert data["deepspeed"] == {"config_file": "ds.json"}
    assert ("not carried", "deepspeed_config.gradient_accumulation_steps") in notes
    data, _ = imported(None, section, prefer="fields")
    assert data["deepspeed"]["overrides"]["gradient_accumulation_steps"] == 1
    assert data["deepspeed"]["overrides"]["zero_optimization"]["offload_param"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("key", "value", "held"),
    [
        ("gradient_accumulation_steps", 1, {}),
        ("gradient_clipping", "1", {"gradient_clipping": 1.0}),
        ("offload_param_device", "none", {}),
        ("offload_param_device", None, {"zero_optimization": {"offload_param": {"device": "cpu"}}}),
        ("zero_stage", "2", {"zero_optimization": {"stage": 2}}),
        ("mixed_precision", "no", {}),
        ("mixed_precision", "fp16", {"fp16": {"enabled": True}, "bf16": {"enabled": False}}),
    ],
)
def test_what_both_files_say_alike_needs_no_choice(imported, tmp_path, key, value, held):
    """As in Accelerate's own documentation, where the file says fp16 and so does the configuration."""
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {}, **held}))
    section = {"deepspeed_config_file": "ds.json"}
    changes = {"mixed_precision": value} if key == "mixed_precision" else {}
    section |= {} if changes else {key: value}
    data, notes = imported({**changes, "deepspeed_config": section})
    assert data["deepspeed"] == {"config_file": "ds.json"}
    said = [note for (kind, source), note in notes.items() if kind == "changed" and source.endswith(key)]
    assert len(said) == (value is not None)


def test_a_field_beside_a_file_that_says_auto_fills_it(imported, tmp_path):
    held = {"zero_optimization": {"stage": "auto"}, "bf16": {"enabled": "auto"}}
    (tmp_path / "ds.json").write_text(json.dumps(held))
    section = {"deepspeed_config_file": "ds.json", "zero_stage": 3}
    data, _ = imported({"mixed_precision": "bf16", "deepspeed_config": section})
    assert data["deepspeed"] == {"config_file": "ds.json", "zero_stage": 3, "precision": "bf16"}


def test_the_standard_launcher_ignores_filters_and_slurm_finds_the_address_out(imported):
    section = {"deepspeed_hostfile": "hosts", "deepspeed_exclusion_filter": "a:0"}
    changes = {"num_machines": 2, "main_process_ip": "10.0.0.1", "main_process_port": 29500}
    data, notes = imported(changes, {**section, "deepspeed_multinode_launcher": "standard"})
    assert data["cluster"] == {"backend": "ssh", "hostfile": "hosts", "nodes": 2, "slots": 4}
    assert ("not carried", "deepspeed_config.deepspeed_exclusion_filter") in notes
    data, notes = imported(changes, {"deepspeed_multinode_launcher": "slurm"})
    assert "master_addr" not in data["train"]
    assert {("not carried", "main_process_ip"), ("not carried", "main_process_port")} <= notes.keys()


def test_a_deepspeed_file_that_is_wrong_is_an_error_and_one_that_is_not_here_is_not(imported, tmp_path):
    data, _ = imported({"deepspeed_config": {"deepspeed_config_file": "/far/ds.json"}})
    assert data["deepspeed"] == {"config_file": "/far/ds.json"}
    (tmp_path / "ds.json").write_text("{")
    assert "ds.json:1:2: not JSON" in refused(
        imported, {"deepspeed_config": {"deepspeed_config_file": "ds.json"}}
    )


def test_the_deepspeed_file_can_be_replaced(imported, tmp_path):
    (tmp_path / "mine.json").write_text('{"zero_optimization": {"stage": 2}}')
    changes = {"deepspeed_config": {"deepspeed_config_file": "/far/ds.json"}}
    assert imported(changes, deepspeed_config="mine.json")[0]["deepspeed"] == {"config_file": "mine.json"}
