"""The texts of `container`: mounts and images, and what each runtime makes of them.

Read off pyxis 0.24 (`args.c`), enroot 4.1 (`src/docker.sh`) and Apptainer 1.5 (`bind.go`, `mount.go`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Runtime = Literal["pyxis", "apptainer", "singularity"]

TMPFS = "tmpfs"
"""A mount source that is no path: an empty file system in memory. Only pyxis has it."""

_IMAGE_FILES = (".sif", ".simg", ".sqsh", ".squashfs", ".img")
_SCHEME = re.compile(r"([a-z][a-z0-9-]*):(?://)?(.+)\Z")
_APPTAINER_SCHEMES = (
    *("docker-archive", "docker-daemon", "oci", "oci-archive"),
    *("library", "shub", "oras", "http", "https"),
)
_REFERENCE = re.compile(
    r"(?:(?P<user>[^\s#/]+)@)?(?:(?P<registry>[^\s#/@]+)#)?"
    r"(?P<image>[a-z0-9][a-z0-9._-]*(?::[0-9]+(?=/))?(?:/[a-z0-9][a-z0-9._-]*)*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]*)?(?:@sha256:[0-9a-f]+)?\Z"
)
_DOCKER_HUB = re.compile(r"(?:index\.|registry-1\.)?docker\.io[/#]")
_PYXIS_CANNOT = re.compile(r'[,:"$`\\]')
"""pyxis parts mounts by commas and colons, and writes the rest into a shell script between double quotes."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of the host that a container sees.

    Attributes:
        source: where it lies on the host, or tmpfs.
        target: where the container sees it: absolute.
        flags: mount flags, such as ro.
    """

    source: str
    target: str
    flags: tuple[str, ...] = ()


def runtime_for(backend: str) -> Runtime:
    """Return the runtime of a job file that names none."""
    return "pyxis" if backend == "slurm" else "apptainer"


def split_mount(text: str) -> Mount:
    """Read `SRC`, `SRC:DST` or `SRC:DST:FLAG+FLAG`.

    Raises:
        ValueError: the text is none of these.
    """
    source, *rest = text.split(":")
    target = rest[0] if rest else source
    flags = tuple(re.split("[+,]", rest[1])) if len(rest) == 2 else ()
    if len(rest) > 2 or not source or not target or not all(flags):
        raise ValueError("expected SRC, SRC:DST or SRC:DST:FLAGS, for example /data:/data:ro")
    if rest and not target.startswith("/"):
        raise ValueError(f"the place inside the container has to be absolute, {target} is not")
    if source == TMPFS and not rest:
        raise ValueError("expected tmpfs:DST")
    return Mount(source, target, flags)


def is_image_file(image: str) -> bool:
    """Tell whether an image is a file or folder and not a name in a registry."""
    return image.startswith((".", "/", "~")) or ("://" not in image and image.endswith(_IMAGE_FILES))


def enroot_image(image: str) -> str:
    """Return an image as `--container-image` takes it: a path, or `[USER@][REGISTRY#]IMAGE[:TAG]`.

    enroot before 4.0 takes `nvcr.io/nvidia/pytorch` for a name on Docker Hub, so a registry gets its `#`.

    Raises:
        ValueError: pyxis cannot start it.
    """
    if is_image_file(image):
        if image.endswith((".sif", ".simg")):
            raise ValueError("pyxis starts squashfs files, not the SIF files of Apptainer")
        return image
    if image.startswith("dockerd://"):
        return image
    reference = _docker_reference(image, "pyxis takes docker:// and dockerd:// images, and squashfs files")
    first, slash, rest = reference.partition("/")
    if slash and "#" not in reference and re.search(r"[.:]|(?:\A|@)localhost\Z", first):
        return f"{first}#{rest}"
    return reference


def apptainer_image(image: str) -> str:
    """Return an image as `apptainer exec` takes it: a path or a URI.

    Raises:
        ValueError: Apptainer cannot start it.
    """
    if is_image_file(image):
        return image
    scheme = _SCHEME.match(image)
    if scheme and scheme[1] in _APPTAINER_SCHEMES:
        return image
    known = "Apptainer takes files, folders, docker://, oras://, library:// and the like"
    reference = _docker_reference(image, known)
    if re.match(r"[^/]*@(?!sha256:)", reference):
        raise ValueError("Apptainer takes no user in the name of an image; use apptainer registry login")
    return "docker://" + reference.replace("#", "/", 1)


def _docker_reference(image: str, known: str) -> str:
    """Return `[USER@][REGISTRY#]IMAGE[:TAG]` or that with a `/`, without docker:// and Docker Hub."""
    reference = image.removeprefix("docker://")
    if "://" in reference:
        raise ValueError(known)
    if not _REFERENCE.match(reference):
        raise ValueError("expected an image such as nvcr.io/nvidia/pytorch:25.06-py3, or the path of a file")
    return _DOCKER_HUB.sub("", reference, count=1)


def mount_fault(mount: Mount, runtime: str) -> str | None:
    """Return why a runtime cannot do a mount, or None."""
    if runtime == "pyxis":
        odd = _PYXIS_CANNOT.search(mount.source + mount.target)
        return f"pyxis cannot mount a path with {odd[0]} in it" if odd else None
    if mount.source == TMPFS:
        return f"{runtime} mounts no tmpfs by name; it has --scratch, for container.extra"
    wrong = [flag for flag in mount.flags if flag not in ("ro", "rw")]
    return f"{runtime} knows the mount flags ro and rw, not {wrong[0]}" if wrong else None
