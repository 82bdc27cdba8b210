"""The commands that come after a run (ledger, replay, archive, resume), on real servers and as a person calls them."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import KafkaProducer
from paho.mqtt.enums import CallbackAPIVersion

from actors.delivery.replay import Replay, Replayed
from actors.delivery.sinks import Receipt, SinkOptions, SinkUnavailable, Target
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.mqtt import MqttTarget
from actors.delivery.sinks.parquet import ParquetTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from actors.fleet.status import FleetStatus
from datasets.log import LogWriter, extent, log_directory
from datasets.schema import STREAMS, Stream
from physics import physics_version
from tests.command import Twin
from tests.integration.witness import Identity, MqttWitness, Received, from_database, from_kafka
from tests.services import Kafka, Mosquitto, Postgres
from tests.support import HANG_S, OwnSink, make_batch, records, wait_until
from twin import Fleet
from twin.books.archive import Archive
from twin.books.ledger import Books
from twin.books.messages import messages
from twin.commands.archive import archive_until
from twin.errors import NotDelivered
from twin.run_directory import load_run

pytestmark = [
    pytest.mark.services,
    pytest.mark.cluster,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(600),
]

QUIET = ("--quiet", "--no-report", "--metrics-port", "0")
VEHICLES, TICKS = 12, 60


# ---- a run with every sink and an archive


@dataclass
class Delivered:
    """A finished run, its servers, the folder of the archive that listened."""

    run: Path
    archive: Path
    urls: dict[str, str]
    run_id: str

    @property
    def flags(self) -> list[str]:
        return [part for name, url in self.urls.items() for part in (f"--{name}", url)]

    def execute(self, statement: str) -> None:
        connection = psycopg2.connect(self.urls["timescale"])
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def delivered(
    ray_cluster: None,
    kafka: Kafka,
    mosquitto: Mosquitto,
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Delivered]:
    folder = tmp_path_factory.mktemp("delivered")
    database = f"books_{time.time_ns()}"
    urls: dict[str, Any] = {
        "kafka": kafka.bootstrap_servers,
        "mqtt": f"mqtt://127.0.0.1:{mosquitto.port}",
        "timescale": postgres.create_database(database),
    }
    made = Delivered(folder / "run", folder / "archive", urls, f"run-books-{time.time_ns()}")
    command = [sys.executable, "-m", "twin", "archive", "--out", str(made.archive), "--mqtt", urls["mqtt"]]
    listener = subprocess.Popen(
        [*command, "--client-id", made.run_id, "--keep", "0s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert listener.stderr is not None
        assert "archiving to" in listener.stderr.readline()
        with Fleet(
            vehicles=VEHICLES, shards=2, duration="2min", predict=False, out=made.run, run_id=made.run_id, **urls
        ) as fleet:
            fleet.run("2min")
        wait_until(lambda: sum(1 for _ in messages(made.archive)) >= VEHICLES * TICKS)
        listener.send_signal(signal.SIGINT)
        out, err = listener.communicate(timeout=HANG_S)
        assert (listener.returncode, err) == (0, "")
        assert f"archived {VEHICLES * TICKS:,} messages" in out
        yield made
    finally:
        listener.kill()
        listener.communicate()
        postgres.drop_database(database)
        kafka.empty()


def test_a_delivered_run_is_complete(delivered: Delivered, twin: Twin) -> None:
    answer = twin("ledger", delivered.run, "--verify", "--archive", delivered.archive, *delivered.flags)
    assert answer.code == 0, answer.out + answer.err
    assert "DIFFERENT" not in answer.out
    for sink in ("kafka", "mqtt", "timescale"):
        row = next(line.split() for line in answer.out.splitlines() if line.startswith(sink) and " all " in line)
        assert row == [sink, "telemetry", "all", "720", "720", "0", "-", "0", "0", "0"]
    assert answer.err.splitlines() == [f"twin: asking {peer}" for peer in ("log", "kafka", "mqtt", "timescale")]


def test_json_is_for_programs(delivered: Delivered, twin: Twin) -> None:
    answer = twin("ledger", delivered.run, "--verify", "--archive", delivered.archive, "--json", *delivered.flags)
    facts = json.loads(answer.out)
    assert facts["complete"] is True
    assert {peer["sink"] for peer in facts["verified"]} == {"log", "kafka", "mqtt", "timescale"}
    assert all(peer["counts"]["telemetry"]["received"] == VEHICLES * TICKS for peer in facts["verified"])
    assert sum(line["made"] for line in facts["lines"] if line["sink"] == "kafka") == VEHICLES * TICKS


def test_without_an_archive_mqtt_cannot_be_asked(delivered: Delivered, twin: Twin) -> None:
    answer = twin("ledger", delivered.run, "--verify", *delivered.flags)
    assert answer.code == 4
    assert answer.err.splitlines()[-1].startswith("twin: mqtt could not be asked (MQTT keeps no messages")
    answer = twin("ledger", delivered.run, "--verify", "--archive", delivered.run / "nowhere", *delivered.flags)
    assert answer.code == 4
    assert "mqtt could not be asked" in answer.err.splitlines()[-1]
    assert twin("ledger", delivered.run).code == 0, "the files alone say that all is delivered"


def test_what_somebody_changed_is_found_and_named(delivered: Delivered, twin: Twin, tmp_path: Path) -> None:
    """Rows deleted in the database, a line taken from the archive, strangers in Kafka: each by vehicle and seq."""
    of_the_run = f"run_id = '{delivered.run_id}'"
    rows = f"{of_the_run} AND vehicle_id = 'EV-000005' AND seq BETWEEN 17 AND 19"
    delivered.execute(f"CREATE TABLE aside AS SELECT * FROM telemetry WHERE {rows}; DELETE FROM telemetry WHERE {rows}")
    archive = shutil.copytree(delivered.archive, tmp_path / "archive")
    lines = (archive / "messages.jsonl").read_bytes().splitlines(keepends=True)
    gone = next(line for line in lines if b"EV-000002" in line and json.loads(line.split(b"\t")[1])["seq"] == 7)
    (archive / "messages.jsonl").write_bytes(b"".join(line for line in lines if line != gone))
    producer = KafkaProducer(bootstrap_servers=delivered.urls["kafka"])
    for identity in (f"{delivered.run_id}/EV-000003/999", f"{delivered.run_id}/a/b/c", f"{delivered.run_id}/EV-000003"):
        producer.send("ev-telemetry", b"{}", b"EV-000003", headers=[("id", identity.encode())])
    producer.flush()
    producer.close()

    answer = twin("ledger", delivered.run, "--verify", "--archive", archive, *delivered.flags)
    assert answer.code == 4
    assert answer.err.splitlines()[-1] == (
        "twin: kafka telemetry: 0 missing, 3 unknown, 0 vehicles out of order; "
        "mqtt telemetry: 1 missing, 0 unknown, 0 vehicles out of order; "
        "timescale telemetry: 3 missing, 0 unknown, 0 vehicles out of order"
    )
    assert "kafka telemetry: EV-000003: unknown 1, seq 999 to 999" in answer.out
    assert "kafka telemetry: 2 without vehicle and seq that can be read" in answer.out
    assert "mqtt telemetry: EV-000002: missing 1, seq 7 to 7" in answer.out
    assert "timescale telemetry: EV-000005: missing 3, seq 17 to 19" in answer.out

    delivered.execute("INSERT INTO telemetry SELECT * FROM aside")
    delivered.execute(
        "UPDATE aside SET vehicle_id = 'stranger'; INSERT INTO telemetry SELECT * FROM aside"
    )  # a name that no vehicle has is no reason to fail
    answer = twin("ledger", delivered.run, "--verify", "--archive", delivered.archive, *delivered.flags)
    assert answer.code == 4
    assert "timescale telemetry: 3 without vehicle and seq that can be read" in answer.out


def test_a_peer_that_cannot_be_asked_is_said(delivered: Delivered, twin: Twin, free_port: int) -> None:
    away = f"postgresql://twin:hush@127.0.0.1:{free_port}/twin"
    answer = twin(
        "ledger", delivered.run, "--verify", "--archive", delivered.archive, *delivered.flags, "--timescale", away
    )
    assert answer.code == 4
    assert "timescale could not be asked" in answer.err.splitlines()[-1]
    assert "hush" not in answer.out + answer.err


def test_books_while_records_wait(tmp_path: Path, twin: Twin, free_port: int) -> None:
    out = tmp_path / "run"
    database = ("--timescale", f"postgresql://twin@127.0.0.1:{free_port}/twin")
    answer = twin(
        "run", "--vehicles", 6, "--shards", 2, "--duration", "1min", "--no-predict", "--out", out, *database, *QUIET,
        "--drain-timeout", "1s", "--start", "2026-06-01T07:00Z",
    )  # fmt: skip
    assert answer.code == 3
    assert answer.err.splitlines()[-1].startswith("twin: 180 records have not reached timescale")
    answer = twin("ledger", out)
    assert (answer.code, answer.err) == (0, "")
    row = next(line.split() for line in answer.out.splitlines() if " telemetry " in line and " all " in line)
    assert row == ["timescale", "telemetry", "all", "180", "0", "180", "2026-06-01", "07:00:02", "0", "0", "0"]
    facts = json.loads(twin("ledger", out, "--json").out)
    assert facts["complete"] is False
    assert [line["waiting"] for line in facts["lines"] if line["stream"] == "telemetry"] == [90, 90]


# ---- replay

ROWS, PREDICTIONS, HALF = 900, 60, 5
MADE: dict[Stream, int] = {"telemetry": 2 * HALF * ROWS, "predictions": 2 * HALF * PREDICTIONS}
FIRST = datetime.fromtimestamp(1_780_000_002, UTC)


def write_run(folder: Path, run_id: str, rows: int = ROWS, predictions: int = PREDICTIONS) -> Path:
    """A run of two shards that had no sink."""
    made: dict[Stream, range] = {"telemetry": range(rows), "predictions": range(predictions)}
    for shard in range(2):
        for stream, seqs in made.items():
            writer = LogWriter(log_directory(folder, stream, shard))
            for begin in range(seqs.start, seqs.stop, 300):
                part = range(begin, min(begin + 300, seqs.stop))
                batch = make_batch(HALF, part, stream=stream, run_id=run_id, first_vehicle=HALF * shard)
                writer.append(batch, begin)
            writer.close()
    (folder / "run.json").write_text(
        json.dumps(
            {
                "run_id": run_id, "log_id": run_id, "state": "finished", "period_s": 2.0,
                "versions": {"physics": physics_version()}, "counts": {"simulated_s": 2.0 * rows},
                "settings": {"vehicles": 2 * HALF, "shards": 2, "duration": 2.0 * rows, "predict": False},
            }
        )
    )  # fmt: skip
    return folder


@pytest.fixture
def old_run(tmp_path: Path, unique_name: Callable[[str], str]) -> Path:
    return write_run(tmp_path / "run", unique_name("run"))


def in_folder(folder: Path, run_id: str) -> dict[Stream, Received]:
    found: dict[Stream, Received] = {}
    for stream in STREAMS:
        received = found[stream] = Received()
        for path in sorted((folder / stream).glob("**/*.parquet")):
            for row in pq.read_table(path, columns=["run_id", "vehicle_id", "seq"]).to_pylist():
                received.ids[row["run_id"], row["vehicle_id"], row["seq"]] += 1
                received.order[row["vehicle_id"]].append(row["seq"])
    return found


def sink_flags(kind: str, request: pytest.FixtureRequest, folder: Path) -> tuple[Target, str, list[str]]:
    """Target, its text, flags of `twin replay`."""
    if kind == "kafka":
        url = request.getfixturevalue("kafka").bootstrap_servers
        return KafkaTarget.parse(url, SinkOptions()), url, ["--kafka", url]
    if kind == "mqtt":
        url = f"mqtt://127.0.0.1:{request.getfixturevalue('mosquitto').port}"
        return MqttTarget.parse(url, SinkOptions()), url, ["--mqtt", url]
    if kind == "timescale":
        url = request.getfixturevalue("postgres_database")
        return TimescaleTarget.parse(url, SinkOptions()), url, ["--timescale", url]
    return ParquetTarget(folder), str(folder), ["--out", str(folder)]


@pytest.mark.parametrize("kind", ["kafka", "mqtt", "timescale", "parquet"])
def test_replay_stopped_then_again_delivers_all_once(
    kind: str, old_run: Path, twin: Twin, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The command is stopped by a signal half-way, run again, and once more: everything arrives, and nothing twice but
    what an MQTT broker had acknowledged a moment before the signal."""
    run_id = load_run(old_run)["run_id"]
    target, url, flags = sink_flags(kind, request, tmp_path / "out")
    witnesses: dict[Stream, MqttWitness] = {}
    if kind == "mqtt":
        assert isinstance(target, MqttTarget)
        witnesses = {s: MqttWitness(target.port, f"ev/battery/{s.removesuffix('s')}/+") for s in STREAMS}
    try:
        command = ("replay", old_run, "--to", kind, *flags)
        original = Replay._deliver
        calls: list[tuple[Any, ...]] = []

        def stop_after_two(self: Replay, *arguments: Any) -> None:
            original(self, *arguments)
            calls.append(arguments)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Replay, "_deliver", stop_after_two)
            stopped = twin(*command)
        assert stopped.code == 130, stopped.err
        assert "twin: stopped after" in stopped.err
        answer = twin(*command)
        assert answer.code == 0, answer.err
        assert "were there already" not in answer.err
        again = twin(*command)
        assert again.code == 0
        assert again.err == f"twin: replayed 0 records, 0 predictions to {kind}\n"

        if kind == "kafka":
            found = {s: from_kafka(url, f"ev-{s}", run_id, MADE[s]) for s in STREAMS}
        elif kind == "mqtt":
            found = {stream: witness.wait_for(MADE[stream]) for stream, witness in witnesses.items()}
        elif kind == "timescale":
            found = {stream: from_database(url, run_id, stream) for stream in STREAMS}
        else:
            found = in_folder(tmp_path / "out", run_id)
        for stream, received in found.items():
            expected = MADE[stream] // (2 * HALF)
            mine = {(run_id, f"EV-{vehicle:06d}", seq) for vehicle in range(2 * HALF) for seq in range(expected)}
            got = {i: n for i, n in received.ids.items() if i[0] == run_id}
            assert got.keys() == mine, stream
            assert set(got.values()) <= ({1, 2} if kind == "mqtt" else {1})
            assert received.in_order()
    finally:
        for witness in witnesses.values():
            witness.close()


