"""Every query of the Grafana dashboards on PostgreSQL, with a month of 5,000 vehicles.

python benchmarks/dashboards.py [--quick]
Prints and writes benchmarks/results/dashboards.json. The rows are made up (days with trips, AC at home, DC on the way;
physics would take longer than the database), and go through the real sink: COPY, and the sums by the minute. A record
every ten minutes of each vehicle and a prediction every hour are 21.6 and 3.6 million rows. At 2 s they would be 6.5
billion, a terabyte and more. A tenth of the fleet reports in each minute, so the sums by the minute are as many as they
would be at 2 s. Each query asks for all 30 days and is run five times: the first and the median. Two lines beside them
say what the same takes without the sums and without the function for the newest records.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg2
import pyarrow as pa

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.timescale import TimescaleTarget
from benchmarks import parser, results_of, server
from datasets.schema import FIELDS, SCHEMAS, STREAMS, Stream, vehicle_id
from physics.columns import MODES
from scripts.dashboards.ask import Chosen, ask_sql, expand, queries, variable_queries
from tests.services import Postgres

RUN, MODEL = "run-month", "1.0.0"
START = datetime(2026, 6, 1, tzinfo=UTC)
PARKED, DRIVING, AC, DC = range(len(MODES))


@dataclass(frozen=True)
class Size:
    """A fleet, its days, and seconds between records and between predictions."""

    vehicles: int = 5_000
    days: int = 30
    telemetry_s: int = 600
    predict_s: int = 3600
    rounds: int = 5

    @property
    def end(self) -> datetime:
        return START + timedelta(days=self.days)


QUICK = Size(vehicles=40, days=2, rounds=1)


def month(size: Size) -> Iterator[tuple[Stream, pa.RecordBatch]]:
    """Batches in the order of time, one for each sample of the whole fleet."""
    chance = np.random.default_rng(1)
    count, hours = size.vehicles, size.telemetry_s / 3600
    ids = pa.array([vehicle_id(v) for v in range(count)]).dictionary_encode()
    phase, long_way = chance.normal(0.0, 1.0, count), chance.random(count) < 0.1
    soc, km = chance.uniform(0.3, 0.9, count), chance.uniform(0, 150_000, count)
    soh = 1.0 - 0.12 * km / 150_000 + chance.normal(0, 0.01, count)
    mode = np.zeros(count, np.int64)
    for seq in range(size.days * 86400 // size.telemetry_s):
        hour = (seq * hours + phase) % 24
        drives = ((hour > 7) & (hour < 7.7)) | ((hour > 17) & (hour < 17.7)) | (long_way & (hour > 10) & (hour < 14))
        plugged = (hour > 19) | (hour < 5)
        mode = np.where(drives & (soc > 0.15) & (mode != DC), DRIVING, np.where(plugged & (soc < 0.8), AC, PARKED))
        mode = np.where(drives & (soc <= 0.15) | ((mode == PARKED) & drives & (soc < 0.7)), DC, mode)
        power = np.select([mode == DRIVING, mode == AC, mode == DC], [12.0, -10.0, -110 * (1.05 - soc)], 0.1)
        power += chance.normal(0, 0.2, count)
        soc = np.clip(soc - power * hours / 60.0, 0.02, 1.0)
        km += np.where(mode == DRIVING, 45 * hours, 0.0)
        voltage = 330 + 70 * soc - 0.1 * power
        warm = 20 + 4 * np.sin(hour / 24 * 2 * np.pi) + np.abs(power) * 0.1
        facts = {
            "soc": soc, "soh": soh, "battery_voltage": voltage, "power_consumption": power,
            "battery_current": 1000 * power / voltage, "battery_temperature": warm, "charge_cycles": km / 300,
            "cell_voltage_min": voltage / 96 - 0.004, "cell_voltage_max": voltage / 96 + 0.004,
            "cell_temperature_min": warm - 1, "cell_temperature_max": warm + 1, "ambient_temperature": warm - 3,
            "driving_speed": np.where(mode == DRIVING, 45.0, 0.0), "distance_traveled": km,
            "resistance": np.full(count, 0.1), "resistance_25": np.full(count, 0.1),
            "diagnostics": np.where(np.arange(count) % 1000 == 7, 8, 0), "flags": np.zeros(count),
        }  # fmt: skip
        yield "telemetry", _batch("telemetry", seq, ids, facts, size, mode=pa.array(MODES).take(pa.array(mode)))
        if (seq + 1) * size.telemetry_s % size.predict_s == 0:
            rul = np.maximum(2000 * (soh - 0.75), 1.0)
            facts = {"rul": rul, "rul_low": 0.5 * rul, "rul_high": 1.6 * rul, "failure_probability": 0.3 * (1 - soh)}
            versions = pa.array([MODEL] * count)
            yield "predictions", _batch("predictions", seq, ids, facts, size, model_version=versions)


def _batch(
    stream: Stream, seq: int, ids: pa.Array, facts: dict[str, Any], size: Size, **words: pa.Array
) -> pa.RecordBatch:
    # A part of the fleet each minute, in the order of time.
    minutes = np.arange(size.vehicles) % (size.telemetry_s // 60)
    order = np.argsort(minutes, kind="stable")
    start_us = int(START.timestamp() * 1e6)
    ts = start_us + (seq * size.telemetry_s + (minutes + 1) * 60) * 1_000_000
    made: dict[str, Any] = {
        "run_id": pa.array([RUN] * size.vehicles),
        "vehicle_id": ids,
        "seq": np.full(size.vehicles, seq),
        "ts": pa.array(ts, pa.timestamp("us", tz="UTC")),
        **words,
    }
    for field in FIELDS[stream]:
        if field.name not in made:
            made[field.name] = np.round(facts[field.name], field.decimals or 0)
    schema = SCHEMAS[stream]
    arrays = [pa.array(made[name]) if isinstance(made[name], np.ndarray) else made[name] for name in schema.names]
    return pa.record_batch(
        [array.cast(schema.field(name).type) for name, array in zip(schema.names, arrays, strict=True)], schema=schema
    ).take(pa.array(order))


def fill(url: str, size: Size) -> dict[str, float]:
    """Write the month; rows of each stream, and the seconds that it took."""
    target = TimescaleTarget.parse(url, SinkOptions())
    sinks = {stream: target.sink("log", stream) for stream in STREAMS}
    written = dict.fromkeys(STREAMS, 0)
    for sink in sinks.values():
        sink.open()
    begun = time.perf_counter()
    for stream, batch in month(size):
        written[stream] += batch.num_rows
        sinks[stream].deliver(0, batch, written[stream])
    took = time.perf_counter() - begun
    for sink in sinks.values():
        sink.close()
    return {"seconds": took, **{stream: float(rows) for stream, rows in written.items()}}


def timed(connection: Any, sql: str, rounds: int) -> dict[str, float]:
    """Seconds of the first call and of the median one; rows."""
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        rows = ask_sql(connection, sql).rows
        seconds.append(time.perf_counter() - begun)
    return {"first_s": seconds[0], "median_s": statistics.median(seconds), "rows": len(rows)}


def without(size: Size) -> dict[str, str]:
    """The same questions to the tables as they were before the sums and the functions."""
    return {
        "without: state of charge from the records": "SELECT floor(extract(epoch from ts)/7200)*7200, min(soc),"
        f" avg(soc), max(soc) FROM telemetry WHERE run_id = '{RUN}' GROUP BY 1",
        "without: newest record by DISTINCT ON": "SELECT DISTINCT ON (vehicle_id) * FROM telemetry"
        f" WHERE run_id = '{RUN}' ORDER BY vehicle_id, seq DESC",
    }


def main() -> None:
    arguments = parser(__doc__).parse_args()
    size = QUICK if arguments.quick else Size()
    with server(Postgres) as postgres:
        url = postgres.create_database("dashboards")
        filled = fill(url, size)
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("VACUUM (ANALYZE)")  # what the server does by itself a minute later
            [[size_bytes]] = ask_sql(connection, "SELECT pg_database_size(current_database())").rows
            print(
                f"{filled['telemetry']:,.0f} records and {filled['predictions']:,.0f} predictions of {size.vehicles:,}"
                f" vehicles in {filled['seconds']:.0f} s, {size_bytes / 1e9:.1f} GB"
            )
            chosen = Chosen(START, size.end, {"run_id": RUN, "model": MODEL, "vehicle": vehicle_id(size.vehicles // 2)})
            asked: dict[str, str] = {
                str(query): expand(query.sql, chosen, chosen.interval_s(query)) for query in queries() if query.sql
            }
            for (board, name), sql in variable_queries().items():
                asked[f"{board}: choice {name}"] = expand(sql, chosen, 60)
            table = {name: timed(connection, sql, size.rounds) for name, sql in asked.items()}
            reference = {name: timed(connection, sql, 1) for name, sql in without(size).items()}
    for name, row in sorted((table | reference).items(), key=lambda item: -item[1]["median_s"]):
        print(f"{name:<60} {row['median_s']:7.3f} s, first {row['first_s']:7.3f} s, {row['rows']:6,} rows")
    slow = [name for name, row in table.items() if row["median_s"] >= 1.0]
    print(f"{len(table)} queries, {len(slow)} of a second or more{': ' + ', '.join(slow) if slow else ''}")
    facts = {"filled": filled, "bytes": size_bytes, "queries": table, "reference": reference}
    results_of("dashboards", arguments).write(facts)


if __name__ == "__main__":
    main()
