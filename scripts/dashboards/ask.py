"""Runs the queries of the dashboards as Grafana would, without Grafana: for tests, the gallery and the benchmark.

Of Grafana's macros and variables it knows those that the dashboards use, by the words of its documentation, and raises
ValueError at any other.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[2] / "cluster" / "grafana" / "dashboards"
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STEPS_S: Final = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
_POINTS: Final = 500
"""How many points across a panel is wide: what Grafana derives $__interval from."""


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    board: str
    title: str
    kind: str
    ref: str
    legend: str
    sql: str | None
    expression: str | None
    instant: bool
    least_interval_s: int
    panel: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.board}: {self.title} {self.ref}"


@dataclass(frozen=True)
class Chosen:
    """What a person has chosen above the panels."""

    start: datetime
    end: datetime
    variables: Mapping[str, str]

    def interval_s(self, query: Query) -> int:
        """$__interval [s]."""
        wanted = (self.end - self.start).total_seconds() / _POINTS
        return max(query.least_interval_s, next((step for step in _STEPS_S if step >= wanted), _STEPS_S[-1]))


@dataclass(frozen=True)
class Answer:
    """Columns and rows of SQL; of PromQL, the samples of each series by its legend, in a table by its labels."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    series: Mapping[str, list[tuple[float, float]]] | None = None

    def __bool__(self) -> bool:
        return bool(self.rows or self.series)


def queries(folder: Path = FOLDER) -> Iterator[Query]:
    """Of all panels of all dashboards."""
    for path in sorted(folder.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield Query(
                    path.stem,
                    panel["title"],
                    panel["type"],
                    target["refId"],
                    target.get("legendFormat", ""),
                    target.get("rawSql"),
                    target.get("expr"),
                    bool(target.get("instant")),
                    _seconds(panel.get("interval") or "1s"),
                    panel,
                )


def variable_queries(folder: Path = FOLDER) -> dict[tuple[str, str], str]:
    """The SQL behind each choice, by dashboard and name."""
    return {
        (path.stem, variable["name"]): variable["query"]
        for path in sorted(folder.glob("*.json"))
        for variable in json.loads(path.read_text()).get("templating", {}).get("list", ())
    }


def _seconds(words: str) -> int:
    found = re.fullmatch(r"'?(\d+)([smhd])'?", words.strip())
    if found is None:
        raise ValueError(f"expected an interval like 5m, got {words}")
    return int(found[1]) * _UNITS_S[found[2]]


def expand(sql: str, chosen: Chosen, interval_s: int) -> str:
    """The SQL that Grafana's data source would send (its TimescaleDB switch off)."""

    def at(time: datetime) -> str:
        return f"'{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z'"

    def group(column: str, interval: str) -> str:
        seconds = _seconds(interval)
        return f"floor(extract(epoch from {column})/{seconds})*{seconds}"

    start, end = at(chosen.start), at(chosen.end)
    text = sql.replace("$__interval", f"{interval_s}s")
    text = re.sub(r"\$__timeGroupAlias\(([^,()]+),([^()]+)\)", lambda m: f'{group(m[1], m[2])} AS "time"', text)
    text = re.sub(r"\$__timeFilter\(([^()]+)\)", lambda m: f"{m[1]} BETWEEN {start} AND {end}", text)
    text = text.replace("$__timeFrom()", start).replace("$__timeTo()", end)
    text = re.sub(r"\$\{(\w+):sqlstring\}", lambda m: _quoted(chosen.variables[m[1]]), text)
    if "$" in text:
        raise ValueError(f"unknown macro or variable in {text}")
    return text


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def ask_database(connection: Any, query: Query, chosen: Chosen) -> Answer:
    """The answer of PostgreSQL; `connection`: of psycopg2, in autocommit."""
    assert query.sql is not None
    return ask_sql(connection, expand(query.sql, chosen, chosen.interval_s(query)))


def ask_sql(connection: Any, sql: str) -> Answer:
    """The answer to SQL without macros."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return Answer(tuple(column.name for column in cursor.description), tuple(cursor.fetchall()))


def ask_prometheus(url: str, query: Query, start: float, end: float, rate_interval: str) -> Answer:
    """The answer of Prometheus: samples between two times [s since 1970], or at the second for an instant query."""
    assert query.expression is not None
    expression = query.expression.replace("$__rate_interval", rate_interval)
    if "$" in expression.replace("$labels", ""):
        raise ValueError(f"unknown macro or variable in {expression}")
    asked = {"query": expression, "time": end}
    if not query.instant:
        asked = {"query": expression, "start": start, "end": end, "step": max(1, round((end - start) / _POINTS))}
    path = "query" if query.instant else "query_range"
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(asked)}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise ValueError(f"{query}: {json.load(error)['error']}") from error
    return Answer(
        series={
            _name("" if query.kind == "table" else query.legend, series["metric"]): [
                (float(at), float(value)) for at, value in series.get("values", [series.get("value")])
            ]
            for series in found
        }
    )


def _name(legend: str, labels: Mapping[str, str]) -> str:
    if legend:
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: labels.get(m[1], ""), legend)
    return ", ".join(f"{label}={value}" for label, value in sorted(labels.items())) or "value"
