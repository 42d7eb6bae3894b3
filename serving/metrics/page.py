"""The page that Prometheus reads: our families, and TorchServe's own behind them."""

from __future__ import annotations

import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from polyhead.serving.errors import LaunchError
from polyhead.serving.metrics.collector import Workers

__all__ = ["MetricsPage"]

PATH = "/metrics"
HOST = "127.0.0.1"
UPSTREAM_SECONDS = 5.0  # for TorchServe's own page
SLOW_SECONDS = 10.0  # for a client to send its request

logger = logging.getLogger(__name__)


class MetricsPage:
    """Serves the metrics of one server until it is closed.

    Args:
        port: on the loopback.
        folder: where the workers count.
        torchserve: the address of TorchServe's own page.

    Raises:
        LaunchError: the port cannot be bound.
    """

    def __init__(self, port: int, folder: Path, torchserve: str) -> None:
        self._workers = Workers(folder)
        self._torchserve = torchserve
        self._http = httpx.Client(timeout=UPSTREAM_SECONDS, trust_env=False)
        try:
            self._server = _server(port, self)
        except OSError as error:
            raise LaunchError(
                f"port {port} on {HOST} cannot be bound ({error.strerror}): give another --port"
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self._server.server_address[1]}{PATH}"

    def text(self) -> bytes:
        """The page, in the text format 0.0.4 of Prometheus."""
        theirs = self._theirs()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self._workers)
        up = Gauge("polyhead_torchserve_up", "Whether TorchServe gave its own metrics", registry=registry)
        up.set(theirs is not None)
        return generate_latest(registry) + (theirs or b"")

    def _theirs(self) -> bytes | None:
        """TorchServe's own page, None where it gives none."""
        try:
            response = self._http.get(self._torchserve)
        except httpx.HTTPError:  # not up yet, or busy
            return None
        return response.content if response.status_code == httpx.codes.OK else None

    def close(self) -> None:
        """Stop serving. Safe to call again."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _server(port: int, page: MetricsPage) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = SLOW_SECONDS

        def do_GET(self) -> None:
            if urlsplit(self.path).path != PATH:
                self._answer(404, "text/plain; charset=utf-8", b"metrics are at /metrics\n")
                return
            try:
                self._answer(200, CONTENT_TYPE_PLAIN_0_0_4, page.text())
            except Exception:
                logger.exception("the metrics page failed")
                self._answer(500, "text/plain; charset=utf-8", b"the metrics could not be read: see the log\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: a page that is read every few seconds is no news."""

    return _Server((HOST, port), Handler)
