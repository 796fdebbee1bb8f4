"""The product as its users meet it: a job file, the `orchestrate` command, a run directory."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.testbed import Node, Testbed, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RANK_SCRIPT = Path(__file__).resolve().parents[1] / "testbed/rank_script.py"
GATED_SCRIPT = Path(__file__).with_name("gated_script.py")
LIGHT = {"PYTHONPATH": str(Path(__file__).with_name("light"))}
"""For `train.env`: torchrun without the parts of torch that it does not use (trainings have the whole)."""
PATIENCE = 300.0  # seconds for what takes one on an idle machine
PRIVATE = re.compile(r"/\S+/orchestrate-\w+(?=/rank\.json)")
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "LOST")


def wait_until(done: Callable[[], Any], what: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Return the first true value of `done()`; AssertionError that tells `what()` when none comes in time.

    What costs a process, such as `orchestrate status`, is asked more seldom: asking holds up the answer.
    """
    deadline = time.monotonic() + within
    began = time.monotonic()
    while not (value := done()):
        assert time.monotonic() < deadline, f"waited {within:g} s in vain: {what()}"
        time.sleep(max(0.05, 2 * (time.monotonic() - began)))
        began = time.monotonic()
    return value


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` put into it, section by section; None takes a key out."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        deeper = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if deeper else copy.deepcopy(value)
    return {key: value for key, value in result.items() if value is not None}


@dataclass
class Site:
    """Where jobs are submitted and run: a backend, two hosts, folders, and who submits.

    Attributes:
        backend: local, pdsh, ssh or slurm.
        folder: for job files, runs and reports.
        bed: the hosts; None for simulated ones.
        user: who submits; another than root only on a bed with an ordinary user.
        shared: a folder that hosts see even where they do not see `folder`.
    """

    backend: str
    folder: Path
    bed: Testbed | None = None
    user: str = "root"
    shared: Path | None = None
    environ: dict[str, str] = field(default_factory=dict)
    submitted: list[Run] = field(default_factory=list)

    @property
    def hosts(self) -> list[str]:
        """Return the names of the two hosts."""
        return ["host-0", "host-1"] if self.bed is None else [node.name for node in self.bed.nodes]

    @property
    def reports(self) -> Path:
        """Return the folder of the rank script's reports."""
        return (self.shared or self.folder) / "reports"

    @property
    def gate(self) -> Path:
        """Return the file that ranks started with `--until` wait for: whoever makes it lets them end."""
        return (self.shared or self.folder) / "gate"

    def cluster(self) -> dict[str, Any]:
        """Return the `cluster` section for these hosts."""
        if self.bed is None:
            return {"backend": "local", "nodes": 2, "slots": 2}
        if self.backend == "slurm":
            asked = {"gpus_per_node": "2", "time": "30"}
            return {"backend": "slurm", "nodes": 2, "slots": 2, "slurm": asked}
        client = self.bed.client if self.user == "root" else self.bed.user_client
        assert client is not None
        hosts = {"backend": self.backend, "hostfile": str(self.bed.hostfile)}
        return hosts | {"ssh": {"config": str(client.config)}}

    def job(self, label: str = "job", **changes: Any) -> Path:
        """Write a job file: two hosts of two ranks that report and end, with `changes` put in."""
        train = {"script": str(RANK_SCRIPT), "python": sys.executable, "env": LIGHT, "args": []}
        base = {"name": label, "cluster": self.cluster(), "train": train}
        base |= {"run_root": str(self.folder / "runs"), "grace": 15, "lease": 30}
        document = merged(base, changes)
        document["train"]["args"] = ["--report", str(self.reports / label), *document["train"]["args"]]
        path = self.folder / f"{label}.yaml"
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        return path

    def command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        """Return argv and environment of an `orchestrate` command as this site's user gives it."""
        argv = [sys.executable, "-m", "orchestrator", *words]
        if self.user != "root":
            assert self.bed is not None
            return self.bed.submit_command(argv, user=self.user), self.bed.submit_env(self.user)
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PDSH")}
        state = {"XDG_STATE_HOME": str(self.folder / "state")}
        slurm = self.bed.slurm.env if self.bed is not None and self.backend == "slurm" else {}
        return argv, environ | state | slurm | self.environ

    def orchestrate(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Give a command and wait for its end."""
        argv, environ = self.command(*words)
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(argv, env=environ, cwd=self.folder, check=False, timeout=600, **options)

    def submit(self, label: str = "job", **changes: Any) -> Run:
        """Submit a job and return the run; `label` tells it from others of the same test."""
        done = self.orchestrate("submit", str(self.job(label, **changes)), "--json")
        assert done.returncode == 0, done.stderr
        return self.run_of(json.loads(done.stdout), label)

    def run_of(self, said: Mapping[str, str], label: str = "job") -> Run:
        """Return the run that `submit --json` told of."""
        run = Run(self, said["run_id"], Path(said["run_dir"]), self.reports / label)
        self.submitted.append(run)
        return run

    def clear(self) -> None:
        """End what a failed test has left of its runs, and plug every cable."""
        if self.backend == "slurm" and self.bed is not None:
            self.bed.slurm.cancel_all()
        for run in self.submitted:
            processes.end(process.pid for process in run.living())
        for end in [self.bed, *self.bed.nodes] if self.bed else []:
            end.plug_cable()

    @contextlib.contextmanager
    def pulled(self, end: Node | Testbed) -> Iterator[None]:
        """Pull a cable for the length of the block."""
        end.pull_cable()
        try:
            yield
        finally:
            end.plug_cable()
            self.wait_for_hosts()

    def wait_for_hosts(self) -> None:
        """Wait until every host answers again: after a cut, a neighbour counts as gone for a while."""
        assert self.bed is not None
        for node in self.bed.nodes:
            wait_until(lambda node=node: self.bed.ssh(node.name, "true").returncode == 0, lambda: "the cable")


@dataclass
class Run:
    """One run, seen from outside."""

    site: Site
    run_id: str
    path: Path
    report_folder: Path

    # -- what it says

    def verdict(self) -> dict[str, Any] | None:
        """Return the verdict once there is one."""
        path = self.path / "verdict.json"
        return json.loads(path.read_text()) if path.exists() else None

    def wait(self, within: float = PATIENCE) -> dict[str, Any]:
        """Wait for the verdict and return it."""
        found = wait_until(self.verdict, self.story, within)
        assert found["state"] in FINAL
        return dict(found)

    def succeed(self) -> dict[str, Any]:
        """Wait for the verdict and see that all went well; return it."""
        found = self.wait()
        assert found["state"] == "SUCCEEDED", self.story()
        assert set(self.roles().values()) == {"ok"}
        assert (found["first_failure"], found["undetermined"], found["candidates"]) == (None, False, [])
        return found

    def status(self) -> dict[str, Any]:
        """Return what `orchestrate status --json` says."""
        done = self.site.orchestrate("status", self.run_id, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind so far."""
        path = self.path / "events.jsonl"
        whole = path.read_text(errors="replace").split("\n")[:-1] if path.exists() else []
        return [event for event in map(json.loads, whole) if event["event"] == kind]

    def roles(self) -> dict[int, str]:
        """Return every rank's role in the verdict."""
        return {rank["rank"]: rank["role"] for rank in self.rank_ends()}

    def rank_ends(self) -> list[dict[str, Any]]:
        """Return how every rank ended, as the verdict tells it."""
        hosts = (self.verdict() or {})["hosts"]
        return [rank for host in hosts for rank in host["ranks"]]

    def slurm_job(self) -> str:
        """Return the id of its Slurm job."""
        return str(json.loads((self.path / "slurm.json").read_text())["job_id"])

    def attempt_verdict(self, attempt: int) -> dict[str, Any]:
        """Return the verdict on one attempt."""
        return dict(json.loads((self.path / f"attempt-{attempt}/verdict.json").read_text()))

    def log(self, name: str, attempt: int = 1) -> str:
        """Return a log, such as `node1.rank0.out`, byte for byte."""
        return (self.path / f"attempt-{attempt}/logs" / name).read_bytes().decode()

    def log_of_launcher(self) -> str:
        """Return what the launcher of the first attempt has heard of its hosts."""
        return (self.path / "attempt-1/launcher.log").read_text()

    def story(self) -> str:
        """Return all that the run says of itself, for a failed assertion."""
        names = [
            "events.jsonl",
            "verdict.json",
            "supervisor.log",
            "slurm-*.out",
            "attempt-*/launcher.log",
            "attempt-*/logs/*.log",
        ]
        files = [file for name in names for file in sorted(self.path.glob(name))]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')}" for file in files)

    # -- what its ranks say

    def reports(self) -> dict[int, dict[str, Any]]:
        """Return the reports of the ranks that have started, by rank."""
        files = sorted(self.report_folder.glob("rank-*.json"))
        return {int(file.stem.removeprefix("rank-")): json.loads(file.read_text()) for file in files}

    def wait_for_ranks(self, count: int = 4) -> dict[int, dict[str, Any]]:
        """Wait until every rank has reported; return the reports."""

        def all_there() -> dict[int, dict[str, Any]] | None:
            verdict, found = self.verdict(), self.reports()  # in this order: they may report and end
            assert verdict is None or len(found) == count, self.story()
            return found if len(found) == count else None

        return dict(wait_until(all_there, self.story))

    def note(self, rank: int, kind: str) -> float | None:
        """Return when a rank got its first SIGTERM (`sigterm`) or ended itself (`exit`)."""
        path = self.report_folder / f"rank-{rank}.{kind}"
        return float(path.read_text()) if path.exists() else None

    # -- what is left of it

    def living(self) -> list[processes.Process]:
        """Return the processes of this run anywhere: by its id, and what ranks said they had started."""
        told = [pid for facts in self.reports().values() for pid in facts["children"]]
        children = [found for pid in told if (found := processes.read(pid)) is not None]
        sleepers = [child for child in children if "sleep 3600" in " ".join(child.argv)]
        return [*processes.find(self.run_id), *sleepers]

    def see_nothing_left(self) -> None:
        """See that no process of the run, and nothing unknown on its hosts, goes on."""
        wait_until(lambda: not self.living(), self.living)
        if self.site.bed is not None:
            for node in self.site.bed.nodes:
                wait_until(lambda node=node: not node.processes(), node.processes)
        wait_until(lambda: not self.folders(), self.folders)

    def folders(self) -> list[Path]:
        """Return the private folders in /tmp that its agents and launchers have left."""
        logs = self.path.glob("attempt-*/logs/*.log")
        named = {match for log in logs for match in PRIVATE.findall(log.read_text(errors="replace"))}
        made = [Path(name) for name in named] + [Path(f"/tmp/orch-{self.run_id}")]
        return [folder for folder in made if folder.exists()]


def take_hosts(site: Site, until: Path = Path("/")) -> None:
    """Submit a job of higher priority that wants every GPU until a file is there."""
    words = ("-purgent", "-N2", "--gres=gpu:2", f"--wrap=until [ -e '{until}' ]; do sleep 0.1; done")
    done = site.bed.slurm.run("sbatch", "--output=/dev/null", *words, cwd="/tmp")
    assert done.returncode == 0, done.stderr
