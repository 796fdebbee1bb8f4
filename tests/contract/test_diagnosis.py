"""What a person reads when a run has failed: the sentence, the lines that say so, what to try."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.contract.product import GATED_SCRIPT

if TYPE_CHECKING:
    from tests.contract.product import Site

OOM = "CUDA out of memory. Tried to allocate 2.50 GiB"
FAILING = {"script": str(GATED_SCRIPT), "args": ["--fail-rank", "2", "--sleep", "300", "--raise", OOM]}


def test_the_screen_of_a_failed_run_ends_with_what_failed_and_what_to_try(local: Site) -> None:
    done = local.orchestrate("submit", "--follow", str(local.job(train=FAILING)))
    assert done.returncode == 1
    screen = " ".join(done.stdout.split())
    assert "FAILED rank 2 on host-1" in screen
    assert "CUDA out of memory, it wanted 2.50 GiB more; 3 ranks were stopped because of it" in screen
    assert "attempt-1/logs/host-1.rank2.err:" in screen
    assert "orchestrate plan" in screen.split("what to try")[1]


def test_the_supervisor_leaves_the_diagnosis_and_the_evidence_for_others(local: Site) -> None:
    run = local.submit(train=FAILING)
    verdict = run.wait()
    told = diagnosed(local, str(run.path))
    assert (told["category"], told["rank"], told["host"], told["stopped"]) == ("cuda_oom", 2, "host-1", 3)
    first = verdict["first_failure"]
    assert (told["time"], told["run_id"]) == (first["time"], run.run_id)
    kept = json.loads((run.path / "attempt-1/evidence.json").read_text())
    (record,) = [rank for host in kept["hosts"] for rank in host["ranks"] if rank["rank"] == 2]
    assert record["said_time"] == first["time"] <= record["time"]
    run.see_nothing_left()
    assert json.loads((run.path / "diagnosis.json").read_text()) == told


def diagnosed(site: Site, run: str) -> dict[str, Any]:
    """Return what `orchestrate diagnose` says of a run."""
    done = site.orchestrate("diagnose", run, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
