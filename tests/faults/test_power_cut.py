"""A run whose machine loses its power at any moment goes on to the same records.

A short run is recorded: a shard with frames and blocks sealed at once, checkpoints, retention; the feeder; a sink with
its cursors and dead letters; run.json; a restart point. `power_cut.py` says what a cut may leave. From each such state
the run goes on to its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from actors.fleet.plan import PopulationPlan, ShardPlan
from actors.fleet.restart_points import RestartPoints
from actors.fleet.shard import Shard
from actors.prediction.feeder import Answer, Ask, Feeder
from actors.prediction.plan import READER, FeederPlan
from datasets.log import Cursor, CursorFile, DeadLetterFile, LogReader, extent, log_directory
from datasets.log.retention import Retention
from datasets.schema import MODEL_OUTPUTS, STREAMS, Stream
from tests.faults.power_cut import Anything, Extreme, Loss, Recorder, lay_out
from tests.support import wait_until
from twin.errors import BadInput
from twin.run_directory import load_run, save_run

START_S = 1_780_300_800
VEHICLES, TELEMETRY, PREDICT, CHECKPOINT = 3, 2, 5, 60
# Where blocks end: short ones, which are frames, and some of 60 rows and more, which are sealed at once.
BLOCKS = (10, 20, 30, 74, 84, 124, 126, 136, 190, 200, 210, 220, 230, 290, 300)
BLOCKS_AFTER = (30, 90, 96, 220, 300)
RECORDS = VEHICLES * BLOCKS[-1] // TELEMETRY
RETENTION = Retention((("telemetry", ("kafka", READER)), ("predictions", ("kafka",))), max_age_s=1e9, max_bytes=60_000)
TRIED = 300


def losses(moment: int) -> tuple[Loss, ...]:
    """Those tried at a moment."""
    return (
        *(Extreme(all_names, contents) for all_names in (True, False) for contents in ("written", "synced")),
        Extreme(True, "zeros"),
        *(Extreme(True, "torn", share) for share in (0.4, 0.97)),
        *(Anything(Random(2 * moment + n)) for n in range(2)),
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.log.writer.DIRECT_ROWS", 60)
    monkeypatch.setattr("actors.fleet.shard._RETAIN_EVERY_S", 0.0)
    monkeypatch.setattr("actors.prediction.feeder._IDLE_S", 0.002)


class Answered:
    """An answer that is a function of the question."""

    def __init__(self, inputs: npt.NDArray[np.float32]) -> None:
        self._sums = np.nansum(inputs, axis=1)  # also of what months tell: the age of the vehicle, at least

    def result(self, *, timeout_s: float) -> dict[str, Any]:
        return {output.name: self._sums for output in MODEL_OUTPUTS} | {"model_version": "1.0.0"}


def ask(inputs: npt.NDArray[np.float32]) -> Answer:
    return Answered(inputs)


def connect() -> Ask:
    return ask


@dataclass
class Sink:
    """A broker outside the machine: it keeps what it has taken. It rejects every 60th record."""

    taken: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(STREAMS, 0))
    letters: set[int] = field(default_factory=set)
    note: Callable[[], None] = lambda: None

    def take(self, run: Path) -> None:
        for stream in STREAMS:
            cursor = CursorFile(run, "kafka", stream, 0)
            letters = DeadLetterFile(run, "kafka", stream, 0)
            position = cursor.load().position
            with LogReader(log_directory(run, stream, 0), position) as reader:
                while (frame := reader.read(20)) is not None:
                    position = frame.row + frame.batch.num_rows
                    for row in range(-(-frame.row // 60) * 60, position if stream == "telemetry" else 0, 60):
                        letters.add(row, frame.batch.slice(row - frame.row, 1), "too large")
                        self.letters.add(row)
                    self.taken[stream] = max(self.taken[stream], position)
                    self.note()
                    cursor.save(Cursor(position, dead=len(letters)))


@dataclass
class Known:
    """What the world outside the machine knew at a moment."""

    moment: int
    taken: dict[Stream, int]
    letters: set[int]
    begun: bool


def plan(run: Path, retention: Retention | None) -> ShardPlan:
    return ShardPlan(
        run_dir=run, run_id="run-test", shard=0, first_vehicle=0, vehicles=VEHICLES,
        population=PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02), start_s=START_S, step_s=1.0,
        telemetry_ticks=TELEMETRY, checkpoint_ticks=CHECKPOINT, retention=retention, predicted=True,
    )  # fmt: skip


class Life:
    """A run, from wherever its directory is to its end."""

    def __init__(self, run: Path, sink: Sink, recorder: Recorder | None = None) -> None:
        self.run, self.sink, self.recorder = run, sink, recorder
        self.known: list[Known] = []
        self.begun = False
        sink.note = self.note

    def note(self) -> None:
        if self.recorder is not None:
            sink = self.sink
            self.known.append(Known(self.recorder.moment, dict(sink.taken), set(sink.letters), self.begun))

    def live(self, blocks: tuple[int, ...], retention: Retention | None = None) -> None:
        facts = {"run_id": "run-test", "settings": {}, "versions": {}, "period_s": 2.0}
        self.note()
        save_run(self.run, facts | {"state": "running"})
        self.begun = True
        self.note()
        shard, points = Shard(plan(self.run, retention)), RestartPoints(self.run)
        feeder = Feeder(FeederPlan(self.run, {0: (0, 0)}, TELEMETRY, PREDICT, START_S, 1.0, 8_000, "pool"), connect)
        feeder.start()
        while (status := shard.status()).tick < blocks[-1]:
            end = next(end for end in blocks if end > status.tick)
            if shard.advance(end).waiting_for:
                self._followed(shard, feeder)
            tick, content = shard.checkpoint()
            if points.wants(0, tick):
                points.offer(0, tick, content)
                points.confirm(0)
        self._followed(shard, feeder)
        feeder.stop()
        self.sink.take(self.run)
        assert not shard.close().waiting_for
        save_run(self.run, facts | {"state": "finished"})

    def _followed(self, shard: Shard, feeder: Feeder) -> None:
        """The readers have all that there is."""
        made = shard.status().records
        wait_until(lambda: feeder.status().read[0] >= made, lambda: str(feeder.status()), look_s=0.001)
        self.sink.take(self.run)


def rows(run: Path, stream: Stream) -> pa.Table:
    directory = log_directory(run, stream, 0)
    batches = []
    with LogReader(directory, extent(directory).first) as reader:
        while (frame := reader.read(1 << 20)) is not None:
            batches.append(frame.batch)
    return pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()


def check(run: Path, known: Known, whole: dict[Stream, pa.Table]) -> None:
    """Go on from what a power cut has left, and compare with the undisturbed run."""
    try:
        assert load_run(run)["run_id"] == "run-test"
    except BadInput:
        assert not known.begun
        assert not (run / "telemetry").exists()
    if content := RestartPoints(run).load(0):
        with zipfile.ZipFile(BytesIO(content)) as archive:
            assert archive.testzip() is None
    for stream in STREAMS:
        position = CursorFile(run, "kafka", stream, 0).load().position
        first = extent(log_directory(run, stream, 0)).first
        assert first <= position <= known.taken[stream], "an old cursor, but never older than the log"
    assert {*known.letters} <= {*letters_in(run)}
    sink = Sink(dict(known.taken), set(known.letters))
    Life(run, sink).live(BLOCKS_AFTER)
    for stream in STREAMS:
        held = extent(log_directory(run, stream, 0))
        assert held.end == len(whole[stream]) == sink.taken[stream]
        assert rows(run, stream).equals(whole[stream].slice(held.first).combine_chunks())
    assert sorted(letters_in(run)) == [*range(0, RECORDS, 60)]
    assert not [*run.glob("**/*.open"), *run.glob("**/*.tmp")]


def letters_in(run: Path) -> list[int]:
    letters = DeadLetterFile(run, "kafka", "telemetry", 0)
    lines = letters.path.read_text().splitlines() if letters.path.exists() else []
    return [json.loads(line)["position"] for line in lines]


@pytest.mark.timeout(1200)
def test_every_state_that_a_power_cut_leaves_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed = tmp_path / "undisturbed"
    Life(undisturbed, Sink()).live(BLOCKS)
    whole = {stream: rows(undisturbed, stream) for stream in STREAMS}
    assert len(whole["telemetry"]) == RECORDS
    home = tmp_path / "home"
    home.mkdir()
    recorder = Recorder(home)
    with recorder.recording(monkeypatch):
        life = Life(home / "run", Sink(), recorder)
        life.live(BLOCKS, RETENTION)
    assert extent(log_directory(home / "run", "telemetry", 0)).first > 0, "retention has dropped something"
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the machine that goes on keeps its power
    states: dict[bytes, tuple[int, int]] = {}
    for moment in range(recorder.moment + 1):
        for number, loss in enumerate(losses(moment)):
            left = repr(sorted(recorder.state(moment, loss).items()))
            states.setdefault(hashlib.sha256(left.encode()).digest(), (moment, number))
    tried = Random(0).sample(sorted(states.values()), TRIED)
    for moment, number in tried:
        folder = tmp_path / f"{moment}-{number}"
        lay_out(recorder.state(moment, losses(moment)[number]), folder)
        check(folder / "run", [known for known in life.known if known.moment <= moment][-1], whole)
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\npower cut: {recorder.moment} moments leave {len(states)} states, {len(tried)} of them tried")
