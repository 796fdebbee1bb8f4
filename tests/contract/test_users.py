"""An ordinary user, on the submit side and on the hosts, with what such a user may do."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.contract.product import GATED_SCRIPT

if TYPE_CHECKING:
    from tests.contract.product import Site


def test_an_ordinary_users_run_succeeds_under_that_users_id(ordinary: Site) -> None:
    run = ordinary.submit(train={"args": ["--lines", "2"]})
    run.succeed()
    run.see_nothing_left()  # which waits for the supervisor: it still writes and renames files
    uid = ordinary.bed.users[ordinary.user].uid
    assert {facts["uid"] for facts in run.reports().values()} == {uid}
    assert {path.stat().st_uid for path in run.path.rglob("*")} == {uid}


def test_an_ordinary_users_stubborn_ranks_are_ended(ordinary: Site) -> None:
    words = ["--exit-code", "4", "--fail-rank", "1", "--sleep", "300", "--ignore-sigterm", "--children", "4"]
    run = ordinary.submit(train={"script": str(GATED_SCRIPT), "args": words}, grace=1)
    first = run.wait()["first_failure"]
    assert (first["rank"], first["exit_code"]) == (1, 4), run.story()
    run.see_nothing_left()


def test_an_ordinary_user_cancels(ordinary: Site) -> None:
    run = ordinary.submit(train={"args": ["--sleep", "300", "--children", "4"]})
    run.wait_for_ranks()
    done = ordinary.orchestrate("cancel", run.run_id)
    assert done.returncode == 0, done.stderr
    assert run.wait()["state"] == "CANCELLED"
    run.see_nothing_left()


def test_an_ordinary_users_ranks_outlive_no_killed_agent(ordinary: Site) -> None:
    run = ordinary.submit(train={"args": ["--sleep", "300", "--children", "4"]})
    run.wait_for_ranks()
    os.kill(run.events("host_ready")[0]["pid"], signal.SIGKILL)
    assert run.wait()["first_failure"]["host"] == run.events("host_ready")[0]["host"]
    run.see_nothing_left()