def replay_of(run: Path, target: Target) -> Replay:
    facts = load_run(run)
    return Replay(run, facts["log_id"], facts["settings"]["shards"], target, where="here")


def test_a_replay_killed_between_database_and_cursor_file_stores_once(old_run: Path, postgres_database: str) -> None:
    target = TimescaleTarget.parse(postgres_database, SinkOptions())
    stop = threading.Event()
    first = replay_of(old_run, target).run(lambda counts: stop.set(), stop)
    assert first.records + first.predictions > 0
    shutil.rmtree(old_run / "cursors")
    second = replay_of(old_run, target).run(lambda counts: None, threading.Event())
    assert (first.records + second.records, first.predictions + second.predictions) == (9000, 600)
    assert (second.duplicates, second.dead) == (0, 0)
    assert set(from_database(postgres_database, load_run(old_run)["run_id"]).ids.values()) == {1}


def test_two_runs_into_one_database(tmp_path: Path, twin: Twin, postgres_database: str) -> None:
    """The cursors of one run are not those of the other."""
    for name in ("run-one", "run-two"):
        run = write_run(tmp_path / name, name, 20, 10)
        answer = twin("replay", run, "--to", "timescale", "--timescale", postgres_database)
        assert "replayed 200 records, 100 predictions" in answer.err
        assert len(from_database(postgres_database, name).ids) == 200


