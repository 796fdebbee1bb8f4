"""The supervisor's end of the control channel: agents connect, prove themselves, and are heard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.agent import network, wire

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir

_HELLO_SECONDS = 10.0


class Listener(Protocol):
    """Who hears the agents."""

    def on_connected(self, host: str) -> None:
        """A host's agent has proved itself; it is at once sent what `welcome` returns."""

    def welcome(self, host: str) -> dict[str, Any]:
        """Return the first message to that host's agent."""

    def on_message(self, host: str, message: dict[str, Any], payload: bytes) -> None:
        """An agent said something."""


class ControlServer:
    """Listens for agents; one connection per host, the newest counts."""

    def __init__(self, run_id: str, token: str, hosts: frozenset[str], listener: Listener) -> None:
        self._run_id = run_id
        self._token = token
        self._hosts = hosts
        self._listener = listener
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def open(self, port: int, *, local: bool) -> int:
        """Listen on a port (0: a free one) and return it.

        Args:
            port: as in `cluster.control_port`.
            local: only agents on this machine will come, so nothing else needs to be able to.

        Raises:
            OSError: the port is taken.
        """
        host = "127.0.0.1" if local else None
        listening = socket.create_server((host, port)) if host else network.listen(port)
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=wire.MAX_LINE)
        return int(listening.getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = ""
        decoder = wire.Decoder()
        try:
            host = await asyncio.wait_for(self._handshake(reader, writer, decoder), _HELLO_SECONDS)
            self._adopt(host, writer)
            while data := await reader.read(1 << 18):
                for message, payload in decoder.feed(data):
                    self._listener.on_message(host, message, payload)
        except (wire.WireError, OSError, TimeoutError):
            pass  # a stranger, or a connection that broke: the agent comes back, the lease decides
        finally:
            if self._writers.get(host) is writer:
                del self._writers[host]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _handshake(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, decoder: wire.Decoder
    ) -> str:
        """Return the host that has proved to be one of ours.

        Raises:
            WireError: it is not.
        """
        hello = await _one(reader, decoder)
        host, theirs = str(hello.get("host")), str(hello.get("nonce"))
        if hello.get("run") != self._run_id or host not in self._hosts:
            raise wire.WireError("not an agent of this run")
        ours = os.urandom(16).hex()
        answer = wire.proof(self._token, "supervisor", theirs, host)
        writer.write(wire.encode({"t": "challenge", "nonce": ours, "proof": answer}))
        proof = await _one(reader, decoder)
        if not wire.is_proof(proof.get("proof"), self._token, "agent", ours, host):
            raise wire.WireError("the wrong token")
        return host

    def _adopt(self, host: str, writer: asyncio.StreamWriter) -> None:
        old = self._writers.get(host)
        self._writers[host] = writer
        if old is not None:
            old.close()
        self.send(host, self._listener.welcome(host))
        self._listener.on_connected(host)

    def send(self, host: str, message: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message, with its raw bytes if any, to a host's agent if it is connected."""
        writer = self._writers.get(host)
        if writer is not None and not writer.is_closing():
            writer.write(wire.encode(message, payload))

    def is_connected(self, host: str) -> bool:
        """Tell whether a host's agent has a proved connection now."""
        return host in self._writers

    async def close(self) -> None:
        """Stop listening and drop every connection, after what was sent has gone out."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers.values()):
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.drain(), 1)
            writer.close()
        await asyncio.sleep(0)


async def _one(reader: asyncio.StreamReader, decoder: wire.Decoder) -> dict[str, Any]:
    """Read one message of a handshake, in which the peer never sends two at once."""
    while True:
        data = await reader.read(4096)
        if not data:
            raise wire.WireError("closed")
        messages = decoder.feed(data)
        if messages:
            return messages[0][0]


def agent_config(
    plan: LaunchPlan, attempt: AttemptDir, port: int, token: str, hosts_key: str
) -> dict[str, Any]:
    """Return `control.json`: what the agents read before they can be told anything."""
    return {
        "run_id": plan.run_id,
        "attempt": attempt.number,
        "env": plan.environment(attempt.number),
        "hosts_key": hosts_key,
        "token": token,
        "port": port,
        "addresses": _own_addresses(plan),
        "control_address": plan.control_address,
        "sample_interval": plan.monitor.interval(len(plan.hosts)),
        "lease": plan.lease,
        "grace": plan.grace,
        "launcher": plan.launcher,
        "deepspeed": plan.deepspeed is not None,
        "python": plan.python,
        "agent_file": str(attempt.agent_file),
        "accelerate_config": str(attempt.rendered / "accelerate.yaml"),
        "command": plan.command(attempt.number),
        "script": plan.script,
        "workdir": plan.train_dir,
        "master_port": plan.master_port,
        "hosts": {
            host.alias: {
                "name": host.name,
                "file_name": host.file_name,
                "index": host.index,
                "devices": list(host.devices),
            }
            for host in plan.hosts
        },
    }


def _own_addresses(plan: LaunchPlan) -> list[str]:
    if plan.backend == "local":
        return ["127.0.0.1"]
    own = [address for address in network.addresses() if not network.is_loopback(address)]
    return [*own, socket.gethostname()]
