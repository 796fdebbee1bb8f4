"""The screen in a browser: textual-serve on the loopback interface, behind a token."""

from __future__ import annotations

import getpass
import re
import secrets
import shlex
import socket
import sys
from typing import Any

import click
from aiohttp import web
from textual_serve.server import Server

_LOOPBACK = "127.0.0.1"
_GRACE = 1.0  # seconds after Ctrl-C until open screens are closed; aiohttp would wait a minute
# textual-serve 1.1.3's page asks Google for a font: a page that shows a cluster asks nobody for anything.
_FOREIGN = re.compile(r"<link[^>]*fonts\.googleapis\.com[^>]*>", re.DOTALL)
_FONT = """<style>@font-face { font-family: "Roboto Mono"; font-weight: 100 700;
src: url("static/fonts/RobotoMono-VariableFont_wght.ttf"); }</style>"""
_HEADERS = {
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cache-Control": "no-store",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
}


class TokenServer(Server):
    """textual-serve with every address below `/TOKEN/`; whatever else is asked for is not there.

    A path and no cookie: a browser sends a cookie of 127.0.0.1 to every port, also to another user's server.

    Args:
        command: what to run for each browser, as a shell reads it.
        sock: a bound socket.
        token: nobody can guess it.
        title: of the page.
    """

    def __init__(self, command: str, sock: socket.socket, token: str, title: str) -> None:
        self.address = f"{sock.getsockname()[0]}:{sock.getsockname()[1]}"
        super().__init__(command, _LOOPBACK, sock.getsockname()[1], title, f"http://{self.address}")
        self._sock = sock
        self.token = token

    @property
    def url(self) -> str:
        """Return what to open."""
        return f"http://{self.address}/{self.token}/"

    async def _make_app(self) -> web.Application:
        outer = web.Application()
        outer.add_subapp(f"/{self.token}", await super()._make_app())
        outer.on_response_prepare.append(_add_headers)
        return outer

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: what to open has been said."""

    async def handle_index(self, request: web.Request) -> web.Response:
        """Return the page, with addresses as this browser reaches them: it may come through a tunnel."""
        self.public_url = f"http://{request.host}"
        page: Any = await super().handle_index(request)
        page.text = _FOREIGN.sub(_FONT, page.text)
        return web.Response(text=page.text, content_type="text/html")

    def run(self) -> None:
        """Serve until Ctrl-C."""
        web.run_app(self._make_app(), sock=self._sock, print=None, shutdown_timeout=_GRACE)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.update(_HEADERS)


def serve(title: str, words: list[str], port: int) -> None:
    """Serve the screen of a run until Ctrl-C; every browser gets one of its own.

    Args:
        title: of the page.
        words: of the `orchestrate` command that shows the screen.
        port: of 127.0.0.1; 0 for a free one.

    Raises:
        OrchestratorError: the port is taken.
    """
    command = "exec " + shlex.join([sys.executable, "-m", "orchestrator", *words])
    server = TokenServer(command, _bound(port), secrets.token_urlsafe(24), title)
    taken = server.port
    click.echo(f"open       {server.url}")
    click.echo(f"from afar  ssh -N -L {taken}:{_LOOPBACK}:{taken} {getpass.getuser()}@{socket.gethostname()}")
    click.echo("           first, then open the same address there")
    click.echo("Ctrl-C ends it; the run goes on. Whoever has the address can look, and cancel.")
    server.run()


def _bound(port: int) -> socket.socket:
    from orchestrator.errors import CommandError, Problem  # noqa: PLC0415 - only where it fails

    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((_LOOPBACK, port))
        sock.listen()  # before the address is told: who reads it may be quick
    except OSError as error:
        sock.close()
        fix = "choose another one, or leave it out for a free one"
        raise CommandError(Problem(f"cannot be had: {error.strerror}", "--port", str(port), fix)) from error
    return sock
