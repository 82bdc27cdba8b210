"""The sink protocol and its errors.

SinkError
├── SinkUnavailable   not reachable, or no acknowledgement in time: trying again later can help
└── SinkRefused       the peer answered no (password, permission, no such database): a person has to change something
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from datasets.names import Payload, Stream

if TYPE_CHECKING:
    import pyarrow as pa  # settings import this file, so it stays light

BATCH_ROWS = 5_000

_PARAMETER = re.compile(r"([?&])([^=&]*)=([^&]*)")
_SECRET_NAMES = ("password", "secret", "token")  # also within a longer name: sslpassword, oauth_client_secret
_MASKED = "***"


class SinkError(Exception):
    """A batch was not acknowledged. The message says what was expected, what came and what to do."""


class SinkUnavailable(SinkError):
    """Retriable: the peer is down, unreachable or slow."""


class SinkRefused(SinkError):
    """Not worth retrying until somebody changes a setting; a running shipper still retries, slowly."""


@dataclass(frozen=True)
class SinkOptions:
    """What a target is told besides its address. `retain`: an MQTT broker keeps each vehicle's last record.
    `clients`: MQTT connections of a node, 0 for one a vehicle. `connections`: most database connections of a run.
    `kafka_config`: the file of properties of Kafka's clients, "" for none. `partitions`, `replication`: of Kafka topics
    that are not there yet, -1 for the broker's own."""

    payload: Payload = "json"
    retain: bool = False
    clients: int = 1
    connections: int = 90
    kafka_config: str = ""
    partitions: int = -1
    replication: int = -1


@dataclass(frozen=True)
class DeadLetter:
    """A record that the peer rejects individually (too large, a value it cannot hold): `row` in the batch, and why."""

    row: int
    reason: str


@dataclass(frozen=True)
class Receipt:
    """What became of a batch: all rows but the `dead` are acknowledged. The peer already had `duplicates` of them.

    `acked_ns` has the times of the single acknowledgements [ns since the epoch], if the peer acknowledges singly.
    """

    duplicates: int = 0
    dead: tuple[DeadLetter, ...] = ()
    acked_ns: Sequence[int] = ()


class Sink(Protocol):
    """One connection (or several) to a peer, for one stream. One thread uses it; only `close` may come from another."""

    def open(self) -> None:
        """Connect and prepare (topics, tables). Raises SinkError if that fails."""

    def position(self, shard: int) -> int | None:
        """How far the peer itself says this log was delivered; None for a peer that keeps no cursor of ours."""

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        """Deliver all rows; return when every one is acknowledged or rejected individually.

        `position` is the log position at the end of the batch, for a sink that keeps the cursor in its own transaction.
        After a SinkError the same whole batch may be delivered again: a sink never assumes it comes only once. If the
        peer makes no progress for the target's `patience_s`, this raises SinkUnavailable.
        """

    def heard(self) -> float:
        """When the peer gave its last sign of life [s of time.monotonic]. Raises SinkError if it is lost.

        Called several times a second, also while there is nothing to deliver.
        """

    def close(self) -> None:
        """Close the connection, also during a `deliver` in another thread (which then raises). Never raises."""


class Target(Protocol):
    """The settings of one sink: picklable, frozen, secrets hidden from repr."""

    @classmethod
    def parse(cls, address: str, options: SinkOptions) -> Self:
        """From the text of a setting. A malformed text raises a one-line ValueError."""

    @property
    def name(self) -> str:
        """The name of its kind, as in `SINKS`."""

    @property
    def url(self) -> str:
        """The address as the peer's clients take it, with its secrets."""

    @property
    def peer(self) -> str:
        """Which peer it is: its address without secrets. Cursors belong to it."""

    @property
    def batch_rows(self) -> int:
        """Most rows of one delivery."""

    @property
    def keeps_position(self) -> bool:
        """Whether only the peer says how far it is. Rows must not come to it in other batches than before."""

    @property
    def rewind_s(self) -> float:
        """For how long a dying peer may forget what it has acknowledged [s]; 0 if it never does."""

    def for_nodes(self, nodes: int) -> Self:
        """The target as each of so many nodes uses it. A one-line ValueError where the peer is not to have so many."""

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> Sink:
        """A sink for one stream of the log `log_id` (one run directory). `part` distinguishes sinks that ship parts."""

    def check(self) -> str:
        """What answers there and its version, in one line. Raises SinkError if nothing usable does."""


def reader_of(target: Target) -> str:
    """The name of this peer's cursors and dead letters, also as a folder: `kafka@127.0.0.1:9092`."""
    return f"{target.name}@{quote(target.peer, safe=':,@[]')}"


def split_url(text: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """Parse `text`. A malformed one raises a one-line ValueError with `example`."""
    expected = f"expected {example}"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise ValueError(f"{expected}, got {mask(text)!r} ({error})") from None
    if url.scheme not in schemes or not url.hostname or port == 0 or any(c.isspace() for c in text):
        raise ValueError(f"{expected}, got {mask(text)!r}")
    if re.search(r"%(?![0-9A-Fa-f]{2})", url.query) or "#" in text:
        # A client would cut a password here, or complain and show it.
        raise ValueError(f"{expected}, with % written as %25 and # as %23, got {mask(text)!r}")
    return url


def mask(url: str) -> str:
    """A URL with its secrets as ***, in front of the host and in the query, even if the rest of it is malformed; other
    text unchanged."""
    place, question, query = url.partition("?")
    if "@" not in place:  # then the question mark may be part of a password
        place, question, query = url, "", ""
    head, at, tail = place.rpartition("@")
    if at:
        scheme, slashes, user = head.rpartition("://")
        name, colon, _ = user.partition(":")
        place = f"{scheme}{slashes}{name}{f':{_MASKED}' if colon else ''}@{tail}"
    return _PARAMETER.sub(_masked, place + question + query)


def _masked(parameter: re.Match[str]) -> str:
    sign, name, value = parameter.groups()
    secret = any(word in unquote(name).lower() for word in _SECRET_NAMES)
    return f"{sign}{name}={_MASKED if secret else value}"


def unmasked(url: str) -> str:
    """What `mask` has shown, without what it masked, for the secrets to come from elsewhere; other text unchanged."""
    place, question, query = url.replace(f":{_MASKED}@", "@").partition("?")
    kept = [part for part in query.split("&") if not part.endswith(f"={_MASKED}")]
    return place + (question if kept else "") + "&".join(kept)
