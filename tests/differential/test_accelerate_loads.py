"""What we render for `accelerate launch`, read by the installed Accelerate; the scenarios of its documents.

Everything up to the plugin in each rank is Accelerate's own code: its parser, its launcher's environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from accelerate_launch import launched
from needs import needs

from orchestrator.configs import accelerate_config
from orchestrator.configs.deepspeed_config import Built, build
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec

if TYPE_CHECKING:
    from accelerate.utils import DeepSpeedPlugin

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
installed = needs("deepspeed", "accelerate.utils")

HOSTS = HostPool((Host("a", (0, 1)), Host("b", (0, 1))))
FIELDS = {"micro_batch_per_gpu": 2, "gradient_clipping": 0.7, "precision": "bf16"}
SCENARIO_1 = {  # the file of scenarios 1 and 2
    "bf16": {"enabled": True},
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": False,
        "offload_optimizer": {"device": "none"},
        "offload_param": {"device": "none"},
    },
    "gradient_clipping": 1.0,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": 10,
    "steps_per_print": 2000000,
}
SCENARIO_3 = {
    "bf16": {"enabled": "auto"},
    "zero_optimization": {
        "stage": "auto",
        "stage3_gather_16bit_weights_on_model_save": "auto",
        "offload_optimizer": {"device": "auto"},
        "offload_param": {"device": "auto"},
    },
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "steps_per_print": 2000000,
}
ARGUMENTS = [
    *("--mixed_precision=fp16", "--zero_stage=3", "--gradient_accumulation_steps=5"),
    *("--gradient_clipping=1.0", "--offload_param_device=cpu", "--offload_optimizer_device=nvme"),
    "--zero3_save_16bit_model=true",
]
THE_SAME_HERE = {
    "precision": "fp16",
    "zero_stage": 3,
    "gradient_accumulation_steps": 5,
    "gradient_clipping": 1.0,
    "offload_param": "cpu",
    "offload_optimizer": "nvme",
    "zero3_save_16bit_model": True,
}


@pytest.fixture
def written(tmp_path):
    """Return a function that writes both files for two hosts of two ranks and returns the YAML's path."""

    def write(file: dict | None = None, more: dict | None = None, **fields) -> Path:
        made = built(tmp_path, file, **fields)
        (tmp_path / "ds.json").write_text(json.dumps(made.config), encoding="utf-8")
        config = accelerate_config.build(
            made.config,
            ds_config_path=str(tmp_path / "ds.json"),
            world_size=4,
            num_machines=2,
            zero3_init=fields.get("zero3_init"),
            main_process_port=29511,
        )
        more = dict(more or {})
        config["deepspeed_config"] |= more.pop("deepspeed_config", {})
        path = tmp_path / "accelerate.yaml"
        path.write_text(yaml.safe_dump(config | more), encoding="utf-8")
        return path

    return write


def built(folder: Path, file: dict | None, **fields) -> Built:
    if file is not None:
        (folder / "file.json").write_text(json.dumps(file), encoding="utf-8")
        fields["config_file"] = Path("file.json")
    return build(DeepSpeedSpec.model_validate(fields), HOSTS, folder, launcher="accelerate")


def of_file(path: Path) -> tuple[dict[str, str], object]:
    flags = ["--machine_rank", "1", "--main_process_ip", "127.0.0.1", "--config_file", str(path)]
    return launched(flags)


def plugin_in_a_rank(monkeypatch, environment: dict[str, str]) -> DeepSpeedPlugin:
    """Return the plugin that `Accelerator()` makes in a rank with that environment."""
    from accelerate.utils import DeepSpeedPlugin

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision(environment["ACCELERATE_MIXED_PRECISION"])
    return plugin


def test_accelerate_reads_what_we_render(written):
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    config = load_config_from_file(str(written(**FIELDS, zero_stage=3)))
    assert isinstance(config, ClusterConfig)
    assert (config.num_processes, config.num_machines, config.machine_rank) == (4, 2, 0)
    assert (config.distributed_type, config.main_process_port) == ("DEEPSPEED", 29511)
    assert config.mixed_precision is None


def test_accelerate_launches_torchrun_with_our_ranks(written):
    environment, args = of_file(written(**FIELDS, zero_stage=3))
    assert (args.nproc_per_node, args.nnodes, args.node_rank) == ("2", "2", 1)
    assert args.rdzv_endpoint == "127.0.0.1:29511"
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_CONFIG_FILE"] == args.deepspeed_config_file


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_plugin_in_each_rank_takes_the_file_as_it_is(written, monkeypatch, stage):
    plugin = plugin_in_a_rank(monkeypatch, of_file(written(**FIELDS, zero_stage=stage))[0])
    assert (plugin.zero_stage, plugin.gradient_clipping, plugin.gradient_accumulation_steps) == (
        stage,
        0.7,
        1,
    )
    assert plugin.zero3_init_flag is (stage == 3)
    assert plugin.deepspeed_config["train_micro_batch_size_per_gpu"] == 2


