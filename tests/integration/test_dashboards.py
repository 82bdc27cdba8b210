"""The dashboards of `scripts/dashboards`: right by Grafana's own types, and every query of theirs answered by the real
servers behind a real run: PostgreSQL, TimescaleDB, and Prometheus with the fleet, the consumer and Ray."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from matplotlib import image

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.timescale import TimescaleSink, TimescaleTarget, migrate
from datasets.schema import SCHEMAS, STREAMS
from scripts.dashboards import BOARDS, dashboards
from scripts.dashboards.ask import (
    FOLDER,
    Answer,
    Chosen,
    Query,
    ask_database,
    ask_prometheus,
    ask_sql,
    expand,
    queries,
    variable_queries,
)
from tests.integration.test_sinks import insert_instead_of_copy
from tests.services import GrafanaSchema, Kafka, Mosquitto, Postgres, Prometheus, TimescaleDB
from tests.services.base import free_ports
from tests.services.prometheus import FOLDER as PROMETHEUS
from tests.support import HANG_S, wait_until
from twin import Fleet
from twin.folders import ROOT

PROVISIONING = ROOT / "cluster" / "grafana" / "provisioning"
SQL = [query for query in queries() if query.sql]
PROMQL = [query for query in queries() if query.expression]
START = datetime(2026, 6, 1, 7, tzinfo=UTC)
VEHICLES, SHARDS = 24, 2
FAULTY = "EV-000003"
# Tables of what has gone wrong have no rows in a sound fleet. Here a vehicle has a fault, a message was rejected, and a
# broker is down for a while, so that no query is excused.


def boards() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}


def panels() -> list[tuple[str, Any]]:
    return [(name, panel) for name, board in boards().items() for panel in board["panels"]]


# ---- without a server


def test_each_dashboard_has_its_file_and_no_other_is_there() -> None:
    """That the files are what the code says is in tests/twin/test_documents.py."""
    assert set(boards()) == set(BOARDS)


def lost(board: Any, again: Any, path: str = "") -> set[str]:
    """Where something of a dashboard is not there any more once the SDK has read and written it. It adds defaults."""
    if isinstance(board, dict):
        found = [lost(value, again.get(key), f"{path}.{key}") if key in again else {f"{path}.{key}"}
                 for key, value in board.items()]  # fmt: skip
        return set().union(*found)
    if isinstance(board, list):
        return set().union(*(lost(a, b, f"{path}[{n}]") for n, (a, b) in enumerate(zip(board, again, strict=True))))
    return set() if board == again else {path}


@pytest.mark.parametrize("name", BOARDS)
def test_the_sdk_knows_every_key(name: str) -> None:
    def unknown(board: Any) -> set[str]:
        return lost(board, json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)))

    register_default_plugins()
    board = boards()[name]
    assert unknown(board) == set()
    board["panels"][0].setdefault("fieldConfig", {"overrides": []}).setdefault("defaults", {})["decimlas"] = 1
    board["refersh"] = "5s"
    assert unknown(board) == {".refersh", ".panels[0].fieldConfig.defaults.decimlas"}


def test_grafanas_types_fit(grafana_schema: GrafanaSchema) -> None:
    made = dashboards()
    assert grafana_schema.complaints(made) == ""
    wrong = json.loads(made["fleet"])
    wrong["panels"][0]["gridPos"]["w"] = "wide"
    said = grafana_schema.complaints({"fleet": json.dumps(wrong)})
    assert "Type 'string' is not assignable to type 'number'" in said


def test_each_query_has_a_name_of_its_own() -> None:
    names = [str(query) for query in queries()]
    assert sorted(set(names)) == sorted(names)


def test_panels_lie_side_by_side() -> None:
    for name, board in boards().items():
        taken: dict[tuple[int, int], str] = {}
        for panel in board["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24, (name, panel["title"])
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    assert taken.setdefault((x, y), panel["title"]) == panel["title"], name
        assert [panel["id"] for panel in board["panels"]] == list(range(1, len(board["panels"]) + 1))


def test_every_link_leads_to_a_dashboard_with_what_it_needs() -> None:
    uids = {board["uid"]: board for board in boards().values()}
    for name, board in boards().items():
        assert board["refresh"] == "5s"
        assert {link["url"] for link in board["links"]} == {f"/d/{uid}" for uid in uids} - {f"/d/ev-{name}"}
        for url in re.findall(r'"url": "(/d/[^"]+)"', json.dumps(board)):
            path, _, question = url.partition("?")
            there = uids[path.removeprefix("/d/")]
            choices = {choice["name"] for choice in there.get("templating", {}).get("list", ())}
            assert set(re.findall(r"var-(\w+)=", question)) <= choices


def test_a_vehicle_in_a_table_leads_to_its_dashboard() -> None:
    leads = [
        (board, panel["title"])
        for board, panel in panels()
        if panel["type"] == "table" and '"vehicle"' in (panel["targets"][0].get("rawSql") or "")
    ]
    assert len(leads) >= 3
    for board, panel in panels():
        if (board, panel["title"]) in leads:
            [override] = [o for o in panel["fieldConfig"]["overrides"] if o["matcher"]["options"] == "vehicle"]
            assert "/d/ev-vehicle?" in override["properties"][0]["value"][0]["url"]


def test_the_provisioned_sources_are_those_of_the_panels() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "twin.yml").read_text())["datasources"]
    there = {(source["type"], source["uid"]) for source in sources}
    asked = {(target["datasource"]["type"], target["datasource"]["uid"])
             for _, panel in panels() for target in panel.get("targets", ())}  # fmt: skip
    assert asked == there
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "twin.yml").read_text())["providers"]
    assert provider["options"]["path"] == "${TWIN_DASHBOARDS}"


def test_what_grafana_would_send() -> None:
    query = next(query for query in SQL if str(query) == "fleet: State of charge A")
    chosen = Chosen(START, START + timedelta(days=30), {"run_id": "o'clock"})
    assert chosen.interval_s(query) == 7200
    sent = expand(query.sql or "", chosen, 7200)
    assert 'floor(extract(epoch from minute)/7200)*7200 AS "time"' in sent
    assert "run_id = 'o''clock' AND minute BETWEEN '2026-06-01T07:00:00Z' AND '2026-07-01T07:00:00Z'" in sent
    with pytest.raises(ValueError, match="unknown macro"):
        expand("SELECT $__unixEpochFilter(ts)", chosen, 60)


# ---- a real run


@dataclass
class Seen:
    """A run that has been through everything, and what Prometheus said of it while it was there."""

    database: str
    chosen: Chosen
    run: Path
    answers: dict[str, Answer]
    gallery: subprocess.CompletedProcess[str]
    consumer: dict[str, bool]
    """Which metrics of `twin consume` that the rules ask there are."""


@pytest.fixture(scope="module")
def seen(
    ray_cluster: None, postgres: Postgres, kafka: Kafka, mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    import ray

    name = f"dashboards_{uuid.uuid4().hex[:8]}"
    database, run = postgres.create_database(name), tmp_path_factory.mktemp("dashboards") / "run"
    fleet_port, consumer_port, rest_port = free_ports(3)
    [node] = ray.nodes()  # type: ignore[no-untyped-call]
    exporters = {
        "ray": f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}",
        "twin-consume": f"127.0.0.1:{consumer_port}",
    }
    prometheus = Prometheus().scraping(fleet_port, exporters)
    consume = [
        sys.executable, "-m", "twin", "consume", "--group", name, "--kafka", kafka.bootstrap_servers,
        "--timescale", database, "--metrics-port", str(consumer_port), "--output", f"{name}-minute",
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("KAFKA_", "PG_", "TWIN_"))}
    log = open(run.parent / "consume.log", "w")  # noqa: SIM115 - as long as the process
    consumer = subprocess.Popen(consume, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        prometheus.start().wait_ready()
        with Fleet(
            vehicles=VEHICLES, shards=SHARDS, seed=5, telemetry_every="2min", predict_every="10min", out=run,
            kafka=kafka.bootstrap_servers, mqtt=f"mqtt://127.0.0.1:{mosquitto.port}", timescale=database,
            metrics_port=fleet_port, rest_port=rest_port,
        ) as fleet:  # fmt: skip
            begun = time.time()
            fleet.run("12h")
            fleet.vehicle(FAULTY).inject("isolation_fault", 1e-3)
            fleet.run("12h")
            mosquitto.kill()
            answers = _answers(prometheus, fleet, mosquitto, begun)
            asked = set(re.findall(r"ev_consume_\w+", (PROMETHEUS / "rules.yml").read_text()))
            consumes = {name: bool(prometheus.query(name)) for name in asked}
            drawn = gallery("--database", database, "--prometheus", prometheus.url, "--out", run.parent / "pictures")
        run_id = json.loads((run / "run.json").read_text())["run_id"]
        with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO rejected_records (reason, payload) VALUES ('no JSON', 'x')")
            cursor.execute("SELECT max(model_version) FROM predictions")
            [(model,)] = cursor.fetchall()
        variables = {"run_id": run_id, "vehicle": FAULTY, "model": model}
        yield Seen(database, Chosen(START, START + timedelta(days=1), variables), run, answers, drawn, consumes)
    finally:
        mosquitto.restart()
        consumer.terminate()
        consumer.wait(HANG_S)
        log.close()
        prometheus.remove()
        postgres.drop_database(name)


def _answers(prometheus: Prometheus, fleet: Fleet, mosquitto: Mosquitto, begun: float) -> dict[str, Answer]:
    """Of each PromQL its answer, as soon as there is one. The broker is down at first, so that somebody waits and an
    alert fires, and back in the end."""
    answers: dict[str, Answer] = {}

    def asked() -> bool:
        fleet.run("2min")
        for query in PROMQL:
            if str(query) not in answers:
                answer = ask_prometheus(prometheus.url, query, begun, time.time(), "20s")
                if _has_figures(answer):
                    answers[str(query)] = answer
        actors = answers.get("operations: Actors A", Answer()).series or {}
        if actors.get("ShardActor", [(0, 0)])[-1][1] != SHARDS:  # Ray counts every ten seconds
            answers.pop("operations: Actors A", None)
        alerts = answers.get("pipeline: Alerts A", Answer()).series or {}
        if not any("SinkWaits" in series and "alertstate=firing" in series for series in alerts):
            answers.pop("pipeline: Alerts A", None)
        elif not mosquitto.running:
            mosquitto.restart()
        return len(answers) == len(PROMQL)

    with suppress(AssertionError):  # the tests of those that are missing tell
        wait_until(asked, look_s=0.5)
    return answers


def _has_figures(answer: Answer) -> bool:
    values = [value for samples in (answer.series or {}).values() for _, value in samples]
    return any(value == value for value in values)  # 0 / 0 is no figure


@pytest.mark.cluster
@pytest.mark.services
@pytest.mark.timeout(900)
@pytest.mark.parametrize("query", PROMQL, ids=str)
def test_prometheus_answers(query: Query, seen: Seen) -> None:
    assert str(query) in seen.answers, f"no answer to {query.expression}"


@pytest.fixture(scope="module")
def on_postgres(seen: Seen) -> Iterator[Any]:
    with closing(psycopg2.connect(seen.database)) as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture(scope="module")
def on_timescaledb(seen: Seen, timescaledb: TimescaleDB) -> Iterator[Any]:
    """The same records, through the same sink, in hypertables; all but the COPY, which this server does not survive."""
    timescaledb.empty()
    target = TimescaleTarget.parse(timescaledb.url(), SinkOptions())
    assert migrate(target), "it is TimescaleDB"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimescaleSink, "_copy", lambda _sink, *copied: insert_instead_of_copy(*copied))
        for stream in STREAMS:
            sink = target.sink("log", stream)
            sink.open()
            rows = pq.read_table(seen.run / stream, partitioning=None).sort_by([("ts", "ascending")])
            # Small ones: it takes no statement of a hundred kilobytes either.
            batches = rows.cast(pa.schema(SCHEMAS[stream])).combine_chunks().to_batches(max_chunksize=480)
            for number, batch in enumerate(batches):
                sink.deliver(0, batch, number + 1)
            sink.close()
    with closing(psycopg2.connect(timescaledb.url())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO rejected_records (reason, payload) VALUES ('no JSON', 'x')")
            cursor.execute("SELECT count(*) FROM timescaledb_information.hypertables")
            assert cursor.fetchall() == [(2,)]
        yield connection


@pytest.fixture(params=["on_postgres", "on_timescaledb"])
def connection(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


real_run = [pytest.mark.cluster, pytest.mark.services, pytest.mark.timeout(900)]


class TestDatabase:
    pytestmark = real_run

    @pytest.mark.parametrize("query", SQL, ids=str)
    def test_every_panel_has_rows(self, query: Query, connection: Any, seen: Seen) -> None:
        answer = ask_database(connection, query, seen.chosen)
        assert answer.rows
        figures = [value for row in answer.rows for value in row[1:] if value is not None]
        assert figures or len(answer.columns) == 1, "nothing but empty values"

    def test_every_choice_has_some(self, connection: Any, seen: Seen) -> None:
        for (board, name), sql in variable_queries().items():
            found = [row[0] for row in ask_sql(connection, expand(sql, seen.chosen, 60)).rows]
            assert seen.chosen.variables[name] in found, (board, name)

    def test_the_figures_are_those_of_the_records(self, connection: Any, seen: Seen) -> None:
        """Against the run's own files, by another way."""
        made = pd.read_parquet(seen.run / "telemetry", partitioning=None)
        now = made.loc[made.groupby("vehicle_id", observed=True)["seq"].idxmax()]
        assert self.asked(connection, seen, "fleet: Vehicles by state, now A")[0] == {
            "vehicles": VEHICLES,
            **{mode: int((now["mode"] == mode).sum()) for mode in ("parked", "driving", "charging", "fast_charging")},
        }
        day = made[made["ts"] <= pd.Timestamp(seen.chosen.end)]
        charged = day[day["mode"].isin(["charging", "fast_charging"])].groupby("mode", observed=True)
        energy = charged["power_consumption"].sum()
        share = {row["kind"]: row["share of energy"] for row in self.asked(connection, seen,
                 "charging: AC and DC by energy A")}  # fmt: skip
        assert share["DC"] == pytest.approx(energy["fast_charging"] / energy.sum(), abs=2e-3)
        assert share["AC"] + share["DC"] == pytest.approx(1)
        alarms = self.asked(connection, seen, "fleet: Trouble codes and flags, now A")
        assert {row["vehicle"] for row in alarms} == set(
            now[(now["flags"] != 0) | (now["diagnostics"] != 0)].vehicle_id
        )
        assert {row["vehicle"]: row["trouble codes"] for row in alarms}[FAULTY] == "isolation"

    def test_charges_and_trips_are_those_of_the_records(self, connection: Any, seen: Seen) -> None:
        made = pd.read_parquet(seen.run / "telemetry", partitioning=None).sort_values(["vehicle_id", "seq"])
        made = made[made["ts"] <= pd.Timestamp(seen.chosen.end)]
        new = (made["mode"].astype(str) != made["mode"].astype(str).shift()) | (
            made["vehicle_id"].astype(str) != made["vehicle_id"].astype(str).shift()
        )
        stretches = made.assign(part=new.cumsum()).groupby("part").agg(
            vehicle=("vehicle_id", "first"), mode=("mode", "first"), start=("ts", "min"),
            km=("distance_traveled", "max"), km_before=("distance_traveled", "min"),
        )  # fmt: skip
        charges = stretches[stretches["mode"].isin(["charging", "fast_charging"])]
        sessions = self.asked(connection, seen, "charging: Sessions A")
        assert len(sessions) > VEHICLES / 2
        assert {(row["vehicle"], row["start"]) for row in sessions} == {
            (vehicle, start.to_pydatetime())
            for vehicle, start in zip(charges["vehicle"], charges["start"], strict=True)
        }
        by_the_hour = self.asked(connection, seen, "charging: Sessions by the hour they began A")
        assert sum(row["AC"] + row["DC"] for row in by_the_hour) == len(sessions)
        trips = stretches[(stretches["mode"] == "driving") & (stretches["vehicle"] == FAULTY)]
        found = self.asked(connection, seen, "vehicle: Trips A")
        assert sorted(row["distance"] for row in found) == pytest.approx(
            sorted(trips["km"] - trips["km_before"]), abs=1e-3
        )

    def test_intervals_hold_what_is_predicted(self, connection: Any, seen: Seen) -> None:
        for row in self.asked(connection, seen, "vehicle: Remaining useful life A"):
            assert row["at least"] <= row["median"] <= row["at most"]
        [order] = self.asked(connection, seen, "models: In order A")
        assert (order["predictions, now"], order["outside their interval"]) == (VEHICLES, 0)

    def test_the_worst_is_said_why(self, connection: Any, seen: Seen) -> None:
        worst = self.asked(connection, seen, "fleet: The worst 20, and why A")
        assert len(worst) == 20
        assert worst[0]["vehicle"] == FAULTY
        assert worst[0]["why"].startswith("isolation")
        assert all(row["why"] for row in worst)

    @staticmethod
    def asked(connection: Any, seen: Seen, name: str) -> list[dict[str, Any]]:
        [query] = [query for query in SQL if str(query) == name]
        answer = ask_database(connection, query, seen.chosen)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


