"""Shows the dashboards without Grafana: asks every query once and draws the answers, a picture for each dashboard.

    python scripts/gallery.py --database postgresql://twin@HOST/twin_data --prometheus http://HOST:9090 --out DIR

Writes DIR/NAME.png and DIR/index.html. It shows what the queries say, not what Grafana looks like. Without --prometheus
the panels that ask it stay empty. PG_PASSWORD is taken for an address without one.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import matplotlib.dates as mdates  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import psycopg2  # noqa: E402

from scripts.dashboards.ask import Answer, Chosen, Query, ask_database, ask_prometheus, ask_sql, expand, queries  # noqa: E402
from scripts.dashboards.panels import COLOURS, NEWEST, NEWEST_PREDICTIONS  # noqa: E402

_UNITS: Final = {
    "percentunit": "%", "percent": "%", "volt": "V", "amp": "A", "celsius": "°C", "kwatt": "kW", "kwatth": "kWh",
    "lengthkm": "km", "velocitykmh": "km/h", "s": "s", "ms": "ms", "ohm": "Ω", "bytes": "GB",
}  # fmt: skip
_FACTORS: Final = {"percentunit": 100.0, "bytes": 1e-9}
_PER_COLUMN, _PER_ROW = 0.75, 0.42
"""Inches of a step of Grafana's grid."""
_KINDS: Final = {"AC": COLOURS["charging"], "DC": COLOURS["fast_charging"], **COLOURS}


class Refused(Exception):
    """One line for a person: what was expected, and what came."""


