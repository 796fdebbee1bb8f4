from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JobFileError, Problem
from orchestrator.job import load_job

SMALL = "cluster: {backend: local}\ntrain: {script: train.py}\n"


@pytest.fixture
def problems(tmp_path, monkeypatch):
    """Return a function that loads a wrong job file and returns its problems as text."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str) -> list[str]:
        Path("job.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(JobFileError) as caught:
            load_job(Path("job.yaml"), overrides)
        return [str(problem) for problem in caught.value.problems]

    return load


@pytest.fixture
def small(problems):
    """Return a function that sets one thing in a right job file and returns the one problem."""

    def load(*overrides: str) -> str:
        (problem,) = problems(SMALL, *overrides)
        return problem

    return load


def test_what_is_kept_has_to_be_said_in_full(small):
    assert "keep_checkpoints needs train.checkpoint_dir" in small("train.keep_checkpoints.last=2")
    saved = "train.checkpoint_dir=saved"
    best = ("train.keep_checkpoints.last=2", "train.keep_checkpoints.best=1")
    assert "best needs metric" in small(saved, *best)
    assert "metric decides on nothing" in small(saved, best[0], "train.keep_checkpoints.metric=loss")
    assert "expected 1 or more" in small(saved, "train.keep_checkpoints.last=0")
    assert "last" in small(saved, "train.keep_checkpoints.metric=loss", "train.keep_checkpoints.best=1")


@pytest.mark.parametrize(("key", "most"), [("slots", 4096), ("nodes", 100000)])
def test_numbers_that_no_cluster_has_are_a_slip(small, key, most):
    for value in (most + 1, 2**70, 10**30):
        assert f"cluster.{key}: expected {most:g} or less" in small(f"cluster.{key}={value}")


WRONG = """\
name: x
hostfile: hosts
cluster:
  backend: pdhs
  nodes: "2"
  shared_disk: maybe
  slots: 0
  ssh:
    prot: 22
train:
  module:
  launcer: torchrun
  args: [--lr, ~]
  env: {A-B: 1, TOKEN: x, RANK: 2}
  secrets: [TOKEN]
  master_port: 70000
  python: [python]
deepspeed:
  stage: 3
  hpz: nod
  bf16: {}
  precision: bf15