def test_an_interval_is_what_it_says(old_run: Path, twin: Twin, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bounds = [datetime.fromtimestamp(FIRST.timestamp() + s, UTC).isoformat() for s in (1000, 1060)]
    command = ("replay", old_run, "--to", "parquet", "--out", out, "--from", bounds[0], "--to-time", bounds[1])
    assert "replayed 300 records, 0 predictions" in twin(*command).err
    assert "replayed 0 records" in twin(*command).err
    rows = pq.read_table(out / "telemetry").to_pylist()
    assert len(rows) == 300
    assert {row["seq"] for row in rows} == set(range(500, 530)), "the first moment is in, the last is not"
    # A folder holds one interval of one run: file names are row numbers.
    twin("replay", old_run, "--to", "parquet", "--out", out).complaint(2, "--out", "holds something else")
    naive = ("--from", "2026-05-28T20:26:42", "--to-time", "2026-05-28T20:26:44")
    assert "replayed 10 records, 10 predictions" in twin(*command[:4], "--out", tmp_path / "utc", *naive).err


def test_pace_and_order_over_shards(old_run: Path, twin: Twin, mosquitto: Mosquitto) -> None:
    """Twenty simulated seconds ten times as fast as they were, at the same moment for all shards."""
    run_id = load_run(old_run)["run_id"]
    until = datetime.fromtimestamp(FIRST.timestamp() + 20, UTC).isoformat()
    witness = MqttWitness(mosquitto.port, "ev/battery/telemetry/+")
    try:
        began = time.monotonic()
        command = ("replay", old_run, "--to", "mqtt", "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}")
        answer = twin(*command, "--to-time", until, "--pace", 10)
        assert answer.code == 0, answer.err
        assert time.monotonic() - began >= 1.8
        seqs = [seq for run, _, seq in witness.wait_for(100).ids if run == run_id]
        assert len(seqs) == 100
        assert seqs == sorted(seqs)
    finally:
        witness.close()


def test_as_fast_as_it_goes_no_shard_is_far_ahead(old_run: Path, twin: Twin, mosquitto: Mosquitto) -> None:
    run_id = load_run(old_run)["run_id"]
    until = datetime.fromtimestamp(FIRST.timestamp() + 400, UTC).isoformat()
    witness = MqttWitness(mosquitto.port, "ev/battery/telemetry/+")
    try:
        twin("replay", old_run, "--to", "mqtt", "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}", "--to-time", until)
        newest, behind = 0, 0
        for run, _, seq in witness.wait_for(2000).ids:
            if run == run_id:
                newest, behind = max(newest, seq), max(behind, newest - seq)
        assert newest == 199
        assert behind <= 6, "10 s of simulated time"
    finally:
        witness.close()


class Forgetful(OwnSink):
    """An MQTT-like target that fails in mid-replay after having acknowledged, as a killed broker does."""

    name, rewind_s = "mqtt", 60.0
    stream: Stream
    target: Self

    def __init__(self) -> None:
        self.taken: list[Identity] = []
        self.failed = False

    def sink(self, log_id: str, stream: Stream, part: int = 0) -> Self:
        sink = copy.copy(self)
        sink.stream, sink.target = stream, self
        return sink

    def heard(self) -> float:
        return time.monotonic() + (61.0 if self.target.failed else 0.0)

    def deliver(self, shard: int, batch: pa.RecordBatch, position: int) -> Receipt:
        target = self.target
        if not target.failed and len(target.taken) > 50:
            target.failed, target.taken = True, []
            raise SinkUnavailable("connection lost")
        target.taken += [(self.stream, row["vehicle_id"], row["seq"]) for row in batch.to_pylist()]
        return Receipt()


def test_what_a_broker_forgot_goes_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.delivery.replay.SUBSCRIBERS_S", 0.0)
    monkeypatch.setattr("actors.delivery.replay._RETRY_S", 0.0)
    run = write_run(tmp_path / "run", "run-forgotten", 30, 10)
    target = Forgetful()
    said: list[Replayed] = []
    replay_of(run, target).run(said.append, threading.Event())
    assert target.failed
    assert len(set(target.taken)) == len(target.taken) == 2 * HALF * 40


# ---- a store older than what the log holds


def test_a_database_restored_from_an_old_backup(tmp_path: Path, twin: Twin, postgres_database: str) -> None:
    """Retention has dropped what the backup lacks. It is said and counted, and passed only when we are told to."""
    run, sink = tmp_path / "run", ("--timescale", postgres_database)
    fleet = ("--vehicles", 400, "--shards", 1, "--no-predict", "--seed", 3, "--checkpoint-every", "5min", *QUIET)
    limits = ("--log-max-size", "3MB", "--pace", 600)
    assert twin("run", *fleet, *sink, *limits, "--duration", "30min", "--run-id", "run-b", "--out", run).code == 0
    first = extent(log_directory(run, "telemetry", 0)).first
    assert first > 0, "retention has dropped something"
    with closing(psycopg2.connect(postgres_database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE telemetry")
        cursor.execute("UPDATE sink_cursors SET position = 400 WHERE stream = 'telemetry'")
    flags = {"timescale": postgres_database, "duration": "31min", "drain_timeout": "1s", "metrics_port": 0}
    stop = threading.Event()

    def said(status: FleetStatus) -> None:
        if "can no longer be delivered" in status.waiting.get("timescale", ""):
            stop.set()

    says = rf"{first - 400:,} records can no longer be delivered .*--accept-loss"
    with pytest.raises(NotDelivered, match=says), Fleet.resume(run, flags) as resumed:
        resumed.run("31min", said, stop)
    patience = ("--drain-timeout", "60s", "--duration", "31min", *QUIET)
    answer = twin("resume", run, *sink, "--accept-loss", *patience)
    assert answer.code == 0, answer.err
    answer = twin("ledger", run, *sink, "--verify")
    assert answer.code == 4
    assert f"{first - 400:,} records lost" in answer.err
    ledger = Books(run, {"timescale": postgres_database}).ledger()
    [line] = [line for line in ledger.lines if line.stream == "telemetry"]
    assert (line.made, line.lost, line.waiting) == (400 * 930, first - 400, 0)
    assert len(from_database(postgres_database, "run-b").ids) == 400 * 930 - first
    assert json.loads((run / "run.json").read_text())["counts"]["sinks"]["timescale"]["lost"] == first - 400


# ---- resume


def test_an_interrupted_run_goes_on_to_the_same_records(tmp_path: Path, twin: Twin) -> None:
    """SIGINT, exit 130, resume for longer than it was begun: the records of a run that nobody disturbed."""
    fleet = ("--vehicles", 10, "--shards", 2, "--no-predict", "--seed", 3, "--checkpoint-every", "1min", *QUIET)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert twin("run", *fleet, "--duration", "8min", "--run-id", "run-same", "--out", whole).code == 0

    ended = threading.Event()

    def interrupt() -> None:
        while not list(torn.glob("checkpoints/*")):
            if ended.wait(0.05):
                return
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        answer = twin("run", *fleet, "--duration", "6min", "--run-id", "run-same", "--out", torn, "--pace", 60)
    finally:
        ended.set()
        thread.join()
    assert answer.code == 130, answer.err
    *waits, last = answer.err.splitlines()  # a busy machine says first what it waits for
    assert last == f"twin: stopped; log sealed, cursors saved in {torn}"
    assert all(line.startswith("twin: waiting for ") for line in waits)
    assert 0 < records(torn).num_rows < 10 * 180
    assert load_run(torn)["state"] == "interrupted"
    quiet = ("--pace", "max", *QUIET)
    assert twin("resume", torn, "--duration", "8min", *quiet).code == 0
    assert records(torn).equals(records(whole))
    run = load_run(torn)
    assert (run["state"], len(run["resumed"]), run["run_id"]) == ("finished", 1, "run-same")
    twin("resume", torn, *quiet).complaint(2, "is finished and delivered", "--duration")


# ---- bad input


HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


def test_resume_refuses_what_it_cannot_go_on_with(old_run: Path, twin: Twin, tmp_path: Path) -> None:
    twin("resume", tmp_path).complaint(2, "expected a run directory")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(old_run / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        twin("resume", old_run).complaint(2, "still going on")
    finally:
        holder.communicate("\n", timeout=HANG_S)
    twin("resume", old_run).complaint(2, "is finished and delivered")
    twin("resume", old_run, "--duration", "soon").complaint(2, "--duration", "'soon'")
    path = old_run / "run.json"
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"versions": {"physics": "0.0"}}))
    twin("resume", old_run, "--duration", "2h").complaint(2, "was made by physics 0.0")
    path.write_text(json.dumps(run | {"settings": run["settings"] | {"vehicles": "many"}}))
    twin("resume", old_run).complaint(2, "--vehicles", "'many'")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "pigeon"], ["--to", "kafka, mqtt, timescale or parquet", "pigeon"]),
        (["--to", "kafka"], ["--kafka", "got nothing"]),
        (["--to", "timescale"], ["--timescale", "got nothing"]),
        (["--to", "mqtt", "--mqtt", "tcp://x"], ["--mqtt", "mqtt://"]),
        (["--to", "parquet"], ["--out"]),
        (["--to", "parquet", "--out", "/proc/here/out"], ["--out", "/proc/here/out"]),
        (["--to", "parquet", "--out", __file__], ["--out", __file__]),
        (["--to", "parquet", "--out", "OUT", "--from", "yesterday"], ["--from", "'yesterday'"]),
        (["--to", "parquet", "--out", "OUT", "--to-time", "25:00"], ["--to-time", "'25:00'"]),
        (
            ["--to", "parquet", "--out", "OUT", "--from", "2027-01-01", "--to-time", "2026-01-01"],
            ["--to-time", "after"],
        ),
        (["--to", "parquet", "--out", "OUT", "--pace", "0"], ["--pace", "got '0'"]),
        (["--to", "kafka", "--kafka", "x:1", "--payload", "xml"], ["--payload", "'xml'"]),
        ([], ["--to"]),
    ],
)
def test_replay_complains_in_one_line(
    arguments: list[str], says: list[str], old_run: Path, twin: Twin, tmp_path: Path
) -> None:
    given = [str(tmp_path / "out") if part == "OUT" else part for part in arguments]
    twin("replay", old_run, *given).complaint(2, *says)
    assert not (tmp_path / "out").exists()