def test_zero3_init_arrives(written, monkeypatch):
    path = written(**FIELDS, zero_stage=3, zero3_init=False)
    assert plugin_in_a_rank(monkeypatch, of_file(path)[0]).zero3_init_flag is False


def test_the_folders_for_nvme_arrive_though_accelerate_drops_its_own(written, monkeypatch):
    """`accelerate launch` parses --offload_*_nvme_path and tells no rank of it; the DeepSpeed file does."""
    offload = {"offload_optimizer": "nvme", "offload_optimizer_nvme_path": "/local/nvme"}
    plugin = plugin_in_a_rank(monkeypatch, of_file(written(**FIELDS, zero_stage=3, **offload))[0])
    assert plugin.deepspeed_config["zero_optimization"]["offload_optimizer"]["nvme_path"] == "/local/nvme"


@pytest.mark.parametrize("more", [{"deepspeed_config": {"zero_stage": 3}}, {"mixed_precision": "no"}])
def test_the_keys_we_leave_out_would_be_refused(written, monkeypatch, more):
    environment = of_file(written(more=more, **FIELDS, zero_stage=3))[0]
    with pytest.raises(ValueError, match="will be ignored"):
        plugin_in_a_rank(monkeypatch, environment)


def test_scenario_1_is_refused_in_every_rank_and_cannot_be_said_here(written, tmp_path, monkeypatch):
    fields = {
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "offload_optimizer_device": "cpu",
        "offload_param_device": "cpu",
        "zero3_init_flag": True,
        "zero3_save_16bit_model": True,
        "zero_stage": 3,
    }
    environment = of_file(written(SCENARIO_1, {"deepspeed_config": fields}))[0]
    with pytest.raises(ValueError, match="the following accelerate config variables will be ignored"):
        plugin_in_a_rank(monkeypatch, environment)
    mine = {"gradient_accumulation_steps": 1, "gradient_clipping": 1.0, "zero_stage": 3}
    mine |= {"offload_optimizer": "cpu", "offload_param": "cpu", "zero3_save_16bit_model": True}
    with pytest.raises(JobFileError) as caught:
        built(tmp_path, SCENARIO_1, **mine)
    assert [problem.where for problem in caught.value.problems] == [
        "deepspeed.gradient_accumulation_steps",
        "deepspeed.zero3_save_16bit_model",
        "deepspeed.offload_optimizer",
        "deepspeed.offload_param",
    ]


def test_scenario_2(written, monkeypatch):
    path = written(SCENARIO_1)
    config = yaml.safe_load(path.read_text())["deepspeed_config"]
    assert {key: config[key] for key in config if key != "deepspeed_multinode_launcher"} == {
        "deepspeed_config_file": str(path.with_name("ds.json")),
        "zero3_init_flag": True,
    }
    plugin = plugin_in_a_rank(monkeypatch, of_file(path)[0])
    changed = {"steps_per_print": float("inf"), "fp16": {"enabled": False}}
    assert plugin.deepspeed_config == SCENARIO_1 | changed


def test_scenario_3(written, tmp_path, monkeypatch):
    """Fields fill what arguments of `accelerate launch` fill; the folder for nvme is all that is added."""
    (tmp_path / "theirs.json").write_text(json.dumps(SCENARIO_3), encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("distributed_type: DEEPSPEED\nnum_processes: 4\n", encoding="utf-8")
    flags = ["--config_file", str(tmp_path / "empty.yaml"), "--use_deepspeed", *ARGUMENTS]
    environment = launched([*flags, "--deepspeed_config_file", str(tmp_path / "theirs.json")])[0]
    with monkeypatch.context() as patched:
        theirs = plugin_in_a_rank(patched, environment).deepspeed_config
    assert theirs == {
        "bf16": {"enabled": False},
        "zero_optimization": {
            "stage": 3,
            "stage3_gather_16bit_weights_on_model_save": True,
            "offload_optimizer": {"device": "nvme"},
            "offload_param": {"device": "cpu"},
        },
        "gradient_clipping": 1.0,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": 5,
        "steps_per_print": float("inf"),
        "fp16": {"enabled": True, "auto_cast": True},
    }
    path = written(SCENARIO_3, **THE_SAME_HERE, offload_optimizer_nvme_path="/nvme")
    ours = plugin_in_a_rank(monkeypatch, of_file(path)[0]).deepspeed_config
    theirs["zero_optimization"]["offload_optimizer"]["nvme_path"] = "/nvme"
    assert ours == theirs


def test_scenario_3_lacks_the_folder_that_deepspeed_needs(tmp_path):
    with pytest.raises(JobFileError, match="offload_optimizer: offload to nvme needs a path"):
        built(tmp_path, SCENARIO_3, **THE_SAME_HERE)
