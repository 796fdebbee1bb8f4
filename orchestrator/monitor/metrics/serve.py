"""Serve the metrics of runs to Prometheus."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from orchestrator import __version__
from orchestrator.monitor.metrics.prometheus import Latest, text
from orchestrator.monitor.records import Records
from orchestrator.monitor.status import statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from orchestrator.rundir import RunDir

_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_RECENT = 32 << 20  # bytes; the measurements of 1,000 hosts are 2 MB a round
_KEPT = 3600.0  # seconds that an ended run is still told of
_PATHS = ("/metrics", "/")


class MetricsServer(ThreadingHTTPServer):
    """Answers GET /metrics with what runs have told by then.

    Files are read when it is asked, and only what is new in them: while nobody asks, it costs nothing.

    Args:
        runs: returns the runs to tell of; those that it told of before are told of for an hour more.
        address: host and port to listen at; port 0 takes a free one.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, runs: Callable[[], Iterable[RunDir]], address: tuple[str, int]) -> None:
        self._runs = runs
        self._known: dict[Path, _Known] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def text(self) -> str:
        """Return the metrics as they are now."""
        with self._lock:
            for run in self._runs():
                self._known.setdefault(run.path, _Known(run))
            known = list(self._known.values())
            told = []
            for one, status in zip(known, statuses([one.run for one in known]), strict=True):
                ended = float(status["since"] or 0) if status["state"].is_final else time.time()
                if time.time() - ended > _KEPT and len(known) > 1:
                    del self._known[one.run.path]
                else:
                    one.latest.add(one.records.new())
                    told.append((one.latest, status["state"]))
        return text(told)


class _Known:
    """A run that is told of."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.latest = Latest(run.run_id)
        self.records = Records(run.metrics_file, start=_recent(run))


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
