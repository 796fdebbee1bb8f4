"""Flight recorders' files as torch's own analyser reads them: who is missing, who is elsewhere."""

from __future__ import annotations

import pickle
import random
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from needs import needs

from orchestrator.monitor.flight import examine, read_all
from tests.flight_records import dump, entry

installed = needs("torch.distributed.flight_recorder.components.builder")  # torch 2.11 or newer

if TYPE_CHECKING:
    from orchestrator.monitor.flight import Finding

REAL = Path(__file__).parents[1] / "data/flight"
ARGS = {"verbose": False, "just_print_entries": False, "allow_incomplete_ranks": False, "mismatch_cap": 10}


def theirs(folder: Path) -> tuple[int, set[int], set[int]] | None:
    """Return the first collective that torch's analyser finds wrong: number, who is missing, who differs."""
    from torch.distributed.flight_recorder.components import builder

    details: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.fr.*")):
        found = pickle.loads(path.read_bytes())
        details[path.name] = {"rank": int(path.suffix[1:]), **found}
    database = builder.build_db(details, Namespace(**ARGS), "2.10")
    for one in database.collectives:
        missing, unlike = one.missing_ranks or set(), one.mismatch_collectives or {}
        if missing or unlike:
            return one.collective_seq_id, set(missing), set(unlike)
    return None


def ours(folder: Path, world: int) -> Finding | None:
    return examine(read_all(folder), world)


@pytest.mark.parametrize("case", ["nccl-behind", "nccl-differs"])
def test_real_records(case):
    found, (number, missing, unlike) = ours(REAL / case, 4), theirs(REAL / case)
    assert found.number == number
    assert set(found.culprits) == (missing if found.kind == "behind" else unlike)


def made(folder: Path, numbers: random.Random) -> tuple[int, int]:
    """Write the records of a run in which one rank stops, or takes another way; return world and rank."""
    world, last = numbers.randint(3, 6), numbers.randint(1, 5)
    rank, differs = numbers.randrange(1, world), numbers.random() < 0.5
    for one in range(world):
        entries = [entry(step) for step in range(1, last)]
        if one != rank:
            entries.append(entry(last, done=False))
        elif differs:
            entries.append(entry(last, numbers.choice(["broadcast", "reduce", "all_gather"]), done=False))
        (folder / f"a.rank{one}.fr.{one}").write_bytes(dump(entries, world))
    return world, rank


@pytest.mark.parametrize("seed", range(40))
def test_made_records(seed, tmp_path):
    world, rank = made(tmp_path, random.Random(seed))
    found, (number, missing, unlike) = ours(tmp_path, world), theirs(tmp_path)
    assert (found.culprits, found.number) == ((rank,), number)
    assert {rank} == (missing if found.kind == "behind" else unlike)
