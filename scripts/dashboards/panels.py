"""What the dashboards share: the two data sources, queries, variables, links, and panels as we like them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    barchart,
    common,
    dashboard,
    prometheus,
    stat,
    table,
    text,
    timeseries,
    trend,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendPlacement,
    LineInterpolation,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Panel,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from physics.columns import DIAGNOSTICS, FLAGS
from twin.settings import Clock

DATABASE: Final = DataSourceRef("grafana-postgresql-datasource", "twin-database")
PROMETHEUS: Final = DataSourceRef("prometheus", "twin-prometheus")
TAG: Final = "ev-twin"
RUN: Final = "run_id = ${run_id:sqlstring}"
VEHICLE: Final = f"{RUN} AND vehicle_id = ${{vehicle:sqlstring}}"
NEWEST: Final = "newest_telemetry(${run_id:sqlstring})"
NEWEST_PREDICTIONS: Final = "newest_predictions(${run_id:sqlstring})"
COLOURS: Final = {"parked": "#8e8e8e", "driving": "#3274d9", "charging": "#56a64b", "fast_charging": "#ff9830"}
"""Of each mode, everywhere."""
_SIMULATED: Final = ("fleet", "vehicle", "charging", "models")
_ON_THE_CLOCK: Final = ("pipeline", "operations")


class Sql(Builder[Any], Dataquery):
    """A query to PostgreSQL, for which the SDK has no class."""

    def __init__(self, sql: str, form: str, ref: str = "A") -> None:
        self._query = {
            "refId": ref,
            "datasource": DATABASE.to_json(),
            "editorMode": "code",
            "format": form,
            "rawQuery": True,
            "rawSql": sql.strip(),
        }

    def build(self) -> Any:
        return self

    def to_json(self) -> dict[str, Any]:
        return self._query


def _dress[P: (timeseries.Panel, table.Panel, stat.Panel, barchart.Panel, trend.Panel)](
    panel: P, title: str, what: str, span: int, height: int, unit: str, decimals: int | None
) -> P:
    panel.title(title).description(what).span(span).height(height)
    if unit:
        panel.unit(unit)
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def _asks[P: (timeseries.Panel, table.Panel, stat.Panel, barchart.Panel, trend.Panel)](
    panel: P, query: str | Mapping[str, str], form: str
) -> P:
    """`query`: SQL, or PromQL by the legend of its series. `form`: time_series, table, or now (a figure a series)."""
    if isinstance(query, str):
        return panel.datasource(DATABASE).with_target(Sql(query, "table" if form == "now" else form))
    panel.datasource(PROMETHEUS)
    for number, (legend, expression) in enumerate(query.items()):
        asked = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        asked = asked.datasource(PROMETHEUS)
        if form == "table":
            asked.format(PromQueryFormat.TABLE)
        panel.with_target(asked.range() if form == "time_series" else asked.instant())
    return panel


def over_time(
    title: str,
    what: str,
    query: str | Mapping[str, str],
    *,
    unit: str = "",
    span: int = 8,
    height: int = 8,
    band: tuple[str, str] | None = None,
    stacked: bool = False,
    colours: Mapping[str, str] = {},
    right: Mapping[str, str] = {},
    least: float | None = None,
    most: float | None = None,
    interval: str = "",
    decimals: int | None = None,
) -> timeseries.Panel:
    """Lines over time. `band`: the two series between which it is shaded; `right`: unit of a series on the right."""
    panel = _asks(_dress(timeseries.Panel(), title, what, span, height, unit, decimals), query, "time_series")
    panel.line_width(1).fill_opacity(60 if stacked else 0).show_points(VisibilityMode.AUTO)
    panel.line_interpolation(LineInterpolation.LINEAR).span_nulls(False)
    panel.legend(common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions())
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if interval:
        panel.interval(interval)
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if band is not None:
        _shade(panel, band)
    for series, colour in colours.items():
        panel.override_by_name(series, [_colour(colour)])
    for series, its_unit in right.items():
        placed = [DynamicConfigValue("unit", its_unit), DynamicConfigValue("custom.axisPlacement", "right")]
        panel.override_by_name(series, placed)
    return panel


def _shade(panel: timeseries.Panel | trend.Panel, band: tuple[str, str]) -> None:
    low, high = band
    faint = [DynamicConfigValue("custom.lineWidth", 0), _colour("#8ab8ff")]
    panel.override_by_name(low, faint)
    shaded = [DynamicConfigValue("custom.fillBelowTo", low), DynamicConfigValue("custom.fillOpacity", 25)]
    panel.override_by_name(high, [*faint, *shaded])


def _colour(colour: str) -> DynamicConfigValue:
    return DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def against(
    title: str, what: str, query: str, x: str, *, unit: str = "", x_unit: str = "", span: int = 12, height: int = 8,
    band: tuple[str, str] | None = None, colours: Mapping[str, str] = {},
) -> trend.Panel:  # fmt: skip
    """Lines over a number, the column `x`, which ascends."""
    panel = _asks(_dress(trend.Panel(), title, what, span, height, unit, None), query, "table")
    panel.x_field(x).line_width(1).fill_opacity(0).show_points(VisibilityMode.AUTO)
    panel.legend(common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions())
    panel.override_by_name(x, [DynamicConfigValue("unit", x_unit or "none")])
    if band is not None:
        _shade(panel, band)
    for series, colour in colours.items():
        panel.override_by_name(series, [_colour(colour)])
    return panel


def figures(
    title: str, what: str, query: str | Mapping[str, str], *, unit: str = "", span: int = 6, height: int = 4,
    units: Mapping[str, str] = {}, decimals: int | None = None,
) -> stat.Panel:  # fmt: skip
    """Large figures, one a column or series; `units` of single columns."""
    panel = _asks(_dress(stat.Panel(), title, what, span, height, unit, decimals), query, "now")
    shown = "/.*/" if isinstance(query, str) else ""  # columns of text too; of series the values
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields(shown))
    panel.color_mode(BigValueColorMode.NONE)
    for column, its_unit in units.items():
        panel.override_by_name(column, [DynamicConfigValue("unit", its_unit)])
    return panel


def bars(
    title: str, what: str, query: str, x: str, *, unit: str = "", span: int = 8, height: int = 8,
    colours: Mapping[str, str] = {}, stacked: bool = False,
) -> barchart.Panel:  # fmt: skip
    """A bar for each row, named by the column `x`."""
    panel = _asks(_dress(barchart.Panel(), title, what, span, height, unit, None), query, "table")
    panel.x_field(x).x_tick_label_spacing(100).show_value(VisibilityMode.NEVER)
    panel.legend(common.VizLegendOptions().show_legend(bool(colours)).placement(LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions())
    if stacked:
        panel.stacking(StackingMode.NORMAL)
    for series, colour in colours.items():
        panel.override_by_name(series, [_colour(colour)])
    return panel


def rows(
    title: str,
    what: str,
    query: str | Mapping[str, str],
    *,
    span: int = 24,
    height: int = 8,
    units: Mapping[str, str] = {},
    links: Mapping[str, str] = {},
    widths: Mapping[str, int] = {},
    hidden: Iterable[str] = (),
    empty: str = "",
) -> table.Panel:
    """A table. `links`: where a click on a column's value leads; `empty`: what is said where no row is right."""
    panel = _asks(_dress(table.Panel(), title, what, span, height, "", None), query, "table")
    if not isinstance(query, str):
        _in_one_table(panel, list(query))
    if empty:
        panel.no_value(empty)
    for column, its_unit in units.items():
        panel.override_by_name(column, [DynamicConfigValue("unit", its_unit)])
    for column, url in links.items():
        shown = {"title": f"Show {column}", "url": url, "targetBlank": False}
        panel.override_by_name(column, [DynamicConfigValue("links", [shown])])
    for column, width in widths.items():
        panel.override_by_name(column, [DynamicConfigValue("custom.width", width)])
    for column in hidden:  # a link may still need it
        panel.override_by_name(column, [DynamicConfigValue("custom.hidden", True)])
    return panel


