"""Real servers that take notifications: one of the web, one of mail; each keeps what it was sent."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import socketserver
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Web(ThreadingHTTPServer):
    """Takes POSTs of JSON.

    Attributes:
        got: path and body of each, in order.
        answers: codes for the next ones; 200 when they have run out. 302 leads to /elsewhere, 0 hangs until
            the server ends.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _WebHandler)
        self.got: list[tuple[str, Any]] = []
        self.answers: list[int] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _WebHandler(BaseHTTPRequestHandler):
    server: Web

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, body))
        code = self.server.answers.pop(0) if self.server.answers else 200
        if code == 0:
            self.server.over.wait()
            return
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"ok" if code == 200 else f"no such hook: {self.path}".encode())

    def do_GET(self) -> None:  # what a redirect of a POST would become
        self.server.got.append((self.path, None))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Mail(socketserver.ThreadingTCPServer):
    """Takes mail (RFC 5321, as much of it as smtplib speaks).

    Attributes:
        got: (sender, recipients, text) of each.
        refuse: the answer to RCPT; "" takes everybody.
        unknown: the one address that is not taken.
        certificate: file of certificate and key with which it offers TLS; None: it offers none.
        logins: what was said to AUTH, base64.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.got: list[tuple[str, list[str], str]] = []
        self.refuse = ""
        self.unknown = ""
        self.certificate: Path | None = None
        self.logins: list[str] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _MailHandler(socketserver.StreamRequestHandler):
    server: Mail

    def finish(self) -> None:
        super().finish()
        self.request.close()  # the server knows of the socket below TLS only

    def handle(self) -> None:
        sender, to = "", []
        self._say("220 test")
        while line := self.rfile.readline().decode().strip():
            verb = line.upper()
            if verb.startswith("EHLO") and self.server.certificate is not None:
                self._say("250-test\r\n250-AUTH PLAIN\r\n250 STARTTLS")
                continue
            if verb == "STARTTLS":
                try:
                    self._begin_tls()
                except OSError:  # a client that does not trust us
                    return
                continue
            if verb.startswith("AUTH"):
                self.server.logins.append(line.split()[-1])
                self._say("235 welcome")
                continue
            if verb.startswith("MAIL"):
                sender = line.partition(":")[2].split()[0]
            elif verb.startswith("RCPT"):
                address = line.partition(":")[2]
                if self.server.refuse or address == f"<{self.server.unknown}>":
                    self._say(self.server.refuse or "550 no such user")
                    continue
                to.append(address)
            elif verb == "DATA":
                self._say("354 go on")
                self.server.got.append((sender, to, self._text()))
            self._say("221 bye" if verb == "QUIT" else "250 ok")

    def _begin_tls(self) -> None:
        self._say("220 go on")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        assert self.server.certificate is not None
        context.load_cert_chain(self.server.certificate)
        self.request = context.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)

    def _text(self) -> str:
        lines: list[str] = []
        while (line := self.rfile.readline().decode()).rstrip("\r\n") != ".":
            if not line:
                raise ConnectionResetError("the sender left in the middle of a mail")
            lines.append(line.rstrip("\r\n"))
        return "\n".join(lines)

    def _say(self, words: str) -> None:
        self.wfile.write(f"{words}\r\n".encode())


def own_certificate(path: Path) -> Path:
    """Write a certificate for 127.0.0.1 that nobody but its maker has signed, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
    signed = made.add_extension(place, critical=False).sign(key, hashes.SHA256())
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, *plain)
    )
    return path


@contextlib.contextmanager
def served(server: Any) -> Iterator[Any]:
    """Serve until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if isinstance(server, Web):
            server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
