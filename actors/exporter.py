"""Serves Prometheus metrics and health over HTTP: one exporter per process, for a fleet and for a consumer alike.

`/metrics`, for those who send the token, if there is one; `/health`, 200 as long as the process lives; `/ready`, 503
while something waits. Both say what waits for what.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from actors.secret import bears

Waits = Callable[[], Mapping[str, str]]
"""What waits for what, by part; empty where all flows."""


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A line a scrape would be noise."""


class Exporter:
    """Serves on `host:port` until closed. Raises OSError if the port is taken."""

    def __init__(self, host: str, port: int, collector: Collector, waits: Waits, token: str = "") -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self._server: Any = make_server(host, port, _pages(registry, waits, token), ThreadingWSGIServer, _Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True)
        self._thread.start()
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _pages(registry: CollectorRegistry, waits: Waits, token: str) -> Callable[..., Iterable[bytes]]:
    metrics: Any = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics" and (not token or bears(environ.get("HTTP_AUTHORIZATION", ""), token)):
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        status: str = "404 Not Found"
        body: dict[str, Any] = {"detail": "expected /metrics, /health or /ready"}
        if path == "/metrics":
            status, body = "401 Unauthorized", {"detail": "expected the header 'Authorization: Bearer <token>'"}
        if path in ("/health", "/ready"):
            waiting = dict(waits())
            ready = path == "/health" or not waiting
            status, body = "200 OK" if ready else "503 Service Unavailable", {"status": "ok", "waits_for": waiting}
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(body).encode()]

    return answer