def _in_one_table(panel: table.Panel, names: list[str]) -> None:
    """The answers of Prometheus side by side, by the labels that they share."""
    renamed = {f"Value #{chr(ord('A') + number)}": name for number, name in enumerate(names) if len(names) > 1}
    panel.with_transformation(DataTransformerConfig("merge", options={}))
    panel.with_transformation(
        DataTransformerConfig("organize", options={"excludeByName": {"Time": True}, "renameByName": renamed})
    )


def note(words: str, *, span: int = 24, height: int = 4) -> text.Panel:
    """What a reader has to know, as Markdown."""
    return text.Panel().title("").span(span).height(height).mode(TextMode.MARKDOWN).content(words)


TO_VEHICLE: Final = "/d/ev-vehicle?var-run_id=${run_id}&var-vehicle=${__value.raw}&${__url_time_range}"
"""From a cell that holds a vehicle's id."""


def board(
    name: str, what: str, panels: Iterable[Builder[Panel]], variables: Iterable[dashboard.QueryVariable] = ()
) -> dashboard.Dashboard:
    """A dashboard, with links to all others.

    Four are about simulated time; they begin with the hour of a run by default settings, and pass their time on. The
    others are about the clock on the wall.
    """
    made = dashboard.Dashboard(f"EV twin: {name.capitalize()}").uid(f"ev-{name}").description(what)
    made.tags([TAG]).refresh("5s").timezone("utc").readonly().tooltip(DashboardCursorSync.CROSSHAIR)
    if name in _SIMULATED:
        clock = Clock()
        end = clock.start + timedelta(hours=24 if name == "charging" else 1)
        made.time(f"{clock.start:%Y-%m-%dT%H:%M:%S.000Z}", f"{end:%Y-%m-%dT%H:%M:%S.000Z}")
    else:
        made.time("now-15m", "now")
    for other in (*_SIMULATED, *_ON_THE_CLOCK):
        if other != name:
            passes = name in _SIMULATED and other in _SIMULATED
            link = dashboard.DashboardLink(other.capitalize()).type(DashboardLinkType.LINK).url(f"/d/ev-{other}")
            link.icon("dashboard").keep_time(passes).include_vars(other in _SIMULATED).as_dropdown(False)
            made.link(link.target_blank(False).tooltip(""))
    for variable in variables:
        made.with_variable(variable)
    for panel in panels:
        made.with_panel(panel)
    return made