def test_a_wrong_password_is_one_line(old_run: Path, twin: Twin, postgres: Postgres, tmp_path: Path) -> None:
    url = f"postgresql://twin:hush@127.0.0.1:{postgres.port}/twin_data"
    answer = twin("replay", old_run, "--to", "timescale", "--timescale", url)
    answer.complaint(2, "--timescale", "password authentication failed")
    assert "hush" not in answer.err
    twin("replay", tmp_path / "nothing", "--to", "timescale").complaint(2, "expected a run directory")


def test_a_silent_server_is_not_waited_for_without_end(old_run: Path, twin: Twin, free_port: int) -> None:
    answer = twin("replay", old_run, "--to", "mqtt", "--mqtt", f"mqtt://127.0.0.1:{free_port}", "--drain-timeout", "1s")
    assert answer.code == 3
    assert answer.err.splitlines()[-1].endswith("run the same command again to go on from here")


def test_a_damaged_log_is_one_line(old_run: Path, twin: Twin, tmp_path: Path) -> None:
    segment = next(log_directory(old_run, "telemetry", 0).glob("*.parquet"))
    segment.write_bytes(segment.read_bytes()[:-100])
    twin("ledger", old_run, "--kafka", "127.0.0.1:9").complaint(4, "is damaged")
    twin("replay", old_run, "--to", "parquet", "--out", tmp_path / "out").complaint(1, "is damaged")


