"""The feeder without Ray and without a pool: each record is predicted once, whatever happens to the pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from actors.prediction.feeder import Answer, Ask, Feeder
from actors.prediction.plan import READER, FeederPlan
from datasets.log import SEGMENT_BYTES, CursorFile, LogWriter, extent, log_directory, read_all
from datasets.log.retention import Retention, retain
from datasets.schema import MODEL_OUTPUTS
from models.features import FEATURES, INPUTS, is_predicted
from tests.support import make_batch, wait_until

VEHICLES, TELEMETRY, PREDICT = 3, 2, 5


class Pool:
    """Answers with a number that says how often it was asked; `down` while the test says so."""

    def __init__(self) -> None:
        self.down = False
        self.risk = 123.456789
        self.asked: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def connect(self) -> Ask:
        if self.down:
            raise RuntimeError("Application 'predictor' does not exist")
        return self.ask

    def ask(self, inputs: npt.NDArray[np.float32]) -> Answer:
        self.asked.append(len(inputs))
        return Answered(self, len(inputs))


class Answered:
    def __init__(self, pool: Pool, rows: int) -> None:
        self._pool, self._rows = pool, rows

    def result(self, *, timeout_s: float) -> dict[str, Any]:
        self._pool.gate.wait(timeout_s)
        if self._pool.down:
            raise RuntimeError("replica died")
        values = np.full(self._rows, 123.456789, np.float32)
        risk = np.full(self._rows, self._pool.risk, np.float32)
        return {field.name: values for field in MODEL_OUTPUTS} | {"failure_probability": risk, "model_version": "1.0.0"}


def feeder_of(run: Path, pool: Pool, first: tuple[int, int] = (0, 0)) -> Feeder:
    return Feeder(
        FeederPlan(run, {0: first, 1: first}, TELEMETRY, PREDICT, 0, 1.0, SEGMENT_BYTES, "pool"), pool.connect
    )


def log_of(run: Path, shard: int, *, first_row: int = 0) -> LogWriter:
    return LogWriter(log_directory(run, "telemetry", shard), first_row=first_row)


def until(what: str, holds: Callable[[], bool]) -> None:
    wait_until(holds, lambda: f"{what} did not come")


def wanted(records: int) -> list[int]:
    """The seqs of which a vehicle gets a prediction."""
    seq = np.arange(records)
    return [int(s) for s in seq[is_predicted(seq, TELEMETRY, PREDICT)]]


def seqs(run: Path, shard: int) -> list[int]:
    table = read_all(log_directory(run, "predictions", shard))
    return [] if table is None else [int(seq) for seq in table.column("seq").to_pylist()]


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_each_record_whose_turn_it_is_is_predicted_once(tmp_path: Path, pool: Pool) -> None:
    feeder = feeder_of(tmp_path, pool)
    feeder.start()
    for shard in (0, 1):
        log = log_of(tmp_path, shard)
        for first in range(0, 40, 10):
            log.append(make_batch(VEHICLES, range(first, first + 10)), first + 10)
        log.close()
    until("everything read", lambda: feeder.status().read == {0: 120, 1: 120})
    status = feeder.stop()
    assert status.predictions == 2 * VEHICLES * len(wanted(40)) == sum(pool.asked)
    assert seqs(tmp_path, 0) == [seq for seq in wanted(40) for _ in range(VEHICLES)]
    assert sum(status.latencies.counts) > 0, "records that were just appended have a time at which they were due"
    assert status.waiting_for == ""


def test_vehicles_at_risk_are_those_of_the_last_prediction(tmp_path: Path, pool: Pool) -> None:
    feeder = feeder_of(tmp_path, pool)
    feeder.start()
    logs = {shard: log_of(tmp_path, shard) for shard in (0, 1)}

    def predicted(shard: int, seqs: range, risk: float) -> int:
        pool.risk = risk
        logs[shard].append(make_batch(VEHICLES, seqs, first_vehicle=VEHICLES * shard), seqs.stop)
        until("everything read", lambda: feeder.status().read[shard] == VEHICLES * seqs.stop)
        return feeder.status().at_risk

    assert predicted(0, range(20), 0.4) == 0
    assert predicted(1, range(20), 0.6) == VEHICLES
    assert predicted(0, range(20, 40), 0.7) == 2 * VEHICLES
    assert predicted(1, range(20, 40), 0.1) == VEHICLES
    feeder.stop()


def test_the_newest_record_of_each_vehicle_is_known(tmp_path: Path, pool: Pool) -> None:
    feeder = feeder_of(tmp_path, pool)
    feeder.start()
    log = log_of(tmp_path, 1)
    assert feeder.vehicle(0) is None
    log.append(make_batch(VEHICLES, range(40)), 40)
    until("everything read", lambda: feeder.status().read[1] == 40 * VEHICLES)
    found = feeder.vehicle(VEHICLES - 1)
    assert found is not None
    assert found.seq == wanted(40)[-1]
    assert found.inputs.shape == (len(FEATURES),)
    assert np.isfinite(found.inputs[:INPUTS]).all()
    late = make_batch(VEHICLES, range(wanted(40)[-2], wanted(40)[-2] + 1))
    log.append(late, 41)
    until("everything read", lambda: feeder.status().read[1] == 41 * VEHICLES)
    again = feeder.vehicle(VEHICLES - 1)
    assert again is not None
    assert again.seq == found.seq, "a record that comes late is not the newest"
    assert feeder.vehicle(VEHICLES) is None
    feeder.stop()


def test_predictions_are_logged_at_their_resolution(tmp_path: Path, pool: Pool) -> None:
    """Text and binary say the same value."""
    feeder = feeder_of(tmp_path, pool)
    log_of(tmp_path, 0).append(make_batch(VEHICLES, range(10)), 10)
    feeder.start()
    until("predictions", lambda: feeder.status().predictions > 0)
    feeder.stop()
    table = read_all(log_directory(tmp_path, "predictions", 0))
    assert table is not None
    assert table.column("rul").to_pylist()[0] == np.float32(123.46)
    assert table.column("failure_probability").to_pylist()[0] == np.float32(123.456787)


def test_while_the_pool_is_down_telemetry_waits_and_says_for_what(tmp_path: Path, pool: Pool) -> None:
    pool.down = True
    feeder = feeder_of(tmp_path, pool)
    feeder.start()
    log = log_of(tmp_path, 0)
    log.append(make_batch(VEHICLES, range(10)), 10)
    until("its reason", lambda: "does not exist" in feeder.status().waiting_for)
    assert feeder.status().predictions == 0
    pool.down = False
    until("predictions", lambda: feeder.status().read[0] == 30)
    feeder.stop()
    assert seqs(tmp_path, 0) == [seq for seq in wanted(10) for _ in range(VEHICLES)]


def test_a_pool_that_dies_with_questions_open_is_asked_again(tmp_path: Path, pool: Pool) -> None:
    feeder = feeder_of(tmp_path, pool)
    pool.gate.clear()
    log = log_of(tmp_path, 0)
    for first in range(0, 40, 10):
        log.append(make_batch(VEHICLES, range(first, first + 10)), first + 10)
    feeder.start()
    until("questions", lambda: len(pool.asked) >= 4)
    pool.down = True
    pool.gate.set()
    until("its reason", lambda: "replica died" in feeder.status().waiting_for)
    pool.down = False
    until("predictions", lambda: feeder.status().read[0] == 120)
    feeder.stop()
    assert seqs(tmp_path, 0) == [seq for seq in wanted(40) for _ in range(VEHICLES)], "none twice, none missing"


def test_a_new_feeder_goes_on_where_the_last_one_logged(tmp_path: Path, pool: Pool) -> None:
    log = log_of(tmp_path, 0)
    log.append(make_batch(VEHICLES, range(10)), 10)
    first = feeder_of(tmp_path, pool)
    first.start()
    until("the first part", lambda: first.status().read[0] == 30)
    first.stop()
    log.append(make_batch(VEHICLES, range(10, 40)), 40)
    second = feeder_of(tmp_path, pool)
    assert second.status().made[0] == VEHICLES * len(wanted(10))
    second.start()
    until("the rest", lambda: second.status().read[0] == 120)
    second.stop()
    assert seqs(tmp_path, 0) == [seq for seq in wanted(40) for _ in range(VEHICLES)]


def test_logs_that_begin_later_are_counted_from_there(tmp_path: Path, pool: Pool) -> None:
    """A shard whose node was lost goes on from a restart point: 10 records a vehicle precede its logs."""
    before = VEHICLES * 10, VEHICLES * len(wanted(10))
    log = log_of(tmp_path, 0, first_row=before[0])
    feeder = feeder_of(tmp_path, pool, before)
    log.append(make_batch(VEHICLES, range(10, 40)), 40)
    feeder.start()
    until("everything", lambda: feeder.status().read[0] == 120)
    status = feeder.stop()
    assert status.made[0] == VEHICLES * len(wanted(40))


def test_a_damaged_log_holds_up_only_its_shard(tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.prediction.feeder._RETRY_S", 0.01)
    for shard in (0, 1):
        log = log_of(tmp_path, shard)
        log.append(make_batch(VEHICLES, range(10)), 10)
        log.close()
    [damaged] = log_directory(tmp_path, "telemetry", 0).glob("*.parquet")
    whole = damaged.read_bytes()
    damaged.write_bytes(b"PAR1" + bytes(200) + b"PAR1")
    feeder = feeder_of(tmp_path, pool)
    feeder.start()
    until("the other shard", lambda: feeder.status().read[1] == 30)
    until("its reason", lambda: "shard 0" in feeder.status().waiting_for and "damaged" in feeder.status().waiting_for)
    log = log_of(tmp_path, 1)
    log.append(make_batch(VEHICLES, range(10, 20)), 20)
    log.close()
    until("more of the other", lambda: feeder.status().read[1] == 60)
    damaged.write_bytes(whole)
    until("the mended one", lambda: feeder.status().read[0] == 30)
    until("no reason", lambda: feeder.status().waiting_for == "")
    feeder.stop()
    assert seqs(tmp_path, 0) == [seq for seq in wanted(10) for _ in range(VEHICLES)]


def test_a_predictions_log_that_cannot_be_written_holds_up_only_its_shard(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.prediction.feeder._RETRY_S", 0.01)
    append, broken = LogWriter.append, threading.Event()
    broken.set()

    def append_or_fail(writer: LogWriter, *arguments: Any) -> None:
        if broken.is_set() and writer._directory == log_directory(tmp_path, "predictions", 0):
            raise RuntimeError("a defect")
        append(writer, *arguments)

    for shard in (0, 1):
        log_of(tmp_path, shard).append(make_batch(VEHICLES, range(10)), 10)
    monkeypatch.setattr(LogWriter, "append", append_or_fail)
    feeder = feeder_of(tmp_path, pool)
    feeder.start()
    until("the other shard", lambda: feeder.status().read[1] == 30)
    until("its reason", lambda: "a defect" in feeder.status().waiting_for)
    broken.clear()
    until("the mended one", lambda: feeder.status().read[0] == 30)
    feeder.stop()
    for shard in (0, 1):
        assert seqs(tmp_path, shard) == [seq for seq in wanted(10) for _ in range(VEHICLES)]


def test_where_nothing_is_to_be_predicted_the_cursor_moves_all_the_same(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention would keep all telemetry between two rare predictions. A new feeder goes on from there."""
    monkeypatch.setattr("actors.prediction.feeder._SAVE_S", 0.0)
    plan = FeederPlan(tmp_path, {0: (0, 0)}, TELEMETRY, 1000, 0, 1.0, SEGMENT_BYTES, "pool")
    log = log_of(tmp_path, 0)
    for first in range(0, 40, 10):
        log.append(make_batch(VEHICLES, range(first, first + 10)), first + 10)
        log.roll()
    log.sync()
    cursor = CursorFile(tmp_path, READER, "telemetry", 0)
    feeder = Feeder(plan, pool.connect)
    feeder.start()
    until("the cursor", lambda: cursor.load().position == 120)
    feeder.stop()
    assert pool.asked == []
    retain(tmp_path, 0, Retention((("telemetry", (READER,)),), max_age_s=-1.0))
    assert extent(log_directory(tmp_path, "telemetry", 0)).first > 0
    again = Feeder(plan, pool.connect)
    assert again.status().read == {0: 120}
    again.start()
    log.append(make_batch(VEHICLES, range(40, 50)), 50)
    until("more", lambda: again.status().read == {0: 150})
    assert again.stop().waiting_for in ("", "the predictor pool to start")
