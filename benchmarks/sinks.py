"""Each sink against its bare client on the same server; bursts; rows into compressed chunks of TimescaleDB.

Prints and writes benchmarks/results/sinks.json. The servers are real (`tests.services`). They are started here and
share the machine with the clients. A ratio is a median over the rounds of one run, in which the two sides take turns.

python benchmarks/sinks.py [--quick] [kafka mqtt timescale burst chunks]
"""

from __future__ import annotations

import io
import logging
import shutil
import statistics
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)

import numpy as np  # noqa: E402
import paho.mqtt.client as mqtt  # noqa: E402
import psycopg2  # noqa: E402
import pyarrow as pa  # noqa: E402
from confluent_kafka import Producer  # noqa: E402
from kafka import KafkaProducer  # noqa: E402
from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402

from actors.delivery.shipper import Shipper  # noqa: E402
from actors.delivery.sinks import Sink, SinkOptions, Target  # noqa: E402
from actors.delivery.sinks.kafka import KafkaTarget  # noqa: E402
from actors.delivery.sinks.mqtt import MqttTarget  # noqa: E402
from actors.delivery.sinks.timescale import TimescaleTarget, migrate  # noqa: E402
from benchmarks import all_sinks, parser, results_of, server  # noqa: E402
from datasets.codec import encode_csv, encode_json  # noqa: E402
from datasets.log import LogWriter, log_directory  # noqa: E402
from datasets.schema import FIELDS  # noqa: E402
from tests.services import Kafka, Mosquitto, Postgres, TimescaleDB  # noqa: E402
from tests.support import make_batch  # noqa: E402

VEHICLES = 1_000
NAMES = ", ".join(field.name for field in FIELDS["telemetry"])
Rates = dict[str, list[float]]
Message = tuple[bytes, bytes, list[tuple[str, str | bytes | None]]]


@dataclass(frozen=True)
class Size:
    """Records per batch, rounds of each part, bursts (and how many precede those that count), rows per statement."""

    batch: int = 5_000
    kafka: int = 12
    mqtt: int = 8
    timescale: int = 24
    again: int = 8
    bursts: int = 40
    settling: int = 5
    chunk_rows: int = 4_000


QUICK = Size(batch=1_000, kafka=1, mqtt=1, timescale=1, again=1, bursts=1, settling=1, chunk_rows=100)


def batches(rounds: int, run_id: str, size: int) -> list[pa.RecordBatch]:
    """New records for each round, in batches as the shipper takes them from the log."""
    each = size // VEHICLES
    return [make_batch(VEHICLES, range(n * each, (n + 1) * each), run_id=run_id) for n in range(rounds)]


def timed(work: Callable[[], object], records: int, cpu_us: list[float] | None = None) -> float:
    """Records per second. Adds to `cpu_us` the CPU time of all our threads per record."""
    begun, begun_cpu = time.perf_counter(), time.process_time()
    work()
    rate = records / (time.perf_counter() - begun)
    if cpu_us is not None:
        cpu_us.append((time.process_time() - begun_cpu) / records * 1e6)
    return rate


def medians(rates: Rates) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in rates.items()}


def ratio(rates: Rates, ours: str, theirs: str) -> float:
    """The median over rounds of our rate divided by theirs in the same round."""
    return statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))


def opened(target: Target) -> Sink:
    sink = target.sink("benchmark", "telemetry")
    sink.open()
    return sink


def shipped(target: Target, data: list[pa.RecordBatch]) -> float:
    """Records per second of the whole path: a shipper that is connected, and reads a log from disk."""
    with tempfile.TemporaryDirectory() as name:
        made, run = Path(name) / "made", Path(name) / "run"
        writer = LogWriter(log_directory(made, "telemetry", 0))
        for number, batch in enumerate(data):
            writer.append(batch, number)
        total = sum(int(batch.num_rows) for batch in data)
        run.mkdir()
        shipper = Shipper(target, run, uuid.uuid4().hex, {0: (0, 0)})
        shipper.start()
        while ("telemetry", 0) not in shipper.status().cursors:
            time.sleep(0.005)
        copied = shutil.copytree(made / "telemetry", Path(name) / "copied")
        begun = time.perf_counter()
        copied.rename(run / "telemetry")
        while shipper.status().delivered("telemetry") < total:
            time.sleep(0.005)
        rate = total / (time.perf_counter() - begun)
        shipper.stop()
        writer.close()
        return rate


def bare_confluent(producer: Producer, topic: str, messages: list[Message]) -> None:
    failed: list[Any] = []

    def report(error: object, _message: object) -> None:
        if error is not None:
            failed.append(error)

    for value, key, headers in messages:
        producer.produce(topic, value, key, headers=headers, on_delivery=report)
    assert producer.flush(60) == 0
    assert not failed


