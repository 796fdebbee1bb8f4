from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.containers import apptainer_command, forced_variables, pyxis_flags, runtime
from orchestrator.errors import JobFileError
from orchestrator.job import ContainerSpec
from orchestrator.job.container_grammar import Mount, apptainer_image, enroot_image, split_mount
from tests.samples import ODD

PYTORCH = "nvcr.io/nvidia/pytorch:25.06-py3"
APPTAINER = shutil.which("apptainer")


def container(image=PYTORCH, **keys):
    return ContainerSpec.model_validate({"image": image, **keys})


def test_the_runtime_follows_the_backend():
    assert runtime(container(), "slurm") == "pyxis"
    assert runtime(container(), "ssh") == "apptainer"
    assert runtime(container(runtime="singularity"), "slurm") == "singularity"


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a", Mount("/a", "/a")),
        ("/a:/b", Mount("/a", "/b")),
        ("/a b:/c d:ro", Mount("/a b", "/c d", ("ro",))),
        ("/a:/b:ro+rprivate", Mount("/a", "/b", ("ro", "rprivate"))),
        ("/a:/b:ro,rw", Mount("/a", "/b", ("ro", "rw"))),
        ("tmpfs:/x:size=1g", Mount("tmpfs", "/x", ("size=1g",))),
    ],
)
def test_mounts_are_read(text, mount):
    assert split_mount(text) == mount


@pytest.mark.parametrize(
    "text", ["", ":", "/a:", ":/b", "/a:b", "/a:/b:", "/a:/b:ro:rw", "/a:/b:ro+", "tmpfs"]
)
def test_texts_that_are_no_mount(text):
    with pytest.raises(ValueError, match=r"expected|absolute"):
        split_mount(text)


@pytest.mark.parametrize(
    ("image", "enroot", "apptainer"),
    [
        ("ubuntu", "ubuntu", "docker://ubuntu"),
        ("ubuntu:22.04", "ubuntu:22.04", "docker://ubuntu:22.04"),
        ("team/image", "team/image", "docker://team/image"),
        (PYTORCH, "nvcr.io#nvidia/pytorch:25.06-py3", f"docker://{PYTORCH}"),
        ("nvcr.io#nvidia/pytorch:25.06-py3", "nvcr.io#nvidia/pytorch:25.06-py3", f"docker://{PYTORCH}"),
        (f"docker://{PYTORCH}", "nvcr.io#nvidia/pytorch:25.06-py3", f"docker://{PYTORCH}"),
        ("localhost:5000/a:1", "localhost:5000#a:1", "docker://localhost:5000/a:1"),
        ("localhost/a", "localhost#a", "docker://localhost/a"),
        ("docker.io/library/ubuntu", "library/ubuntu", "docker://library/ubuntu"),
        ("a@sha256:0f", "a@sha256:0f", "docker://a@sha256:0f"),
        ("r.io/a:1@sha256:0f", "r.io#a:1@sha256:0f", "docker://r.io/a:1@sha256:0f"),
        ("/images/a.sqsh", "/images/a.sqsh", "/images/a.sqsh"),
        ("/sand box", "/sand box", "/sand box"),
    ],
)
def test_one_name_of_an_image_serves_both(image, enroot, apptainer):
    assert enroot_image(image) == enroot
    assert apptainer_image(image) == apptainer


@pytest.mark.parametrize(
    ("image", "enroot", "apptainer"),
    [
        ("bob@nvcr.io/a:1", "bob@nvcr.io#a:1", None),
        ("bob@nvcr.io#a:1", "bob@nvcr.io#a:1", None),
        ("dockerd://mine", "dockerd://mine", None),
        ("oras://r.io/a:1", None, "oras://r.io/a:1"),
        ("library://a/b/c", None, "library://a/b/c"),
        ("/images/a.sif", None, "/images/a.sif"),
        ("Ubuntu", None, None),
        ("a b", None, None),
        ("ftp://x/y", None, None),
        ("a:b:c", None, None),
    ],
)
def test_images_that_one_runtime_cannot_start(image, enroot, apptainer):
    for reader, expected in ((enroot_image, enroot), (apptainer_image, apptainer)):
        if expected is not None:
            assert reader(image) == expected
            continue
        with pytest.raises(ValueError, match=r"takes|expected an image|SIF"):
            reader(image)


def test_pyxis_flags_are_words_of_srun():
    spec = container(
        mounts=["/data:/in:ro+rprivate", "/a b"],
        workdir="/work dir",
        env=["LANG", "LD_LIBRARY_PATH"],
        mount_home=False,
        writable=True,
        extra=["--container-remap-root"],
    )
    assert pyxis_flags(spec, ["/shared/runs/x", "/home/me/project"]) == [
        "--container-image=nvcr.io#nvidia/pytorch:25.06-py3",
        (
            "--container-mounts=/data:/in:ro+rprivate,/a b:/a b,"
            "/home/me/project:/home/me/project,/shared/runs/x:/shared/runs/x"
        ),
        "--container-workdir=/work dir",
        "--no-container-mount-home",
        "--container-writable",
        "--container-env=LANG,LD_LIBRARY_PATH",
        "--container-remap-root",
    ]