def variable(name: str, label: str, sql: str, *, depends: bool = False) -> dashboard.QueryVariable:
    """A choice from the first column of a query; asked again when the dashboard is opened, or the time is changed."""
    when = VariableRefresh.ON_TIME_RANGE_CHANGED if depends else VariableRefresh.ON_DASHBOARD_LOAD
    return dashboard.QueryVariable(name).label(label).datasource(DATABASE).query(sql).refresh(when)


def run_variable() -> dashboard.QueryVariable:
    """The runs in the database, the one that lies latest in simulated time first."""
    return variable("run_id", "Run", "SELECT run_id FROM telemetry_minute GROUP BY run_id ORDER BY max(minute) DESC")


def vehicle_variable() -> dashboard.QueryVariable:
    """The vehicles of the run."""
    return variable("vehicle", "Vehicle", f"SELECT vehicle_id FROM {NEWEST} ORDER BY 1", depends=True)


# ---- SQL


def by_minute(columns: str, source: str = "telemetry_minute", more: str = "") -> str:
    """Sums of minutes over each interval of the chart."""
    return f"""
SELECT $__timeGroupAlias(minute, $__interval),
{columns}
FROM {source}
WHERE {RUN}{more} AND $__timeFilter(minute)
GROUP BY 1
ORDER BY 1"""


def band_by_minute(column: str, factor: str = "") -> str:
    """A column's mean over records, and the lowest and highest of any vehicle."""
    return by_minute(
        f'    {factor}min({column}_min) AS "lowest",\n'
        f'    {factor}sum({column}_sum) / sum(records) AS "mean",\n'
        f'    {factor}max({column}_max) AS "highest"'
    )


def distribution(value: str, source: str, name: str, digits: int = 2, bins: int = 20) -> str:
    """How many vehicles there are in each of `bins` equal parts of the range of a value."""
    return f"""
WITH now AS (SELECT {value} AS value FROM {source}),
edges AS (SELECT min(value) AS low, greatest(max(value) - min(value), 1e-6) AS span FROM now HAVING count(*) > 0)
SELECT round((low + span * bin / {bins})::numeric, {digits})::text AS "{name}", count(value) AS "vehicles"
FROM edges
CROSS JOIN generate_series(0, {bins - 1}) AS bin
LEFT JOIN now ON least({bins - 1}, floor({bins} * (value - low) / span)) = bin
GROUP BY bin, low, span
ORDER BY bin"""


def bits(column: str, names: Mapping[str, int]) -> str:
    """The names of the bits that are set."""
    cases = ", ".join(
        f"CASE WHEN {column} & {bit} <> 0 THEN '{name.replace('_', ' ')}' END" for name, bit in names.items()
    )
    return f"concat_ws(', ', {cases})"


def flags(of: str = "") -> str:
    """The column `flags` in words."""
    return bits(f"{of}flags", FLAGS)


def codes(of: str = "") -> str:
    """The column `diagnostics` in words."""
    return bits(f"{of}diagnostics", DIAGNOSTICS)


def stays(where: str, columns: str, modes: str) -> str:
    """Each stretch of records of one vehicle in one of these modes, with `columns` over its records.

    `hours`: how long a record's power lasted, since the record before it.
    """
    return f"""
WITH rows AS (
    SELECT *,
        lag(mode) OVER vehicle IS DISTINCT FROM mode AS starts,
        extract(epoch FROM ts - lag(ts) OVER vehicle) / 3600 AS hours
    FROM telemetry
    WHERE {where}
    WINDOW vehicle AS (PARTITION BY vehicle_id ORDER BY seq)
),
parts AS (
    SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY vehicle_id ORDER BY seq) AS part
    FROM rows
)
SELECT
{columns}
FROM parts
WHERE mode IN ({modes})
GROUP BY vehicle_id, part, mode
ORDER BY min(ts) DESC, vehicle_id
LIMIT 200"""
