"""What the section `container` says together with the rest of the job file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.job.container_grammar import (
    apptainer_image,
    enroot_image,
    mount_fault,
    runtime_for,
    split_mount,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.job.slurm_contradictions import Found

_HAVE_KEYS = {
    "--container-image": "image",
    "--container-mounts": "mounts",
    "--container-workdir": "workdir",
    "--container-env": "env",
    "--pwd": "workdir",
    "--cwd": "workdir",
}


def container_contradictions(container: dict[str, Any], cluster: dict[str, Any]) -> Iterator[Found]:
    """Yield what cannot be in the section `container` of a job file."""
    backend = cluster.get("backend")
    runtime = container.get("runtime") or runtime_for(str(backend))
    if runtime == "pyxis" and backend != "slurm":
        what = f"pyxis is a part of Slurm, and the backend is {backend}"
        yield ("container", "runtime"), what, "use runtime: apptainer"
        return
    yield from _image(container.get("image"), runtime)
    yield from _mounts(container.get("mounts"), runtime)
    yield from _flags(container, cluster)


def _image(image: Any, runtime: str) -> Iterator[Found]:
    try:
        if isinstance(image, str):
            (enroot_image if runtime == "pyxis" else apptainer_image)(image)
    except ValueError as error:
        fix = f"the runtime is {runtime}: give an image that it takes, or another container.runtime"
        if _takes_some(image):  # else the key's own check says it
            yield ("container", "image"), str(error), fix


def _takes_some(image: str) -> bool:
    for reader in (enroot_image, apptainer_image):
        try:
            reader(image)
        except ValueError:
            continue
        return True
    return False


def _mounts(mounts: Any, runtime: str) -> Iterator[Found]:
    for index, text in enumerate(mounts if isinstance(mounts, list) else ()):
        try:
            fault = mount_fault(split_mount(text), runtime) if isinstance(text, str) else None
        except ValueError:
            continue
        if fault:
            yield ("container", "mounts", index), fault, "change the mount, or use another container.runtime"


def _flags(container: dict[str, Any], cluster: dict[str, Any]) -> Iterator[Found]:
    extra, slurm = container.get("extra"), cluster.get("slurm")
    for index, word in enumerate(extra if isinstance(extra, list) else ()):
        key = _HAVE_KEYS.get(str(word).partition("=")[0])
        if key:
            yield ("container", "extra", index), "this option has a key of its own", f"use container.{key}"
    words = slurm.get("srun_args") if isinstance(slurm, dict) else None
    for index, word in enumerate(words if isinstance(words, list) else ()):
        if str(word).startswith(("--container-", "--no-container-")):
            what = "options of the container stand in the section container"
            yield ("cluster", "slurm", "srun_args", index), what, "move it to container.extra"