@pytest.mark.cluster
@pytest.mark.services
@pytest.mark.timeout(900)
def test_who_may_only_read_sees_everything(seen: Seen, postgres: Postgres) -> None:
    """With the rights that docs/dashboards.md gives to Grafana's user."""
    page = (ROOT / "docs" / "dashboards.md").read_text()
    [grants] = re.findall(r"```sql\n(.*?)```", page, flags=re.DOTALL)
    owner = psycopg2.connect(seen.database, user="postgres", password=postgres.password)
    reader = seen.database.replace(f"{postgres.user}:", "grafana:", 1)
    with closing(owner), owner.cursor() as cursor:
        owner.autocommit = True
        cursor.execute(grants.replace("'...'", f"'{postgres.password}'"))
        try:
            with closing(psycopg2.connect(reader, password=postgres.password)) as connection:
                connection.autocommit = True
                for query in SQL:
                    assert ask_database(connection, query, seen.chosen).rows
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    ask_sql(connection, "DELETE FROM telemetry RETURNING seq")
        finally:
            cursor.execute("DROP OWNED BY grafana; DROP ROLE grafana")


@pytest.mark.parametrize("query", SQL, ids=str)
def test_a_database_without_records_is_no_error(query: Query, empty: Any) -> None:
    """A clear empty state: figures that count are 0, the rest says that there is no data."""
    chosen = Chosen(START, START + timedelta(hours=1), {"run_id": "", "vehicle": "", "model": ""})
    ask_database(empty, query, chosen)


