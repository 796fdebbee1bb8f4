"""Serve a run's metrics to Prometheus."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from orchestrator import __version__
from orchestrator.monitor.metrics.prometheus import Latest
from orchestrator.monitor.records import Records
from orchestrator.monitor.status import current_status

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_RECENT = 32 << 20  # bytes; the measurements of 1,000 hosts are 2 MB a round
_PATHS = ("/metrics", "/")


class MetricsServer(ThreadingHTTPServer):
    """Answers GET /metrics with what the run has told by then.

    The file is read when it is asked for, and only what is new: nobody who asks costs nothing.

    Args:
        run: the run.
        address: host and port to listen at; port 0 takes a free one.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, run: RunDir, address: tuple[str, int]) -> None:
        self._run = run
        self._records = Records(run.metrics_file, start=_recent(run))
        self._latest = Latest(run.run_id)
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def text(self) -> str:
        """Return the metrics as they are now."""
        with self._lock:
            self._latest.add(self._records.new())
            return self._latest.text(current_status(self._run)["state"])


def _recent(run: RunDir) -> int:
    """Return where the last part of the file begins: only the newest value of each metric is asked for."""
    try:
        return max(0, run.metrics_file.stat().st_size - _RECENT)
    except OSError:
        return 0


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    server_version = f"orchestrate/{__version__}"

    def do_GET(self) -> None:
        """Answer one scrape."""
        if self.path.partition("?")[0] not in _PATHS:
            self.send_error(404, "the metrics are at /metrics")
            return
        body = self.server.text().encode()
        self.send_response(200)
        self.send_header("Content-Type", _TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: a scrape comes every some seconds."""
