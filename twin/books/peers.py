"""Counts independently what reached a peer. Asks the peer itself, and shares nothing with the sinks that delivered.

Reads only identities. Kafka is read with kafka-python, while the sink writes with confluent-kafka.
Kafka: the header `id` of every message on the topic. Database: the key columns. MQTT: the broker keeps nothing, so this
reads the archive of a subscriber that was there in time (`twin archive`).
"""

from __future__ import annotations

import io
import time
from array import array
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import psycopg2
import pyarrow as pa
import pyarrow.csv as pa_csv
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from datasets.codec import Malformed, decode
from datasets.schema import STREAMS, Stream, vehicle_index
from twin.books.messages import messages

# The level of an MQTT topic before the vehicle.
_LEVELS: dict[str, Stream] = {"telemetry": "telemetry", "prediction": "predictions"}
_SECURITY: Final = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
}
"""librdkafka's names in kafka-python's."""
_EXAMPLES = 3
_SHIFT = 38


class PeerSilent(Exception):
    """A peer could not be asked; the message says why, in one line."""


@dataclass
class Seen:
    """Identities of one run in the order they were received: parallel arrays of vehicle and seq."""

    ordered: bool
    vehicles: array[int] = field(default_factory=lambda: array("q"))
    seqs: array[int] = field(default_factory=lambda: array("q"))
    unreadable: int = 0

    def take(self, vehicle: str, seq: int) -> None:
        """One more record."""
        index = _index(vehicle)
        if index < 0 or not 0 <= seq < 1 << _SHIFT:
            self.unreadable += 1
            return
        self.vehicles.append(index)
        self.seqs.append(seq)


@dataclass(frozen=True)
class Count:
    """What a peer has of one stream, against what it should have. `differences` names some vehicles, in words."""

    received: int
    repeated: int
    missing: int
    unknown: int
    disordered: int
    differences: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, unknown or out of order."""
        return not (self.missing or self.unknown or self.disordered)


def compare(
    seen: Seen,
    made: tuple[np.ndarray, np.ndarray],
    expected: tuple[np.ndarray, np.ndarray],
    *,
    repeats_are_wrong: bool = False,
) -> Count:
    """Count per vehicle. `made`: (vehicle, seq) of every record there is; `expected`: of those that must have arrived.

    A record that arrived, but whose acknowledgement was lost, is neither missing nor unknown.
    """
    keys = _keys(np.frombuffer(seen.vehicles, np.int64), np.frombuffer(seen.seqs, np.int64))
    unique, first_at = np.unique(keys, return_index=True)
    missing = np.setdiff1d(_keys(*expected), unique, assume_unique=True)
    unknown = np.setdiff1d(unique, _keys(*made), assume_unique=True)
    repeated = keys.size - unique.size
    disordered = np.empty(0, np.int64)
    if seen.ordered and unique.size:
        # `unique` is ordered by vehicle, then seq. Where that is not the order of arrival, one overtook another.
        backwards = (np.diff(first_at) < 0) & (np.diff(unique >> _SHIFT) == 0)
        disordered = np.unique(unique[1:][backwards] >> _SHIFT)
    differences = [
        *_words("missing", missing),
        *_words("unknown", unknown),
        *(f"EV-{vehicle:06d}: not in the order of seq" for vehicle in disordered[:_EXAMPLES]),
    ]
    if repeats_are_wrong and repeated:
        values, counts = np.unique(keys, return_counts=True)
        differences += _words("stored twice", values[counts > 1])
    if seen.unreadable:
        differences.append(f"{seen.unreadable:,} without vehicle and seq that can be read")
    return Count(
        received=keys.size,
        repeated=repeated,
        missing=missing.size,
        unknown=unknown.size + seen.unreadable + (repeated if repeats_are_wrong else 0),
        disordered=disordered.size,
        differences=tuple(differences),
    )


def _index(vehicle: str) -> int:
    """The vehicle's number; -1 where none of ours has that name."""
    try:
        index = vehicle_index(vehicle)
    except ValueError:
        return -1
    return index if 0 <= index < 1 << (63 - _SHIFT) else -1


def _keys(vehicles: np.ndarray, seqs: np.ndarray) -> np.ndarray:
    """One integer per record, for up to 33 million vehicles with 10^11 records each."""
    return (vehicles.astype(np.int64) << _SHIFT) | seqs.astype(np.int64)


def _words(what: str, keys: np.ndarray) -> list[str]:
    """`EV-000042: missing 3, seq 17 to 19` for the first few vehicles."""
    keys = np.sort(keys)
    vehicles, starts = np.unique(keys >> _SHIFT, return_index=True)
    said = []
    for number, vehicle in enumerate(vehicles[:_EXAMPLES]):
        end = starts[number + 1] if number + 1 < len(starts) else keys.size
        seqs = keys[starts[number] : end] & ((1 << _SHIFT) - 1)
        said.append(f"EV-{vehicle:06d}: {what} {seqs.size:,}, seq {seqs[0]} to {seqs[-1]}")
    return said


# ---- the peers