def bare_kafka_python(producer: KafkaProducer, topic: str, messages: list[Message]) -> None:
    futures = [producer.send(topic, value, key=key, headers=headers) for value, key, headers in messages]
    producer.flush(60)
    for future in futures:
        future.get(timeout=0)


def kafka(size: Size) -> dict[str, Any]:
    """The sink encodes, while the bare clients get bytes. All use the same settings, topic and broker."""
    rates: Rates = {name: [] for name in ("sink", "shipper", "kafka-python", "confluent-kafka")}
    cpu_us: Rates = {name: [] for name in rates}
    with server(Kafka) as broker:
        target, topic = KafkaTarget.parse(broker.bootstrap_servers, SinkOptions()), "ev-telemetry"
        sink = opened(target)
        common = {"linger_ms": 5, "batch_size": 256 << 10, "acks": "all", "enable_idempotence": True}
        python = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **common)
        confluent = Producer(
            {"bootstrap.servers": broker.bootstrap_servers}
            | {name.replace("_", "."): value for name, value in common.items()}
            | {"partitioner": "murmur2_random"}
        )
        for number, batch in enumerate(batches(size.kafka + 2, "kafka", size.batch)):
            encoded = encode_json(batch, "telemetry")
            messages: list[Message] = [
                (value, key.encode(), [("id", identity.encode())])
                for value, key, identity in zip(encoded.values, encoded.vehicle_ids, encoded.ids, strict=True)
            ]
            found = {
                "sink": timed(lambda: sink.deliver(0, batch, 0), size.batch, cpu_us["sink"]),  # noqa: B023
                "kafka-python": timed(
                    lambda: bare_kafka_python(python, topic, messages),  # noqa: B023
                    size.batch,
                    cpu_us["kafka-python"],
                ),
                "confluent-kafka": timed(
                    lambda: bare_confluent(confluent, topic, messages),  # noqa: B023
                    size.batch,
                    cpu_us["confluent-kafka"],
                ),
                "shipper": shipped(target, [batch] * 6),
            }
            if number >= 2:  # the topic is made, the code is warm
                for name, rate in found.items():
                    rates[name].append(rate)
        sink.close()
        python.close()
        confluent.close()
    result = medians(rates) | {
        "sink_over_kafka_python": ratio(rates, "sink", "kafka-python"),
        "shipper_over_kafka_python": ratio(rates, "shipper", "kafka-python"),
        "sink_over_confluent": ratio(rates, "sink", "confluent-kafka"),
        "shipper_over_confluent": ratio(rates, "shipper", "confluent-kafka"),
    }
    result |= {f"{name}_cpu_us": statistics.median(values) for name, values in cpu_us.items() if values}
    print(f"Kafka, {size.batch:,} records a batch, acks=all, idempotent, records/s (and our CPU for each)")
    print(f"  our sink, encoding included     {result['sink']:9,.0f}  ({result['sink_cpu_us']:.1f} us)")
    print(f"  our shipper, from the log       {result['shipper']:9,.0f}")
    print(f"  kafka-python 3.0, encoded       {result['kafka-python']:9,.0f}  ({result['kafka-python_cpu_us']:.1f} us)")
    print(f"  confluent-kafka 2.16, encoded   {result['confluent-kafka']:9,.0f}"
          f"  ({result['confluent-kafka_cpu_us']:.1f} us)")  # fmt: skip
    for ours in ("sink", "shipper"):
        over_python, over_confluent = result[f"{ours}_over_kafka_python"], result[f"{ours}_over_confluent"]
        print(f"  {ours} / kafka-python {over_python:.2f}, {ours} / confluent-kafka {over_confluent:.2f}")
    return result


