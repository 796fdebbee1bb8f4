"""What is checked between the job file and the run: files that must be there, and what there is to say."""

from __future__ import annotations

import json

import pytest

from orchestrator.errors import JobFileError
from orchestrator.forecast.examine import prepare_or_tell
from orchestrator.job import load_job
from orchestrator.prepare import prepare

JOB = """\
cluster: {backend: local, slots: 2}
train: {script: train.py, args: ARGS}
deepspeed: {zero_stage: 3, micro_batch_per_gpu: 1}
"""


@pytest.fixture
def made(tmp_path):
    """Return a function that prepares a job with these arguments, and the settings of `--set`."""
    (tmp_path / "train.py").write_text("")
    (tmp_path / "there.json").write_text("{}")

    def prepared(args, *settings):
        (tmp_path / "job.yaml").write_text(JOB.replace("ARGS", json.dumps(args)))
        return prepare(load_job(tmp_path / "job.yaml", settings), {})

    return prepared


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (["--deepspeed_config", "gone.json"], "train.args.1"),
        (["-x", "--deepspeed=configs/gone.json"], "train.args.1"),
        (["--ds-config", "/nowhere/gone.json"], "train.args.1"),
    ],
)
def test_a_deepspeed_file_that_an_argument_names_must_be_there(made, args, where):
    with pytest.raises(JobFileError) as caught:
        made(args)
    (problem,) = caught.value.problems
    assert (problem.what, problem.where.rpartition(": ")[2]) == ("there is no such file", where)


@pytest.mark.parametrize(
    "args",
    [
        ["--deepspeed_config", "there.json"],
        ["--deepspeed_config", "{ds_config}"],
        ["--deepspeed_config", "{run_dir}/made-later.json"],
        ["--deepspeed", "--config", "gone.json"],
        ["--deepspeed_config"],
    ],
)
def test_other_arguments_are_the_scripts_own(made, args):
    assert made(args).plan.args == tuple(args)


def test_hosts_elsewhere_may_have_the_file(made, tmp_path):
    (tmp_path / "hosts").write_text("a slots=1\n")
    settings = ("cluster.backend=ssh", f"cluster.hostfile={tmp_path / 'hosts'}", "cluster.slots=1")
    assert made(["--deepspeed_config", "gone.json"], *settings).plan.backend == "ssh"


def test_what_was_changed_in_the_configuration_is_said(made):
    found = made([], "deepspeed.prefetch_bucket_size=941876.1")
    assert [each.rule for each in found.findings if each.rule == "configuration"] == ["configuration"]
    assert any("was rounded to 941876" in warning for warning in found.warnings)
    quiet = made([], "deepspeed.reduce_bucket_size=auto", "model.hidden_size=64")
    assert [each.severity for each in quiet.findings if each.rule == "auto-filled"] == ["note"]
    assert not any("auto" in warning for warning in quiet.warnings)
    assert quiet.plan.deepspeed["zero_optimization"]["reduce_bucket_size"] == 4096


@pytest.mark.parametrize(
    ("patterns", "told"),
    [
        (None, "mine.yaml: cannot read the file of patterns: No such file or directory"),
        (
            "patterns: [{category: gone, match: x}]",
            "mine.yaml: patterns[0].category: there is no such category",
        ),
    ],
)
def test_patterns_of_ones_own_are_read_before_the_start(made, tmp_path, patterns, told):
    if patterns is not None:
        (tmp_path / "mine.yaml").write_text(patterns)
    with pytest.raises(JobFileError) as caught:
        made([], "monitor.patterns=[mine.yaml]")
    assert told in str(caught.value)


WRONG = """\
cluster: {backend: pdsh, hostfile: gone, include: 'a:0-3'}
train: {script: train.py, args: ['{ds_config}'], secrets: [NOT_SET]}
deepspeed: {zero_stage: 2, offload_param: cpu, quantized_weights: true, micro_batch_per_gpu: 1}
"""


@pytest.fixture
def told(tmp_path):
    """Return a function that gives where problems of a job are and what they are."""

    def problems(text):
        (tmp_path / "train.yaml").write_text(text)  # a name that begins as a key does
        with pytest.raises(JobFileError) as caught:
            prepare_or_tell(load_job(tmp_path / "train.yaml"), {})
        return [(each.where.rpartition("/")[2], each.what) for each in caught.value.problems]

    return problems


def test_a_hostfile_that_is_missing_hides_nothing_else_that_is_wrong(told):
    found = told(WRONG)
    assert found[0] == ("train.yaml:1: cluster.hostfile", "the hostfile does not exist")
    assert sorted(where for where, _ in found[1:]) == [
        *("train.yaml:2: train.secrets", "train.yaml:3: deepspeed.offload_param"),
        "train.yaml:3: deepspeed.quantized_weights",
    ]


def test_without_hosts_nothing_is_told_that_depends_on_them(told):
    fits_on_some = "deepspeed: {zero_stage: 3, hpz: 4, global_batch: 24, micro_batch_per_gpu: 1}\n"
    first, second = WRONG.splitlines(keepends=True)[:2]
    assert [where for where, _ in told(first + second.replace("NOT_SET", "") + fits_on_some)] == [
        "train.yaml:1: cluster.hostfile"
    ]


def test_a_configuration_that_is_wrong_hides_no_file_that_is_missing(told):
    found = told(WRONG.replace("pdsh, hostfile: gone, include: 'a:0-3'", "local").replace("secrets", "setup"))
    assert [where for where, _ in found] == [
        *("train.yaml:3: deepspeed.offload_param", "train.yaml:2: train.script"),
        "train.yaml:3: deepspeed.quantized_weights",
    ]
