from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.errors import JobFileError
from orchestrator.job import load_job
from orchestrator.job.matrix import at_once, points_of

JOB = """\
cluster: {{backend: {backend}, nodes: 1, slots: 1}}
train: {{script: train.py, args: [--lr, "{{lr}}", "{{run_dir}}"], env: {{SEED: "s{{seed}}"}}}}
{more}
"""


@pytest.fixture
def load(tmp_path):
    def made(more: str, backend: str = "local", *settings: str):
        path = tmp_path / "job.yaml"
        path.write_text(JOB.format(backend=backend, more=more))
        return load_job(path, settings)

    return made


def test_the_first_parameter_changes_slowest_and_values_stay_as_typed(load):
    points = points_of(load("matrix:\n  deepspeed.zero_stage: [2, 3]\n  lr: [1e-4, 3e-4]\n  seed: [1]\n"))
    assert [point.index for point in points] == [0, 1, 2, 3]
    assert points[0].label == "zero_stage=2,lr=1e-4,seed=1"
    assert points[1].label == "zero_stage=2,lr=3e-4,seed=1"


def test_the_settings_of_a_point_make_a_run_of_its_own(load):
    job = load("matrix:\n  deepspeed.zero_stage: [2, 3]\n  lr: [1e-4]\n  seed: [7]\nparallel: 2\n")
    point = points_of(job)[1]
    spec = load_job(job.path, point.settings).spec
    assert spec.train.args == ["--lr", "1e-4", "{run_dir}"]
    assert spec.train.env == {"SEED": "s7"}
    assert spec.deepspeed.zero_stage == 3
    assert (spec.matrix, spec.parallel) == (None, None)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("matrix: {lr: []}", "has no values"),
        ("matrix: {}", "has no parameter"),
        ("matrix: {lr: [1, 1]}", "has the same value twice"),
        ("matrix: {rate: [1]}", "is used in no argument"),
        ("matrix: {run_dir: [1]}", "stands for something of the run"),
        ("matrix: {array_index: [1]}", "stands for something of the run"),
        ("matrix: {optimizer.lr: [1]}", "a job file has no key optimizer"),
        ("matrix: {parallel: [1, 2]}", "parallel belongs to the sweep"),
        ("matrix: {run_root: [a, b]}", "run_root belongs to the sweep"),
        ("matrix: {cluster.backend: [local, ssh]}", "cluster.backend belongs to the sweep"),
        ("matrix: {cluster.login: [a, b]}", "cluster.login belongs to the sweep"),
        (f"matrix: {{lr: {list(range(40))}, seed: {list(range(40))}}}", "makes 1600 points"),
    ],
)
def test_what_is_no_sweep_is_told_with_its_line(load, more, told):
    with pytest.raises(JobFileError, match=told) as caught:
        points_of(load(more))
    assert "job.yaml:3" in str(caught.value) or "has no parameter" in told


def test_a_name_that_is_a_key_as_well_is_not_guessed(load):
    job = load("matrix: {grace: [1, 2]}", "local", 'train.args=["{grace}"]')
    with pytest.raises(
        JobFileError, match=r"is a key of the job file, and \{grace\} is used in train as well"
    ):
        points_of(job)


def test_a_key_of_the_top_is_a_key_path(load):
    job = load("matrix: {time_limit: [60, 1h]}")
    assert [load_job(job.path, point.settings).spec.time_limit for point in points_of(job)] == [60, 3600]


def test_a_label_is_short_and_tells_the_points_apart(load):
    long, other = "x" * 40 + "1", "x" * 40 + "2"
    job = load(f'matrix: {{train.env.A: ["{long}", "{other}"], train.args.0: ["a\\nb"], cluster.slots: [1]}}')
    assert [point.label for point in points_of(job)] == [
        f"A={'x' * 16}…{'x' * 15}1,args.0=a b,slots=1",
        f"A={'x' * 16}…{'x' * 15}2,args.0=a b,slots=1",
    ]
    alike = load(f'matrix: {{train.env.A: ["{"x" * 20}1{"x" * 20}", "{"x" * 20}2{"x" * 20}"]}}')
    assert len({point.label for point in points_of(alike)}) == 2
    same_end = load("matrix: {train.env.SEED: [1], deepspeed.overrides.SEED: [2]}")
    assert points_of(same_end)[0].label == "train.env.SEED=1,deepspeed.overrides.SEED=2"


