"""Every byte that ranks write comes to the submit side, whatever becomes of cables and files."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.contract.product import wait_until

if TYPE_CHECKING:
    from tests.contract.product import Run, Site

SCRIPT = Path(__file__).with_name("writing_script.py")
ENDS = [(rank, end) for rank in range(4) for end in ("out", "err")]


def here(run: Run, rank: int, end: str) -> Path:
    return run.path / f"attempt-1/logs/node{1 + rank // 2}.rank{rank}.{end}"


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_for_bytes(run: Run, folder: Path, step: str) -> None:
    """Wait until all that ranks have written before a step is here."""

    def sizes() -> list[tuple[int, int]]:
        return [(size_of(here(run, *end)), size_of(folder / "rank-{}.{}".format(*end))) for end in ENDS]

    wait_until(lambda: all((folder / f"before-{step}-{rank}").exists() for rank in range(4)), run.story)
    wait_until(lambda: all(have == size for have, size in sizes()), lambda: f"{sizes()}\n{run.story()}")


def test_bytes_are_equal_after_cuts_and_moves_of_files_and_a_pulled_cable(apart: Site) -> None:
    folder = apart.shared / "written"
    folder.mkdir()
    train = {"script": str(SCRIPT), "args": [str(folder)]}
    run = apart.submit(lease=60, train=train, monitor={"sample_interval": 1})
    wait_for_bytes(run, folder, "cut")
    (folder / "cut").touch()
    wait_for_bytes(run, folder, "dark")
    with apart.pulled(apart.bed.node("node2")):
        (folder / "dark").touch()
        wait_until(lambda: all((folder / f"before-end-{rank}").exists() for rank in range(4)), run.story)
        time.sleep(2)
    wait_for_bytes(run, folder, "end")
    wait_until(lambda: all(has_samples(run, host) for host in ("node1", "node2")), run.story)
    (folder / "end").touch()
    run.succeed()
    for rank, end in ENDS:
        assert here(run, rank, end).read_bytes() == (folder / f"rank-{rank}.{end}").read_bytes(), (rank, end)
    for host in ("node1", "node2"):
        see_times_and_samples(run, host)
    run.see_nothing_left()


def has_samples(run: Run, host: str) -> bool:
    """Tell whether there is a sample of a rank of this host, with all that is measured of one."""
    path = run.path / f"attempt-1/logs/{host}.samples"
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    ranks = [own for line in whole for own in json.loads(line).get("ranks", {}).values()]
    return any({"cpu", "memory", "log_bytes"} <= set(own) for own in ranks)


def see_times_and_samples(run: Run, host: str) -> None:
    """See that the index tells of growing files, to their last byte, and that samples came."""
    logs = run.path / "attempt-1/logs"
    lines = [line.split() for line in (logs / f"{host}.times").read_text().splitlines()]
    times = [float(line[0]) for line in lines]
    assert times == sorted(times)
    for name in {line[1] for line in lines}:
        told = [int(line[2]) for line in lines if line[1] == name]
        path = logs / (f"{host}.log" if name == "log" else f"{host}.rank{name}")
        assert all(low < high for low, high in itertools.pairwise(told))
        assert told[-1] == path.stat().st_size or name == "log"
    assert has_samples(run, host)
    clock = json.loads((run.path / "attempt-1/clocks.json").read_text())[host]
    assert abs(clock["offset"]) < 1 + clock["uncertainty"]  # one machine, one clock