def kafka(
    servers: str,
    run_id: str,
    topics: Mapping[str, Stream],
    properties: Mapping[str, str] = MappingProxyType({}),
    patience_s: float = 30.0,
) -> dict[Stream, Seen]:
    """Read the topics from their beginning to where they end now. PeerSilent where the broker does not answer.

    `servers`: host:port[,host:port]. `properties`: in librdkafka's names; those of security count here.
    """
    secured: dict[str, Any] = {ours: properties[theirs] for theirs, ours in _SECURITY.items() if theirs in properties}
    checks_host = properties.get("ssl.endpoint.identification.algorithm") != "none"
    found: dict[Stream, Seen] = {stream: Seen(ordered=True) for stream in STREAMS}
    prefix = f"{run_id}/"
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=servers.split(","),
            **secured,
            ssl_check_hostname=checks_host,
            client_id="ev-twin-ledger",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=64 << 20,
            max_partition_fetch_bytes=8 << 20,
            request_timeout_ms=round(patience_s * 1000),
            bootstrap_timeout_ms=round(patience_s * 1000),
        )
    except KafkaError as error:
        raise PeerSilent(
            f"Kafka at {servers} does not answer ({_named(error)}); is the broker running there?"
        ) from error
    try:
        streams = {topic: stream for topic, stream in topics.items() if topic in consumer.topics()}
        parts = [
            TopicPartition(topic, n) for topic in streams for n in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        if not parts:  # no topic yet: nobody has delivered anything
            return found
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        unread = {part: end for part, end in consumer.end_offsets(parts).items() if end > 0}
        heard = time.monotonic()
        # Positions, not message offsets, because the last offset may be a transaction's marker, which is no message.
        while unread := {part: end for part, end in unread.items() if consumer.position(part) < end}:
            batches = consumer.poll(timeout_ms=200, max_records=5000)
            if batches:
                heard = time.monotonic()
            elif time.monotonic() - heard > patience_s:
                raise PeerSilent(
                    f"Kafka at {servers} sent nothing for {patience_s:.0f} s, with {len(unread)} "
                    "partitions not read to their end; is the broker healthy?"
                )
            for part, records in batches.items():
                seen, end = found[streams[part.topic]], unread.get(part, 0)
                for record in records:
                    identity = dict(record.headers).get("id") if record.offset < end else None
                    text = identity.decode(errors="replace") if isinstance(identity, bytes) else ""
                    if text.startswith(prefix):
                        vehicle, _, seq = text.removeprefix(prefix).partition("/")
                        seen.take(vehicle, int(seq) if seq.isdecimal() else -1)
    except KafkaError as error:
        raise PeerSilent(f"Kafka at {servers} does not answer ({_named(error)})") from error
    finally:
        consumer.close()
    return found


def _named(error: KafkaError) -> str:
    return f"{type(error).__name__}: {error}"


def database(url: str, run_id: str) -> dict[Stream, Seen]:
    """The keys of the run's rows. A table has no order of arrival. PeerSilent where there is no answer."""
    found: dict[Stream, Seen] = {}
    try:
        with (
            closing(psycopg2.connect(url, application_name="ev-twin-ledger")) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            for stream in STREAMS:
                found[stream] = Seen(ordered=False)
                cursor.execute("SELECT to_regclass(%s)", (stream,))
                row = cursor.fetchone()
                if row is None or row[0] is None:
                    continue
                content = io.BytesIO()
                query = cursor.mogrify(
                    f"COPY (SELECT vehicle_id, seq FROM {stream} WHERE run_id = %s) TO STDOUT (FORMAT csv)", (run_id,)
                )
                cursor.copy_expert(query, content)
                if content.tell():
                    found[stream] = _from_csv(content)
    except psycopg2.Error as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PeerSilent(f"the database does not answer: {said}") from error
    return found


def _from_csv(content: io.BytesIO) -> Seen:
    content.seek(0)
    table = pa_csv.read_csv(
        content,
        pa_csv.ReadOptions(column_names=["vehicle_id", "seq"]),
        convert_options=pa_csv.ConvertOptions(
            column_types={"vehicle_id": pa.dictionary(pa.int32(), pa.string()), "seq": pa.int64()}
        ),
    ).unify_dictionaries()
    seen = Seen(ordered=False)
    for batch in table.to_batches():
        names = batch.column("vehicle_id")
        numbers = np.array([_index(name) for name in names.dictionary.to_pylist()], np.int64)
        vehicles, seqs = numbers[names.indices.to_numpy()], batch.column("seq").to_numpy()
        known = (vehicles >= 0) & (seqs >= 0) & (seqs < 1 << _SHIFT)
        seen.unreadable += int((~known).sum())
        seen.vehicles.frombytes(vehicles[known].tobytes())
        seen.seqs.frombytes(seqs[known].tobytes())
    return seen


def archive(directory: Path, run_id: str) -> dict[Stream, Seen]:
    """What `twin archive` has written of the run."""
    found: dict[Stream, Seen] = {stream: Seen(ordered=True) for stream in STREAMS}
    for topic, payload in messages(directory):
        stream = _LEVELS.get(topic.split("/")[-2]) if "/" in topic else None
        if stream is None or not payload:  # an empty one has a broker forget what it kept; it is no record
            continue
        try:
            record = decode(payload, stream)
        except Malformed:
            found[stream].unreadable += 1
            continue
        if record["run_id"] == run_id:
            found[stream].take(record["vehicle_id"], record["seq"])
    return found
