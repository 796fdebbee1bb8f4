"""The section `container`: the image that the training runs in."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from orchestrator.job.container_grammar import (
    TMPFS,
    Runtime,
    apptainer_image,
    enroot_image,
    is_image_file,
    split_mount,
)
from orchestrator.job.section import Section
from orchestrator.job.values import Line, VariableName, Word, anchored_text


def _image(value: str, info: ValidationInfo) -> str:
    """Anchor what is a file; a name in a registry has to be one for some runtime."""
    if is_image_file(value):
        return anchored_text(value, info)
    try:
        enroot_image(value)
    except ValueError:
        apptainer_image(value)
    return value


def _mount(value: str, info: ValidationInfo) -> str:
    mount = split_mount(value)
    source = mount.source if mount.source == TMPFS else anchored_text(mount.source, info)
    target = mount.target if ":" in value else source
    return ":".join([source, target, *(["+".join(mount.flags)] if mount.flags else [])])


def _inside(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("expected an absolute path inside the container")
    return value


_Image = Annotated[Word, AfterValidator(_image)]
_Mount = Annotated[Line, AfterValidator(_mount)]


class ContainerSpec(Section):
    """The container that the training runs in on every host."""

    image: _Image = Field(
        description="Image: a name such as nvcr.io/nvidia/pytorch:25.06-py3, or a squashfs, SIF or sandbox "
        "path (a folder begins with ./ or /)."
    )
    runtime: Runtime | None = Field(
        default=None, description="What starts it; default: pyxis on slurm, apptainer elsewhere."
    )
    mounts: list[_Mount] = Field(
        default_factory=list,
        description="Paths of the host to see inside: SRC, SRC:DST or SRC:DST:FLAGS with ro, or more flags "
        "joined by +; the run directory and the workdir are always there.",
    )
    workdir: Annotated[Line, AfterValidator(_inside)] | None = Field(
        default=None, description="Folder inside the container to run in; default: the job's workdir."
    )
    env: list[VariableName] = Field(
        default_factory=list, description="Variables of the host that win over those of the image."
    )
    mount_home: bool | None = Field(
        default=None, description="Whether the home folder is seen inside; default: as the cluster has it."
    )
    writable: bool | None = Field(
        default=None,
        description="Whether the image can be written to; what is written is gone with the container.",
    )
    extra: list[Line] = Field(
        default_factory=list, description="More options of the runtime, one word each, as they are."
    )