def test_ledger_and_archive_complain_in_one_line(
    twin: Twin, tmp_path: Path, free_port: int, mosquitto: Mosquitto
) -> None:
    here = f"mqtt://127.0.0.1:{mosquitto.port}"
    twin("ledger", tmp_path).complaint(2, "expected a run directory")
    twin("archive", "--out", tmp_path / "a").complaint(2, "--mqtt")
    twin("archive", "--out", tmp_path / "a", "--mqtt", "x").complaint(2, "--mqtt", "mqtt://")
    twin("archive", "--out", tmp_path / "a", "--mqtt", f"mqtt://127.0.0.1:{free_port}").complaint(2, "does not answer")
    twin("archive", "--out", __file__, "--mqtt", here).complaint(2, "--out", "cannot write")
    twin("archive", "--out", "/proc/here", "--mqtt", here).complaint(2, "--out", "cannot write")
    (tmp_path / "b" / "messages.jsonl").mkdir(parents=True)
    twin("archive", "--out", tmp_path / "b", "--mqtt", here).complaint(2, "--out", "cannot write")
    twin("archive", "--mqtt", here).complaint(2, "--out")
    twin("archive", "--mqtt", here, "--out", tmp_path / "c", "--keep", "soon").complaint(2, "--keep", "like 90s")


