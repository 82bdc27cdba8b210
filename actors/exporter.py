"""Serves Prometheus metrics over HTTP: one exporter per process, for a fleet and for a consumer alike."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector


class Exporter:
    """Serves /metrics on `host:port` until closed. Raises OSError if the port is taken."""

    def __init__(self, host: str, port: int, collector: Collector) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        server, thread = start_http_server(port, host, registry)
        self._server: Any = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
