"""`orchestrate top --web`: a page behind a token, and a screen behind the page."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.made_run import made_run
from tests.samples import ROOT, click

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return what `top --web` says to open, while it runs."""
    run = made_run(tmp_path_factory.mktemp("runs"), over=False)
    with serving(run) as (address, _):
        yield address


@contextlib.contextmanager
def serving(run) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve a run; yield the address and the server, which Ctrl-C ends."""
    argv = [sys.executable, "-m", "orchestrator", "top", "--web", str(run.path)]
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        said = [server.stdout.readline() for _ in range(4)]
        assert said[0].startswith("open"), server.stderr.read()
        assert "ssh -N -L" in said[1]
        try:
            yield said[0].split()[1], server
            server.send_signal(signal.SIGINT)
            errors = server.communicate(timeout=120)[1]
        finally:
            server.kill()
        assert "Traceback" not in errors


def get(address: str) -> tuple[int, str, dict[str, str]]:
    try:
        with urllib.request.urlopen(address, timeout=120) as answer:
            return answer.status, answer.read().decode(errors="replace"), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", {}


def test_the_page_needs_the_token(url):
    base, token = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/([\w-]{32})/", url).groups()
    assert get(url)[0] == 200
    for path in ("/", f"/{token[:-1]}/", "/static/js/textual.js", "/ws", f"/{'x' * 32}/", "/download/x"):
        assert get(base + path)[0] == 404, path


def test_the_page_asks_nobody_else_for_anything(url):
    status, page, headers = get(url)
    assert (status, headers["Referrer-Policy"], headers["X-Frame-Options"]) == (200, "no-referrer", "DENY")
    addresses = re.findall(r"(?:https?|wss?)://[^\s\"'<>]+", page)
    foreign = [each for each in addresses if not re.match(r"(http|ws)://127\.0\.0\.1:\d+/", each)]
    assert foreign in ([], ["http://www.w3.org/2000/svg"])
    assert get(url + "static/js/textual.js")[0] == 200
    font = re.search(r'url\("(static/fonts/[^"]+)"\)', page)[1]
    assert get(url + font)[0] == 200


def test_addresses_are_those_of_the_tunnel_it_came_through(url):
    request = urllib.request.Request(url, headers={"Host": "localhost:9999"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        page = answer.read().decode()
    token = url.rsplit("/", 2)[1]
    assert f"ws://localhost:9999/{token}/ws" in page


def test_the_screen_comes_through_the_websocket(url):
    async def main() -> bytes:
        async with aiohttp.ClientSession() as session, session.ws_connect(url + "ws?width=80") as socket:
            return await drawn(socket)

    assert b"job-made" in asyncio.run(asyncio.wait_for(main(), 180))


async def drawn(socket) -> bytes:
    """Return what comes until the screen is there."""
    await socket.send_json(["resize", {"width": 80, "height": 24}])
    seen = b""
    async for message in socket:
        seen += message.data if isinstance(message.data, bytes) else message.data.encode()
        if b"4 hosts, 8 ranks" in seen:
            break
    return seen


def test_the_end_of_the_server_ends_the_screens(tmp_path):
    run = made_run(tmp_path, over=False)

    def screens() -> list[str]:
        done = subprocess.run(
            ["pgrep", "-f", f"orchestrator top {run.path}"], capture_output=True, check=False
        )
        return done.stdout.decode().split()

    async def main(address: str, server: subprocess.Popen[str]) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(address + "ws") as socket:
            assert await drawn(socket)
            assert len(screens()) == 1
            server.send_signal(signal.SIGINT)
            async for _ in socket:
                pass

    with serving(run) as (address, server):
        asyncio.run(asyncio.wait_for(main(address, server), 180))
        server.wait(timeout=120)
        deadline = time.monotonic() + 120
        while screens():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_websocket_needs_the_token(url):
    async def main() -> int:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url.rsplit("/", 2)[0] + "/ws")
            return refused.value.status

    assert asyncio.run(main()) == 404


def test_a_port_that_is_taken(url, tmp_path):
    run = made_run(tmp_path, over=False)
    port = re.search(r":(\d+)/", url)[1]
    done = click("top", "--web", "--port", port, str(run.path))
    assert f"--port: cannot be had: Address already in use (got {port})" in str(done.exception)
