"""What a DeepSpeed file says in another type than DeepSpeed's, and where its keys are found again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.configs import deepspeed_config
from orchestrator.configs.json_source import key_lines
from orchestrator.errors import JobFileError, Problem
from orchestrator.estimate import settings_of
from orchestrator.forecast.examine import Examination
from orchestrator.job import JobSpec, load_job
from orchestrator.rules import check
from orchestrator.rules.gather import gather
from tests.facts import hosts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)
JOB = "cluster: {backend: local, slots: 4, nodes: 2}\ntrain: {script: t.py, args: ['{ds_config}']}\n"


def built(tmp_path, config):
    (tmp_path / "ds.json").write_text(json.dumps({"train_micro_batch_size_per_gpu": 1} | config, indent=1))
    spec = JobSpec.model_validate(
        {
            "cluster": {"backend": "local"},
            "train": {"script": "train.py"},
            "deepspeed": {"config_file": "ds.json"},
        }
    )
    assert spec.deepspeed is not None
    return spec, deepspeed_config.build(spec.deepspeed, hosts(4, 4), tmp_path)


def examined(tmp_path, text, config):
    (tmp_path / "ds.json").write_text(text, encoding="utf-8")
    path = tmp_path / "job.yaml"
    (tmp_path / "t.py").touch()
    path.write_text(f"{JOB}deepspeed: {{config_file: ds.json{config}}}\nhardware: {{gpu: H100-80GB}}\n")
    return Examination(load_job(path), {}).run()


@pytest.mark.parametrize(
    ("zero", "read"),
    [
        ({"stage": "3"}, {"stage": 3}),
        ({"stage": 3.0}, {"stage": 3}),
        ({"stage": 3, "zero_hpz_partition_size": "4"}, {"stage": 3, "zero_hpz_partition_size": 4}),
        ({"stage": 3, "zero_hpz_partition_size": 4.0}, {"stage": 3, "zero_hpz_partition_size": 4}),
        ({"stage": 3, "zero_quantized_weights": "True"}, {"stage": 3, "zero_quantized_weights": True}),
        ({"stage": 3, "zero_quantized_weights": 1}, {"stage": 3, "zero_quantized_weights": True}),
        ({"stage": 2, "overlap_comm": "no"}, {"stage": 2, "overlap_comm": False}),
        (True, {"stage": 1}),
        (False, {"stage": 0}),
    ],
)
def test_numbers_and_switches_are_read_as_deepspeed_reads_them(tmp_path, zero, read):
    _, made = built(tmp_path, {"zero_optimization": zero})
    assert made.config["zero_optimization"] == read
    assert type(made.config["zero_optimization"]["stage"]) is int
    text = isinstance(zero, bool) or any(isinstance(value, str) for value in zero.values())
    assert bool(made.warnings) == text


def test_what_deepspeed_would_refuse_stays_for_it_to_refuse(tmp_path):
    zero = {"stage": 3, "overlap_comm": "maybe", "zero_hpz_partition_size": "many"}
    assert built(tmp_path, {"zero_optimization": zero})[1].config["zero_optimization"] == zero


@pytest.mark.parametrize("name", ["bf16", "bfloat16"])
def test_bf16_under_either_name_and_as_text_halves_the_weights(tmp_path, name):
    spec, made = built(tmp_path, {"zero_optimization": {"stage": 3}, name: {"enabled": "true"}})
    assert settings_of(made.config, spec).precision == "bf16"
    [warning] = made.warnings
    assert str(warning) == (
        f'{tmp_path}/ds.json:7: {name}.enabled is text, which DeepSpeed takes for true (got "true")\n'
        "  fix: write true"
    )


def test_a_rule_names_the_key_of_the_deepspeed_file_and_its_line(tmp_path):
    text = '{\n "train_micro_batch_size_per_gpu": 1,\n "zero_optimization": {"stage": 3,\n'
    text += '  "zero_hpz_partition_size": 3}}'
    found = [
        str(each.problem) for each in examined(tmp_path, text, "").findings() if each.severity == "error"
    ]
    assert found[0] == (
        f"{tmp_path}/ds.json:4: zero_optimization.zero_hpz_partition_size: 8 ranks do not divide into hpZ "
        "groups of this size (got 3)\n"
        "  fix: choose a divisor of the slots of each host, such as zero_hpz_partition_size: 4"
    )


def test_a_removed_key_is_named_where_it_stands(tmp_path):
    text = '{"train_micro_batch_size_per_gpu": 1, "zero_optimization": {\n"mics_shard_size": 8, "stage": 3}}'
    facts = examined(tmp_path, text, ", overrides: {elasticity: {enabled: true}}").facts
    assert facts is not None
    found = {each.problem.where: each.problem.what for each in check(replace(facts, deepspeed="0.19.8"))}
    assert found[f"{tmp_path}/ds.json:2: zero_optimization.mics_shard_size"].startswith("was removed in")
    assert found["deepspeed.overrides.elasticity"].startswith("was removed in DeepSpeed 0.19.8")


def test_the_fix_of_a_precision_in_a_file_is_one_for_the_file(tmp_path):
    text = '{"train_micro_batch_size_per_gpu": 1, "fp16": {"enabled": true}}'
    (tmp_path / "ds.json").write_text(text)
    (tmp_path / "job.yaml").write_text(f"{JOB}deepspeed: {{config_file: ds.json}}\nhardware: {{gpu: cpu}}\n")
    job = load_job(tmp_path / "job.yaml")
    facts = gather(job, hosts(4), json.loads(text))
    fixes = [each.problem.fix for each in check(replace(facts, fp16_on_cpu=False)) if "fp16" in each.rule]
    assert fixes == ["enable bf16 in place of fp16 or switch fp16 off"]


def test_a_batch_in_a_file_is_corrected_in_the_file_s_words(tmp_path):
    config = {"train_batch_size": 20, "train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": 2}}
    with pytest.raises(JobFileError) as caught:
        built(tmp_path, config)
    [problem] = caught.value.problems
    assert problem.where == f"{tmp_path}/ds.json:3"
    assert problem.fix == "set train_batch_size: 16 or 32 or change the number of ranks"


def test_one_wrong_value_does_not_hide_the_others(tmp_path):
    text = '{"train_micro_batch_size_per_gpu": "two",\n"train_batch_size": 0.5,\n'
    text += '"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 3, "sub_group_size": "auto"}}'
    odd = "gradient_clipping: .inf, zero_optimization: {stage3_max_live_parameters: .nan}"
    look = examined(tmp_path, text, f", overrides: {{{odd}}}")
    rules = [each.rule for each in look.findings() if each.severity == "error"]
    assert rules.count("job") == 5  # both numbers, the auto, infinity, nan
    assert {"hpz-world-size", "hpz-straddles-hosts"} <= set(rules)
    assert "gradient_clipping" not in look.config


def test_what_the_installed_classes_refuse_is_placed(tmp_path):
    text = '{"train_micro_batch_size_per_gpu": 1,\n"zero_optimization": {"stage": 5}}'
    look = examined(tmp_path, text, "")
    said = look.placed(Problem("zero_optimization.stage: Input should be 0, 1, 2 or 3", "deepspeed", "5"))
    assert said.where == f"{tmp_path}/ds.json:2"
    unknown = Problem("the configuration: is odd", "deepspeed")
    assert look.placed(unknown) == unknown


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_every_key_of_an_object_is_found_on_its_line(tmp_path_factory, value):
    text = json.dumps(value, indent=1, ensure_ascii=False)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(text, encoding="utf-8", newline="")
    found = key_lines(path)

    def walk(inner, above):
        for key, below in inner.items():
            yield (*above, key)
            if isinstance(below, dict):
                yield from walk(below, (*above, key))

    assert set(found) == set(walk(value, ()))
    lines = text.split("\n")
    assert all(json.dumps(keys[-1], ensure_ascii=False) in lines[line - 1] for keys, line in found.items())


def test_an_offload_in_a_file_is_placed_there(tmp_path):
    config = {"zero_optimization": {"stage": 2, "offload_param": {"device": "nvme"}}}
    with pytest.raises(JobFileError) as caught:
        built(tmp_path, config)
    stage, folder = caught.value.problems
    assert (stage.where, folder.where) == (f"{tmp_path}/ds.json:6", f"{tmp_path}/ds.json:6")
    assert (folder.what, folder.fix) == ("offload_param to nvme needs a path", "add nvme_path: /local/nvme")


def test_a_removed_key_is_told_once_by_the_rule_which_has_a_fix(tmp_path):
    text = '{"train_micro_batch_size_per_gpu": 1,\n"zero_optimization": {"mics_shard_size": 8, "stage": 3}}'
    look = examined(tmp_path, text, ", overrides: {elasticity: {enabled: true}}")
    said = ("elasticity: Elastic training has been removed", "zero_optimization.mics_shard_size: removed")
    problems = [look.placed(Problem(words, "deepspeed")) for words in (*said, "zero_optimization.stage: odd")]
    look.add_all("error", problems, "installed")
    found = look.findings(deepspeed="0.19.8")
    assert [each.problem.what for each in found if each.rule == "installed"] == [
        "zero_optimization.stage: odd"
    ]
    assert len([each for each in found if each.rule == "removed-key"]) == 2


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e400"])
def test_no_number_is_too_odd_to_be_told(tmp_path, value):
    odd = f"stage: {value}, zero_hpz_partition_size: {value}, sub_group_size: {value}, overlap_comm: {value}"
    more = f"train_batch_size: {value}, tensor_parallel: {{autotp_size: {value}}}"
    look = examined(tmp_path, "{}", f", overrides: {{{more}, zero_optimization: {{{odd}}}}}")
    assert any(each.severity == "error" for each in look.findings())
