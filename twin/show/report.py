"""`report.html`: one file that shows a run, without scripts. DuckDB reads the Parquet files that the run left.

Plots are SVG inside the page, so they print sharp and scale to a phone. The queries group times into bins, so the page
of a fleet-year is as small as that of an hour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.log.durable import replace_file
from datasets.schema import STREAMS
from physics import MODES
from twin.books.ledger import Books, Line
from twin.books.sealed import opened, read_parquet, sealed, some_sealed
from twin.errors import TwinError
from twin.run_directory import load_run
from twin.show.plots import BLUE, GREEN, GREY, INK, RED, styled
from twin.show.progress import human_time

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_BINS = 120
_DAY_POINTS = 1500
_CHARGE_PERIOD_S = 900.0
_CHARGE_POINTS = 2000
_FAN = ((0.05, 0.95), (0.25, 0.75))
_MODE_COLOURS = dict(zip(MODES, ("#c9d2da", BLUE, GREEN, "#e0882b"), strict=True))

# What is drawn as a fan over time: column, axis label, scale to the unit shown.
_FANS = (
    ("battery_voltage", "Pack voltage [V]", 1.0),
    ("battery_temperature", "Battery temperature [°C]", 1.0),
    ("soc", "State of charge [%]", 100.0),
    ("soh", "State of health [%]", 100.0),
)


def write_report(run: Path) -> Path:
    """Write `run`/report.html and return its path. BadInput where `run` holds no run or no sealed telemetry."""
    facts = load_run(run)
    some_sealed(run, "telemetry")
    sources = {stream: sealed(run, stream) for stream in STREAMS}
    with opened(run) as database, styled():
        for stream, files in sources.items():
            if files:
                # Times are UTC. The cast removes their zone, so that pandas gets plain datetimes.
                database.execute(
                    f"CREATE VIEW {stream} AS SELECT * REPLACE (CAST(ts AS TIMESTAMP) AS ts) FROM {read_parquet(files)}"
                )
        page = _page(database, run, facts, _delivery(run), has_predictions=bool(sources["predictions"]))
    target = run / "report.html"
    replace_file(target, page.encode())
    return target


def _frame(database: duckdb.DuckDBPyConnection, query: str, params: list[Any] | None = None) -> pd.DataFrame:
    found: pd.DataFrame = database.sql(query, params=params).to_arrow_table().to_pandas()
    return found


def _page(
    database: duckdb.DuckDBPyConnection,
    run: Path,
    facts: dict[str, Any],
    delivery: list[Line],
    *,
    has_predictions: bool,
) -> str:
    binned = _binned(database)
    vehicle, day = _one_vehicle(database, facts["period_s"])
    last = _last_predictions(database) if has_predictions else None
    charged, known = _charging(database, facts["period_s"]), _truth(database, run)
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html").render(
        facts=facts,
        counts=facts.get("counts"),
        delivery=delivery,
        tiles=_tiles(database, facts),
        throughput=_throughput(facts),
        modes=_svg(lambda: _draw_modes(database), "Share of vehicles parked, driving and charging over time"),
        fans=_svg(lambda: _draw_fans(binned), "Voltage, temperature, SoC and SoH of the fleet over time"),
        spread=_svg(lambda: _draw_spread(database), "Spread of SoH and of temperature across vehicles at the end"),
        vehicle=vehicle,
        has_days=_has_days(facts["period_s"]),
        day=_svg(lambda: _draw_day(day), f"Speed, power, voltage, temperature and SoC of {vehicle}")
        if _has_days(facts["period_s"])
        else _svg(lambda: _draw_life(day), f"SoH, resistance, cycles and distance of {vehicle}"),
        charging=charged
        and _svg(lambda: _draw_charging(charged), "Charging power over state of charge, and energy by kind"),
        truth=None if known is None else _svg(lambda: _draw_truth(known), "What vehicles report against what is true"),
        files=[name for name in (*STREAMS, "truth", "months", "run.json") if (run / name).exists()],
        predictions=None if last is None else _svg(lambda: _draw_predictions(last), "Predictions of every vehicle"),
        model=None if last is None else str(last["model_version"].iloc[0]),
    )


def _delivery(run: Path) -> list[Line]:
    """The ledger, one line for each sink and stream that has records. Empty where no sink was on, or where the books
    cannot be read (a run of an older version)."""
    try:
        return [line for line in Books(run).ledger().sums() if line.made]
    except TwinError:
        return []


def _has_days(period_s: float) -> bool:
    """Whether there is more than one record per day, so that the course of a day can be drawn."""
    return period_s < 86400.0


def _svg(draw: Callable[[], Figure], title: str) -> dict[str, str]:
    """The figure as an SVG element, with a title for readers who cannot see it."""
    text = io.StringIO()
    draw().savefig(text, format="svg", metadata={"Date": None})
    body = text.getvalue()
    body = body[body.index("<svg") :]
    # Without fixed width and height the figure scales with the page.
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return {"svg": head + ">" + rest, "title": title}


def _tiles(database: duckdb.DuckDBPyConnection, facts: dict[str, Any]) -> list[tuple[str, str]]:
    row = database.sql(
        "SELECT count(DISTINCT vehicle_id), count(*), min(ts), max(ts), sum(CAST(flags <> 0 AS BIGINT)) FROM telemetry"
    ).fetchall()[0]
    vehicles, records, first, last, flagged = row
    tiles = [
        ("vehicles", f"{vehicles:,}"),
        (
            f"simulated, to {last.isoformat(' ', 'minutes')} UTC",
            human_time((last - first).total_seconds() + facts["period_s"]),
        ),
        ("telemetry records", f"{records:,}"),
    ]
    if counts := facts.get("counts"):
        tiles.append(("predictions", f"{counts['predictions']:,}"))
        tiles.append(("real-time factor", f"{counts['simulated_s'] / max(counts['elapsed_s'], 1e-9):,.0f}×"))
    tiles.append(("records with a flag set", f"{flagged / records:.2%}"))
    return tiles


def _throughput(facts: dict[str, Any]) -> list[tuple[str, str]]:
    counts = facts.get("counts")
    if not counts or not counts["elapsed_s"]:
        return []
    steps = counts["vehicles"] * counts["steps"]
    return [
        ("wall time, from the start of the shards to the last delivery", human_time(counts["elapsed_s"])),
        ("telemetry records per second", f"{counts['telemetry'] / counts['elapsed_s']:,.0f}"),
        ("predictions per second", f"{counts['predictions'] / counts['elapsed_s']:,.0f}"),
        ("vehicle-steps", f"{steps:,}"),
        ("shard time per vehicle-step, log included", f"{counts['compute_s'] / max(steps, 1) * 1e9:,.0f} ns"),
        ("shard restarts", str(counts["shard_restarts"])),
    ]


def _binned(database: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """Quantiles of each fan column in up to `_BINS` bins of time, over the vehicles and times in a bin."""
    levels = sorted({level for pair in _FAN for level in pair} | {0.5})
    quantiles = ", ".join(
        f"approx_quantile({column}, {level}) * {scale} AS {column}_{round(level * 100):02d}"
        for column, _, scale in _FANS
        for level in levels
    )
    return _frame(database, f"SELECT {_bin('ts')} AS time, {quantiles} FROM telemetry GROUP BY time ORDER BY time")


def _bin(column: str) -> str:
    """SQL: `column` rounded down to one of about `_BINS` equal bins of the run, the first of which begins with it."""
    first = "(SELECT epoch_us(min(ts)) FROM telemetry)"
    span = "(SELECT greatest(1, epoch_us(max(ts)) - epoch_us(min(ts))) FROM telemetry)"
    bins = f"floor((epoch_us({column}) - {first}) * {_BINS}.0 / {span})"
    return f"make_timestamp({first} + CAST({bins} * {span} / {_BINS} AS BIGINT))"


def _draw_fans(binned: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9, 5.2))
    for axes, (column, label, _) in zip(figure.subplots(2, 2).flat, _FANS, strict=True):
        for (low, high), alpha in zip(_FAN, (0.18, 0.35), strict=True):
            axes.fill_between(
                binned["time"],
                binned[f"{column}_{round(low * 100):02d}"],
                binned[f"{column}_{round(high * 100):02d}"],
                color=BLUE,
                alpha=alpha,
                linewidth=0,
                label=f"{round(low * 100)}–{round(high * 100)} %",
            )
        axes.plot(binned["time"], binned[f"{column}_50"], color=INK, linewidth=1.2, label="median")
        axes.set_ylabel(label)
        _time_axis(axes)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def _draw_modes(database: duckdb.DuckDBPyConnection) -> Figure:
    shares = ", ".join(f"avg(CAST(mode = '{mode}' AS DOUBLE)) AS {mode}" for mode in MODES)
    table = _frame(
        database,
        f"SELECT {_bin('ts')} AS time, {shares}, avg(power_consumption) AS power "
        "FROM telemetry GROUP BY time ORDER BY time",
    )
    figure = Figure(figsize=(9, 2.6))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.stackplot(
        table["time"],
        [table[mode] * 100 for mode in MODES],
        labels=MODES,
        colors=[_MODE_COLOURS[mode] for mode in MODES],
    )
    left.set_ylabel("Share of vehicles [%]")
    left.set_ylim(0, 100)
    left.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(MODES))
    right.plot(table["time"], table["power"], color=INK, linewidth=1.2)
    right.axhline(0, color=GREY, linewidth=0.8)
    right.set_ylabel("Mean pack power [kW]\n(+ discharges)")
    for axes in (left, right):
        _time_axis(axes)
    return figure


def _draw_spread(database: duckdb.DuckDBPyConnection) -> Figure:
    table = _frame(
        database,
        "SELECT arg_max(soh, seq) * 100 AS soh, max(battery_temperature) AS hottest, "
        "arg_max(charge_cycles, seq) AS efc FROM telemetry GROUP BY vehicle_id ORDER BY vehicle_id",
    )
    figure = Figure(figsize=(9, 2.6))
    first, second, third = figure.subplots(1, 3)
    first.hist(table["soh"], bins=40, color=BLUE)
    first.set_xlabel("SoH at the end [%]")
    first.set_ylabel("Vehicles")
    second.hist(table["hottest"], bins=40, color=RED)
    second.set_xlabel("Highest temperature [°C]")
    third.scatter(table["efc"], table["soh"], s=5, color=INK, alpha=0.5, linewidths=0, rasterized=len(table) > 2000)
    third.set_xlabel("Equivalent full cycles")
    third.set_ylabel("SoH [%]")
    return figure


def _one_vehicle(database: duckdb.DuckDBPyConnection, period_s: float) -> tuple[str, pd.DataFrame]:
    """The vehicle that drove furthest, and the records of its last day. Where records are days apart, all its records.
    They are thinned to what a plot can show."""
    row = database.sql(
        "SELECT vehicle_id FROM telemetry GROUP BY vehicle_id "
        "ORDER BY max(distance_traveled) - min(distance_traveled) DESC, vehicle_id LIMIT 1"
    ).fetchall()[0]
    vehicle = str(row[0])
    day = _frame(
        database,
        "SELECT ts AS time, driving_speed, power_consumption, battery_voltage, battery_temperature, "
        "ambient_temperature, soc * 100 AS soc, soh * 100 AS soh, distance_traveled / 1000 AS distance, "
        "charge_cycles, resistance * 1000 AS resistance FROM telemetry WHERE vehicle_id = ? "
        "AND ts > (SELECT max(ts) FROM telemetry) - to_seconds(?) ORDER BY seq",
        params=[vehicle, 86400.0 if _has_days(period_s) else 1e10],
    )
    return vehicle, day.iloc[:: max(1, len(day) // _DAY_POINTS)]


def _draw_life(life: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9, 5.2))
    panels = figure.subplots(4, 1, sharex=True)
    shown = (
        ("soh", "SoH [%]", BLUE),
        ("resistance", "Pack resistance\n[mOhm]", RED),
        ("charge_cycles", "Equivalent\nfull cycles", INK),
        ("distance", "Odometer\n[1,000 km]", INK),
    )
    for axes, (column, label, colour) in zip(panels, shown, strict=True):
        axes.plot(life["time"], life[column], color=colour, linewidth=1.0)
        axes.set_ylabel(label)
        _time_axis(axes)
    return figure


def _draw_day(day: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9, 6.4))
    speed, power, voltage, warmth, charge = figure.subplots(5, 1, sharex=True)
    speed.plot(day["time"], day["driving_speed"], color=BLUE, linewidth=0.9)
    speed.set_ylabel("Speed\n[km/h]")
    power.plot(day["time"], day["power_consumption"], color=INK, linewidth=0.8)
    power.axhline(0, color=GREY, linewidth=0.8)
    power.set_ylabel("Power [kW]\n(+ discharges)")
    voltage.plot(day["time"], day["battery_voltage"], color=BLUE, linewidth=0.8)
    voltage.set_ylabel("Pack\n[V]")
    warmth.plot(day["time"], day["battery_temperature"], color=RED, linewidth=1.0, label="battery")
    warmth.plot(day["time"], day["ambient_temperature"], color=GREY, linewidth=1.0, label="outside")
    warmth.set_ylabel("Temp.\n[°C]")
    warmth.legend(frameon=False, fontsize=8, ncols=2)
    charge.plot(day["time"], day["soc"], color=INK, linewidth=1.2)
    charge.set_ylabel("SoC\n[%]")
    for axes in figure.axes:
        _time_axis(axes)
    figure.align_ylabels()
    return figure


@dataclass(frozen=True)
class Charged:
    """What a run charged. `power`: kind, soc [%] and power [kW] of some records; `sums`: energy [kWh] by kind."""

    power: pd.DataFrame
    sums: pd.DataFrame


def _charging(database: duckdb.DuckDBPyConnection, period_s: float) -> Charged | None:
    """None where records are too rare to show a charge, or nothing was charged."""
    if period_s > _CHARGE_PERIOD_S:
        return None
    sums = _frame(
        database,
        "SELECT mode AS kind, sum(-power_consumption) * ? / 3600 AS energy, count(*) AS records FROM telemetry "
        "WHERE mode LIKE '%charging' GROUP BY kind ORDER BY kind",
        params=[period_s],
    )
    if sums.empty:
        return None
    power = _frame(
        database,
        "SELECT mode AS kind, soc * 100 AS soc, -power_consumption AS power FROM telemetry WHERE mode LIKE '%charging' "
        "QUALIFY row_number() OVER (PARTITION BY mode ORDER BY hash(vehicle_id, seq)) <= ? ORDER BY vehicle_id, seq",
        params=[_CHARGE_POINTS],
    )
    return Charged(power, sums)


def _draw_charging(charged: Charged) -> Figure:
    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    for kind, label in (("charging", "AC, at home or depot"), ("fast_charging", "DC, on the road")):
        of = charged.power[charged.power["kind"] == kind]
        left.scatter(of["soc"], of["power"], s=4, color=_MODE_COLOURS[kind], linewidths=0, label=label, rasterized=True)
    left.set_xlabel("State of charge [%]")
    left.set_ylabel("Power into the pack [kW]")
    left.set_xlim(0, 100)
    left.legend(frameon=False, fontsize=8, markerscale=3)
    whole = float(charged.sums["energy"].sum())
    for kind, energy in zip(charged.sums["kind"], charged.sums["energy"], strict=True):
        name = {"charging": "AC", "fast_charging": "DC"}[str(kind)]
        right.bar(name, energy, color=_MODE_COLOURS[str(kind)], width=0.6)
        right.annotate(f"{energy / whole:.0%}", (name, energy), ha="center", va="bottom", fontsize=9)
    right.set_ylabel("Energy charged [kWh]")
    right.margins(y=0.15)
    return figure


def _truth(database: duckdb.DuckDBPyConnection, run: Path) -> pd.DataFrame | None:
    """Estimates and truth of each vehicle at its last time of truth that is a record's; None where there is none."""
    files = sealed(run, "truth")
    # Runs of older versions kept another truth.
    if not files or not all({"vehicle_id", "ts", "soc", "soh"} <= set(pq.read_schema(file).names) for file in files):
        return None
    found = _frame(
        database,
        "SELECT t.soc * 100 AS soc, t.soh * 100 AS soh, known.soc * 100 AS true_soc, known.soh * 100 AS true_soh "
        f"FROM telemetry t JOIN (SELECT *, CAST(ts AS TIMESTAMP) AS at FROM {read_parquet(files)}) known "
        "ON known.vehicle_id = t.vehicle_id AND known.at = t.ts "
        "QUALIFY row_number() OVER (PARTITION BY t.vehicle_id ORDER BY t.ts DESC) = 1 ORDER BY t.vehicle_id",
    )
    return None if found.empty else found


