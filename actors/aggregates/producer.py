"""Messages on their way to Kafka, kept until the broker has acknowledged each."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from actors.delivery.sinks import SinkRefused

_PERMANENT = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_MSG,
    KafkaError.TOPIC_EXCEPTION,
)

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True)
class _Entry:
    """`what`: the message as a complaint about it names it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    what: str


class SettlingProducer:
    """At least once: what was not acknowledged when a producer failed is sent again by a new one.

    Bound: the caller calls `settle` before it holds more than a batch.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = dict(config) | {
            "enable.idempotence": True,
            "message.timeout.ms": 0,  # no message is ever given up; the caller decides how long to wait
            "message.max.bytes": 1_000_000_000,  # the topic's own limit decides, and can be raised
            "linger.ms": 5,
        }
        self._producer = Producer(self._config)
        self._numbers = itertools.count()
        self._waiting: dict[int, _Entry] = {}
        self._failure: tuple[_Entry, KafkaError] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, what: str) -> None:
        """Send, without waiting. `what`: the message as a complaint about it names it."""
        number = next(self._numbers)
        self._waiting[number] = _Entry(topic, key, value, headers, what)
        self._send(number)

    def _send(self, number: int) -> None:
        entry = self._waiting[number]
        done = functools.partial(self._on_delivery, number)
        try:
            self._producer.produce(
                entry.topic, value=entry.value, key=entry.key, headers=entry.headers, on_delivery=done
            )
        except KafkaException as error:
            self._failure = entry, error.args[0]
        except BufferError:
            self._failure = entry, KafkaError(KafkaError._QUEUE_FULL)

    def _on_delivery(self, number: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._waiting.pop(number, None)
        elif self._failure is None or self._failure[1].code() not in _PERMANENT:
            # After the refusal of one, others fail that were on their way with it: the first says why.
            self._failure = self._waiting[number], error

    def settle(self, timeout_s: float) -> bool:
        """Wait for the acknowledgements; whether all have come. Raises SinkRefused for what waiting cannot mend."""
        self._producer.flush(timeout_s)
        failure, self._failure = self._failure, None
        if failure is not None:
            entry, error = failure
            if error.code() in _PERMANENT:
                raise SinkRefused(
                    f"topic {entry.topic} refuses {entry.what} of {len(entry.value or b''):,} bytes ({error.str()}); "
                    "check its max.message.bytes and our rights"
                )
            # After a fatal error a producer never takes another message.
            self._producer = Producer(self._config)
            for number in list(self._waiting):
                self._send(number)
            self._producer.flush(timeout_s)
        return not self._waiting
