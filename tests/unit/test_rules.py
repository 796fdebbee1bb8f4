"""The rules as a whole: every one is tested, named and explained; and what a job's facts are."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JobFileError
from orchestrator.job import load_job
from orchestrator.prepare import prepare
from orchestrator.rules import RULES, catalogue, check
from orchestrator.rules import gather as looking
from orchestrator.rules.gather import gather
from tests.facts import facts, found, hosts
from tests.samples import ROOT
from tests.unit import test_rules_accelerate, test_rules_settings, test_rules_zeropp

TABLES = (test_rules_accelerate.CASES, test_rules_settings.CASES, test_rules_zeropp.CASES)


def test_every_rule_has_a_job_in_which_it_fires_and_one_in_which_it_is_silent():
    tested = [case.rule for table in TABLES for case in table]
    assert sorted(tested) == sorted(rule.id for rule in RULES)


_KEYS = ("stage", "enabled", "device", "type", "params", "zero_hpz_partition_size", "offload_optimizer")
_KEYS += ("zero_quantized_gradients", "autotp_size", "stages", "warmup_num_steps", "reduce_scatter")
_SECTIONS = ("zero_optimization", "fp16", "bf16", "optimizer", "scheduler", "pipeline", "tensor_parallel")
_SECTIONS += ("expert_parallel", "torch_autocast", "gradient_predivide_factor", "gradient_accumulation_steps")
_JSON = st.recursive(
    st.sampled_from([None, True, False, "auto", "cpu", "fp16", "", -1, 0, 2, 3, 0.5, [], {}]),
    lambda inner: st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(_SECTIONS), _JSON, max_size=6),
    st.sampled_from(["torchrun", "accelerate"]),
)
def test_no_configuration_makes_a_rule_fail(config, launcher):
    """A DeepSpeed file may hold anything; that it is wrong is for others to say."""
    start = facts(f"train: {{launcher: {launcher}}}")
    for finding in check(dataclasses.replace(start, config=config, tensors=(6,), gpus_per_host=9)):
        assert str(finding.problem)


def test_ids_are_unique_and_rules_name_their_source():
    names = [rule.id for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert all("Source: " in (rule.check.__doc__ or "") for rule in RULES)
    assert all(summary.endswith(".") for _, _, summary in catalogue())


def test_errors_come_first_and_notes_last():
    line = (
        "train: {launcher: accelerate}, deepspeed: {hpz: 3, offload_optimizer: cpu, pin_memory: true, "
        "quantized_weights: true, allgather_bucket_size: 1}, facts: {device: cpu}"
    )
    severities = [finding.severity for finding in found(line)]
    order = ("error", "warning", "note")
    assert set(severities) == set(order)
    assert severities == sorted(severities, key=order.index)


@pytest.fixture
def job(tmp_path):
    """Return a function that writes a job file and its script, and loads it."""

    def write(text: str, script: str = "import deepspeed\n") -> object:
        (tmp_path / "train.py").write_text(script, encoding="utf-8")
        (tmp_path / "hostfile").write_text("h0 slots=4\nh1 slots=4\nh2 slots=4\n", encoding="utf-8")
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return load_job(path)

    return write


TRAIN = "train: {script: train.py, args: ['{ds_config}'], python: python3}\n"
LOCAL = f"cluster: {{backend: local, nodes: 2, slots: 4}}\n{TRAIN}"
REMOTE = f"cluster: {{backend: pdsh, hostfile: hostfile, exclude: 'h0:3'}}\n{TRAIN}"
HPZ = {"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 4}}


def test_all_errors_are_told_at_once(job):
    deepspeed = "deepspeed: {zero_stage: 3, hpz: 3, quantized_weights: true, micro_batch_per_gpu: 1}\n"
    text = f"{LOCAL}hardware: {{gpu: cpu}}\n{deepspeed}"
    with pytest.raises(JobFileError) as caught:
        prepare(job(text), {})
    assert [problem.where for problem in caught.value.problems] == [
        "deepspeed.hpz",
        "deepspeed.hpz",
        "deepspeed.quantized_weights",
    ]


def test_what_is_no_error_is_kept_with_the_job(job):
    text = f"{LOCAL}deepspeed: {{zero_stage: 3, hpz: 1, allgather_bucket_size: 1, micro_batch_per_gpu: 1}}\n"
    prepared = prepare(job(text), {})
    assert [finding.rule for finding in prepared.findings] == ["stage-2-settings-unused", "hpz-off"]
    (warning,) = prepared.warnings
    assert warning.startswith("deepspeed.allgather_bucket_size: does nothing at ZeRO stage 3")


def test_a_filter_that_breaks_hpz_is_named(job):
    text = f"{REMOTE}deepspeed: {{zero_stage: 3, hpz: 4, micro_batch_per_gpu: 1}}\n"
    with pytest.raises(JobFileError, match="leaves 11 of 12 ranks, which do not divide into hpZ groups of 4"):
        prepare(job(text), {})


def test_facts_of_the_hosts(job):
    known = gather(job(REMOTE), hosts(3, 4, 4), HPZ)
    assert (known.unfiltered_world, known.gpus_per_host, known.device) == (12, 4, "")
    assert gather(job(REMOTE), hosts(3, 4, 4), {}).unfiltered_world is None  # nobody asks


def test_facts_of_slurm(job):
    slurm = "cluster: {backend: slurm, nodes: 2, slots: 4, exclude: 'n1:3', slurm: {gpus_per_node: h100:8}}\n"
    known = gather(job(slurm + TRAIN), hosts(4, 3), HPZ)
    assert (known.unfiltered_world, known.gpus_per_host) == (8, 8)


def test_memory_is_estimated_where_the_job_file_has_the_numbers(job):
    lines = "hardware: {gpu: A100-40GB}\nmodel: {parameters: 30B}\n"
    text = f"{LOCAL}{lines}deepspeed: {{zero_stage: 3, hpz: 4, micro_batch_per_gpu: 1}}\n"
    prepared = prepare(job(text), {})
    assert [finding.rule for finding in prepared.findings] == ["hpz-memory"]
    assert prepare(job(text.replace("30B", "1B")), {}).findings == ()
    known = gather(job(f"{LOCAL}model: {{parameters: 30B}}\n"), hosts(4), HPZ)
    assert (known.gpu_memory_needed, known.gpu_memory) == (None, None)


def test_an_offload_that_no_host_has_room_for_is_told_before_the_queue(job):
    lines = "hardware: {host_memory: 256GB}\nmodel: {parameters: 70B}\n"
    text = f"{LOCAL}{lines}deepspeed: {{zero_stage: 3, offload_optimizer: cpu, micro_batch_per_gpu: 1}}\n"
    (finding,) = (each for each in prepare(job(text), {}).findings if each.rule == "host-memory")
    assert finding.problem.where.endswith("deepspeed.offload_optimizer")
    assert "and has 238.4" in finding.problem.what
    small = prepare(job(text.replace("70B", "1B")), {})
    assert "host-memory" not in [each.rule for each in small.findings]


def test_simulated_hosts_share_the_memory_of_this_machine(job):
    text, config = f"{LOCAL}model: {{parameters: 1B}}\n", {"zero_optimization": {"stage": 2}}
    one, two = (gather(job(text), hosts(*slots), config) for slots in ([4], [2, 2]))
    assert one.host_memory // 2 == two.host_memory
    assert two.host_memory_needed == 2 * 4 * 10**9  # made whole by each of two ranks, in fp32
    assert gather(job(REMOTE + "model: {parameters: 1B}\n"), hosts(4), {}).host_memory is None


@pytest.mark.parametrize(
    ("lines", "device"),
    [
        ("hardware: {gpu: CPU}", "cpu"),
        ("hardware: {gpu: H100-80GB}", "cuda"),
        ("", ""),
    ],
)
def test_the_device_is_what_the_job_file_says(job, lines, device):
    assert gather(job(REMOTE + lines), hosts(4), {}).device == device


@pytest.mark.parametrize(
    ("left", "device"),
    [(("driver", "none*"), "cuda"), (("none", "driv*"), ""), (("none", "none*"), "cpu")],
)
def test_a_local_run_looks_for_what_drivers_leave(job, tmp_path, monkeypatch, left, device):
    (tmp_path / "driver").touch()
    monkeypatch.setattr(looking, "_NVIDIA", (str(tmp_path / left[0]),))
    monkeypatch.setattr(looking, "_DEVICES", (str(tmp_path / left[1]),))
    assert gather(job(LOCAL), hosts(4), {}).device == device


def test_deepspeed_is_told_the_device_before_anything(job):
    text = REMOTE.replace("python: python3", "env: {DS_ACCELERATOR: cpu}") + "hardware: {gpu: H100-80GB}"
    assert gather(job(text), hosts(4), {}).device == "cpu"


def test_the_version_is_asked_only_where_the_ranks_run_this_python(job):
    assert gather(job(LOCAL), hosts(4), {}).deepspeed is None
    mine = LOCAL.replace(", python: python3", "") + "deepspeed: {zero_stage: 2}\n"
    pytest.importorskip("deepspeed", reason="needs DeepSpeed installed")
    assert re.match(r"\d+\.\d+", gather(job(mine), hosts(4), {}).deepspeed or "")


def test_a_config_json_says_what_a_model_was_pretrained_in(job, tmp_path):
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}', encoding="utf-8")
    for name in (".", "config.json"):
        assert gather(job(f"{LOCAL}model: {{config: {name}}}"), hosts(4), {}).pretrained_in == "bf16"
    assert gather(job(f"{LOCAL}model: {{config: t5-small}}"), hosts(4), {}).pretrained_in is None


def test_the_example_is_right(tmp_path):
    path = ROOT / "examples" / "zeropp_lm" / "job.yaml"
    for launcher in ("torchrun", "deepspeed", "accelerate"):
        loaded = load_job(path, [f"train.launcher={launcher}", f"run_root={tmp_path}"])
        assert prepare(loaded, {}).findings == ()


def test_no_rule_looks_at_this_machine():
    folder = ROOT / "orchestrator" / "rules"
    imports = re.compile(
        r"^\s*(?:from|import) (?:os|pathlib|subprocess|importlib|json|shutil)\b", re.MULTILINE
    )
    assert [path.name for path in folder.glob("*.py") if imports.search(path.read_text("utf-8"))] == [
        "gather.py"
    ]