@pytest.fixture(scope="module")
def empty(postgres: Postgres) -> Iterator[Any]:
    name = f"empty_{uuid.uuid4().hex[:8]}"
    url = postgres.create_database(name)
    migrate(TimescaleTarget.parse(url, SinkOptions()))
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        yield connection
    postgres.drop_database(name)


@pytest.mark.cluster
@pytest.mark.services
@pytest.mark.timeout(900)
def test_the_ledger_balances(seen: Seen) -> None:
    unaccounted = seen.answers["pipeline: Unaccounted A"].series or {}
    assert set(unaccounted) == {"kafka", "mqtt", "timescale"}
    assert {value for samples in unaccounted.values() for _, value in samples} == {0.0}


@pytest.mark.cluster
@pytest.mark.services
@pytest.mark.timeout(900)
def test_what_the_rules_ask_of_a_consumer_is_there(seen: Seen) -> None:
    assert len(seen.consumer) >= 3
    assert all(seen.consumer.values()), seen.consumer


def gallery(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/gallery.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S)


@pytest.mark.cluster
@pytest.mark.services
@pytest.mark.timeout(900)
def test_the_gallery_draws_every_dashboard(seen: Seen) -> None:
    folder = seen.run.parent / "pictures"
    assert seen.gallery.returncode == 0, seen.gallery.stderr
    pictures = [folder / f"{name}.png" for name in sorted(BOARDS)]
    assert seen.gallery.stdout.split() == [str(path) for path in (*pictures, folder / "index.html")]
    for picture in pictures:
        pixels = image.imread(picture)
        assert pixels.shape[1] > 1000
        assert (pixels[..., :3].min(axis=-1) < 0.9).mean() > 0.01, f"{picture.name} is blank"
    page = (folder / "index.html").read_text()
    assert FAULTY in page, "the worst vehicle is shown where none is asked for"
    assert all(f'src="{picture.name}"' in page for picture in pictures)


