"""`orchestrate top` on a laptop, of a run on a cluster behind a login host."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.contract.laptop import held
from tests.contract.product import PATIENCE, wait_until
from tests.terminal import Terminal

if TYPE_CHECKING:
    from tests.contract.laptop import Laptop

pytest.importorskip("paramiko")
pytest.importorskip("textual_serve")


def terminal(laptop: Laptop, *words: str) -> Terminal:
    """Return the command in a terminal, as the laptop's user starts it."""
    state = {"XDG_STATE_HOME": str(laptop.folder / "state"), "XDG_RUNTIME_DIR": str(laptop.runtime)}
    env = os.environ | state | {"TERM": "xterm-256color"}
    return Terminal(sys.executable, "-m", "orchestrator", *words, cwd=laptop.project, env=env)


def test_the_screen_of_a_run_there_is_shown_here(laptop: Laptop) -> None:
    told = laptop.submit(train={"args": ["300"]})
    logins = laptop.logins()
    with terminal(laptop, "top", told["run_id"]) as screen:
        screen.expect("\x1b[?1049h")
        screen.expect("1 host, 2 ranks")
        screen.send("l")
        screen.expect("log of")
        screen.send("cy")
        screen.expect("CANCELLED")
        assert screen.end_with("q") == 0
        screen.expect("\x1b[?1049l")
    assert laptop.logins() == logins
    nothing_stays_there(laptop, told["run_id"])
    asyncio.run(asyncio.wait_for(in_a_browser(laptop, told["run_id"]), PATIENCE))
    (laptop.home / "orchestrate/runs" / told["run_id"] / "plan.json").unlink()
    with terminal(laptop, "top", told["run_id"]) as screen:
        assert screen.wait() == 2
        assert re.search(r"error: .*no run", screen.seen)
        assert "\x1b[?1049h" not in screen.seen


async def in_a_browser(laptop: Laptop, run_id: str) -> None:
    """Show the screen through a web server here: its packets come from there."""
    import aiohttp

    with laptop.start("top", "--web", run_id) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        seen = b""
        async with aiohttp.ClientSession() as session, session.ws_connect(url + "ws") as socket:
            await socket.send_json(["resize", {"width": 80, "height": 24}])
            async for message in socket:
                seen += message.data if isinstance(message.data, bytes) else message.data.encode()
                if b"CANCELLED" in seen:
                    break
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=PATIENCE)
    assert run_id.encode() in seen


def nothing_stays_there(laptop: Laptop, run_id: str) -> None:
    """Show the screen, kill it here, and see that it ends there: the connection itself is kept."""
    with terminal(laptop, "top", run_id) as screen:
        screen.expect("CANCELLED")
        there = {process.pid for process in held(laptop, "orchestrator.login.far")}
        assert there
    wait_until(
        lambda: not there & {process.pid for process in held(laptop, "orchestrator.login.far")}, lambda: there
    )
