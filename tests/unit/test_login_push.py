from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import OrchestratorError, SubmitError
from orchestrator.login.push import check_size, file_item, workdir_items
from orchestrator.login.store import receive_files

NAMES = (
    *("train.py", "a.ckpt", "data/x.bin", "data/deep/y.py", "src/data/z.py", "src/a.ckpt", "src/b b.py"),
    *("runs/old/plan.json", ".hidden/x", "it's $x [1].txt", "src/[1].txt", "tmp1", "tmp12", "dätä/ü.py"),
)
RULES = [
    [],
    ["- data/"],
    ["- /data/"],
    ["- *.ckpt"],
    ["- data/deep"],
    ["- src/data"],
    ["+ src/", "+ src/**", "- *"],
    ["+ /src/***", "- *"],
    ["+ */", "+ *.py", "- *"],
    ["- **/z.py"],
    ["- /s?c/*.py"],
    ["- tmp[0-9]"],
    ["- tmp[!0-9]*", "- .*"],
    ["+ /data/deep/", "- /data/*"],
    ["- it's*"],
]


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "work dir"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (folder / "train.py").chmod(0o755)
    return folder


def sent(folder, rules) -> set[str]:
    items = workdir_items(folder, rules, folder / "runs")
    return {item.name.removeprefix("workdir/") for item in items}


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
@pytest.mark.parametrize("rules", RULES, ids=" | ".join)
def test_rules_mean_what_they_mean_to_rsync(tree, tmp_path, rules):
    filters = [f"--filter={rule}" for rule in rules]
    subprocess.run(
        ["rsync", "-a", "--filter=- /runs/", *filters, f"{tree}/", f"{tmp_path}/copy/"],
        check=True,
        timeout=240,
    )
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")}
    assert sent(tree, rules) == {name for name in copied if (tmp_path / "copy" / name).is_file()}


def test_gits_files_are_sent_and_runs_are_not(tree):
    subprocess.run("git init -q; git add train.py data runs .hidden", shell=True, cwd=tree, check=True)
    wanted = {"train.py", "data/x.bin", "data/deep/y.py", "runs/old/plan.json", ".hidden/x"}
    assert sent(tree, None) == wanted


def test_links_stay_links_unless_they_lead_to_a_file_elsewhere(tree, tmp_path):
    (tmp_path / "outside.txt").write_text("outside")
    for name, target in (
        ("in", "train.py"),
        ("folder", "data"),
        ("out", "../outside.txt"),
        ("cluster", "/scratch/not/here"),
    ):
        (tree / name).symlink_to(target)
    kinds = {item.name.removeprefix("workdir/"): item for item in workdir_items(tree, [], tree / "runs")}
    assert [kinds[name].kind for name in ("in", "folder", "out", "cluster")] == ["l", "l", "-", "l"]
    assert kinds["cluster"].described()[3] == "/scratch/not/here"
    assert kinds["out"].size == len("outside")


def test_a_limit_names_the_biggest(tree):
    with (tree / "data/x.bin").open("wb") as file:
        file.truncate(5 << 20)
    items = workdir_items(tree, [], tree / "runs")
    check_size(items, 6)
    with pytest.raises(SubmitError, match=r"5 MiB would be sent, .* the biggest: data/x\.bin \(5 MiB\)"):
        check_size(items, 4)


def push(folder: Path, run_id: str, items) -> tuple[list[str], Path]:
    """Send items to a folder of this machine as the login host takes them; return what was missing there."""
    request = {"folder": str(folder), "run_id": run_id, "files": [item.described() for item in items]}
    sources = {told[3]: item.source for item, told in zip(items, request["files"], strict=True)}
    lacking = [digest for digest in sources if not (folder / "files" / digest[:2] / digest).exists()]
    sink = io.BytesIO()
    data = b"".join(sources[digest].read_bytes() for digest in lacking)
    assert receive_files(request, io.BytesIO(data), sink) == 0
    answer = json.loads(sink.getvalue().splitlines()[0])
    return answer["missing"], Path(answer["job"])


def test_what_is_sent_arrives_with_its_modes_and_only_once(tree, tmp_path):
    secret = tmp_path / "vars.env"
    secret.write_text("A=1")
    items = [
        *workdir_items(tree, [], tree / "runs"),
        file_item("files/env_file/vars.env", secret, private=True),
    ]
    missing, job = push(tmp_path / "far", "job-1", items)
    assert len(missing) == len(items)
    assert (job / "workdir/it's $x [1].txt").read_text() == "it's $x [1].txt"
    assert (job / "workdir/train.py").stat().st_mode & 0o777 == 0o755
    assert (job / "files/env_file/vars.env").stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "far").iterdir()} == {0o700}
    (tree / "train.py").write_text("changed")
    missing, job = push(tmp_path / "far", "job-2", workdir_items(tree, [], tree / "runs"))
    assert len(missing) == 1
    assert (job / "workdir/train.py").read_text() == "changed"


def test_a_file_that_changes_on_the_way_is_refused(tree, tmp_path):
    items = [item for item in workdir_items(tree, [], tree / "runs") if item.name.endswith("train.py")]
    request = {"folder": str(tmp_path / "far"), "run_id": "job-1", "files": [i.described() for i in items]}
    with pytest.raises(OrchestratorError, match="changed while it was sent"):
        receive_files(request, io.BytesIO(b"TRAIN.PY"), io.BytesIO())
    assert not (tmp_path / "far/jobs/job-1").exists()
    assert not [path for path in (tmp_path / "far/files").rglob("*") if path.is_file()]