def mqtt_(size: Size) -> dict[str, Any]:
    """Both use QoS 1 with 1,000 messages in flight. `own`: each of the vehicles has its own connection."""
    rates: Rates = {name: [] for name in ("sink", "own", "shipper", "paho")}
    with server(Mosquitto) as broker:
        target = MqttTarget.parse(f"mqtt://127.0.0.1:{broker.port}", SinkOptions())
        sink = opened(target)
        own = MqttTarget.parse(f"mqtt://127.0.0.1:{broker.port}", SinkOptions(clients=0)).sink("own", "telemetry")
        own.open()
        bare = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare")
        bare.max_inflight_messages_set(1000)
        bare.max_queued_messages_set(0)
        bare.connect("127.0.0.1", broker.port)
        bare.loop_start()
        for number, batch in enumerate(batches(size.mqtt + 1, "mqtt", size.batch)):
            encoded = encode_json(batch, "telemetry")

            def publish(encoded: Any = encoded) -> None:
                waiting = [
                    bare.publish("ev/battery/telemetry/" + vehicle, value, qos=1)
                    for vehicle, value in zip(encoded.vehicle_ids, encoded.values, strict=True)
                ]
                for message in waiting:
                    message.wait_for_publish(60)

            found = {
                "sink": timed(lambda: sink.deliver(0, batch, 0), size.batch),  # noqa: B023
                "own": timed(lambda: own.deliver(0, batch, 0), size.batch),  # noqa: B023
                "paho": timed(publish, size.batch),
                "shipper": shipped(target, [batch] * 2),
            }
            if number:
                for name, rate in found.items():
                    rates[name].append(rate)
        sink.close()
        own.close()
        bare.disconnect()
        bare.loop_stop()
    result = medians(rates) | {
        "sink_over_paho": ratio(rates, "sink", "paho"),
        "own_over_paho": ratio(rates, "own", "paho"),
        "shipper_over_paho": ratio(rates, "shipper", "paho"),
    }
    print("MQTT, QoS 1, 1,000 in flight, records/s")
    print(f"  our sink, encoding included     {result['sink']:9,.0f}")
    print(f"  {VEHICLES:,} connections, one a vehicle {result['own']:9,.0f}")
    print(f"  our shipper, from the log       {result['shipper']:9,.0f}")
    print(f"  paho 2.2, encoded               {result['paho']:9,.0f}")
    print(f"  sink / paho {result['sink_over_paho']:.2f}, shipper / paho {result['shipper_over_paho']:.2f}")
    return result


