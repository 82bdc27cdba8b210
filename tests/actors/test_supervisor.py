"""The supervisor without Ray: who is placed where, what is asked, what happens when somebody dies."""

from __future__ import annotations

import dataclasses
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.delivery.sinks.kafka import KafkaTarget
from actors.delivery.sinks.mqtt import MqttTarget
from actors.delivery.sinks.timescale import TimescaleTarget
from actors.fleet.cluster import Pending, Remote
from actors.fleet.placement import Place
from actors.fleet.plan import FleetPlan, PopulationPlan, ShardPlan
from actors.fleet.restart_policy import RestartPolicy
from actors.fleet.shard import Shard
from actors.fleet.slot import ShardSlot
from actors.fleet.status import FleetStatus
from actors.fleet.supervisor import FleetFailed, Supervisor
from actors.prediction.plan import PoolPlan
from datasets.log import Cursor
from tests.actors.cluster import Carried, InProcess, StandIn
from tests.support import HANG_S, wait_until


@dataclass
class Clock:
    """Moves when it is told to, or by `tick_s` each time somebody looks at it."""

    now: float = 1000.0
    tick_s: float = 0.0

    def __call__(self) -> float:
        self.now += self.tick_s
        return self.now

    def sleep(self, seconds: float) -> None:
        """In no time."""
        self.now += seconds


def fleet_plan(run_dir: Path = Path("run"), **changes: Any) -> FleetPlan:
    values: dict[str, Any] = {
        "run_dir": run_dir, "run_id": "run", "log_id": "log", "vehicles": 40, "shards": 4,
        "population": PopulationPlan(1, (("chen2020", 1.0),), None, 10.0, 0.02), "start_s": 0, "step_s": 1.0,
        "telemetry_ticks": 2, "predict_ticks": 5, "checkpoint_ticks": 100, "pace": math.inf,
    }  # fmt: skip
    return FleetPlan(**(values | changes))


KAFKA, MQTT = KafkaTarget(("127.0.0.1:9",)), MqttTarget("127.0.0.1", 9)
POOL = PoolPlan("predictor-log", Path("bundle"))


def started(tmp_path: Path, cluster: InProcess, clock: Clock | None = None, **changes: Any) -> Supervisor:
    return supervised(fleet_plan(tmp_path, **changes), cluster, clock)


def supervised(
    plan: FleetPlan, cluster: InProcess, clock: Clock | None = None, restarts: RestartPolicy | None = None
) -> Supervisor:
    clock = clock or Clock(tick_s=0.01)
    supervisor = Supervisor(plan, cluster, clock, restarts, clock.sleep)
    supervisor.start()
    return supervisor


def stand_in(cluster: InProcess, shard: int) -> StandIn:
    """The newest actor of a shard."""
    found = [actor.thing for actor in cluster.shards if actor.thing.plan.shard == shard][-1]
    assert isinstance(found, StandIn)
    return found


def nothing(_: FleetStatus) -> None:
    pass


def test_a_run_brings_every_shard_to_its_end_and_closes_it(tmp_path: Path) -> None:
    cluster = InProcess()
    supervisor = started(tmp_path, cluster)
    seen: list[FleetStatus] = []
    supervisor.run(1000, seen.append)
    assert cluster.logs == dict.fromkeys(range(4), 1000)
    status = supervisor.status()
    assert (status.tick, status.records, status.vehicles) == (1000, 40 * 500, 40)
    assert seen[-1] == status
    assert supervisor.close().tick == 1000
    assert all(actor.thing.closed and actor.killed for actor in cluster.shards)


