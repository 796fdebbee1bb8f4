from __future__ import annotations

import math

import pytest
from hypothesis import given
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
        (f"matrix: {{lr: {list(range(40))}, seed: {list(range(40))}}}", "makes 1600 points"),
    ],
)
def test_what_is_no_sweep_is_told_with_its_line(load, more, told):
    with pytest.raises(JobFileError, match=told) as caught:
        points_of(load(more))
    assert "job.yaml:3" in str(caught.value) or "has no parameter" in told


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


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_there_are_as_many_points_as_combinations(tmp_path_factory, counts):
    keys = ["deepspeed.zero_stage", "deepspeed.global_batch", "lr"]
    matrix = {key: list(range(1, count + 1)) for key, count in zip(keys, counts, strict=False)}
    path = tmp_path_factory.mktemp("matrix") / "job.yaml"
    path.write_text(JOB.format(backend="local", more=f"matrix: {matrix}"))
    points = points_of(load_job(path))
    assert len(points) == math.prod(counts)
    assert len({point.label for point in points}) == len(points)
