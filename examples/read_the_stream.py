"""Scenario: you build a consumer of the telemetry topic, and want to see its first messages decoded.

Any Kafka client works. The key is the vehicle, the header `id` names the record, and the value is JSON or Avro. Our
decoder tells them apart and checks every field.

    .venv/bin/python examples/read_the_stream.py 127.0.0.1:9092 10
"""

from __future__ import annotations

import sys

from kafka import KafkaConsumer

from datasets.codec import Malformed, decode


def main(servers: str, messages: str = "10") -> None:
    """Print the first `messages` messages of the topic. End earlier if none comes for ten seconds."""
    consumer = KafkaConsumer(
        "ev-telemetry", bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    try:
        for count, message in enumerate(consumer, start=1):
            identity = dict(message.headers).get("id", b"").decode()
            try:
                record = decode(bytes(message.value), "telemetry")
            except Malformed as error:
                print(f"{identity}: {error}")
            else:
                print(f"{identity}: {record['ts']:%H:%M:%S} {record['mode']}, SoC {record['soc']:.3f}")
            if count == int(messages):
                break
    finally:
        consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
