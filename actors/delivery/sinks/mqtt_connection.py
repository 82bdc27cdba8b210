"""One connection to an MQTT broker, and what moves the packets of many: no threads.

paho's own loop is a thread a client: one client then costs twice the CPU, and two thousand are out of the question.
Here paho only speaks the protocol. Whoever owns the connections calls `Network.turn`.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 10
_WINDOW = 1000
_MISC_S = 1.0
_READS = 1000  # most packets of one connection in one turn

_CODES = {code: ReasonCode(PacketTypes.PUBACK, identifier=code) for code in (0x00, 0x10)}  # taken; by nobody yet
_NOTHING = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]

Answered = Callable[[int, int], None]
"""Called with the tag of a message and the reason code of its PUBACK."""


def session_expiry(packet: int, seconds: float) -> Properties:
    """How long the broker keeps the session of a client that is gone (MQTT 5)."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = min(round(seconds), 0xFFFFFFFE)  # the next number would mean forever
    return properties


class Network:
    """Moves the packets of some connections, in the thread that calls `turn`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._writing: set[mqtt.Client] = set()
        self._sockets: dict[mqtt.Client, tuple[Any, int]] = {}
        self._decrypted: set[mqtt.Client] = set()  # the socket has nothing more, its TLS has
        self._misc_at = 0.0

    def add(self, client: mqtt.Client) -> None:
        """Move this client's packets from its connecting on."""
        client.on_socket_open = self._opened
        client.on_socket_close = self._closed
        client.on_socket_register_write = lambda client, _data, _socket: self._writing.add(client)
        client.on_socket_unregister_write = lambda client, _data, _socket: self._writing.discard(client)

    def _opened(self, client: mqtt.Client, _data: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, client)
        self._sockets[client] = (sock, selectors.EVENT_READ)

    def _closed(self, client: mqtt.Client, _data: Any, sock: Any) -> None:
        self._selector.unregister(sock)
        self._writing.discard(client)
        self._decrypted.discard(client)
        del self._sockets[client]

    def turn(self, timeout_s: float) -> None:
        """Write what waits, then read what comes within `timeout_s`."""
        for client in list(self._writing):
            client.loop_write()
            self._watch(client)
        for client in list(self._decrypted):
            self._read(client)
            timeout_s = 0.0
        for key, events in self._selector.select(timeout_s):
            client = key.data
            if events & selectors.EVENT_WRITE and client in self._sockets:
                client.loop_write()
            if events & selectors.EVENT_READ and client in self._sockets:
                self._read(client)
            self._watch(client)
        if time.monotonic() >= self._misc_at:
            self._misc_at = time.monotonic() + _MISC_S
            for client in list(self._sockets):
                client.loop_misc()

    def _read(self, client: mqtt.Client) -> None:
        client.loop_read(_READS)
        sock, _ = self._sockets.get(client, (None, 0))
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            self._decrypted.add(client)
        else:
            self._decrypted.discard(client)

    def _watch(self, client: mqtt.Client) -> None:
        """Wake up when a full socket takes bytes again."""
        if client not in self._sockets:
            return
        sock, watched = self._sockets[client]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        if wanted != watched:
            self._selector.modify(sock, wanted, client)
            self._sockets[client] = (sock, wanted)

    def close(self) -> None:
        """Stop watching."""
        self._selector.close()


class _Client(mqtt.Client):
    """paho's, which makes two objects with checks of each acknowledgement: a third of the whole cost of a message. Here
    those without properties share one for each code. A paho that calls this no more is slower, and not wrong."""

    def _handle_pubackcomp(self, cmd: Any) -> Any:
        packet = self._in_packet["packet"]
        code = packet[2] if len(packet) == 3 else 0
        if cmd != "PUBACK" or len(packet) not in (2, 3) or code not in _CODES:
            return super()._handle_pubackcomp(cmd)
        mid = int.from_bytes(packet[:2])
        with self._out_message_mutex:
            known = mid in self._out_messages
            return self._do_on_publish(mid, _CODES[code], _NOTHING) if known else mqtt.MQTT_ERR_SUCCESS


