"""`twin consume` on a real Kafka and PostgreSQL: its aggregates equal those of an independent query, whatever died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import psycopg2
import psycopg2.extras
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from kafka import KafkaConsumer
from kafka import TopicPartition as Partition

from actors.aggregates.consumer import ConsumePlan, FleetConsumer
from actors.aggregates.store import WindowStore
from actors.aggregates.windows import Window
from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from datasets.codec import Messages, encode
from datasets.schema import FIELDS, PAYLOADS, Payload, json_schema
from tests.services import Kafka, Postgres
from tests.support import HANG_S, make_batch, records, wait_until
from twin import Fleet

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]

EXPECTED = """
    SELECT date_trunc('minute', ts) AS minute, count(*) AS records, count(DISTINCT vehicle_id) AS vehicles,
        avg(soc::DOUBLE) AS soc_mean, min(soc) AS soc_min, max(soc) AS soc_max,
        avg(soh) AS soh_mean, min(soh) AS soh_min,
        avg(battery_temperature::DOUBLE) AS battery_temperature_mean,
        min(battery_temperature) AS battery_temperature_min,
        max(battery_temperature) AS battery_temperature_max,
        avg(power_consumption::DOUBLE) * count(DISTINCT vehicle_id) AS power_total,
        count(*) FILTER (mode = 'parked') AS parked, count(*) FILTER (mode = 'driving') AS driving,
        count(*) FILTER (mode = 'charging') AS charging, count(*) FILTER (mode = 'fast_charging') AS fast_charging,
        count(*) FILTER (flags <> 0) AS flagged
    FROM made GROUP BY 1 ORDER BY 1
