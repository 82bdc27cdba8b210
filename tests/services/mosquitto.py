"""Mosquitto, the MQTT broker, from its Debian package."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from string import Template

from tests.services.base import HOST, Service, ServiceFailed, apt_install, free_ports

_TEMPLATE = Path(__file__).with_name("mosquitto.conf")
# Without socket_domain the WebSocket library binds to every address, whatever the listener says.
_WEBSOCKET_LISTENER = "listener {port} {host}\nprotocol websockets\nsocket_domain ipv4\n"
# The package puts the broker where only root's PATH looks.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])


class Mosquitto(Service):
    """MQTT on `port`, MQTT over WebSocket on `websocket_port`; anonymous clients, no message dropped for a slow one."""

    name = "mosquitto"
    _websocket_port: int | None = None

    @property
    def websocket_port(self) -> int:
        if self._websocket_port is None:
            [self._websocket_port] = free_ports(1)
        return self._websocket_port

    def environment(self) -> dict[str, str]:
        return {"MQTT_HOST": HOST, "MQTT_PORT": str(self.port)}

    @classmethod
    def install(cls) -> None:
        if shutil.which("mosquitto", path=_PATH) is None:
            apt_install("mosquitto", "Mosquitto (MQTT broker)")

    @property
    def _config(self) -> Path:
        return self.directory / "mosquitto.conf"

    def _prepare(self) -> None:
        if self._config.exists():
            return
        (self.directory / "data").mkdir()
        self._config.write_text(
            Template(_TEMPLATE.read_text()).substitute(
                port=self.port,
                directory=self.directory,
                # Started by root it would become the user mosquitto, who cannot write here.
                user="user root" if os.geteuid() == 0 else "",
                websocket_listener=_WEBSOCKET_LISTENER.format(port=self.websocket_port, host=HOST),
            )
        )

    def wait_saved(self) -> None:
        """Until sessions and queues are on disk as they are now: the broker saves them every second or two, and what
        it has not saved is gone when it is killed."""
        now, file = time.time(), self.directory / "data" / "mosquitto.db"
        while not file.exists() or file.stat().st_mtime <= now:
            if not self.running:
                raise ServiceFailed("it ended before it had saved its sessions")
            time.sleep(0.05)

    def _command(self) -> list[str]:
        broker = shutil.which("mosquitto", path=_PATH)
        assert broker is not None
        return [broker, "-c", str(self._config)]

    def _check(self) -> None:
        """A connection that the broker accepts."""
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        accepted = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.on_connect = lambda *_: accepted.set()
        client.connect(HOST, self.port)
        client.loop_start()
        try:
            if not accepted.wait(3.0):
                raise ServiceFailed("no answer to CONNECT")
        finally:
            client.disconnect()
            client.loop_stop()
