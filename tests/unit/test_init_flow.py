"""What is asked when, what is proposed, and what the answers make."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.init import machine as machines
from orchestrator.init.document import Settings, check_answer, text_of
from orchestrator.init.flow import complete, job_data, next_question
from orchestrator.init.machine import Gpu, Machine, Partition
from orchestrator.init.questions import QUESTIONS
from orchestrator.job import JobSpec, load_job

HERE = Path(__file__).parent
BARE = Machine(Path("/nowhere/my project"), cpus=8)
A100 = tuple(Gpu("NVIDIA A100-SXM4-80GB", 81920, 8.0) for _ in range(4))
V100 = (Gpu("Tesla V100-SXM2-32GB", 32768, 7.0),)
SLURM = replace(
    BARE,
    partitions=(Partition("debug", 2, "", "1:00:00", 8), Partition("gpu", 16, "h100:8", "2-00:00:00", 96)),
)


def asked(machine: Machine, **given: object) -> dict[str, object]:
    """Return all answers in the order asked; keywords name questions with __ for a dot."""
    return complete({key.replace("__", "."): value for key, value in given.items()}, machine)


def write(folder, answers, machine, others=None):
    path = folder / "job.yaml"
    path.write_text(text_of(answers, others or {}, machine, "job.yaml"), encoding="utf-8")
    return load_job(path)


MACHINES = {
    "bare": BARE,
    "gpus": replace(BARE, gpus=A100),
    "slurm": SLURM,
    "pdsh": replace(BARE, hostfiles=("hosts",), pdsh=True),
}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("batch", ["steps", "global"])
def test_every_default_makes_a_job_file(tmp_path, machine, more, stage, batch):
    given = {"ask.more": more, "deepspeed.zero_stage": stage, "ask.batch": batch, "model.config": "7B"}
    answers = complete(given, replace(machine, folder=tmp_path))
    job = write(tmp_path, answers, machine)
    assert job.spec.deepspeed.zero_stage == stage
    assert job.spec.model.parameters == 7_000_000_000


@given(
    st.sampled_from(QUESTIONS),
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.floats(allow_nan=False), st.booleans()),
)
def test_no_answer_breaks_the_questions_after_it(question, answer):
    for machine in MACHINES.values():
        assert complete({question.key: answer}, machine)[question.key] == answer


def test_every_question_explains_itself_and_belongs_to_the_schema():
    for question in QUESTIONS:
        assert 20 < len(question.why) < 250, question.key
        assert question.text.endswith("?")
        if not question.key.startswith("ask."):
            assert question.key.split(".")[0] in JobSpec.model_fields


def test_every_choice_of_deepspeed_is_one_of_the_schema(tmp_path):
    for question in QUESTIONS:
        for machine in (replace(SLURM, gpus=A100), BARE):
            base = {"ask.more": True, "deepspeed.zero_stage": 3, "cluster.nodes": 2}
            answers = complete(base, machine)
            if question.key not in answers:
                continue
            for choice in question.choices(answers, machine):
                found = check_answer(question, choice.value, {}, Settings({}, {}), machine)
                assert not found.wrong, (question.key, choice.value, found.wrong)


def test_each_question_is_asked_once_and_in_order():
    answers, order = {}, []
    while question := next_question(answers, SLURM):
        order.append(question.key)
        answers[question.key] = question.default(answers, SLURM)
    assert len(order) == len(set(order))
    assert order[:4] == ["name", "cluster.backend", "cluster.slurm.partition", "cluster.nodes"]


def test_zeropp_is_asked_for_stage_3_on_several_hosts_alone():
    def zeropp(**given):
        return {
            key for key in asked(SLURM, **given) if key.rpartition(".")[2] in ("hpz", "quantized_weights")
        }

    assert zeropp(cluster__nodes=2) == {"deepspeed.hpz", "deepspeed.quantized_weights"}
    assert zeropp(cluster__nodes=1) == set()
    assert zeropp(cluster__nodes=2, deepspeed__zero_stage=2) == set()


def test_quantization_is_not_asked_for_cpus():
    answers = asked(BARE, cluster__nodes=2, deepspeed__zero_stage=3)
    assert answers["deepspeed.hpz"] == "node"
    assert "deepspeed.quantized_weights" not in answers


@pytest.mark.parametrize("given", [{"cluster__slots": 1}, {"deepspeed__offload_param": "cpu"}])
def test_hpz_is_not_proposed_where_it_saves_nothing(given):
    assert asked(BARE, cluster__nodes=2, deepspeed__zero_stage=3, **given)["deepspeed.hpz"] is None


@pytest.mark.parametrize(
    ("machine", "precision"),
    [
        (BARE, "bf16"),
        (replace(BARE, gpus=A100), "bf16"),
        (replace(BARE, gpus=V100), "fp16"),
        (replace(BARE, gpus=(Gpu("Tesla T4"),)), "fp16"),
        (replace(BARE, gpus=(Gpu("NVIDIA A10"),)), "bf16"),
        (SLURM, "bf16"),
        (replace(SLURM, partitions=(Partition("gpu", 4, "v100:4", "1-00:00:00", 8, default=True),)), "fp16"),
        (replace(BARE, accelerate={"mixed_precision": "fp16"}), "fp16"),
    ],
)
def test_the_precision_fits_the_device(machine, precision):
    assert asked(machine)["deepspeed.precision"] == precision


def test_slurm_is_proposed_with_its_gpu_partition():
    answers = asked(SLURM)
    assert answers["cluster.backend"] == "slurm"
    assert answers["cluster.slurm.partition"] == "gpu"
    assert answers["cluster.slurm.gpus_per_node"] == "h100:8"
    assert answers["cluster.slurm.time"] == "24:00:00"
    assert answers["deepspeed.zero_stage"] == 3


def test_a_short_partition_limits_the_time():
    assert asked(SLURM, cluster__slurm__partition="debug")["cluster.slurm.time"] == "1:00:00"


def test_an_allocation_gives_its_number_of_nodes():
    held = replace(SLURM, environ={"SLURM_JOB_NUM_NODES": "5", "SBATCH_ACCOUNT": "lab"})
    answers = asked(held)
    assert answers["cluster.nodes"] == 5
    assert answers["cluster.slurm.account"] == "lab"


def test_accelerates_configuration_gives_defaults():
    plugin = {"zero_stage": 3, "offload_optimizer_device": "nvme", "gradient_accumulation_steps": 7}
    answers = asked(replace(BARE, accelerate={"deepspeed_config": {**plugin, "gradient_clipping": "auto"}}))
    assert answers["deepspeed.zero_stage"] == 3
    assert answers["deepspeed.offload_optimizer"] == "nvme"
    assert answers["deepspeed.gradient_accumulation_steps"] == 7
    assert answers["deepspeed.gradient_clipping"] == 1.0


@pytest.mark.parametrize(
    ("text", "launcher", "args"),
    [
        ("accelerator = Accelerator()\n", "accelerate", None),
        ("parser.add_argument('--deepspeed_config')\n", "torchrun", ["--deepspeed_config", "{ds_config}"]),
        ("deepspeed.add_config_arguments(parser)\n", "torchrun", ["--deepspeed_config", "{ds_config}"]),
        ("HfArgumentParser(TrainingArguments)\n", "torchrun", ["--deepspeed", "{ds_config}"]),
        ("print('hello')\n", "torchrun", None),
    ],
)
def test_the_script_tells_how_it_takes_the_configuration(tmp_path, text, launcher, args):
    (tmp_path / "finetune.py").write_text(text)
    answers = asked(machines.look(tmp_path, {"PATH": ""}))
    assert answers["train.script"] == "finetune.py"
    assert answers["train.launcher"] == launcher
    assert answers["train.args"] == args


def test_a_script_that_is_still_to_be_written_is_to_take_the_configuration():
    """Else the rule configuration-not-passed would warn of the job that init has just written."""
    assert asked(BARE)["train.args"] == ["--deepspeed_config", "{ds_config}"]
    assert asked(BARE, **{"train.launcher": "accelerate"})["train.args"] is None


def test_a_module_and_a_count_go_to_keys_of_their_own():
    data = job_data({"train.script": "-m my.train", "model.config": "7B"})
    assert data == {"train": {"module": "my.train"}, "model": {"parameters": "7B"}}
    assert job_data({"model.config": "meta-llama/Llama-3-8B"}) == {
        "model": {"config": "meta-llama/Llama-3-8B"}
    }


def test_deepspeeds_own_optimizer_and_scheduler(tmp_path):
    given = {
        "ask.more": True,
        "deepspeed.optimizer.type": "AdamW",
        "deepspeed.scheduler.type": "WarmupDecayLR",
    }
    more = {"deepspeed.moe_layer_cls_names": ["A", "B"], "deepspeed.zero_stage": 3}
    spec = write(tmp_path, complete({**given, **more}, replace(BARE, folder=tmp_path)), BARE).spec.deepspeed
    assert (spec.optimizer.type, spec.optimizer.params) == ("AdamW", {"lr": 1e-4})
    assert spec.scheduler.params == {"warmup_num_steps": 100, "total_num_steps": 1000}
    assert spec.moe_layer_cls_names == ["A", "B"]
    assert (spec.zero3_init, spec.zero3_save_16bit_model) == (True, False)


def test_nvme_asks_for_its_folder(tmp_path):
    given = {
        "deepspeed.zero_stage": 3,
        "deepspeed.offload_optimizer": "nvme",
        "deepspeed.offload_param": "nvme",
    }
    spec = write(tmp_path, complete(given, replace(BARE, folder=tmp_path)), BARE).spec.deepspeed
    assert str(spec.offload_optimizer_nvme_path) == str(spec.offload_param_nvme_path) == "/local_nvme"


@pytest.mark.parametrize(
    ("backend", "gpus", "kind"),
    [
        ("local", A100, "A100-80GB"),
        ("slurm", (), "H100-80GB"),
        ("ssh", A100, None),
        ("local", (Gpu("Unheard Of 9000"),), None),
    ],
)
def test_the_gpu_is_proposed_by_the_name_estimates_know(backend, gpus, kind):
    answers = asked(replace(SLURM, gpus=gpus), cluster__backend=backend, model__config="7B")
    assert answers["hardware.gpu"] == kind


def test_a_deepspeed_file_asks_for_nothing_else_of_deepspeed(tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps({"train_batch_size": 8}))
    (tmp_path / "other.json").write_text("[1]")
    answers = asked(machines.look(tmp_path, {"PATH": ""}))
    assert [key for key in answers if key.startswith("deepspeed.")] == ["deepspeed.config_file"]
    assert answers["deepspeed.config_file"] == "ds.json"


def test_what_choices_mean_stands_in_the_file():
    text = text_of(asked(BARE, deepspeed__zero_stage=3), {}, BARE, "job.yaml")
    assert "# Written by `orchestrate init`" in text
    assert "The weights too" in text
    assert "Samples of one rank" in text
