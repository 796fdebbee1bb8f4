from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import JobFileError
from orchestrator.job import load_job

SMALL = "cluster: {backend: slurm, nodes: 2, slots: 8}\ntrain: {script: train.py}\n"
PYTORCH = "nvcr.io/nvidia/pytorch:25.06-py3"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that loads a job with settings; `problems` of a wrong one."""
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(SMALL, encoding="utf-8")
    return lambda *settings: load_job(Path("job.yaml"), settings).spec.container


@pytest.fixture
def problem(load):
    def found(*settings: str) -> str:
        with pytest.raises(JobFileError) as caught:
            load(*settings)
        (only,) = caught.value.problems
        return str(only)

    return found


def test_paths_are_anchored_and_the_rest_is_kept(load, tmp_path):
    spec = load(
        "container={image: ./images/a.sqsh, mounts: [data, ~/x:/x, /a:/b:ro+rprivate, 'tmpfs:/scratch'],"
        " workdir: /work, env: [LANG], mount_home: false, writable: true, extra: [--container-remap-root]}"
    )
    assert spec is not None
    assert spec.image == str(tmp_path / "images/a.sqsh")
    assert spec.mounts == [
        f"{tmp_path}/data:{tmp_path}/data",
        f"{Path.home()}/x:/x",
        "/a:/b:ro+rprivate",
        "tmpfs:/scratch",
    ]
    assert (spec.workdir, spec.env, spec.mount_home, spec.writable) == ("/work", ["LANG"], False, True)
    assert (load(f"container.image={PYTORCH}").image, load("container.image=a.sqsh").image) == (
        PYTORCH,
        str(tmp_path / "a.sqsh"),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["container.image=Ubuntu"], "container.image: expected an image such as nvcr.io/nvidia/pytorch"),
        (["container.image=a", "container.mounts=[/a:b]"], "container.mounts.0: the place inside"),
        (["container.image=a", "container.workdir=w"], "container.workdir: expected an absolute path inside"),
        (
            ["container.image=a", "container.runtime=docker"],
            "container.runtime: expected pyxis, apptainer or",
        ),
        (["container.runtime=pyxis"], "container.image: is missing"),
        (
            ["container.image=a.sif"],
            "container.image: pyxis starts squashfs files, not the SIF files of Apptainer",
        ),
        (["container.image=oras://a/b"], "container.image: pyxis takes docker:// and dockerd:// images"),
        (
            ["container={image: dockerd://a, runtime: apptainer}"],
            "container.image: Apptainer takes files, folders, docker://",
        ),
        (
            ["container={image: a, mounts: ['/a,b']}"],
            "container.mounts.0: pyxis cannot mount a path with , in it",
        ),
        (
            ["container={image: a, runtime: apptainer, mounts: [/a:/b:rprivate]}"],
            "container.mounts.0: apptainer knows the mount flags ro and rw, not rprivate",
        ),
        (
            ["container={image: a, runtime: singularity, mounts: ['tmpfs:/b']}"],
            "container.mounts.0: singularity mounts no tmpfs by name",
        ),
        (
            ["cluster={backend: local}", "container={image: a, runtime: pyxis}"],
            "container.runtime: pyxis is a part of Slurm, and the backend is local",
        ),
        (
            ["container={image: a, extra: [--container-mounts=/a]}"],
            "container.extra.0: this option has a key of its own\n  fix: use container.mounts",
        ),
        (
            ["container.image=a", "cluster.slurm.srun_args=[--container-writable]"],
            "cluster.slurm.srun_args.0: options of the container stand in the section container",
        ),
    ],
)
def test_containers_that_cannot_be(problem, settings, message):
    assert message in problem(*settings)


@pytest.mark.parametrize(
    "settings",
    [
        ["cluster={backend: local}", "container.image=a.sif"],
        ["container={image: a.sif, runtime: apptainer}"],
        ["container={image: oras://a/b, runtime: singularity}"],
        ["container={image: a, mounts: ['tmpfs:/x']}"],
    ],
)
def test_containers_that_can_be(load, settings):
    assert load(*settings)