def test_an_archive_goes_on_where_it_was(tmp_path: Path, mosquitto: Mosquitto, old_run: Path, twin: Twin) -> None:
    """What was published while nobody listened comes when somebody does, unless it was told that nobody would."""
    url = f"mqtt://127.0.0.1:{mosquitto.port}"
    bounds = [datetime.fromtimestamp(FIRST.timestamp() + s, UTC).isoformat() for s in (0, 4, 8, 12)]

    def listen(expected: int, keep: str = "1d") -> int:
        stop = threading.Event()
        written: list[int] = []
        thread = threading.Thread(
            target=lambda: written.append(archive_until(url, tmp_path / "a", old_run.name + str(tmp_path), stop, keep))
        )
        thread.start()
        file = tmp_path / "a" / "messages.jsonl"
        wait_until(lambda: file.exists() and len(list(messages(file.parent))) >= expected)
        time.sleep(0.3)  # for what must not come
        stop.set()
        thread.join()
        return written[0]

    assert listen(0) == 0
    replay = ("replay", old_run, "--to", "mqtt", "--mqtt", url)
    twin(*replay, "--from", bounds[0], "--to-time", bounds[1])
    assert listen(40) == 40
    twin(*replay, "--from", bounds[1], "--to-time", bounds[2])
    assert listen(80, keep="0s") == 40
    twin(*replay, "--from", bounds[2], "--to-time", bounds[3])
    assert listen(80, keep="0s") == 0
    assert len(list(messages(tmp_path / "a"))) == 80