def test_nothing_is_said_that_was_not_asked_for():
    assert pyxis_flags(container("ubuntu")) == ["--container-image=ubuntu"]
    assert pyxis_flags(container("ubuntu", mount_home=True, writable=False))[1:] == [
        "--container-mount-home",
        "--container-readonly",
    ]
    assert apptainer_command(container("ubuntu"), gpus=False) == [
        "apptainer",
        "exec",
        "--no-eval",
        "docker://ubuntu",
    ]


@pytest.mark.parametrize(
    ("mounts", "must_see", "mounted"),
    [
        ([], ["/s/runs/x", "/s", "/s/"], ["/s:/s"]),
        (["/s"], ["/s/runs/x"], ["/s:/s"]),
        (["/s:/s:rprivate"], ["/s/runs/x"], ["/s:/s:rprivate"]),
        (["/s:/s:ro"], ["/s/runs/x"], ["/s:/s:ro", "/s/runs/x:/s/runs/x"]),
        (["/s:/t"], ["/s/x"], ["/s:/t", "/s/x:/s/x"]),
        (["/s"], ["/sx"], ["/s:/s", "/sx:/sx"]),
    ],
)
def test_what_must_be_seen_is_mounted_once(mounts, must_see, mounted):
    flags = pyxis_flags(container("ubuntu", mounts=mounts), must_see)
    assert flags[1] == "--container-mounts=" + ",".join(mounted)


@given(st.lists(st.from_regex(r"/[a-c](/[a-c]){0,2}", fullmatch=True)))
def test_everything_that_must_be_seen_is_seen(folders):
    (_, *flags) = pyxis_flags(container("ubuntu"), folders)
    shown = [pair.split(":")[0] for flag in flags for pair in flag.partition("=")[2].split(",")]
    assert all(any(Path(folder).is_relative_to(mount) for mount in shown) for folder in folders)
    assert not any(a != b and Path(a).is_relative_to(b) for a in shown for b in shown)


@pytest.mark.parametrize("sign", [",", ":", '"', "$", "`", "\\"])
def test_pyxis_cannot_mount_every_path(sign):
    with pytest.raises(JobFileError) as caught:
        pyxis_flags(container("ubuntu"), [f"/run{sign}dir"])
    assert f"container.mounts: pyxis cannot mount a path with {sign} in it" in str(caught.value)


def test_the_apptainer_command():
    spec = container(
        mounts=["/data:/in:ro"], env=["LANG"], mount_home=False, writable=True, extra=["--cleanenv"]
    )
    words = apptainer_command(spec, ["/runs/x"], ["python3", "agent.pyz"], workdir="/project")
    assert words == [
        *("apptainer", "exec", "--no-eval", "--nv"),
        *("--bind", "/data:/in:ro", "--bind", "/runs/x:/runs/x"),
        *("--pwd", "/project", "--no-home", "--writable-tmpfs", "--cleanenv"),
        f"docker://{PYTORCH}",
        *("python3", "agent.pyz"),
    ]
    assert apptainer_command(
        container("ubuntu", workdir="/w"), workdir="/project", program="singularity"
    ) == [*("singularity", "exec", "--no-eval", "--nv", "--pwd", "/w", "docker://ubuntu")]


def test_variables_of_the_job_win_over_the_image():
    assert forced_variables(container(env=["LANG", "A"]), ["A", "HOME", "B"]) == ["A", "B", "LANG"]


@pytest.mark.skipif(APPTAINER is None, reason="apptainer is not installed (Debian has it in unstable only)")
def test_apptainer_understands_the_command(tmp_path):
    image, odd = tmp_path / "image", tmp_path / 'a,b:c^d "q" e'
    for folder in (
        "usr",
        "bin",
        "lib",
        "lib64",
        "etc",
        "tmp",
        "proc",
        "sys",
        "dev",
        "root",
        "home",
        "var/tmp",
    ):
        (image / folder).mkdir(parents=True)
    odd.mkdir()
    (odd / "seen").touch()
    spec = container(
        str(image),
        mounts=["/usr:/usr:ro", "/lib", "/lib64", "/bin"],
        writable=True,
        mount_home=False,
        extra=["--no-privs"] if os.getuid() == 0 else [],
    )
    script = 'pwd; ls; touch here /etc/new && echo writable; touch /usr/new || echo read-only; echo "$W"'
    done = subprocess.run(
        apptainer_command(spec, [str(odd)], ["sh", "-c", script], workdir=str(odd)),
        cwd=tmp_path,
        env={**os.environ, "APPTAINERENV_W": ODD},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.stdout == f"{odd}\nseen\nwritable\nread-only\n{ODD}\n", done.stderr
    assert (odd / "here").exists()
