"""The model hub, as far as an upload needs it: a server that keeps the files of each commit."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hub(ThreadingHTTPServer):
    """Takes repositories of the user `me`; `files` has what was uploaded, by `USER/NAME/PATH`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}

    @property
    def environment(self) -> dict[str, str]:
        """Return what leads huggingface_hub here."""
        url = f"http://127.0.0.1:{self.server_port}"
        return {"HF_ENDPOINT": url, "HF_TOKEN": "hf_of_a_test", "HF_HUB_OFFLINE": "0"}

    def answer(self, path: str, body: bytes) -> dict[str, object] | None:
        """Return what the hub says to a POST (huggingface_hub 2.4's `HfApi`); None for what it has not."""
        if path == "/api/repos/create":
            name = f"me/{json.loads(body)['name']}"
            return {"name": name, "url": f"{self.environment['HF_ENDPOINT']}/{name}"}
        if path == "/api/validate-yaml":  # of a README's head
            return {"errors": [], "warnings": []}
        repository = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            asked = [each["path"] for each in json.loads(body)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": each, **mode} for each in asked]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.files[f"{repository}/{line['value']['path']}"] = content
            return {"commitUrl": f"{self.environment['HF_ENDPOINT']}/{repository}/commit/1", "commitOid": "1"}
        return None


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        self._say(self.server.answer(self.path, self._body()))

    def do_GET(self) -> None:
        self._say(None)

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):  # Transfer-Encoding: chunked
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(pieces)

    def _say(self, found: dict[str, object] | None) -> None:
        said = json.dumps(found or {}).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def hub() -> Iterator[Hub]:
    """Run a hub."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
