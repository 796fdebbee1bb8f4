"""A laptop that shares no disk with the cluster, and login hosts of the testbed with their own sshd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.contract.product import LIGHT, merged, wait_until
from tests.testbed import Testbed, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
import os, sys, time
print("rank", os.environ["RANK"], open('it\\'s dätä $x.txt').read(), os.environ.get("TOKEN"), flush=True)
time.sleep(float(sys.argv[1]))
"""


@dataclass
class Laptop:
    """A machine from which jobs are submitted; its folder is not seen by any host."""

    bed: Testbed
    folder: Path
    runtime: Path
    environ: dict[str, str] = field(default_factory=dict)
    host: str = "node1"

    @property
    def project(self) -> Path:
        return self.folder / "my project"

    @property
    def home(self) -> Path:
        """Return the home on the login host."""
        return self.bed.users["root"].home

    def login(self, **changes: Any) -> dict[str, Any]:
        return merged({"host": self.host, "config": str(self.bed.ssh_config)}, changes)

    def job(self, name: str = "far", **changes: Any) -> Path:
        train = {"script": "train.py", "args": ["0"], "python": sys.executable, "env": LIGHT}
        cluster = {"backend": "local", "nodes": 1, "slots": 2, "login": self.login()}
        path = self.project / f"{name}.yaml"
        document = merged({"name": name, "cluster": cluster, "train": train, "grace": 2}, changes)
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        return path

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        state = {"XDG_STATE_HOME": str(self.folder / "state"), "XDG_RUNTIME_DIR": str(self.runtime)}
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        return subprocess.Popen(
            [*options.pop("before", []), sys.executable, "-m", "orchestrator", *words],
            env=os.environ | state | self.environ,
            cwd=self.project,
            text=True,
            **({"stderr": subprocess.PIPE} | pipes | options),
        )

    def orchestrate(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as process:
            out, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, errors)

    def submit(self, name: str = "far", **changes: Any) -> dict[str, Any]:
        done = self.orchestrate("submit", str(self.job(name, **changes)), "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def status(self, run_id: str) -> dict[str, Any]:
        done = self.orchestrate("status", run_id, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def wait(self, run_id: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            status = self.status(run_id)
            return status if status["verdict"] else None

        return dict(wait_until(over, lambda: self.status(run_id)))

    def runs(self) -> set[str]:
        """Return the run directories on the cluster."""
        return {path.name for path in (self.home / "orchestrate/runs").glob("*") if path.is_dir()}

    def uninstall(self) -> Path:
        """Take the program away from the login host; return where it would be.

        In one step: a run that an earlier test has not waited for may still write there what it compiles.
        """
        there = self.home / ".local/share/orchestrate"
        if there.exists():
            aside = there.rename(self.home / f"removed-{uuid.uuid4().hex}")
            shutil.rmtree(aside, ignore_errors=True)
        return there

    def cut(self) -> None:
        """End the login host's open connections, and not what they started; new ones can be made at once."""
        ended = [p.pid for p in self.bed.node("node1").processes() if p.argv[0].startswith("sshd")]
        assert ended
        processes.end(ended)

    def logins(self) -> int:
        """Return how often anybody has logged in to node1."""
        return self.bed.node("node1").sshd_log.count("Accepted ")


def make_laptop(bed: Testbed, folder: Path) -> Iterator[Laptop]:
    with tempfile.TemporaryDirectory(prefix="rt-") as runtime:  # short: a socket's path may have 107 bytes
        yield from fill_laptop(Laptop(bed, folder, Path(runtime)))


def fill_laptop(laptop: Laptop) -> Iterator[Laptop]:
    for path in (laptop.folder, laptop.project):
        path.mkdir(mode=0o700)
    (laptop.project / "train.py").write_text(SCRIPT)
    (laptop.project / "it's dätä $x.txt").write_text("data")
    (laptop.project / "run.sh").write_text("#!/bin/sh\n")
    (laptop.project / "run.sh").chmod(0o755)
    (laptop.project / "link to").symlink_to("run.sh")
    (laptop.project / "not tracked").write_text("no")
    words = "git init -q && git add train.py it* run.sh link*"
    subprocess.run(words, shell=True, cwd=laptop.project, check=True)
    yield laptop
    processes.end(p.pid for p in processes.find(str(laptop.runtime)))


@pytest.fixture
def laptop(apart_bed: tuple[Testbed, Path], tmp_path: Path) -> Iterator[Laptop]:
    """Return a laptop whose folder no host sees, and node1 as login host."""
    bed, private = apart_bed
    yield from make_laptop(bed, private / tmp_path.name)


@pytest.fixture
def far_laptop(difficult_bed: Testbed, tmp_path: Path) -> Iterator[Laptop]:
    """Return a laptop whose login host is node2: behind node1, with a banner, and noise in every shell."""
    for laptop in make_laptop(difficult_bed, tmp_path / "laptop"):
        laptop.host = "node2"
        yield laptop


def held(laptop: Laptop, pattern: str) -> list[Any]:
    """Return the processes of node1 with these words in their command line."""
    return [p for p in laptop.bed.node("node1").processes() if pattern in " ".join(p.argv)]


@pytest.fixture
def slurm_laptop(slurm_bed: Testbed, tmp_path: Path) -> Iterator[Laptop]:
    """Return a laptop and the login host of a Slurm cluster."""
    yield from make_laptop(slurm_bed, tmp_path / "laptop")
