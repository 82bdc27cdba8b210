"""MQTT: QoS 1, persistent session, topic `ev/battery/telemetry/<vehicle_id>`; the payload carries the record's id.

At least once on the wire: after a lost connection what was not acknowledged is published again, in order. The identity
(run_id, vehicle_id, seq) is in the payload, because MQTT 3.1.1 subscribers see no headers. We speak MQTT 5, in which a
broker can reject a single message. With a broker that knows only 3.1.1 we speak 3.1.1, where a rejection (by an ACL) is
silent.

The retained message at `ev/battery/status/<log_id>/<part>` says whether somebody ships this log: {"state": "online"} or
"offline". The last will sets it to "offline" even after kill -9.
"""

from __future__ import annotations

import errno
import json
import resource
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode
from zlib import crc32

import paho.mqtt.client as mqtt
import pyarrow as pa
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from actors.delivery.sinks.base import (
    BATCH_ROWS,
    DeadLetter,
    Receipt,
    SinkOptions,
    SinkRefused,
    SinkUnavailable,
    split_url,
)
from actors.delivery.sinks.mqtt_connection import CONNECT_TIMEOUT_S, Connection, Network
from datasets.codec import encode
from datasets.schema import SCHEMAS, Payload, Stream

ROOT = "ev/battery"
_TOPICS: dict[Stream, str] = {"telemetry": "telemetry", "predictions": "prediction"}
_CLIENT: dict[Stream, str] = {"telemetry": "", "predictions": "-predictions"}
_FAREWELL_S = 0.5
_SESSION_EXPIRY_S = 24 * 3600
_TURN_S = 0.1
_ROOT_BYTES = 1000
_PROBE_S = 1.0  # after so long without a sign of life we ask for one
_WRITE_EVERY = 32  # messages between two looks at the network
_PACKET_OVERHEAD = 16  # fixed header, lengths, packet id, no properties
_REFUSALS = ("Bad user name or password", "Not authorized", "Banned", "Bad authentication method")
_FILES = ("cafile", "certfile", "keyfile")
_OLD_BROKER = "Unsupported protocol version"
# PUBACK's reason codes: what is wrong with one record, and what a person has to change.
_DEAD = {0x99: "payload format invalid"}
_REFUSED = {0x87, 0x90}