def test_blocks_are_bounded_and_end_where_records_are_due(tmp_path: Path) -> None:
    cluster = InProcess()
    plan = fleet_plan(tmp_path, vehicles=2_000_000, shards=1)
    supervisor = supervised(plan, cluster)
    supervisor.run(11, nothing)
    ends = [end for end, _ in stand_in(cluster, 0).blocks]
    assert ends == [4, 8, 11]
    assert plan.longest_block(2_000_000) == 4, "a block of two million vehicles is two records each"
    assert plan.longest_block(10) == 2 * (2 * (1 << 17) // 10)


def test_a_paced_block_is_sent_when_it_is_due_and_says_so(tmp_path: Path) -> None:
    cluster, clock = InProcess(), Clock(tick_s=0.01)
    supervisor = started(tmp_path, cluster, clock, pace=10.0, shards=1)
    began = clock.now
    supervisor.run(20, nothing)
    assert clock.now - began >= 2.0, "twenty steps at ten times real time"
    blocks = stand_in(cluster, 0).blocks
    assert [end for end, _ in blocks] == list(range(2, 21, 2))
    assert all(due_ns for _, due_ns in blocks)


def test_told_to_stop_it_finishes_what_is_on_its_way(tmp_path: Path) -> None:
    cluster = InProcess()
    supervisor = started(tmp_path, cluster, shards=1, vehicles=1)
    looks = iter([False, False, True])
    supervisor.run(100_000_000, nothing, lambda: next(looks))
    asked = stand_in(cluster, 0).blocks[-1][0]
    assert supervisor.status().tick == asked < 100_000_000


def test_told_to_stop_while_a_lost_shard_comes_back_it_still_owes_what_sinks_may_have(tmp_path: Path) -> None:
    """Its log ended at 300 steps and is gone; the run is stopped before it is there again; draining makes the rest."""
    cluster = InProcess(nodes=("a", "b"))
    supervisor = started(tmp_path, cluster, shards=2)
    supervisor.run(300, nothing)
    cluster.nodes = ("b",)
    cluster.shards[0].dead = "node lost"
    cluster.logs[0] = 0
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        return len(cluster.shards) > 2 and looks > 2

    supervisor.run(10_000_000, nothing, stop)
    assert cluster.logs[0] < 300
    assert supervisor.drain(nothing, 5.0)
    assert cluster.logs[0] >= 300


def test_carriers_are_placed_on_each_node_for_the_shards_there(tmp_path: Path) -> None:
    cluster = InProcess(nodes=("a", "b"))
    supervisor = started(tmp_path, cluster, targets=(KAFKA, MQTT), pool=POOL)
    assert [actor.place.node for actor in cluster.shippers] == ["a", "a", "b", "b"]
    assert [actor.place.node for actor in cluster.feeders] == ["a", "b"]
    places = [actor.place for actor in cluster.shippers] + [actor.place for actor in cluster.feeders]
    assert all(place.must and place.restarts for place in places)
    assert [sorted({shard for _, shard in actor.thing.answers.cursors}) for actor in cluster.shippers[::2]] == [
        [0, 2], [1, 3],
    ]  # fmt: skip
    assert cluster.pools == [POOL]
    assert supervisor.processes() == {"shard": [1000, 1001, 1002, 1003]}, "carriers have told nothing yet"
    supervisor.run(10, nothing)
    supervisor.drain(nothing, 1.0)
    assert set(supervisor.processes()) == {"shard", "kafka", "mqtt", "predictor"}


def test_a_shard_that_dies_is_restarted_where_its_log_is(tmp_path: Path) -> None:
    cluster = InProcess()
    supervisor = started(tmp_path, cluster)
    killed: list[int] = []

    def kill(status: FleetStatus) -> None:
        if not killed:
            cluster.shards[1].dead = "killed"
            cluster.logs[1] = 300
            killed.append(1)

    supervisor.run(10_000_000, kill)
    assert len(cluster.shards) == 5
    assert cluster.shards[-1].place.node == "one"
    assert cluster.logs == dict.fromkeys(range(4), 10_000_000)
    assert supervisor.status().restarts == 1


def test_a_shard_that_cannot_live_ends_the_run_and_says_why(tmp_path: Path) -> None:
    cluster = InProcess()
    supervisor = supervised(fleet_plan(tmp_path), cluster, restarts=RestartPolicy(most=4))
    cluster.still_born = "no memory"
    cluster.shards[2].dead = "no memory"
    with pytest.raises(FleetFailed, match=r"shard 2 died 4 times at step 0: no memory"):
        supervisor.run(1000, nothing)


def test_a_shard_on_another_node_gets_carriers_there(tmp_path: Path) -> None:
    """Node a is lost, with its disk: what was on it is made again on b, and both nodes get new carriers."""
    cluster = InProcess(nodes=("a", "b"))
    supervisor = started(tmp_path, cluster, shards=2, targets=(KAFKA,))
    supervisor.run(100, nothing)
    cluster.nodes = ("b",)
    cluster.shards[0].dead = "node lost"
    cluster.logs[0] = 0
    supervisor.run(200, nothing)
    assert [actor.killed for actor in cluster.shippers] == [True, True, False]
    assert sorted({shard for _, shard in cluster.shippers[-1].thing.answers.cursors}) == [0, 1]
    assert cluster.logs == {0: 200, 1: 200}


def test_a_checkpoint_becomes_a_restart_point_when_every_sink_has_what_precedes_it(tmp_path: Path) -> None:
    cluster = InProcess(nodes=("a", "b"))
    supervisor = started(tmp_path, cluster, shards=2, targets=(KAFKA, MQTT))

    def acknowledge(sinks: slice, rows: int) -> None:
        for actor in cluster.shippers[sinks]:
            cursors = actor.thing.answers.cursors
            for log in cursors:
                cursors[log] = Cursor(rows)

    supervisor.run(200, nothing)
    acknowledge(slice(0, 4, 2), 20 * 100)  # Kafka on both nodes, MQTT on none
    supervisor.run(201, nothing)
    assert not list(tmp_path.glob("restart/*.npz"))
    acknowledge(slice(0, 4), 20 * 100)
    for tick in range(202, 206):
        supervisor.run(tick, nothing)
    assert sorted(path.name for path in tmp_path.glob("restart/*.npz")) == ["shard-0000.200.npz", "shard-0001.200.npz"]
    cluster.nodes = ("b",)
    cluster.shards[0].dead = "node lost"
    cluster.logs[0] = 200
    supervisor.run(210, nothing)
    assert stand_in(cluster, 0).plan.restart == b"checkpoint at 200"


def drained(tmp_path: Path, cluster: InProcess, patience_s: float = 5.0, **changes: Any) -> tuple[Supervisor, bool]:
    supervisor = started(tmp_path, cluster, **changes)
    supervisor.run(100, nothing)
    return supervisor, supervisor.drain(nothing, patience_s)


def test_draining_waits_for_sinks_and_ends_when_they_have_all(tmp_path: Path) -> None:
    cluster = InProcess()
    supervisor = started(tmp_path, cluster, targets=(KAFKA,))
    supervisor.run(100, nothing)
    looks = 0

    def deliver(status: FleetStatus) -> None:
        nonlocal looks
        looks += 1
        carried = cluster.shippers[0].thing
        assert isinstance(carried, Carried)
        carried.answers.cursors = {("telemetry", shard): Cursor(100 * looks) for shard in range(4)}  # type: ignore[union-attr]

    assert supervisor.drain(deliver, 5.0)
    assert supervisor.status().backlog == 0
    assert 5 <= looks < 10


def test_draining_gives_up_on_a_sink_without_progress(tmp_path: Path) -> None:
    supervisor, done = drained(tmp_path, InProcess(), targets=(KAFKA,))
    assert not done
    assert supervisor.status().sinks[0].backlog == {"telemetry": 40 * 50, "predictions": 0}


@pytest.mark.parametrize("shared", [True, False])
def test_a_pool_ends_with_its_run_where_the_cluster_does_not(tmp_path: Path, shared: bool) -> None:
    cluster = InProcess()
    pool = dataclasses.replace(POOL, shared=shared)
    supervisor = started(tmp_path, cluster, pool=pool)
    supervisor.run(10, nothing)
    assert cluster.pools == [pool]
    supervisor.close()
    assert cluster.pools == ([] if shared else [pool])


def test_a_run_that_ends_while_its_pool_starts_waits_for_the_start_to_end(tmp_path: Path) -> None:
    """Ray ends after the fleet: a thread that still asks it then takes the whole process along, exit code 1."""
    ended = threading.Event()
    starts: list[threading.Thread] = []

    class Slow(InProcess):
        def start_pool(self, plan: PoolPlan) -> None:
            starts.append(threading.current_thread())
            super().start_pool(plan)
            ended.wait(HANG_S)

        def stop_pool(self, plan: PoolPlan) -> None:
            ended.set()

    supervisor = started(tmp_path, Slow(), pool=dataclasses.replace(POOL, shared=False))
    supervisor.run(10, nothing)
    supervisor.close()
    assert len(starts) == 1
    assert not starts[0].is_alive()


def test_a_pool_that_does_not_start_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    cluster = InProcess(pool_fails="port 8000 is taken")
    with pytest.raises(FleetFailed, match="the pool did not start: port 8000 is taken"):
        drained(tmp_path, cluster, pool=POOL)


def test_a_shard_that_waits_is_said_and_asked_again(tmp_path: Path) -> None:
    cluster = InProcess()
    supervisor = started(tmp_path, cluster, shards=1)
    seen: list[str] = []
    stand_in(cluster, 0).waits = "room on the volume"

    def look(status: FleetStatus) -> None:
        seen.append(status.waiting.get("fleet", ""))
        if len(seen) == 20:
            stand_in(cluster, 0).waits = ""

    supervisor.run(100, look)
    assert seen[5] == "room on the volume"
    assert seen[-1] == ""
    assert cluster.logs == {0: 100}


def test_closing_says_what_did_not_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster = InProcess()
    supervisor = started(tmp_path, cluster, targets=(KAFKA,))
    cluster.silent = {1}
    cluster.shippers[0].dead = "killed"
    supervisor.close()
    assert [record.message for record in caplog.records] == [
        "shard 1 was not closed in order: no answer",
        "kafka did not stop in time: killed",
    ]


def test_vehicles_are_asked_through_their_shard(tmp_path: Path) -> None:
    supervisor = started(tmp_path, InProcess())
    assert supervisor.vehicle_state(25) == {"vehicle": 25, "shard": 2}
    with pytest.raises(ValueError, match="expected a vehicle below 40, got 40"):
        supervisor.inject(40, "leak", 0.0, 1.0)


def test_a_shard_that_finds_no_room_at_its_end_is_closed_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = InProcess()
    supervisor = started(tmp_path, cluster)
    supervisor.run(100, nothing)
    stand_in(cluster, 2).no_room = 3
    supervisor.close()
    assert stand_in(cluster, 2).closed
    waits = [record for record in caplog.records if "shard 2 waits for room on the volume" in record.getMessage()]
    assert len(waits) == 1, "said once"


class Crowded(InProcess):
    """Has no CPU free until it was looked at often enough."""

    looks = 0
    free_after = 0

    def start_shard(self, plan: ShardPlan, place: Place) -> Remote[Shard]:
        self.looks, self.silent = 0, {*self.silent, plan.shard}
        return super().start_shard(plan, place)

    def arrived(self, timeout_s: float) -> list[Pending[Any]]:
        self.looks += 1
        if self.looks > self.free_after:
            self.silent = set()
        return super().arrived(timeout_s)


def test_a_wait_for_cpus_at_the_start_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster = Crowded()
    cluster.free_after = 50
    supervisor = started(tmp_path, cluster, Clock(tick_s=1.0))
    said = {record.message for record in caplog.records}
    assert said == {
        "waiting for 4 of 4 shards to start "
        "(4 CPUs are needed; of 4 in the cluster 0 are free. Add some, or take fewer --shards)"
    }
    supervisor.run(100, nothing)
    assert cluster.logs == dict.fromkeys(range(4), 100)
    assert "fleet" not in supervisor.status().waiting


def test_a_wait_for_cpus_after_the_loss_of_a_node_is_said(tmp_path: Path) -> None:
    cluster = Crowded(nodes=("a", "b"))
    supervisor = started(tmp_path, cluster, Clock(tick_s=0.5), shards=2)
    cluster.nodes, cluster.shards[0].dead, cluster.free_after = ("b",), "node lost", 100
    seen: set[str] = set()
    supervisor.run(1000, lambda status: seen.add(status.waiting.get("fleet", "")))
    assert any("shard 0 to restart (1 CPUs are needed; of 4 in the cluster 0 are free" in text for text in seen)
    assert cluster.logs == {0: 1000, 1: 1000}


def test_more_nodes_than_a_database_may_have_connections(tmp_path: Path) -> None:
    target = TimescaleTarget(("127.0.0.1:9",), "twin", "twin", connections=2)
    with pytest.raises(FleetFailed, match="3 nodes need a database connection each"):
        started(tmp_path, InProcess(nodes=("a", "b", "c")), targets=(target,))


def test_what_changed_is_looked_at_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round costs as much as there are answers, however many shards there are."""
    supervisor = started(tmp_path, InProcess(), pace=10.0)
    sent: list[int] = []
    send = supervisor._send

    def count(slot: ShardSlot, *rest: Any) -> None:
        sent.append(slot.plan.shard)
        send(slot, *rest)

    monkeypatch.setattr(supervisor, "_send", count)
    supervisor.run(20, nothing)
    # Each record is due at once for all: one look when it is due, one when the block has come back.
    assert len(sent) <= 4 * 10 * 2 + 4


def test_a_shard_that_does_not_start_is_started_once_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Slow(InProcess):
        def start_shard(self, plan: ShardPlan, place: Place) -> Remote[Shard]:
            self.still_born = "worker did not register in time" if len(self.shards) == 2 else ""
            return super().start_shard(plan, place)

    cluster = Slow()
    supervisor = started(tmp_path, cluster)
    assert [record.message for record in caplog.records] == [
        "shard 2 did not start (worker did not register in time); starting it once more"
    ]
    supervisor.run(100, nothing)
    assert cluster.logs == dict.fromkeys(range(4), 100)
    with pytest.raises(FleetFailed, match=r"shard \d did not start, twice: no memory"):
        started(tmp_path, InProcess(still_born="no memory"))


def test_a_pool_that_does_not_start_is_started_once_more(tmp_path: Path) -> None:
    cluster = InProcess(pool_fails_once="the controller did not answer")
    started(tmp_path, cluster, pool=POOL).drain(nothing, 0.0)
    wait_until(lambda: cluster.pool_starts == 2)
    assert cluster.pools == [POOL], "what the first start left is ended before the second"


def test_a_replica_that_is_being_started_is_waited_for(tmp_path: Path) -> None:
    """The pool was up; its replica died, and the cluster takes longer than our patience for a new one."""
    cluster, clock = InProcess(replica_up=False), Clock(tick_s=0.5)
    supervisor = started(tmp_path, cluster, clock, pool=POOL)
    supervisor.run(100, nothing)
    began = clock.now

    def up_again(status: FleetStatus) -> None:
        if clock.now - began > 100.0:
            cluster.replica_up = True
            cluster.feeders[0].thing.answers.read = dict.fromkeys(range(4), 500)

    assert supervisor.drain(up_again, 5.0)
    assert clock.now - began > 100.0


def test_vehicles_of_a_shard_that_owes_its_block_are_silent(tmp_path: Path) -> None:
    """No answer, no death, no reason to wait: only time says that something is wrong."""
    cluster, clock = InProcess(), Clock(tick_s=0.05)
    supervisor = started(tmp_path, cluster, clock)
    supervisor.run(100, nothing)
    assert supervisor.status().silent == 0
    cluster.silent = {2}
    began, found = clock.now, set[int]()

    def until(status: FleetStatus) -> None:
        found.add(status.silent)
        if clock.now > began + 60.0:
            cluster.silent = set()

    supervisor.run(200, until)
    assert found == {0, 10}, "the vehicles of one shard of four"
    assert supervisor.status().silent == 0


def test_replicas_are_counted_against_those_that_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.fleet.supervisor._REPLICAS_S", 0.001)
    cluster = InProcess()
    supervisor = started(tmp_path, cluster, pool=dataclasses.replace(POOL, replicas=(2, 3), shared=True))

    def replicas() -> tuple[int, int] | None:
        supervisor.run(supervisor.status().tick + 10, nothing)
        return supervisor.status().replicas

    wait_until(lambda: replicas() == (1, 2))
    cluster.replica_up = False
    wait_until(lambda: replicas() == (0, 2))
    supervisor.close()
    cluster.replica_up = True
    assert supervisor.status().replicas == (0, 2), "nobody looks any more"