class Connection:
    """One client. It never reconnects by itself, because it would send new messages before old ones.

    `introduce`: gives the client user, password and certificates. `will`: (topic, payload when it is up, payload when
    it is gone), retained. `visit`: no lasting session.
    """

    def __init__(
        self,
        network: Network,
        client_id: str,
        protocol: MQTTProtocolVersion,
        introduce: Callable[[mqtt.Client], None],
        answered: Answered,
        *,
        will: tuple[str, str, str] | None = None,
        visit: bool = False,
    ) -> None:
        self._answered = answered
        self._will, self._visit = will, visit
        self._protocol = protocol
        self._unanswered: dict[int, int] = {}  # message id -> tag
        self._ours: set[int] = set()  # message ids of the status
        self._probe: tuple[int, float] | None = None
        self.accepted: ReasonCode | None = None
        """The broker's answer to our CONNECT."""
        self.lost = ""
        """Why the connection is gone."""
        self.heard = 0.0
        """When the broker gave its last sign of life [s of time.monotonic]."""
        self.window = _WINDOW
        self.largest_packet = 268_435_455
        self.client = client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=visit if protocol == MQTTProtocolVersion.MQTTv311 else None,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(0)  # the window is ours
        client.max_queued_messages_set(0)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_unsubscribe = self._on_unsubscribe
        introduce(client)
        if will is not None:
            client.will_set(will[0], will[2], qos=1, retain=True)
        network.add(client)

    def connect(self, host: str, port: int, session_s: float) -> None:
        """Begin to connect; `accepted` or `lost` says how it went. Raises OSError if nothing answers."""
        properties = None
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            properties = session_expiry(PacketTypes.CONNECT, 0 if self._visit else session_s)
        self.client.connect(
            host,
            port,
            keepalive=KEEPALIVE_S,
            clean_start=self._visit if properties else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
        )

    @property
    def full(self) -> bool:
        """Whether the broker allows no more messages on their way."""
        return len(self._unanswered) + len(self._ours) >= self.window

    @property
    def crowded(self) -> bool:
        """Whether more than half of that is on its way. To go on with each single answer would cost a look at the
        socket for each message."""
        return len(self._unanswered) + len(self._ours) > self.window // 2

    def publish(self, topic: str, payload: bytes, tag: int, *, retain: bool) -> None:
        """Send a message with QoS 1. `answered` gets `tag` and the reason code when the broker has acknowledged it."""
        self._unanswered[self.client.publish(topic, payload, qos=1, retain=retain).mid] = tag

    def forget(self) -> None:
        """Take no more interest in what is not answered yet."""
        self._ours.update(self._unanswered)
        self._unanswered.clear()

    def farewell(self) -> bool:
        """Say that we go. Returns whether there is an answer to wait for."""
        if self._will is None or self.lost or self.accepted is None or self.accepted.is_failure:
            return False
        self._say(self._will[2])
        return True

    @property
    def silent(self) -> bool:
        """Whether nothing is waiting for an answer."""
        return not self._unanswered and not self._ours

    def probe(self, patience_s: float) -> None:
        """Ask for a sign of life. An UNSUBSCRIBE needs no right and changes nothing, and its answer is public; paho
        tells nobody about PINGRESP. Without an answer for `patience_s` the connection counts as lost."""
        if self._probe is None:
            _, mid = self.client.unsubscribe("ev/battery/nothing")
            self._probe = (mid or 0, time.monotonic())
        elif time.monotonic() - self._probe[1] > patience_s:
            self.lost = self.lost or f"no sign of life for {patience_s:g} s"

    def _say(self, state: str) -> None:
        assert self._will is not None
        self._ours.add(self.client.publish(self._will[0], state, qos=1, retain=True).mid)

    # ---- called by paho, in a turn

    def _on_connect(
        self,
        _client: mqtt.Client,
        _data: object,
        _flags: mqtt.ConnectFlags,
        answer: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.heard = time.monotonic()
        self.window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
        self.largest_packet = getattr(properties, "MaximumPacketSize", self.largest_packet)
        self.accepted = answer
        if not answer.is_failure and self._will is not None:
            self._say(self._will[1])

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _data: object,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self.lost = self.lost or f"connection lost: {reason}"

    def _on_publish(
        self, _client: mqtt.Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self.heard = time.monotonic()
        if mid in self._ours:
            self._ours.discard(mid)
        elif (tag := self._unanswered.pop(mid, None)) is not None:
            self._answered(tag, reason.value)

    def _on_unsubscribe(
        self,
        _client: mqtt.Client,
        _data: object,
        mid: int,
        _reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self.heard = time.monotonic()
        if self._probe is not None and self._probe[0] == mid:
            self._probe = None