def _draw_truth(known: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9, 3.4))
    for axes, (name, label) in zip(
        figure.subplots(1, 2), (("soc", "State of charge [%]"), ("soh", "State of health [%]")), strict=True
    ):
        true, told = known[f"true_{name}"], known[name]
        ends = [min(true.min(), told.min()), max(true.max(), told.max())]
        axes.plot(ends, ends, color=GREY, linewidth=0.9)
        axes.scatter(true, told, s=8, color=BLUE, alpha=0.6, linewidths=0, rasterized=len(known) > 2000)
        axes.set_xlabel(f"{label}, true")
        axes.set_ylabel("as the vehicle reports it")
        axes.set_title(
            f"off by {(told - true).abs().median():.1f} points (median), {(told - true).mean():+.1f} on average"
        )
    return figure


def _last_predictions(database: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return _frame(
        database,
        "SELECT p.*, t.soh * 100 AS soh FROM "
        "(SELECT * FROM predictions QUALIFY row_number() OVER (PARTITION BY vehicle_id ORDER BY seq DESC) = 1) p "
        "JOIN telemetry t USING (vehicle_id, seq) ORDER BY t.soh, vehicle_id",
    )


def _draw_predictions(last: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    shown = last.iloc[np.unique(np.linspace(0, len(last) - 1, min(len(last), 150)).astype(int))]
    left.vlines(shown["soh"], shown["rul_low"], shown["rul_high"], color=BLUE, alpha=0.35, linewidth=1.4)
    left.scatter(shown["soh"], shown["rul"], s=7, color=INK, zorder=3, linewidths=0)
    left.set_xlabel(f"SoH [%] ({len(shown)} of {len(last)} vehicles)")
    left.set_ylabel("Remaining useful life [EFC]\nmedian and interval")
    right.hist(last["failure_probability"], bins=np.linspace(0, 1, 41), color=RED)
    right.set_yscale("symlog", linthresh=1)
    right.set_xlabel("Failure probability within the horizon")
    right.set_ylabel("Vehicles (log)")
    return figure


def _time_axis(axes: Axes) -> None:
    axes.margins(x=0)  # beyond years 1 and 9999 there are no dates
    locator = mdates.AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