"""


def by_query(made: pa.Table) -> list[dict[str, Any]]:
    """The same aggregates by DuckDB over the records that were made."""
    with closing(duckdb.connect()) as connection:
        connection.execute("SET timezone = 'UTC'")
        connection.register("made", made)
        return list(connection.sql(EXPECTED).to_arrow_table().to_pylist())


class Stream:
    """A topic of four partitions, a database, a group of its own; what `twin consume` made of them."""

    def __init__(self, kafka: Kafka, database: str, name: str) -> None:
        self.kafka, self.database, self.topic = kafka, database, name
        self.output, self.dead = f"{name}-minute", f"{name}-dlq"
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for future in admin.create_topics([NewTopic(name, 4, 1)]).values():
            future.result()
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5})
        self.processes: list[subprocess.Popen[str]] = []

    def send(self, messages: Messages) -> None:
        self.send_raw(zip(messages.vehicle_ids, messages.values, strict=True))

    def send_raw(self, messages: Iterable[tuple[str, bytes]]) -> None:
        for key, value in messages:
            self._producer.produce(self.topic, value=value, key=key)
            self._producer.poll(0)
        assert self._producer.flush(HANG_S) == 0

    def consume(self, *flags: str, until_idle: str = "1s") -> subprocess.Popen[str]:
        """The command in a process of its own."""
        command = [
            sys.executable, "-m", "twin", "consume", "--topic", self.topic, "--output", self.output,
            "--group", self.topic, "--kafka", self.kafka.bootstrap_servers, "--timescale", self.database,
            "--metrics-port", "0", *flags,
        ]  # fmt: skip
        if until_idle:
            command += ["--until-idle", until_idle]
        self.processes.append(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return self.processes[-1]

    def finish(self, process: subprocess.Popen[str] | None = None) -> str:
        """Wait for its regular end; what it said."""
        process = process or self.consume()
        out, complaint = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, complaint
        assert "Traceback" not in complaint
        return out

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        with (
            closing(psycopg2.connect(self.database)) as connection,
            connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            cursor.execute(sql, parameters)
            return [dict(row) for row in cursor.fetchall()]

    def ends(self) -> dict[int, int]:
        """The offset behind the last message of each partition."""
        consumer = KafkaConsumer(bootstrap_servers=self.kafka.bootstrap_servers)
        try:
            parts = [Partition(self.topic, number) for number in consumer.partitions_for_topic(self.topic) or ()]
            return {part.partition: end for part, end in consumer.end_offsets(parts).items()}
        finally:
            consumer.close()

    def counted(self) -> int:
        """Records in the table by now; 0 where there is none yet."""
        try:
            return int(self.rows("SELECT coalesce(sum(records), 0) AS n FROM fleet_minute")[0]["n"])
        except psycopg2.Error:
            return 0

    def assert_equals(self, made: pa.Table, run_id: str) -> None:
        """View = independent query; topic, last of each key = table."""
        found = self.rows("SELECT * FROM fleet_by_minute WHERE run_id = %s ORDER BY minute", run_id)
        expected = by_query(made)
        assert [row["minute"] for row in found] == [row["minute"] for row in expected]
        for row, wanted in zip(found, expected, strict=True):
            for name, value in wanted.items():
                same = value if not isinstance(value, float) else pytest.approx(value, rel=1e-5, abs=1e-5)
                assert row[name] == same, (name, row["minute"])
        table = self.rows("SELECT * FROM fleet_minute WHERE run_id = %s", run_id)
        last = {key: json.loads(value) for key, value, _ in read(self.kafka, self.output)}
        for row in table:
            message = last[f"{run_id}/{row['minute'].astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}/{row['partition']}"]
            assert message["schema"] == 1
            for name in message.keys() - {"schema", "minute"}:
                assert message[name] == row[name], name

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def read(kafka: Kafka, topic: str) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Every message of a topic: key, value, headers."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"witness-{topic}-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([topic])
    ends = 0
    deadline = time.monotonic() + HANG_S
    try:
        while ends < 4:
            assert time.monotonic() < deadline
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                ends += 1
                continue
            headers = {name: _text(value) for name, value in dict(message.headers() or ()).items()}
            yield _text(message.key()), message.value() or b"", headers
    finally:
        consumer.close()


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


@pytest.fixture
def stream(kafka: Kafka, postgres_database: str, unique_name: Callable[[str], str]) -> Iterator[Stream]:
    stream = Stream(kafka, postgres_database, unique_name("telemetry"))
    yield stream
    stream.close()


def batch(seqs: range, vehicles: int = 40) -> pa.RecordBatch:
    return make_batch(vehicles, seqs)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("payload", PAYLOADS)
def test_aggregates_of_a_real_run(
    payload: Payload, kafka: Kafka, postgres_database: str, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    run_id, out = unique_name("run"), tmp_path / "run"
    kafka.empty()  # other tests have left their records there, some of them malformed on purpose
    with Fleet(
        vehicles=30, shards=3, predict=False, out=out, run_id=run_id, kafka=kafka.bootstrap_servers, payload=payload
    ) as fleet:
        fleet.run("10min")
    stream = Stream.__new__(Stream)
    stream.kafka, stream.database, stream.processes = kafka, postgres_database, []
    stream.topic, stream.output = "ev-telemetry", unique_name("minute")
    said = stream.finish(stream.consume("--group", unique_name("group")))
    assert "consumed" in said
    assert "malformed    0" in said
    stream.assert_equals(records(out), run_id)


def test_two_members_share_the_partitions(stream: Stream) -> None:
    plan = ConsumePlan(
        KafkaTarget.parse(stream.kafka.bootstrap_servers, SinkOptions()),
        TimescaleTarget.parse(stream.database, SinkOptions()),
        group=stream.topic,
        topic=stream.topic,
        output=stream.output,
        until_idle_s=6.0,
    )
    members = [FleetConsumer(plan), FleetConsumer(plan)]
    threads = [threading.Thread(target=member.run, args=(threading.Event(),)) for member in members]
    made = [batch(range(first, first + 60)) for first in range(0, 300, 60)]
    stream.send(encode(made[0], "telemetry"))
    threads[0].start()  # the first one reads all, the second one takes half of it over
    while members[0].windows.counts.counted < 2400:
        time.sleep(0.05)
    threads[1].start()
    deadline = time.monotonic() + HANG_S
    while [len(member.partitions) for member in members] != [2, 2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for part in made[1:]:
        stream.send(encode(part, "telemetry"))
    for thread in threads:
        thread.join(HANG_S)
        assert not thread.is_alive()
    assert all(member.windows.counts.counted > 1000 for member in members)
    stream.assert_equals(pa.Table.from_batches(made).unify_dictionaries(), "run-test")


def test_killed_again_and_again_counts_nothing_twice(stream: Stream) -> None:
    """Half of the fleet is a minute behind the other half: minutes overlap, and are written more than once."""
    made = []
    for first in range(0, 500, 20):
        made.append(make_batch(20, range(first + 30, first + 50)))
        made.append(make_batch(20, range(first, first + 20), first_vehicle=20))

    def produce() -> None:
        for part in made:
            stream.send(encode(part, "telemetry"))
            time.sleep(0.3)

    producer = threading.Thread(target=produce)
    producer.start()
    for patience in (2.0, 0.7):
        process = stream.consume("--lateness", "2s", until_idle="")
        before = stream.counted()
        deadline = time.monotonic() + HANG_S
        while stream.counted() <= before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(patience)
        assert process.poll() is None
        process.kill()
    producer.join()
    stream.finish()
    stream.assert_equals(pa.Table.from_batches(made).unify_dictionaries(), "run-test")


@pytest.mark.parametrize("victim", ["postgres", "kafka"])
def test_a_server_down_for_a_while(victim: str, stream: Stream, postgres: Postgres) -> None:
    server = {"postgres": postgres, "kafka": stream.kafka}[victim]
    first, second = batch(range(100)), batch(range(100, 300))
    stream.send(encode(first, "telemetry"))
    process = stream.consume("--lateness", "2s", until_idle="4s")
    deadline = time.monotonic() + HANG_S
    while stream.counted() == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if victim == "kafka":
        server.kill()
        time.sleep(4)
        server.restart().wait_ready()
        stream.send(encode(second, "telemetry"))
    else:
        server.kill()
        stream.send(encode(second, "telemetry"))
        time.sleep(6)  # longer than until it would be idle
        assert process.poll() is None
        server.restart().wait_ready()
    _, complaint = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, complaint
    assert "waiting" in complaint
    assert len(set(complaint.splitlines())) <= 3, complaint  # each time that the server is away it says so
    stream.assert_equals(pa.Table.from_batches([first, second]).unify_dictionaries(), "run-test")


def test_a_broker_down_for_longer_than_the_session(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies with windows that are in the database and not yet in their topic; our partitions are lost meanwhile."""
    first, second = batch(range(100)), batch(range(100, 300))
    stream.send(encode(first, "telemetry"))
    plan = ConsumePlan(
        KafkaTarget.parse(stream.kafka.bootstrap_servers, SinkOptions()),
        TimescaleTarget.parse(stream.database, SinkOptions()),
        group=stream.topic,
        topic=stream.topic,
        output=stream.output,
        lateness_s=2.0,
    )
    real = WindowStore.save

    def save_then_kill(store: WindowStore, windows: list[Window]) -> list[Window]:
        monkeypatch.undo()
        saved = real(store, windows)
        stream.kafka.kill()
        return saved

    monkeypatch.setattr(WindowStore, "save", save_then_kill)
    consumer, stop = FleetConsumer(plan), threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
    thread.start()
    wait_until(lambda: stream.counted() > 0)
    wait_until(lambda: not consumer.partitions)
    stream.kafka.restart()
    stream.send(encode(second, "telemetry"))
    ends = stream.ends()
    wait_until(lambda: all(consumer.windows.position(n) == end for n, end in ends.items()))
    stop.set()
    thread.join(HANG_S)
    assert not thread.is_alive()
    stream.assert_equals(pa.Table.from_batches([first, second]).unify_dictionaries(), "run-test")