def main() -> None:
    """Draw all dashboards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, metavar="URL", help="where `twin run --timescale` has written")
    parser.add_argument("--prometheus", metavar="URL", help="what scrapes the run")
    parser.add_argument("--run", metavar="ID", help="a run in the database [default: the latest in simulated time]")
    parser.add_argument("--vehicle", metavar="ID", help="whose page to draw [default: the worst]")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder for the pictures")
    arguments = parser.parse_args()
    try:
        for path in draw(arguments.database, arguments.prometheus, arguments.out, arguments.run, arguments.vehicle):
            print(path)
    except Refused as refusal:
        sys.exit(f"gallery: {refusal}")


def draw(
    database: str, prometheus: str | None, out: Path, run: str | None = None, vehicle: str | None = None
) -> Iterator[Path]:
    """The pictures, then the page that shows them all."""
    try:
        given = urlsplit(database).password
        connection = psycopg2.connect(
            database, connect_timeout=5, password=unquote(given) if given else os.environ.get("PG_PASSWORD")
        )
    except (psycopg2.Error, ValueError) as error:
        said = (str(error).strip().splitlines() or ["it does not answer"])[0]
        raise Refused(f"expected a database that answers: {said}") from None
    with closing(connection):
        connection.autocommit = True
        chosen = _choose(connection, run, vehicle)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"expected a folder that can be written, got {out}: {error.strerror}") from None
        by_board: dict[str, list[Query]] = {}
        for query in queries():
            by_board.setdefault(query.board, []).append(query)
        for board, asked in by_board.items():
            answers: dict[int, dict[str, Answer]] = {}
            for query in asked:
                answers.setdefault(query.panel["id"], {})[query.ref] = _answer(connection, prometheus, query, chosen)
            path = out / f"{board}.png"
            _draw_board(board, path, answers, asked)
            yield path
    page = out / "index.html"
    pictures = "".join(f'<h2>{board.capitalize()}</h2><img src="{board}.png" alt="{board}">\n' for board in by_board)
    page.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>EV twin: dashboards</title>'
        "<style>body{font-family:sans-serif;margin:2em}img{max-width:100%;border:1px solid #ccc}</style>\n"
        f"<h1>The dashboards' queries, drawn once</h1><p>Run {chosen.variables['run_id']},"
        f" {chosen.start:%Y-%m-%d %H:%M} to {chosen.end:%Y-%m-%d %H:%M} simulated time (UTC), vehicle"
        f" {chosen.variables['vehicle']}. Drawn by"
        f" scripts/gallery.py; Grafana looks different.</p>\n{pictures}</html>\n"
    )
    yield page


def _choose(connection: Any, run: str | None, vehicle: str | None) -> Chosen:
    """The run, all of its time, a vehicle and the model that speaks now."""
    try:
        rows = ask_sql(
            connection,
            "SELECT run_id, min(minute), max(minute) + interval '1 minute' FROM telemetry_minute"
            " GROUP BY run_id ORDER BY max(minute) DESC",
        ).rows
    except psycopg2.errors.UndefinedTable:
        raise Refused("expected the tables of `twin run --timescale`, found none; run it first") from None
    runs: dict[str, tuple[datetime, datetime]] = {name: (start, end) for name, start, end in rows}
    if not runs:
        raise Refused("expected records of a run in the database, found none; run `twin run --timescale` first")
    run = run or next(iter(runs))
    if run not in runs:
        raise Refused(f"expected one of the runs {', '.join(list(runs)[:5])}, got {run}")
    variables = {"run_id": run, "vehicle": "", "model": ""}
    chosen = Chosen(*runs[run], variables)
    worst = next(query for query in queries() if str(query) == "fleet: The worst 20, and why A")
    vehicles = {row[0] for row in ask_sql(connection, expand(f"SELECT vehicle_id FROM {NEWEST}", chosen, 60)).rows}
    variables["vehicle"] = vehicle or ask_database(connection, worst, chosen).rows[0][0]
    if variables["vehicle"] not in vehicles:
        raise Refused(f"expected a vehicle of the run such as {min(vehicles)}, got {vehicle}")
    models = ask_sql(connection, expand(f"SELECT model_version FROM {NEWEST_PREDICTIONS} LIMIT 1", chosen, 60)).rows
    variables["model"] = models[0][0] if models else ""
    return chosen


def _answer(connection: Any, prometheus: str | None, query: Query, chosen: Chosen) -> Answer:
    if query.sql:
        return ask_database(connection, query, chosen)
    if prometheus is None:
        return Answer()
    now = time.time()
    try:
        return ask_prometheus(prometheus.rstrip("/"), query, now - 900, now, "1m")
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Refused(f"expected a Prometheus at {prometheus}, it says: {reason}") from None


# ---- drawing


def _draw_board(board: str, path: Path, answers: Mapping[int, Mapping[str, Answer]], asked: Sequence[Query]) -> None:
    panels = {query.panel["id"]: query.panel for query in asked}
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels.values())
    figure = plt.figure(figsize=(24 * _PER_COLUMN, height * _PER_ROW), layout="none")
    for number, panel in panels.items():
        at = panel["gridPos"]
        left, bottom = at["x"] / 24, 1 - (at["y"] + at["h"]) / height
        # Room for the title above, and for the axes' figures below and beside.
        room = (0.032, 0.75 / height, 0.05, 1.75 / height)
        axes = figure.add_axes(
            (left + room[0], bottom + room[1], at["w"] / 24 - room[2], at["h"] / height - room[3] - 0.1 / height)
        )
        axes.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold")
        _draw_panel(axes, panel, answers[number], {q.ref: q for q in asked if q.panel["id"] == number})
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _draw_panel(axes: Any, panel: Mapping[str, Any], answers: Mapping[str, Answer], asked: Mapping[str, Query]) -> None:
    if not any(answers.values()):
        axes.axis("off")
        words = panel.get("fieldConfig", {}).get("defaults", {}).get("noValue") or "No data"
        axes.text(0.5, 0.5, words, ha="center", va="center", color="grey", transform=axes.transAxes)
    elif panel["type"] in ("timeseries", "trend"):
        _lines(axes, panel, answers)
    elif panel["type"] == "barchart":
        _bars(axes, panel, answers["A"])
    elif panel["type"] == "stat":
        _figures(axes, panel, answers)
    else:
        _table(axes, panel, answers, asked)


def _override(panel: Mapping[str, Any], column: str, what: str) -> Any:
    for override in panel.get("fieldConfig", {}).get("overrides", ()):
        if override["matcher"]["options"] == column:
            for each in override["properties"]:
                if each["id"] == what:
                    return each["value"]
    return None


def _unit(panel: Mapping[str, Any], column: str) -> str:
    return str(_override(panel, column, "unit") or panel.get("fieldConfig", {}).get("defaults", {}).get("unit") or "")


def _number(value: Any, unit: str = "") -> float:
    return np.nan if value is None else float(value) * _FACTORS.get(unit, 1.0)


def _columns(answer: Answer) -> tuple[list[float], dict[str, list[float]]]:
    """x, and the y of each series: of a query for time series with names in a column `metric`, or one column each."""
    xs = sorted({float(row[0]) for row in answer.rows})
    if "metric" in answer.columns:
        found = {(row[1], float(row[0])): row[2] for row in answer.rows}
        return xs, {
            name: [_number(found.get((name, x))) for x in xs] for name in sorted({row[1] for row in answer.rows})
        }
    return xs, {
        name: [_number(row[number]) for row in answer.rows] for number, name in enumerate(answer.columns) if number
    }


def _lines(axes: Any, panel: Mapping[str, Any], answers: Mapping[str, Answer]) -> None:
    series: dict[str, tuple[list[Any], list[float]]] = {}
    timed = panel["type"] == "timeseries"
    for answer in answers.values():
        if answer.series is not None:
            for name, samples in answer.series.items():
                series[name] = ([at for at, _ in samples], [value for _, value in samples])
        elif answer.rows:
            across, by_name = _columns(answer)
            series |= {name: (across, values) for name, values in by_name.items()}
    if timed:
        series = {name: ([datetime.fromtimestamp(x, UTC) for x in xs], ys) for name, (xs, ys) in series.items()}
    series = {name: (xs, [y * _FACTORS.get(_unit(panel, name), 1.0) for y in ys]) for name, (xs, ys) in series.items()}
    custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom", {})
    other = None
    if custom.get("stacking", {}).get("mode") == "normal":
        xs = next(iter(series.values()))[0]
        stack = [np.nan_to_num(ys) for _, ys in series.values() if len(ys) == len(xs)]
        axes.stackplot(xs, stack, labels=list(series), colors=[_KINDS.get(name, None) or "#5794f2" for name in series])
    else:
        for name, (xs, ys) in series.items():
            below = _override(panel, name, "custom.fillBelowTo")
            target = axes
            if _override(panel, name, "custom.axisPlacement") == "right":
                other = other or axes.twinx()
                box = axes.get_position()
                axes.set_position((box.x0, box.y0, box.width - 0.03, box.height))
                other.set_position(axes.get_position())
                other.set_ylabel(f"{name} [{_UNITS.get(_unit(panel, name), '')}]", fontsize=8, color="tab:red")
                other.tick_params(labelsize=8, colors="tab:red")
                target = other
            if below:
                axes.fill_between(xs, series[below][1], ys, alpha=0.25, label=f"{below} to {name}")
            elif not any(_override(panel, above, "custom.fillBelowTo") == name for above in series):
                marker = "." if len(xs) < 40 else ""
                colour = _KINDS.get(name) or ("tab:red" if target is other else None)
                target.plot(xs, ys, lw=1.2, marker=marker, label=name, color=colour)
    first = next((name for name in series if _override(panel, name, "custom.axisPlacement") != "right"), "")
    axes.set_ylabel(_UNITS.get(_unit(panel, first), ""), fontsize=8)
    if timed:
        axes.xaxis.set_major_locator(mdates.AutoDateLocator(maxticks=6))  # type: ignore[no-untyped-call]
        dates = mdates.ConciseDateFormatter(axes.xaxis.get_major_locator(), tz=UTC)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(dates)
    else:
        x = panel["options"]["xField"]
        axes.set_xlabel(f"{x} [{_UNITS.get(_unit(panel, x), '')}]", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    lines, names = axes.get_legend_handles_labels()
    few = slice(0, 8)  # more would hide the lines
    axes.legend(lines[few], [textwrap.shorten(name, 30) for name in names[few]], fontsize=7, ncols=1 + (len(names) > 4))


def _bars(axes: Any, panel: Mapping[str, Any], answer: Answer) -> None:
    names = [str(row[0]) for row in answer.rows]
    bottom = np.zeros(len(names))
    for number, column in enumerate(answer.columns[1:], 1):
        unit = _unit(panel, column)
        heights = np.nan_to_num([_number(row[number], unit) for row in answer.rows])
        axes.bar(names, heights, bottom=bottom, label=column, color=_KINDS.get(column))
        bottom += heights
        axes.set_ylabel(_UNITS.get(unit, column), fontsize=8)
    axes.set_xticks(range(len(names))[:: 1 + len(names) // 10])
    axes.tick_params(labelsize=8)
    axes.set_xlabel(answer.columns[0], fontsize=8)
    if len(answer.columns) > 2:
        axes.legend(fontsize=7)


def _figures(axes: Any, panel: Mapping[str, Any], answers: Mapping[str, Answer]) -> None:
    axes.axis("off")
    shown = []
    for answer in answers.values():
        if answer.series is not None:
            shown += [(name, samples[-1][1]) for name, samples in answer.series.items()]
        elif answer.rows:
            shown += list(zip(answer.columns, answer.rows[0], strict=True))
    for number, (name, value) in enumerate(shown):
        x = (number + 0.5) / len(shown)
        said = _said(value, _unit(panel, name))
        axes.text(x, 0.62, said, ha="center", va="center", fontsize=_fitting(panel, said, len(shown)))
        axes.text(x, 0.1, name, ha="center", va="center", fontsize=8, color="grey")


def _fitting(panel: Mapping[str, Any], said: str, beside: int) -> float:
    """The size of letters [points] at which words fit beside as many others."""
    width: float = 0.9 * 72 * panel["gridPos"]["w"] * _PER_COLUMN / beside
    return min(18.0, width / (0.62 * max(len(said), 1)))


def _said(value: Any, unit: str) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, bool | str):
        return str(value)
    if unit == "s":
        return str(timedelta(seconds=round(float(value))))
    number = _number(value, unit)
    if (isinstance(value, Decimal) and number == int(number)) or isinstance(value, int):
        return f"{int(number):,}"
    words = f"{number:,.3g}" if abs(number) < 1000 else f"{number:,.0f}"
    return f"{words} {_UNITS.get(unit, '')}".strip()


def _table(axes: Any, panel: Mapping[str, Any], answers: Mapping[str, Answer], asked: Mapping[str, Query]) -> None:
    axes.axis("off")
    rows: list[list[str]] = []
    if any(answer.rows for answer in answers.values()):
        [answer] = answers.values()
        shown = [n for n, column in enumerate(answer.columns) if not _override(panel, column, "custom.hidden")]
        columns = [answer.columns[n] for n in shown]
        rows = [[_said(row[n], _unit(panel, answer.columns[n])) for n in shown] for row in answer.rows]
    else:
        columns = ["labels", *(asked[ref].legend or "value" for ref in answers)]
        series = sorted({name for answer in answers.values() for name in answer.series or {}})
        rows = [
            [name, *(_said((answer.series or {}).get(name, [(0, None)])[-1][1], "") for answer in answers.values())]
            for name in series
        ]
    most = max(3, int(panel["gridPos"]["h"] * 1.9) - 3)
    said = [[textwrap.shorten(cell, 60) for cell in row] for row in rows[:most]]
    widths = [max(len(cell) for cell in column) + 2 for column in zip(columns, *said, strict=True)]
    total = sum(widths)
    table = axes.table(
        said,
        colLabels=columns,
        colWidths=[w / total for w in widths],
        loc="upper center",
        colLoc="left",
        cellLoc="left",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    if len(rows) > most:
        axes.set_title(f"{panel['title']} (first {most} of {len(rows)})", loc="left", fontsize=10, fontweight="bold")


if __name__ == "__main__":
    main()
