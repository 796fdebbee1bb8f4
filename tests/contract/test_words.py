"""Names and values with anything in them arrive as they are, and secrets arrive and stay nowhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import TYPE_CHECKING

from tests.contract.product import RANK_SCRIPT
from tests.testbed import processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.product import Run, Site

ODD = 'it\'s "$HOME" `id`; rm -rf /gone & | > < * ? \\ % %h %% #! ~ ünï©ode 🙂\nnew\tline\r end '
ODD_NAME = 'it\'s "$HOME" `id` ; %h & * ünï©ode 🙂'


def test_odd_words_arrive_as_they_are(site: Site) -> None:
    args = [ODD, "", "-", "--", "{run_id} {not_ours} {}", "\n", "%s", "$(touch gone)", "a  b"]
    train = {
        "args": ["--env", "ODD", *args],
        "env": {"ODD": ODD},
        "setup": ["export LINE='a;b\nc' # it's \""],
    }
    # OpenSSH's configuration knows no way to write a double quote.
    root = site.folder / (ODD_NAME if site.bed is None else ODD_NAME.replace('"', ""))
    run = site.submit("odd", name=ODD_NAME, run_root=str(root), train=train)
    run.succeed()
    assert run.path.parent == root
    filled = [arg.replace("{run_id}", run.run_id) for arg in args]
    for facts in run.reports().values():
        assert facts["argv"][-len(filled) :] == filled
        assert facts["env"]["ODD"] == ODD
    assert run.status()["run_dir"] == str(run.path)
    assert not list(site.folder.rglob("gone"))
    run.see_nothing_left()


def test_a_path_that_ssh_cannot_be_told_is_an_error_before_anything_starts(remote: Site) -> None:
    job = remote.job(run_root=str(remote.folder / 'runs of "mine"'))
    done = remote.orchestrate("submit", str(job))
    assert done.returncode == 2
    assert 'runs of "mine"' in done.stderr
    assert not (remote.folder / 'runs of "mine"').exists()


def test_odd_paths_of_script_and_workdir(remote: Site) -> None:
    workdir = remote.folder / ODD_NAME
    workdir.mkdir()
    (workdir / "tr'ain $x.py").write_text(RANK_SCRIPT.read_text())
    run = remote.submit(train={"workdir": str(workdir), "script": "tr'ain $x.py"})
    run.succeed()
    assert {facts["cwd"] for facts in run.reports().values()} == {str(workdir)}
    run.see_nothing_left()


HASHING = """
import hashlib, os, sys, time
from pathlib import Path
names = ("TOKEN", "FILED")
hashes = [hashlib.sha256(os.environ[name].encode()).hexdigest() for name in names]
(Path(sys.argv[2]) / f"hash-{os.environ['RANK']}").write_text(" ".join(hashes))
while not (Path(sys.argv[2]) / "go").exists():
    time.sleep(0.05)
"""


def hashes(folder: Path) -> Iterator[list[str]]:
    """Yield what every rank has said of the secrets it was given."""
    for path in folder.glob("hash-*"):
        yield path.read_text().split()


def files_with(folder: Path, words: list[str]) -> list[Path]:
    """Return the files below a folder that hold one of the words; some may go while we look."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            data = path.read_bytes()
            found += [path] if any(word.encode() in data for word in words) else []
    return found


def submit_with_secrets(site: Site, token: str, filed: str) -> Run:
    """Submit a run whose ranks hash a secret of the environment and one of the env file, and await `go`."""
    (site.folder / "secret.env").write_text(f"FILED={json.dumps(filed, ensure_ascii=False)}\n")
    script = (site.shared or site.folder) / "hashing.py"
    script.write_text(HASHING)
    site.reports.joinpath("job").mkdir(parents=True)
    site.environ["TOKEN"] = token
    train = {"script": str(script), "secrets": ["TOKEN"], "env_file": str(site.folder / "secret.env")}
    return site.submit(train=train)


def test_secrets_reach_the_ranks_and_no_file_or_command_line(site: Site) -> None:
    token, filed = "tok-$(id)-'\"-5f2a9c", "filed-5e1b77-ünï"
    run = submit_with_secrets(site, token, filed)
    (secrets_file,) = files_with(run.path, [token[-6:], "5e1b77"])
    assert (secrets_file.name, secrets_file.stat().st_mode & 0o777) == ("secrets.env", 0o600)
    while run.verdict() is None:
        shown = [process for process in processes.everything() if "5f2a9c" in "\0".join(process.argv)]
        assert shown == []
        if len(list(hashes(run.report_folder))) == 4:
            (run.report_folder / "go").touch()
        time.sleep(0.1)
    run.succeed()
    expected = [hashlib.sha256(value.encode()).hexdigest() for value in (token, filed)]
    assert list(hashes(run.report_folder)) == [expected] * 4
    assert files_with(run.path, ["5f2a9c", "5e1b77"]) == []
    rendered = site.orchestrate("render", str(site.folder / "job.yaml"))
    assert "export TOKEN=<not shown>" in rendered.stdout
    assert "5f2a9c" not in rendered.stdout + rendered.stderr
    run.see_nothing_left()


def test_secrets_are_taken_from_hosts_that_got_a_copy(apart: Site) -> None:
    # Other words than above: that test, in another worker, looks for its own in every command line.
    run = submit_with_secrets(apart, "tok-77d04b", "filed-90c3e8")
    (run.report_folder / "go").touch()
    run.succeed()
    for node in apart.bed.nodes:
        left = node.run(["grep", "-rlE", "77d04b|90c3e8", str(run.path)])
        assert left.stdout == ""
        assert node.run(["find", str(run.path), "-name", "control.json"]).stdout == ""
    run.see_nothing_left()
