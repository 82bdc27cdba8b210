"""`twin consume` against a bare client of the same topic: records per second, JSON and Avro.

python benchmarks/consume.py [--quick]
Prints and writes benchmarks/results/consume.json. The bare client is confluent-kafka, parsing each message (orjson,
fastavro) and does nothing with it. Ours also checks every field, counts each record once, and writes the minutes to
PostgreSQL and their topic. Rounds are interleaved, and medians are shown. A round is timed from the first record to the
last one; joining the group takes a few seconds before that.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from actors.aggregates.consumer import ConsumePlan, FleetConsumer
from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from benchmarks import parser, results_of, server
from benchmarks.payload import raw_decoders
from datasets.codec import encode
from datasets.schema import PAYLOADS, Payload
from tests.services import Kafka, Postgres
from tests.support import make_batch


@dataclass(frozen=True)
class Size:
    """Five minutes of a thousand vehicles, and how often they are read."""

    vehicles: int = 1_000
    samples: int = 150
    rounds: int = 3

    @property
    def records(self) -> int:
        return self.vehicles * self.samples


QUICK = Size(samples=10, rounds=1)


def fill(servers: str, topic: str, payload: Payload, size: Size) -> None:
    """Make the topic and fill it with all records to be read."""
    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.create_topics([NewTopic(topic, 4, 1)]).values():
        future.result()
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    for first in range(0, size.samples, 10):
        messages = encode(make_batch(size.vehicles, range(first, first + 10)), "telemetry", payload)
        for key, value in zip(messages.vehicle_ids, messages.values, strict=True):
            producer.produce(topic, value=value, key=key)
        producer.flush()


def bare(servers: str, topic: str, decode: Callable[[bytes], Any], records: int) -> float:
    """Records per second of a client that only parses them."""
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": f"bare-{time.time_ns()}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    seen, begun = 0, 0.0
    while seen < records:
        messages = consumer.consume(2000, timeout=0.2)
        if messages and not begun:
            begun = time.perf_counter()
        for message in messages:
            assert message.error() is None
            decode(message.value() or b"")
        seen += len(messages)
    took = time.perf_counter() - begun
    consumer.close()
    return records / took


def ours(servers: str, topic: str, database: str, records: int) -> float:
    """Records per second of `twin consume`, from the first one counted until all are written and committed."""
    plan = ConsumePlan(
        KafkaTarget.parse(servers, SinkOptions()),
        TimescaleTarget.parse(database, SinkOptions()),
        group=f"ours-{time.time_ns()}",
        topic=topic,
    )
    consumer, stop = FleetConsumer(plan), threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,))
    thread.start()
    counts = consumer.windows.counts
    while not counts.counted:
        assert thread.is_alive(), "it ended before it had counted anything"
        time.sleep(0.001)
    first, begun = counts.counted, time.perf_counter()
    while counts.counted < records:
        assert thread.is_alive(), f"it ended at {counts.counted:,} of {records:,} records"
        time.sleep(0.005)
    stop.set()
    thread.join()
    return (records - first) / (time.perf_counter() - begun)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    size = QUICK if arguments.quick else Size()
    table: dict[str, dict[str, float]] = {}
    with server(Kafka) as kafka, server(Postgres) as postgres:
        for payload in PAYLOADS:
            topic = f"bench-{payload}"
            fill(kafka.bootstrap_servers, topic, payload, size)
            rounds = []
            for number in range(size.rounds):
                database = postgres.create_database(f"consume_{payload}_{number}")
                rounds.append(
                    (
                        ours(kafka.bootstrap_servers, topic, database, size.records),
                        bare(kafka.bootstrap_servers, topic, raw_decoders()[payload], size.records),
                    )
                )
            table[payload] = {
                "ours": statistics.median(mine for mine, _ in rounds),
                "bare": statistics.median(theirs for _, theirs in rounds),
                "ratio": statistics.median(mine / theirs for mine, theirs in rounds),
            }
            row = table[payload]
            print(
                f"{payload:<6} twin consume {row['ours']:9,.0f} records/s, bare client {row['bare']:9,.0f}, "
                f"ratio {row['ratio']:.2f}"
            )
    results_of("consume", arguments).write(table)


if __name__ == "__main__":
    main()
