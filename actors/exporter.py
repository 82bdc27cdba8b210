"""Serves Prometheus metrics and health over HTTP: one exporter per process, for a fleet and for a consumer alike.

`/metrics`, for those who send the token, if there is one; `/health`, 200 as long as the process lives; `/ready`, 503
while something waits. Both say what waits for what.
"""

from __future__ import annotations

import json
import ssl
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
    timeout = 10.0  # [s] of a caller that says nothing

    def log_message(self, format: str, *args: Any) -> None:
        """A line a scrape would be noise."""


class _Server(ThreadingWSGIServer):
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[Any, Any]:
        connection, peer = super().get_request()
        if self.tls is not None:
            # Hands are shaken in the thread of the request: a caller that does not would keep all others waiting.
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, peer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up, or speaks no TLS, is its own affair: no traceback."""


class Exporter:
    """Serves on `host:port` until closed, with TLS where `tls` names a certificate and its key. Raises OSError if the
    port is taken."""

    def __init__(
        self,
        host: str,
        port: int,
        collector: Collector,
        waits: Waits,
        token: str = "",
        tls: tuple[str, str] | None = None,
    ) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self._server: Any = make_server(host, port, _pages(registry, waits, token), _Server, _Silent)
        if tls is not None:
            self._server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._server.tls.load_cert_chain(*tls)
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