time_limit: 2:30
lease: 1
"""


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(problems):
    found = problems(WRONG, "trian.x=1")
    assert [re.sub(r"\n  fix: ", " -> ", text) for text in found] == [
        "job.yaml:2: hostfile: unknown key -> hostfile belongs under cluster",
        'job.yaml:4: cluster.backend: expected local, pdsh, ssh or slurm (got "pdhs") -> did you mean pdsh?',
        'job.yaml:5: cluster.nodes: expected a whole number (got "2") -> remove the quotes: 2',
        'job.yaml:6: cluster.shared_disk: expected true or false or auto (got "maybe")',
        "job.yaml:7: cluster.slots: expected 1 or more (got 0)",
        "job.yaml:9: cluster.ssh.prot: unknown key -> did you mean port?",
        (
            "job.yaml:10: train: neither train.script nor train.module is given"
            " -> add script: train.py, or module: package.train"
        ),
        "job.yaml:12: train.launcer: unknown key -> did you mean launcher?",
        (
            "job.yaml:13: train.args.1: has no value"
            ' -> write a value, "" for an empty text, or "null" for that word'
        ),
        (
            "job.yaml:14: train.env.A-B: is no name of an environment variable"
            " (letters, digits and _, no digit first) (got 1)"
        ),
        (
            "job.yaml:14: train.env.RANK: RANK is set for each rank by the launcher"
            " -> remove it; hosts and slots decide about ranks"
        ),
        (
            "job.yaml:15: train.secrets.0: TOKEN is in train.env too, where its value would be written out"
            " -> keep it in train.secrets and export TOKEN yourself"
        ),
        "job.yaml:16: train.master_port: expected 65535 or less (got 70000)",
        'job.yaml:17: train.python: expected a text (got ["python"])',
        (
            "job.yaml:19: deepspeed.stage: unknown key"
            " -> did you mean zero_stage?; DeepSpeed's own keys go under deepspeed.overrides"
        ),
        'job.yaml:20: deepspeed.hpz: expected a whole number or node (got "nod") -> did you mean node?',
        "job.yaml:21: deepspeed.bf16: unknown key -> write precision: bf16",
        'job.yaml:22: deepspeed.precision: expected fp32, fp16 or bf16 (got "bf15") -> did you mean bf16?',
        (
            "job.yaml:23: time_limit: expected a duration: seconds, 2h30m, HH:MM:SS or D-HH:MM:SS;"
            ' 2:30 may mean hours or minutes (got "2:30")'
        ),
        "job.yaml:24: lease: expected 2 or more (got 1)",
        "--set trian.x=1: trian: unknown key -> did you mean train?",
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cluster.nods=2", "cluster.nods: unknown key\n  fix: did you mean nodes?"),
        ("nodes=2", "nodes: unknown key\n  fix: nodes belongs under cluster"),
        ("train.name=x", "train.name: unknown key\n  fix: name belongs under the top of the file"),
        ("train.zero_stage=3", "train.zero_stage: unknown key\n  fix: zero_stage belongs under deepspeed"),
        (
            "cluster.partition=x",
            "cluster.partition: unknown key\n  fix: partition belongs under cluster.slurm",
        ),
        (
            "cluster.slurm.partition=x",
            "cluster.slurm: the backend is local, which asks no Slurm for anything",
        ),
        ("cluster.nodes=two", 'cluster.nodes: expected a whole number (got "two")'),
        ("cluster.nodes=2.5", "cluster.nodes: expected a whole number (got 2.5)"),
        ("cluster.nodes=yes", "cluster.nodes: expected a whole number (got yes)"),
        ("cluster.nodes=-1", "cluster.nodes: expected 1 or more (got -1)"),
        ("cluster.control_port=-1", "cluster.control_port: expected 0 or more (got -1)"),
        ("train.master_port=0", "train.master_port: expected 1 or more (got 0)"),
        (
            "train.snapshot='true'",
            'train.snapshot: expected true or false (got "true")\n  fix: remove the quotes: true',
        ),
        (
            "train.args=--lr 1",
            'train.args: expected a list (got "--lr 1")\n  fix: write it as a list: [--lr, 1]',
        ),
        ("train.args=[[a]]", 'train.args.0: expected a text (got ["a"])'),
        ("train.env=[A]", 'train.env: expected a section of keys (got ["A"])'),
        ("train.env.A=", "train.env.A: has no value"),
        ("train.env.1A=x", "train.env.1A: is no name of an environment variable"),
        ("train.secrets=[a b]", "train.secrets.0: is no name of an environment variable"),
        ('train.args=["\\0"]', "train.args.0: holds a NUL character"),
        ('train.env.A="\\0"', "train.env.A: holds a NUL character"),
        ('train.script=""', "train.script: expected a path"),
        ("train.workdir=~nobodyhere/x", "train.workdir: no home folder stands behind '~nobodyhere'"),
        ('name=""', "name: expected a text, this one is empty"),
        ('name="a\\nb"', "name: expected one line of printable characters"),
        ("name=" + "x" * 101, "name: is 101 characters long, the most is 100"),
        ("cluster.ssh.user=-oProxyCommand=x", "cluster.ssh.user: a leading '-' would be read as an option"),
        ("cluster.ssh.connect_timeout=0", "cluster.ssh.connect_timeout: expected 1 or more (got 0)"),
        ("cluster=local", 'cluster: expected a section of keys (got "local")'),
        (
            "cluster.backend=",
            "cluster.backend: is missing\n  fix: add backend: one of local, pdsh, ssh, slurm",
        ),
        ("train.module=m", "train.module: train.script and train.module are both given"),
        ("cluster.backend=pdsh", "cluster.backend: backend pdsh needs cluster.hostfile"),
        ("cluster.backend=ssh", "cluster.backend: backend ssh needs cluster.hostfile"),
        ("time_limit=0", "time_limit: expected more than 0 (got 0)"),
        ("time_limit=soon", "time_limit: expected a duration: seconds, 2h30m"),
        ("grace=-1", "grace: expected 0 or more (got -1)"),
        ("start_timeout=0s", "start_timeout: expected more than 0 (got "),
        ("deepspeed.zero_stage=4", "deepspeed.zero_stage: expected 0, 1, 2 or 3 (got 4)"),
        (
            'deepspeed.zero_stage="3"',
            'deepspeed.zero_stage: expected 0, 1, 2 or 3 (got "3")\n  fix: remove the quotes: 3',
        ),
        (
            "deepspeed.zero_optimization={stage: 3}",
            "deepspeed.zero_optimization: unknown key\n  fix: write zero_stage: …; DeepSpeed's own",
        ),
        (
            "deepspeed.gradient_clipping=.nan",
            "deepspeed.gradient_clipping: expected a finite number (got .nan)",
        ),
        ("deepspeed.hpz=0", "deepspeed.hpz: expected 1 or more or node (got 0)"),
        ("deepspeed.gradient_clipping=-1", "deepspeed.gradient_clipping: expected 0 or more (got -1)"),
        ("deepspeed.offload_param=disk", 'deepspeed.offload_param: expected none, cpu or nvme (got "disk")'),
    ],
)
def test_a_wrong_value(small, setting, message):
    assert small(setting).startswith(f"--set {setting}: {message}")


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ("--config '{ds_config}' -x \"it's\"", """[--config, "{ds_config}", -x, "it's"]"""),
        ('"an \'open quote"', """["an 'open quote"]"""),
    ],
)
def test_the_list_that_is_proposed_for_one_text_is_yaml(small, value, items):
    assert small(f"train.args={value}").endswith(f"fix: write it as a list: {items}")
    assert all(isinstance(item, str) for item in yaml.safe_load(items))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("cluster.backend=slurm", "cluster.nodes=1", "cluster.slots=1", "cluster.hostfile=h"),
            "cluster.hostfile: backend slurm gets its hosts from Slurm",
        ),
        (
            ("cluster.include=a", "cluster.exclude=b"),
            "cluster.exclude: include and exclude cannot both be given",
        ),
    ],
)
def test_keys_that_cannot_stand_together(small, settings, message):
    assert f": {message}" in small(*settings)


def test_files_that_are_no_job_file(tmp_path):
    for name, content, message in (
        ("none.yaml", None, "no such file"),
        ("latin.yaml", b"name: \xff", "not UTF-8 at byte 6"),
        ("list.yaml", b"- a", "expected a section of keys"),
        ("empty.yaml", b"", "is empty"),
        ("two.yaml", b"a: 1\n---\nb: 2\n", "remove the line ---"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(JobFileError, match=message) as caught:
            load_job(path)
        assert str(path) in str(caught.value)
    with pytest.raises(JobFileError, match="cannot be read: Is a directory"):
        load_job(tmp_path)


keys = st.sampled_from(
    ["cluster", "train", "deepspeed", "name", "backend", "script", "args", "env", "hpz", "x", "ssh"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 4)
    | st.floats(allow_nan=False)
    | st.sampled_from(["local", "a", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keys, values, min_size=1))
def test_any_document_loads_or_is_a_job_file_error(tmp_path_factory, document):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    problems: tuple[Problem, ...] = ()
    try:
        load_job(path)
    except JobFileError as error:
        problems = error.problems
    assert all(problem.where.startswith(str(path)) for problem in problems)