def test_late_and_twice(stream: Stream) -> None:
    """A minute that was written takes what comes after it; what comes twice counts once."""
    made = batch(range(240))
    messages = encode(made, "telemetry")
    pairs = list(zip(messages.vehicle_ids, messages.values, strict=True))
    back = ("EV-000003", "EV-000017")
    held_back = [pair for pair in pairs if pair[0] in back]
    stream.send_raw(pair for pair in pairs if pair[0] not in back)
    stream.finish()
    stream.send_raw(held_back + pairs[:500])
    said = stream.finish()
    assert f"consumed     {len(held_back)} records" in said
    assert "500 duplicates" in said
    stream.assert_equals(pa.Table.from_batches([made]).unify_dictionaries(), "run-test")


def test_late_records_are_said(stream: Stream) -> None:
    ahead, behind = batch(range(200, 260), 8), batch(range(60), 8)
    stream.send(encode(ahead, "telemetry"))
    stream.send(encode(behind, "telemetry"))
    said = stream.finish()
    late = int(said.split("records, ")[1].split(" of them late")[0].replace(",", ""))
    assert 0 < late <= 480
    stream.assert_equals(pa.Table.from_batches([ahead, behind]).unify_dictionaries(), "run-test")


def test_few_windows_in_memory_give_the_same(stream: Stream) -> None:
    made = batch(range(400))
    stream.send(encode(made, "telemetry", "avro"))
    stream.finish(stream.consume("--max-open", "15", "--lateness", "1h"))
    stream.assert_equals(pa.Table.from_batches([made]).unify_dictionaries(), "run-test")


