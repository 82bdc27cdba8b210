"""The wall clock steps backwards.

The one fault that is played and not made: a step of the real clock would take the whole machine along, and libfaketime
breaks Python's sleep. So the parts of one node run here in one process, their clock a step behind from the middle on.
"""

from __future__ import annotations

import time

import pytest

from actors.delivery.shipper import Shipper
from actors.delivery.sinks import SinkOptions, Target, reader_of
from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.mqtt import MqttTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from actors.fleet.plan import PopulationPlan, ShardPlan
from actors.fleet.shard import Shard
from datasets.log.cursor import CursorFile
from datasets.log.retention import Retention
from tests.faults.scene import VEHICLES, Scene
from tests.support import HANG_S, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

_STEP_S = 86_400.0


def test_wall_clock_stepped_backwards(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day back in mid-run: pace, order and cursors do not look at it; no latency is below zero, or a day."""
    targets: list[Target] = [
        KafkaTarget.parse(scene.urls["kafka"], SinkOptions(payload=scene.payload)),
        MqttTarget.parse(scene.urls["mqtt"], SinkOptions(payload=scene.payload)),
        TimescaleTarget.parse(scene.urls["timescale"], SinkOptions(payload=scene.payload)),
    ]
    sinks = tuple(reader_of(target) for target in targets)
    plan = ShardPlan(
        run_dir=scene.run,
        run_id=scene.run_id,
        shard=0,
        first_vehicle=0,
        vehicles=VEHICLES,
        population=PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02),
        start_s=1_780_300_800,
        step_s=1.0,
        telemetry_ticks=2,
        checkpoint_ticks=60,
        retention=Retention((("telemetry", sinks), ("predictions", sinks)), max_age_s=3600.0),
    )
    scene.run.mkdir()
    scene.write_run(VEHICLES, plan.population.seed)
    shard = Shard(plan)
    shippers = [Shipper(target, scene.run, scene.run_id, {0: (0, 0)}) for target in targets]
    for shipper in shippers:
        shipper.start()
    back_s = 0.0
    real_time, real_time_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real_time() - back_s)
    monkeypatch.setattr(time, "time_ns", lambda: real_time_ns() - int(back_s * 1e9))
    for tick in range(2, 602, 2):
        due_ns = time.time_ns()
        if tick == 300:  # after this block was due, before anybody takes it
            back_s, stepped = _STEP_S, time.monotonic()
        shard.advance(tick, due_ns)
        time.sleep(0.01)
    rows = VEHICLES * 300
    positions = [CursorFile(scene.run, reader, "telemetry", 0) for reader in sinks]
    wait_until(lambda: min(file.load().position for file in positions) >= rows)
    scene.recoveries.append(("wall clock stepped a day back (until all is delivered)", time.monotonic() - stepped))
    statuses = [shipper.stop() for shipper in shippers]
    shard.close()
    assert all(status.retries == 0 for status in statuses)
    for latencies in (status.latencies for status in statuses):
        # The block that was due a day later than it was acknowledged would outweigh the wait for all others.
        assert 0.0 <= latencies.sum_s < HANG_S * rows
        assert HANG_S * rows < _STEP_S * VEHICLES
        assert (sum(latencies.counts), latencies.counts[-1]) == (rows, 0)
    scene.balance()