def test_what_the_broker_kept_is_not_taken_for_live(mosquitto: Mosquitto, twin: Twin, tmp_path: Path) -> None:
    """A broker that keeps the last record of each vehicle: an archive that comes later sees the rest in its order."""
    broker = Mosquitto()  # of our own, because others would get what it keeps, too
    out, url = tmp_path / "run", ""
    try:
        broker.start().wait_ready()
        url = f"mqtt://127.0.0.1:{broker.port}"
        with Fleet(
            vehicles=20, shards=2, predict=False, out=out, run_id="run-kept", mqtt=url, mqtt_retain=True
        ) as fleet:
            fleet.run("1min")
        archive = Archive(MqttTarget.parse(url, SinkOptions()), tmp_path / "archive", "late", 0)
        archive.start()
        answer = twin("replay", out, "--to", "mqtt", "--mqtt", url, "--mqtt-retain")
        assert answer.code == 0, answer.err
        clearing = paho.Client(CallbackAPIVersion.VERSION2)
        clearing.connect("127.0.0.1", broker.port)
        clearing.loop_start()
        for topic in ("ev/battery/telemetry/EV-000007", "ev/battery/prediction/EV-000007"):
            clearing.publish(topic, b"", qos=1, retain=True).wait_for_publish(HANG_S)
        clearing.disconnect()
        clearing.loop_stop()
        wait_until(lambda: archive.written >= 20 * 30 + 2, lambda: archive.written)
        archive.stop()
    finally:
        broker.remove()
    kept = list(messages(tmp_path / "archive"))
    assert len(kept) == 20 * 30 + 2, "also what clears is a message"
    answer = twin("ledger", out, "--verify", "--archive", tmp_path / "archive", "--mqtt", url)
    assert answer.code == 0, answer.out + answer.err