def test_the_gallery_says_what_it_lacks(
    postgres: Postgres, postgres_database: str, free_port: int, tmp_path: Path
) -> None:
    def complains(database: str, says: str) -> None:
        done = gallery("--database", database, "--out", tmp_path / "pictures")
        assert done.returncode == 1
        assert done.stderr.startswith("gallery: ")
        assert done.stderr.count("\n") == 1
        assert says in done.stderr
        assert not (tmp_path / "pictures").exists()

    complains(f"postgresql://twin:x@127.0.0.1:{free_port}/twin_data", "expected a database that answers")
    complains("not a database", "expected a database that answers")
    complains(postgres_database, "expected the tables of `twin run --timescale`")
    migrate(TimescaleTarget.parse(postgres_database, SinkOptions()))
    complains(postgres_database, "expected records of a run")


@pytest.mark.cluster
@pytest.mark.services
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--run", "run-nobody"], "expected one of the runs run-"),
        (["--vehicle", "EV-nobody"], "expected a vehicle of the run such as EV-000000, got EV-nobody"),
        (["--prometheus", "http://127.0.0.1:1"], "expected a Prometheus at http://127.0.0.1:1"),
    ],
)
def test_the_gallery_says_what_is_not_there(seen: Seen, flags: list[str], says: str, tmp_path: Path) -> None:
    done = gallery("--database", seen.database, "--out", tmp_path / "pictures", *flags)
    assert done.returncode == 1
    assert done.stderr.startswith("gallery: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
