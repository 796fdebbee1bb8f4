"""How a container is started on a host: pyxis flags for srun, or an Apptainer command. All pure.

With pyxis srun starts node.sh inside the container. With Apptainer, or Singularity, node.sh runs on the host
and starts the agent inside, so that it works with every launcher of hosts.
"""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.job.container_grammar import (
    Mount,
    apptainer_image,
    enroot_image,
    mount_fault,
    runtime_for,
    split_mount,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.job import ContainerSpec

_NOT_FORCED = ("HOME", "UID", "GID")  # Apptainer sets these itself and warns about every attempt


def runtime(container: ContainerSpec, backend: str) -> str:
    """Return what starts the container: pyxis, apptainer or singularity."""
    return container.runtime or runtime_for(backend)


def pyxis_flags(container: ContainerSpec, must_see: Iterable[str] = ()) -> list[str]:
    """Return the options that srun needs to start its tasks inside the container, for its argv.

    Args:
        container: the section of the job file.
        must_see: absolute folders that are there whatever the job file mounts; each must exist on the host.

    Raises:
        JobFileError: pyxis cannot start this image, or cannot mount one of the paths.
    """
    mounts = _mounts(container, must_see, "pyxis")
    flags = [
        f"--container-image={_image(container, 'pyxis')}",
        f"--container-mounts={','.join(map(_colons, mounts))}" if mounts else "",
        f"--container-workdir={container.workdir}" if container.workdir else "",
        _either(container.mount_home, "--container-mount-home", "--no-container-mount-home"),
        _either(container.writable, "--container-writable", "--container-readonly"),
        f"--container-env={','.join(container.env)}" if container.env else "",
    ]
    return [flag for flag in flags if flag] + container.extra


def apptainer_command(
    container: ContainerSpec,
    must_see: Iterable[str] = (),
    command: Sequence[str] = (),
    *,
    gpus: bool = True,
    workdir: str | None = None,
    program: str = "apptainer",
) -> list[str]:
    """Return the command that runs `command` inside the container: apptainer exec … IMAGE COMMAND.

    Apptainer hands on the environment it is started with, but for PATH and LD_LIBRARY_PATH; where the image
    sets a variable too, the image may win. Whoever starts the command therefore exports each of
    forced_variables() a second time, as APPTAINERENV_NAME (SINGULARITYENV_NAME): values stay out of argv.
    Their values arrive as they are thanks to --no-eval (Apptainer 1.1, SingularityCE 3.10).

    Args:
        container: the section of the job file.
        must_see: absolute folders that are there whatever the job file mounts.
        command: what runs inside.
        gpus: whether the driver's libraries and devices are brought in (--nv).
        workdir: folder to start in where `container.workdir` does not say.
        program: apptainer or singularity, which understand the same flags.

    Raises:
        JobFileError: Apptainer cannot start this image or do one of the mounts.
    """
    start_in = container.workdir or workdir
    flags = [
        "--no-eval",
        *(["--nv"] if gpus else []),
        *(word for mount in _mounts(container, must_see, program) for word in _bind(mount)),
        *(["--pwd", start_in] if start_in else []),
        *(["--no-home"] if container.mount_home is False else []),
        *(["--writable-tmpfs"] if container.writable else []),
    ]
    return [program, "exec", *flags, *container.extra, _image(container, program), *command]


def forced_variables(container: ContainerSpec, names: Iterable[str] = ()) -> list[str]:
    """Return the variables whose values on the host win over the image's: the job's own and `container.env`.

    Args:
        container: the section of the job file.
        names: variables that the job sets (train.env, secrets).
    """
    return [name for name in dict.fromkeys([*names, *container.env]) if name not in _NOT_FORCED]


def _either(choice: bool | None, yes: str, no: str) -> str:
    if choice is None:
        return ""
    return yes if choice else no


def _image(container: ContainerSpec, program: str) -> str:
    try:
        return (enroot_image if program == "pyxis" else apptainer_image)(container.image)
    except ValueError as error:
        raise JobFileError(Problem(str(error), "container.image", container.image)) from None


def _mounts(container: ContainerSpec, must_see: Iterable[str], program: str) -> list[Mount]:
    """Return the job file's mounts, then each folder of must_see that they do not show already."""
    mounts = [split_mount(text) for text in container.mounts]
    for folder in sorted({str(PurePosixPath(folder)) for folder in must_see}):
        if not any(_shows(mount, folder) for mount in mounts):
            mounts.append(Mount(folder, folder))
    faults = [(mount.source, fault) for mount in mounts if (fault := mount_fault(mount, program))]
    if faults:
        fix = "choose another path, or another container.runtime"
        raise JobFileError(*(Problem(what, "container.mounts", source, fix) for source, what in faults))
    return mounts


def _shows(mount: Mount, folder: str) -> bool:
    """Tell whether a folder can be seen, and written to, under its own path through a mount."""
    inside = PurePosixPath(folder).is_relative_to(mount.source)
    return inside and mount.source == mount.target and "ro" not in mount.flags


def _colons(mount: Mount) -> str:
    parts = [mount.source, mount.target, *(["+".join(mount.flags)] if mount.flags else [])]
    return ":".join(parts)


def _bind(mount: Mount) -> tuple[str, str]:
    """Return the flag of one mount; --bind splits at every , : and ^, --mount reads CSV with its quotes."""
    if not any(sign in mount.source + mount.target for sign in ',:^"\\'):
        return "--bind", ":".join(
            [mount.source, mount.target, *([",".join(mount.flags)] if mount.flags else [])]
        )
    line = io.StringIO()
    fields = ["type=bind", f"source={mount.source}", f"destination={mount.target}"]
    csv.writer(line, lineterminator="").writerow(fields + (["ro"] if "ro" in mount.flags else []))
    return "--mount", line.getvalue()
