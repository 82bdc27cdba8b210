"""Alertmanager from its Debian package, with the project's routes, and the web hook that it tells."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

from tests.services.base import HOST, Service, ServiceFailed, apt_install
from tests.services.prometheus import FOLDER, answer_of


class Alertmanager(Service):
    """Routes as cluster/prometheus/alertmanager.yml says, to a web hook of its own; groups wait for a second."""

    name = "alertmanager"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.told: list[tuple[str, str, str]] = []
        """(where: warning or critical, alert, firing or resolved), in the order of arrival."""
        self._hook: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        return {}

    @classmethod
    def install(cls) -> None:
        if shutil.which("prometheus-alertmanager") is None or shutil.which("amtool") is None:
            apt_install("prometheus-alertmanager", "Alertmanager")

    def _prepare(self) -> None:
        told = self.told

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                where = self.path.strip("/")
                told.extend((where, alert["labels"]["alertname"], alert["status"]) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._hook = ThreadingHTTPServer((HOST, 0), Hook)
        threading.Thread(target=self._hook.serve_forever, daemon=True).start()
        config = yaml.safe_load((FOLDER / "alertmanager.yml").read_text())
        config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
        for receiver in config["receivers"]:
            for hook in receiver["webhook_configs"]:
                hook["url"] = f"http://{HOST}:{self._hook.server_port}/{hook['url'].rsplit('/', 1)[1]}"
        (self.directory / "alertmanager.yml").write_text(yaml.safe_dump(config))

    def remove(self) -> None:
        super().remove()
        if self._hook is not None:
            self._hook.shutdown()
            self._hook.server_close()

    def _command(self) -> list[str]:
        server = shutil.which("prometheus-alertmanager")
        assert server is not None
        return [
            server,
            f"--config.file={self.directory / 'alertmanager.yml'}",
            f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--cluster.listen-address=",
        ]

    def _check(self) -> None:
        if not answer_of(f"{self.url}/api/v2/status"):
            raise ServiceFailed("it does not say what it is")