def test_sigterm_writes_what_is_open_and_exits_0(stream: Stream, free_port: int) -> None:
    made = batch(range(60))
    stream.send(encode(made, "telemetry"))
    process = stream.consume(
        "--metrics-port", str(free_port), "--lateness", "1h", "--idle-timeout", "1h", until_idle=""
    )
    deadline = time.monotonic() + HANG_S
    metrics = ""
    while "ev_consume_consumed_records_total 2400.0" not in metrics:
        assert time.monotonic() < deadline, metrics
        time.sleep(0.2)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=5) as answer:
                metrics = answer.read().decode()
        except OSError:
            continue
    for name in ("duplicates_total", "late_records_total", "malformed_total", "open_windows", "waiting", "lag_records"):
        assert f"ev_consume_{name}" in metrics
    assert stream.counted() == 0
    os.kill(process.pid, signal.SIGTERM)
    said = stream.finish(process)
    assert "consumed     2,400 records" in said
    stream.assert_equals(pa.Table.from_batches([made]).unify_dictionaries(), "run-test")
    assert "consumed     0 records" in stream.finish()


# Malformed messages


def _is_time(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text) is not None


CHECKER = FormatChecker(formats=())
CHECKER.checks("date-time", ValueError)(_is_time)
VALIDATOR = Draft202012Validator(json_schema("telemetry"), format_checker=CHECKER)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def is_valid(value: bytes) -> bool:
    """By the JSON Schema and Python's own parser: nothing of the codec."""
    try:
        record = json.loads(value.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return bool(VALIDATOR.is_valid(record))


GOOD = [orjson.loads(value) for value in encode(batch(range(20), 5), "telemetry").values]
NAMES = ["schema", *(field.name for field in FIELDS["telemetry"])]
ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=80), st.integers(-(2**70), 2**70), st.lists(st.integers(), max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e300, -1e39, 2**63, -1, "NaN", "", {}, {"a": {"b": []}}, "2026-02-30T00:00:00Z", "flying"]),
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A good message, damaged in one of many ways; now and then still a good one."""
    record = dict(draw(st.sampled_from(GOOD)))
    good = orjson.dumps(record)
    kind = draw(
        st.sampled_from(["cut", "flip", "value", "missing", "random", "constant", "nested", "wrapped", "extra"])
    )
    if kind == "cut":
        return good[: draw(st.integers(0, len(good) - 1))]
    if kind == "flip":
        place = draw(st.integers(0, len(good) - 1))
        return good[:place] + bytes([good[place] ^ draw(st.integers(1, 255))]) + good[place + 1 :]
    if kind == "value":
        record[draw(st.sampled_from(NAMES))] = draw(ODD)
        return json.dumps(record).encode("utf-8", "surrogatepass")
    if kind == "missing":
        del record[draw(st.sampled_from(NAMES))]
        return orjson.dumps(record)
    if kind == "random":
        return draw(st.binary(max_size=200))
    if kind == "constant":
        name = draw(st.sampled_from(["soc", "soh", "resistance"]))
        return json.dumps(record | {name: float(draw(st.sampled_from(["nan", "inf", "-inf"])))}).encode()
    if kind == "nested":
        return b"[" * draw(st.integers(1, 3000)) + good
    if kind == "wrapped":
        return draw(st.sampled_from([b"[%b]", b'"%b"', b"%b%b", b"\xef\xbb\xbf%b", b"%b,"])).replace(b"%b", good)
    return orjson.dumps(record | {"more": draw(st.one_of(st.none(), st.integers(0, 9), st.lists(st.booleans())))})


def draw_many(count: int) -> list[bytes]:
    values: list[bytes] = []

    @settings(
        max_examples=count, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutations())
    def collect(value: bytes) -> None:
        values.append(value)

    collect()
    return values


def test_malformed_messages_go_to_the_dead_letters(stream: Stream) -> None:
    """Each message that the JSON Schema refuses, with its bytes, key and a reason; the good ones all count."""
    mutated = draw_many(600)
    bad = {f"bad-{number}": value for number, value in enumerate(mutated) if not is_valid(value)}
    still_good = [value for value in mutated if is_valid(value)]
    assert len(bad) >= 200
    made = encode(make_batch(6, range(100), run_id="run-good"), "telemetry")
    good = list(zip(made.vehicle_ids, made.values, strict=True))
    mixed: list[tuple[str, bytes]] = []
    others = [*bad.items(), *((f"fine-{number}", value) for number, value in enumerate(still_good))]
    for number, pair in enumerate(others):
        mixed += [pair, *good[number :: len(others)]]
    stream.send_raw(mixed)
    said = stream.finish()
    letters = list(read(stream.kafka, stream.dead))
    assert {key: value for key, value, _ in letters} == bad
    assert Counter(key for key, *_ in letters) == Counter(list(bad))
    places = set()
    for *_, headers in letters:
        assert headers["reason"].startswith("expected ")
        assert headers["source_topic"] == stream.topic
        places.add((int(headers["source_partition"]), int(headers["source_offset"])))
    assert len(places) == len(bad)
    assert f"malformed    {len(bad)}, in {stream.dead}" in said
    [total] = stream.rows(
        "SELECT sum(records)::int AS n, max(vehicles) AS v FROM fleet_minute WHERE run_id = 'run-good'"
    )
    assert total["n"] == len(good) == 600
    consumed, duplicates = int(said.split()[1]), int(said.split(" duplicates")[0].split()[-1])
    assert consumed + duplicates == len(good) + len(still_good)


def transactional(stream: Stream) -> Producer:
    producer = Producer(
        {"bootstrap.servers": stream.kafka.bootstrap_servers, "transactional.id": stream.topic, "linger.ms": 0}
    )
    producer.init_transactions(HANG_S)
    return producer


@pytest.mark.parametrize("aborted", [False, True])
def test_a_topic_that_ends_with_no_record_has_an_end(stream: Stream, aborted: bool) -> None:
    """What stands behind the last record: a transaction's marker, or a whole transaction that was given up. So it is
    for who has just read, and for who comes later and finds nothing to read."""
    producer = transactional(stream)
    for records_of, end in (
        (batch(range(50)), producer.commit_transaction),
        (batch(range(50, 60)), producer.abort_transaction if aborted else producer.commit_transaction),
    ):
        producer.begin_transaction()
        for number, value in enumerate(encode(records_of, "telemetry").values):
            producer.produce(stream.topic, value=value, partition=number % 4)
        producer.flush(HANG_S)
        end(HANG_S)
    counted = 2000 if aborted else 2400
    assert f"consumed     {counted:,} records" in stream.finish()
    assert "consumed     0 records" in stream.finish()


def test_a_topic_of_which_only_a_marker_is_left_has_an_end(stream: Stream) -> None:
    """As retention and compaction leave it: the records of the transaction are gone."""
    producer = transactional(stream)
    producer.begin_transaction()
    for value in encode(batch(range(5)), "telemetry").values:
        producer.produce(stream.topic, value=value, partition=0)
    producer.flush(HANG_S)
    producer.commit_transaction(HANG_S)
    admin = AdminClient({"bootstrap.servers": stream.kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(stream.topic, 0, 200)]).values():
        future.result(HANG_S)
    assert "consumed     0 records" in stream.finish()


@pytest.mark.parametrize("size", [3_000_000, 10_500_000])
def test_a_message_too_large_for_the_dead_letters_names_their_topic(stream: Stream, size: int) -> None:
    """Too large for the topic, and too large for any producer of ours."""
    admin = AdminClient({"bootstrap.servers": stream.kafka.bootstrap_servers})
    larger = ConfigEntry("max.message.bytes", "12000000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, stream.topic, incremental_configs=[larger])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(HANG_S)
    producer = Producer({"bootstrap.servers": stream.kafka.bootstrap_servers, "message.max.bytes": 12_000_000})
    producer.produce(stream.topic, value=b"x" * size, partition=2)
    assert producer.flush(HANG_S) == 0
    process = stream.consume()
    _, complaint = process.communicate(timeout=HANG_S)
    assert process.returncode == 1
    _, line = complaint.strip().splitlines()  # the first says that the database is a plain one
    for words in (stream.dead, f"{size:,} bytes", "partition 2, offset 0", "max.message.bytes"):
        assert words in line
