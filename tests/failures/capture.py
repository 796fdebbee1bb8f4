"""Make the corpus of captured failures anew: `python -m tests.failures.capture [NAME…]`.

Each is a real run on this machine, with what its directory holds cut down to what a diagnosis reads, and
paths made those of nobody. What was expected is written beside it by hand here, not by what the program said.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.contract.product import Run, Site, merged
from tests.failures import CORPUS
from tests.failures.ways import WAYS, Way
from tests.testbed import Testbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = Path(__file__).with_name("script.py")
_TAIL = 5000  # bytes of a log
_OF_RANKS = re.compile(r"\.rank(\d+)\.(out|err)$")


def main(names: list[str]) -> None:
    """Capture the named failures, or all."""
    wanted = {name: WAYS[name] for name in names or WAYS}
    with tempfile.TemporaryDirectory(prefix="orchestrate-failures-") as made:
        for backend in ("local", "gpus", "pdsh", "slurm"):
            ways = {name: way for name, way in wanted.items() if way.backend == backend}
            if ways:
                with bed_of(backend) as bed:
                    for name, way in ways.items():
                        tried(name, way, Path(made) / name, bed)


@contextlib.contextmanager
def bed_of(backend: str) -> Iterator[Testbed | None]:
    """Return the hosts of a backend; None where one machine does."""
    if backend in {"local", "gpus"}:
        yield None
        return
    with Testbed.up(nodes=2, slots=2, slurm=backend == "slurm") as bed:
        yield bed


def tried(name: str, way: Way, folder: Path, bed: Testbed | None) -> None:
    folder.mkdir()
    began = time.monotonic()
    try:
        capture(name, way, Site(way.backend, folder, bed))
    except (AssertionError, subprocess.SubprocessError, OSError) as error:
        print(f"{name}: not captured: {error}"[:600], flush=True)
    print(f"{name}  {time.monotonic() - began:.1f} s", flush=True)


def capture(name: str, way: Way, site: Site) -> None:
    """Run a job that fails so, and keep what it left."""
    small, fixed = site.folder / "small", site.folder / "readonly"
    for place, options in ((small, "size=1m"), (fixed, "ro")):
        place.mkdir()
        if site.bed is None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        run = submit(site, name, way)
        if way.act is not None:
            printed(run)
            way.act(run)
        run.wait(150)
        keep(name, way, run)
    finally:
        site.clear()
        for place in (small, fixed) if site.bed is None else ():
            subprocess.run(["umount", "-l", str(place)], check=True)


def submit(site: Site, name: str, way: Way) -> Run:
    train = {"script": str(SCRIPT), "python": sys.executable}
    train |= {"args": [way.way or name.replace("-", "_"), "--folder", str(site.folder)]}
    train["env"] = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_DISABLE_TELEMETRY": "1"}
    document = {"name": "job", "cluster": site.cluster(), "train": train, "grace": 2, "lease": 20}
    document = merged(document | {"run_root": str(site.folder / "runs")}, way.job)
    (site.folder / "unknown-hosts").write_text("node9 slots=2\nnode2 slots=2\n")
    path = site.folder / "job.yaml"
    path.write_text(yaml.safe_dump(document).replace("{folder}", str(site.folder)))
    done = site.orchestrate("submit", str(path), "--json")
    assert done.returncode == 0, done.stderr
    return site.run_of(json.loads(done.stdout))


def printed(run: Run) -> None:
    """Wait until every rank has printed."""
    for _ in range(300):
        if len([p for p in run.path.glob("attempt-1/logs/*.out") if p.stat().st_size]) == 4:
            return
        time.sleep(0.1)


# -- keeping


def keep(name: str, way: Way, run: Run) -> None:
    """Write what the run left, cut down, and what is expected."""
    verdict, folder = run.verdict(), run.site.folder
    assert verdict["state"] == way.state, verdict
    target = CORPUS / name
    shutil.rmtree(target, ignore_errors=True)
    last = max(run.path.glob("attempt-*"), key=lambda path: int(path.name[8:]))
    (target / "logs").mkdir(parents=True)
    clean = cleaner(folder)
    evidence = json.loads((last / "evidence.json").read_text())
    first = way.rank
    if first == -1:
        times = {int(p.name[6:]): json.loads(p.read_text()) for p in folder.glob("order-*")}
        times = times or _ends(evidence)  # failed before it could write: one machine, so one clock
        first = min(times, key=times.__getitem__)
    for path in sorted((last / "logs").iterdir()):
        match = _OF_RANKS.search(path.name)
        text = path.read_bytes()
        speaks = match is None or int(match[1]) == first or match[2] == "err"
        if text and speaks and path.suffix in {".log", ".out", ".err", ".times"} and path.suffix != ".times":
            (target / "logs" / path.name).write_bytes(clean(text[-_TAIL:]))
    if (last / "launcher.log").is_file() and (last / "launcher.log").stat().st_size:
        (target / "launcher.log").write_bytes(clean((last / "launcher.log").read_bytes()[-_TAIL:]))
    for path in sorted((last / "dumps").glob("*.fr.*")):
        (target / "dumps").mkdir(exist_ok=True)
        (target / "dumps" / path.name).write_bytes(_cleaned(path.read_bytes(), clean))
    (target / "evidence.json").write_bytes(clean(json.dumps(evidence, indent=1).encode()) + b"\n")
    wanted = ("hang", "gpu_fault", "oom_kill", "interruption", "versions_differ")
    told = [event for kind in wanted for event in run.events(kind)]
    if told:
        (target / "events.jsonl").write_bytes(clean("".join(json.dumps(e) + "\n" for e in told).encode()))
    expected: dict[str, Any] = {"source": "captured", "category": way.category, "state": way.state}
    expected |= {"first": {"rank": first} if first is not None else {"host": way.host}}
    if verdict["state"] != "FAILED":
        expected["told"] = verdict["summary"]
        del expected["first"]
    (target / "expected.yaml").write_text(yaml.safe_dump(expected, sort_keys=False))


def _cleaned(record: bytes, clean: Callable[[bytes], bytes]) -> bytes:
    """Return a flight recorder's pickle with the paths in it cleaned; it is one of our own runs'."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return clean(value.encode()).decode()
        if isinstance(value, dict):
            return {walk(key): walk(item) for key, item in value.items()}
        return type(value)(map(walk, value)) if isinstance(value, list | tuple) else value

    return pickle.dumps(walk(pickle.loads(record)), protocol=2)


def _ends(evidence: dict[str, Any]) -> dict[int, float]:
    ranks = [rank for host in evidence["hosts"] for rank in host["ranks"]]
    return {rank["rank"]: rank["time"] for rank in ranks if rank["time"] and rank["term_time"] is None}


def cleaner(folder: Path) -> Callable[[bytes], bytes]:
    """Return what makes paths of this machine those of nobody."""
    root = str(Path(__file__).resolve().parents[2])
    site = str(Path(subprocess.__file__).parent)
    pairs = [(str(folder), "/scratch/run"), (root, "/home/user/project"), (sys.prefix, "/opt/venv")]
    pairs += [
        (site, "/usr/lib/python3"),
        (sys.base_prefix, "/usr/local"),
    ]

    def clean(text: bytes) -> bytes:
        for old, new in pairs:
            text = text.replace(old.encode(), new.encode())
        return text

    return clean


if __name__ == "__main__":
    main(sys.argv[1:])