def test_names_stand_wherever_a_value_can_and_values_are_not_filled_again(load, tmp_path):
    more = "matrix: {lr: ['{seed}'], seed: ['{lr}']}"
    settings = ('train.resume_args=["{resume_tag}-{lr}"]', "train.checkpoint_dir=ck/{seed}/{array_index}")
    job = load(more, "local", *settings)
    (point,) = points_of(job)
    train = load_job(job.path, (*settings, *point.settings)).spec.train
    assert (train.args, train.env) == (["--lr", "{seed}", "{run_dir}"], {"SEED": "s{lr}"})
    assert train.resume_args == ["{resume_tag}-{seed}"]
    assert train.checkpoint_dir == tmp_path / "ck/{lr}/0"


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example(text="null")
@example(text="x # y")
@example(text="a: b")
@example(text="")
@example(text="1_000")
def test_any_text_reaches_arguments_variables_and_keys_as_it_was_typed(tmp_path_factory, text):
    value = quoted(text)
    path = tmp_path_factory.mktemp("matrix") / "job.yaml"
    more = f"matrix: {{lr: [{value}], train.env.KEY: [{value}]}}"
    path.write_text(JOB.format(backend="local", more=more), encoding="utf-8")
    (point,) = points_of(load_job(path))
    train = load_job(path, point.settings).spec.train
    assert (train.args[1], train.env["KEY"]) == (text, text)


def quoted(text: str) -> str:
    """Return a text in YAML's double quotes, every letter by its number."""
    return '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'


def test_a_job_without_a_matrix_has_no_points(load):
    assert points_of(load("")) == []


def test_the_array_of_a_slurm_job_gives_the_indexes(load):
    job = load("matrix:", "slurm", "cluster.slurm.array=1,5-7:2%2", 'train.args=["x{array_index}"]')
    points = points_of(job)
    assert [point.index for point in points] == [1, 5, 7]
    assert load_job(job.path, ("cluster.slurm.array=1", *points[2].settings)).spec.train.args == ["x7"]
    assert at_once(job) == 2


def test_how_many_at_once(load):
    assert at_once(load("matrix: {lr: [1]}")) == 1
    assert at_once(load("matrix: {lr: [1]}\nparallel: 3")) == 3
    assert at_once(load("matrix: {lr: [1]}", "slurm")) is None
    assert at_once(load("parallel: 4", "slurm", "cluster.slurm.array=1-9")) == 4


def test_an_array_with_a_limit_of_its_own_needs_no_other(load):
    with pytest.raises(JobFileError, match="says already how many points may run at once"):
        load("parallel: 4", "slurm", "cluster.slurm.array=1-9%2")


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_there_are_as_many_points_as_combinations(tmp_path_factory, counts):
    keys = ["deepspeed.zero_stage", "deepspeed.global_batch", "lr"]
    matrix = {key: list(range(1, count + 1)) for key, count in zip(keys, counts, strict=False)}
    path = tmp_path_factory.mktemp("matrix") / "job.yaml"
    path.write_text(JOB.format(backend="local", more=f"matrix: {matrix}"))
    points = points_of(load_job(path))
    assert len(points) == math.prod(counts)
    assert len({point.label for point in points}) == len(points)
    assert [point.index for point in points] == list(range(len(points)))
    expected = itertools.product(*matrix.values())
    names = [key.rpartition(".")[2] for key in matrix]
    labels = (",".join(f"{n}={v}" for n, v in zip(names, values, strict=True)) for values in expected)
    assert [point.label for point in points] == list(labels)