@dataclass(frozen=True)
class MqttTarget:
    """One broker. The password is not in repr. `root`: the topics are `<root>/telemetry/<vehicle_id>`,
    `<root>/prediction/..`, `<root>/status/..`. `retain`: the broker keeps the last record of each vehicle. `clients`:
    connections of a node, 0 for one a vehicle. `tls`: encrypted, the broker's certificate checked against the file of
    authorities `cafile` or else the system's; `certfile` and `keyfile`: ours, PEM."""

    host: str
    port: int = 1883
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    retain: bool = False
    clients: int = 1
    patience_s: float = 30.0
    name: str = "mqtt"
    rewind_s: float = 5.0
    batch_rows: int = BATCH_ROWS
    keeps_position: bool = False
    payload: Payload = "json"
    root: str = ROOT

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> MqttTarget:
        """From `mqtt[s]://[user:password@]host[:port][/root][?cafile=..&certfile=..&keyfile=..]`; anything else
        raises a one-line ValueError."""
        url = split_url(address, ("mqtt", "mqtts"), "an MQTT URL like mqtt://[user:password@]127.0.0.1:1883")
        root = unquote(url.path).removeprefix("/").removesuffix("/") or ROOT
        if set(root) & set("+#\0") or root.startswith("$") or len(root.encode()) > _ROOT_BYTES:
            raise ValueError(
                f"expected the first levels of MQTT's topics, without +, #, a $ at the beginning or more than "
                f"{_ROOT_BYTES} bytes, at the end of its URL, got {url.path!r}"
            )
        assert url.hostname is not None
        tls = url.scheme == "mqtts"
        files = {name: path and str(Path(path).expanduser().absolute())
                 for name, path in parse_qsl(url.query, keep_blank_values=True)}  # fmt: skip
        if files and not (tls and set(files) <= set(_FILES) and all(files.values())):
            raise ValueError(f"expected of an MQTT URL, after mqtts://, no more than {', '.join(_FILES)}")
        if ("keyfile" in files) != ("certfile" in files):
            raise ValueError("expected both certfile and keyfile in an MQTT URL, or neither")
        return cls(
            url.hostname,
            url.port or (8883 if tls else 1883),
            unquote(url.username) if url.username else None,
            unquote(url.password) if url.password else None,
            tls,
            files.get("cafile"),
            files.get("certfile"),
            files.get("keyfile"),
            retain=options.retain,
            clients=options.clients,
            payload=options.payload,
            root=root,
        )

    @property
    def url(self) -> str:
        """mqtt[s]://[user:password@]host:port[/root][?cafile=..]."""
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        user = f"{quote(self.user, safe='')}{secret}@" if self.user else ""
        files = urlencode({name: path for name in _FILES if (path := getattr(self, name))})
        place = f"{self.host}:{self.port}{'' if self.root == ROOT else f'/{quote(self.root)}'}"
        return f"mqtt{'s' if self.tls else ''}://{user}{place}{'?' if files else ''}{files}"

    def topics(self, stream: Stream) -> str:
        """What a vehicle's id is put behind."""
        return f"{self.root}/{_TOPICS[stream]}/"

    @property
    def where(self) -> str:
        """The address as messages show it, without secrets."""
        return f"MQTT at {self.host}:{self.port}"

    @property
    def peer(self) -> str:
        """host:port, and the topics' root where it is another."""
        return f"{self.host}:{self.port}{'' if self.root == ROOT else f'/{self.root}'}"

    def for_nodes(self, nodes: int) -> MqttTarget:
        return self

    def introduce(self, client: mqtt.Client) -> None:
        """Give a client, before it connects, what the broker wants to see of us. SinkRefused for files of no use."""
        if self.user is not None:
            client.username_pw_set(self.user, self.password)
        if self.tls:
            try:
                client.tls_set(self.cafile, self.certfile, self.keyfile)
            except (OSError, ValueError) as error:
                files = ", ".join(f"{name} {path}" for name in _FILES if (path := getattr(self, name)))
                raise SinkRefused(f"{self.where}: cannot use {files} ({error})") from error

    def unreached(self, error: OSError) -> SinkRefused | SinkUnavailable:
        """Why there is no connection."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return SinkRefused(
                f"{self.where} is not trusted ({error.verify_message}); check cafile and the host's name"
            )
        if isinstance(error, ssl.SSLError):
            return SinkUnavailable(f"{self.where} speaks no TLS with us ({error.reason or error}); is it its TLS port?")
        said = error.strerror or error
        return SinkUnavailable(f"{self.where} does not answer ({said}); is the broker running there?")

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> MqttSink:
        return MqttSink(self, log_id, stream, part)

    def check(self) -> str:
        sink = MqttSink(self, "check", "telemetry", visit=True)
        try:
            sink.open()
            version = sink.subscribe_once("$SYS/broker/version", 1.0)
        finally:
            sink.close()
        return f"{self.where}: {version or 'a broker that does not tell its version'}"


class MqttSink:
    """See the module's docstring. Bound: one batch, of which each connection has at most as many messages on the wire
    as its broker allows, and never more than 1,000. When that is full, `deliver` waits.

    The first connection carries the status of the whole (for telemetry only, so that there is one). A vehicle's
    messages always go the same way. A lost connection ends the delivery and the sink. `visit`: no lasting session, no
    status.
    """

    def __init__(self, target: MqttTarget, log_id: str, stream: Stream, part: int = 0, *, visit: bool = False) -> None:
        self._target = target
        self._log_id = log_id
        self._stream = stream
        self._part = part
        self._visit = visit
        self._own = target.clients == 0 and stream == "telemetry"  # each vehicle has a connection of its own
        self._network = Network()
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._connections: list[Connection] = []
        self._of: dict[str, Connection] = {}
        self._using = threading.Lock()
        self._closing = threading.Event()
        self._flight = _Flight()

    def open(self) -> None:
        if self._own:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if not self._visit:
            # Loads kernels, and may compile them. Later, nobody would answer the broker meanwhile.
            none = pa.RecordBatch.from_pylist([], SCHEMAS[self._stream])
            encode(none, self._stream, self._target.payload)
        with self._using:
            answer = self._first()
            if str(answer) == _OLD_BROKER:
                self._protocol, self._connections = MQTTProtocolVersion.MQTTv311, []
                answer = self._first()
            if answer is None or answer.is_failure:
                raise self._refusal(self._connections[0])
            if not self._own:
                numbers = range(1, max(1, self._target.clients))
                self._connect([(f"-{number}", None) for number in numbers])

    def _first(self) -> ReasonCode | None:
        """The broker's answer to our first CONNECT; None if it gave none."""
        will = None
        if not self._visit and self._stream == "telemetry":
            about = {"log_id": self._log_id, "part": self._part}
            will = _will(f"{self._target.root}/status/{self._log_id}/{self._part}", about)
        self._begin("", will)
        self._until(lambda: self._connections[0].accepted is not None or self._connections[0].lost, CONNECT_TIMEOUT_S)
        return self._connections[0].accepted

    def _begin(self, suffix: str, will: tuple[str, str, str] | None) -> Connection:
        target = self._target
        connection = Connection(
            self._network,
            "" if self._visit else f"ev-twin-{self._log_id}-{self._part}{_CLIENT[self._stream]}{suffix}",
            self._protocol,
            target.introduce,
            self._flight.answered,
            will=will,
            visit=self._visit,
        )
        self._connections.append(connection)
        try:
            connection.connect(target.host, target.port, _SESSION_EXPIRY_S)
        except OSError as error:
            if error.errno == errno.EMFILE:
                raise SinkUnavailable(
                    f"{target.where}: this process may open no more connections than {len(self._connections) - 1}; "
                    "raise `ulimit -n` above the vehicles of a node"
                ) from error
            raise target.unreached(error) from error
        return connection

    def _connect(self, wanted: list[tuple[str, tuple[str, str, str] | None]]) -> list[Connection]:
        """More connections, once all are accepted."""
        new = []
        for suffix, will in wanted:
            new.append(self._begin(suffix, will))
            self._network.turn(0)
        self._until(lambda: all(c.accepted is not None or c.lost for c in new), CONNECT_TIMEOUT_S)
        for connection in new:
            if connection.accepted is None or connection.accepted.is_failure:
                raise self._refusal(connection)
        return new

    def _refusal(self, connection: Connection) -> SinkRefused | SinkUnavailable:
        answer = connection.accepted
        if answer is not None and str(answer) in _REFUSALS:
            return SinkRefused(f"{self._target.where} refused us ({answer}); check user and password")
        if self._target.tls and answer is None and connection.lost and not self._target.certfile:
            return SinkRefused(
                f"{self._target.where} ended the connection at once; does it ask for a certificate (certfile, keyfile)?"
            )
        said = answer or connection.lost or f"no answer in {CONNECT_TIMEOUT_S:g} s"
        return SinkUnavailable(
            f"{self._target.where} accepts no MQTT session ({said}); is it an MQTT broker, and not overloaded?"
        )

    def _until(self, holds: Callable[[], object], timeout_s: float) -> bool:
        """Move packets until it holds; False if that takes longer than `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if self._closing.is_set():
                raise SinkUnavailable(f"{self._target.where} was closed while it delivered")
            if (left := deadline - time.monotonic()) < 0:
                return False
            self._network.turn(min(left, _TURN_S))
        return True

    def subscribe_once(self, topic: str, timeout_s: float) -> str:
        """The first message of a topic; "" if there is none within the time."""
        seen: list[str] = []
        client = self._connections[0].client
        client.on_message = lambda _client, _data, message: seen.append(message.payload.decode(errors="replace"))
        client.subscribe(topic)
        self._until(lambda: seen, timeout_s)
        return seen[0] if seen else ""

    def position(self, shard: int) -> int | None:
        return None

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        messages, topic, retain = (
            encode(batch, self._stream, self._target.payload),
            self._target.topics(self._stream),
            self._target.retain,
        )
        with self._using:
            flight = self._flight
            flight.begin()
            self._of_all(messages.vehicle_ids)
            try:
                for row, (vehicle, value) in enumerate(zip(messages.vehicle_ids, messages.values, strict=True)):
                    connection = self._of[vehicle]
                    if len(topic) + len(vehicle) + len(value) + _PACKET_OVERHEAD > connection.largest_packet:
                        flight.dead.append(DeadLetter(row, f"packet too large: {len(value):,} bytes of payload"))
                        continue
                    if connection.full:
                        self._while(lambda: connection.crowded)  # noqa: B023  (called at once)
                    connection.publish(topic + vehicle, value, row, retain=retain)
                    flight.sent += 1
                    if not row % _WRITE_EVERY:
                        self._network.turn(0)
                self._while(lambda: flight.waiting)
            except BaseException:
                for connection in self._connections:
                    connection.forget()
                raise
            return Receipt(0, tuple(sorted(flight.dead, key=lambda letter: letter.row)), flight.acked_ns)

    def _of_all(self, vehicles: Sequence[str]) -> None:
        """Know the way of each vehicle, with new connections for those that have their own."""
        new = [vehicle for vehicle in dict.fromkeys(vehicles) if vehicle not in self._of]
        if not new:
            return
        if self._own:
            wills = [_will(f"{self._target.root}/status/{v}", {"log_id": self._log_id, "vehicle_id": v}) for v in new]
            made = self._connect([(f"-{v}", will) for v, will in zip(new, wills, strict=True)])
            self._of |= dict(zip(new, made, strict=True))
        else:
            ways = len(self._connections)
            self._of |= {vehicle: self._connections[crc32(vehicle.encode()) % ways] for vehicle in new}

    def _while(self, holds: Callable[[], object]) -> None:
        """Move packets while it holds. Raises SinkError if the broker refuses a record, is lost, or acknowledges
        nothing for `patience_s`."""
        flight, target = self._flight, self._target
        answered, deadline = -1, 0.0
        while holds():
            if flight.refused:  # checked first, because a broker may hang up on a client that goes on
                raise SinkRefused(f"{target.where} refused a record (0x{flight.refused:02x}); check our rights")
            self._check()
            if flight.failed:
                raise SinkUnavailable(f"{target.where} takes no records now (0x{flight.failed:02x})")
            if answered != (answered := flight.done):
                deadline = time.monotonic() + target.patience_s
            elif time.monotonic() > deadline:
                raise SinkUnavailable(f"{target.where} has acknowledged nothing for {target.patience_s:g} s")
            self._network.turn(_TURN_S)
        if flight.refused:
            raise SinkRefused(f"{target.where} refused a record (0x{flight.refused:02x}); check our rights")

    def _check(self) -> None:
        if self._closing.is_set():
            raise SinkUnavailable(f"{self._target.where} was closed while it delivered")
        for connection in self._connections:
            if connection.lost:
                raise SinkUnavailable(f"{self._target.where}: {connection.lost}")

    def heard(self) -> float:
        with self._using:
            self._network.turn(0)
            self._check()
            heard = max(connection.heard for connection in self._connections)
            if time.monotonic() - heard > _PROBE_S:
                self._connections[0].probe(self._target.patience_s)
                self._network.turn(0)
            return heard

    def close(self) -> None:
        self._closing.set()
        with self._using:
            going = [connection for connection in self._connections if connection.farewell()]
            deadline = time.monotonic() + _FAREWELL_S
            while any(not c.silent and not c.lost for c in going) and time.monotonic() < deadline:
                self._network.turn(_TURN_S)
            for connection in self._connections:
                connection.client.disconnect()
            self._network.turn(0)
            self._connections, self._of = [], {}
            self._network.close()
            self._network = Network()


class _Flight:
    """The answers to one batch."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """For a new batch."""
        self.sent = self.done = 0
        self.refused = self.failed = 0
        self.acked_ns: list[int] = []
        self.dead: list[DeadLetter] = []

    @property
    def waiting(self) -> bool:
        return self.done < self.sent

    def answered(self, row: int, code: int) -> None:
        """The broker's answer to one record."""
        self.done += 1
        if code in _REFUSED:
            self.refused = code
        elif code in _DEAD:
            self.dead.append(DeadLetter(row, _DEAD[code]))
        elif code >= 0x80:
            self.failed = code
        else:
            self.acked_ns.append(time.time_ns())


def _will(topic: str, about: dict[str, object]) -> tuple[str, str, str]:
    return topic, json.dumps(about | {"state": "online"}), json.dumps(about | {"state": "offline"})