def timescale(size: Size) -> dict[str, Any]:
    """PostgreSQL with our tables. The peer is COPY of ready CSV into a table made LIKE ours, one commit per batch."""
    rates: Rates = {name: [] for name in ("sink", "shipper", "copy", "again")}
    with server(Postgres) as database:
        target = TimescaleTarget.parse(database.url(), SinkOptions())
        sink = opened(target)
        with closing(psycopg2.connect(target.url)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE bare (LIKE telemetry INCLUDING ALL)")
            connection.commit()
            for number, batch in enumerate(batches(size.timescale + 2, "sink", size.batch)):
                csv = encode_csv(batch, "telemetry").to_pybytes()
                position = (number + 1) * size.batch

                def copy(csv: bytes = csv) -> None:
                    cursor.copy_expert(f"COPY bare ({NAMES}) FROM STDIN (FORMAT csv)", io.BytesIO(csv))
                    connection.commit()

                found = {
                    "sink": timed(lambda: sink.deliver(0, batch, position), size.batch),  # noqa: B023
                    "copy": timed(copy, size.batch),
                    "shipper": shipped(target, batches(4, f"shipper-{number}", size.batch)),
                }
                if number >= 2:
                    for name, rate in found.items():
                        rates[name].append(rate)
        for batch in batches(size.again, "sink", size.batch):
            rates["again"].append(timed(lambda: sink.deliver(0, batch, 0), size.batch))  # noqa: B023
        sink.close()
    again = rates.pop("again")
    result = medians(rates) | {
        "again": statistics.median(again),
        "sink_over_copy": ratio(rates, "sink", "copy"),
        "shipper_over_copy": ratio(rates, "shipper", "copy"),
    }
    print(f"PostgreSQL, {size.batch:,} rows a commit, the same primary key, rows/s")
    print(f"  our sink, encoding included     {result['sink']:9,.0f}")
    print(f"  our shipper, from the log       {result['shipper']:9,.0f}")
    print(f"  our sink, all rows there before {result['again']:9,.0f}")
    print(f"  bare COPY of ready CSV          {result['copy']:9,.0f}")
    print(f"  sink / COPY {result['sink_over_copy']:.2f}, shipper / COPY {result['shipper_over_copy']:.2f}")
    return result


def burst(size: Size) -> dict[str, Any]:
    """1,000 vehicles report at one instant. Times from append to acknowledgement, for each sink alone and all three."""
    with all_sinks() as sinks:
        targets: dict[str, Target] = {
            "kafka": KafkaTarget.parse(sinks.settings["kafka"], SinkOptions()),
            "mqtt": MqttTarget.parse(sinks.settings["mqtt"], SinkOptions()),
            "timescale": TimescaleTarget.parse(sinks.settings["timescale"], SinkOptions()),
        }
        result = {f"{name}_alone": bursts_to([target], size)[0] for name, target in targets.items()}
        together = bursts_to(list(targets.values()), size)
        result |= {f"{name}_together": found for name, found in zip(targets, together, strict=True)}
    print("1,000 records at one instant, append to acknowledgement, p50 / p99 ms")
    for name in targets:
        alone, all_three = result[f"{name}_alone"], result[f"{name}_together"]
        print(f"  {name:<10} alone {alone['p50_ms']:6.1f} / {alone['p99_ms']:6.1f}"
              f"   all three at once {all_three['p50_ms']:6.1f} / {all_three['p99_ms']:6.1f}")  # fmt: skip
    return result


class _Timed(Shipper):
    """A shipper that keeps every latency, while the real one keeps a histogram."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.latencies_ms: list[np.ndarray] = []

    def _count_latency(self, frames: Any, receipt: Any, done_ns: int) -> None:
        due_ns = np.repeat([frame.due_ns for frame in frames], [frame.batch.num_rows for frame in frames])
        times = np.asarray(receipt.acked_ns if len(receipt.acked_ns) else [done_ns] * len(due_ns))
        self.latencies_ms.append((times - due_ns) / 1e6)


def bursts_to(targets: list[Target], size: Size) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as name:
        log_id = uuid.uuid4().hex
        writer = LogWriter(log_directory(Path(name), "telemetry", 0))
        shippers = [_Timed(target, Path(name), log_id, {0: (0, 0)}) for target in targets]
        for shipper in shippers:
            shipper.start()
        for number, batch in enumerate(batches(size.bursts + size.settling, log_id, VEHICLES)):
            writer.append(batch, number)
            time.sleep(0.25)
            while any(s.status().delivered("telemetry") < (number + 1) * VEHICLES for s in shippers):
                time.sleep(0.01)
        threads = [threading.Thread(target=shipper.stop) for shipper in shippers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()
    found = [np.concatenate(shipper.latencies_ms[size.settling :]) for shipper in shippers]
    return [{"p50_ms": float(np.median(ms)), "p99_ms": float(np.percentile(ms, 99))} for ms in found]


def chunks(size: Size) -> dict[str, Any]:
    """TimescaleDB: rows into a plain and into a compressed chunk. It is WebAssembly, so only ratios mean something."""
    rows = size.chunk_rows
    with server(TimescaleDB) as database:
        target = TimescaleTarget.parse(database.url(), SinkOptions())
        migrate(target)
        rates: dict[str, float] = {}
        with closing(psycopg2.connect(target.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            template = make_batch(10, range(1), run_id="chunks")
            names = [field.name for field in FIELDS["telemetry"]]
            values = {name: template.column(name).to_pylist()[0] for name in names}

            def select(first: int, count: int, late_s: int) -> str:
                """The server itself makes the rows of ten vehicles, so that only the table is measured."""
                special = {
                    "vehicle_id": "'EV-' || lpad((n % 10)::text, 6, '0')",
                    "seq": f"{first} + n / 10",
                    "ts": f"timestamptz '2026-06-01Z' + interval '1 second' * ({late_s} + n / 10)",
                }
                columns = ", ".join(special.get(name, repr(values[name])) for name in names)
                return f"SELECT {columns} FROM generate_series(0, {count - 1}) n"

            def insert(first: int, late_s: int) -> float:
                sql = f"INSERT INTO telemetry ({NAMES}) {select(first, rows, late_s)} ON CONFLICT DO NOTHING"
                return timed(lambda: cursor.execute(sql), rows)

            rates["warm"] = insert(900_000, 50_000)
            rates["plain"] = insert(0, 0)
            rates["plain_again"] = insert(0, 0)
            cursor.execute("SELECT compress_chunk(c) FROM show_chunks('telemetry') c")
            rates["compressed_late"] = insert(100_000, 20_000)
            rates["compressed_again"] = insert(0, 0)
            cursor.execute("SELECT count(*), count(DISTINCT (vehicle_id, seq)) FROM telemetry")
            stored = cursor.fetchone()
            assert stored == (3 * rows, 3 * rows), stored
            refresh = "CALL refresh_continuous_aggregate('telemetry_hourly', NULL, NULL)"
            rates["refresh"] = timed(lambda: cursor.execute(refresh), 3 * rows)
    rates.pop("warm")
    print(f"TimescaleDB (WebAssembly, one thread), {rows:,} rows a statement, rows/s; in brackets: all there before")
    print(f"  into a plain chunk              {rates['plain']:9,.0f}  ({rates['plain_again']:,.0f})")
    print(f"  into a compressed chunk         {rates['compressed_late']:9,.0f}  ({rates['compressed_again']:,.0f})")
    print(f"  refresh of telemetry_hourly     {rates['refresh']:9,.0f}")
    return rates


PARTS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "kafka": kafka,
    "mqtt": mqtt_,
    "timescale": timescale,
    "burst": burst,
    "chunks": chunks,
}


def main() -> None:
    logging.getLogger("actors").setLevel(logging.ERROR)
    flags = parser(__doc__)
    flags.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    arguments = flags.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        flags.error(f"expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    size = QUICK if arguments.quick else Size()
    results_of("sinks", arguments).write({name: PARTS[name](size) for name in arguments.parts or PARTS})


if __name__ == "__main__":
    main()
