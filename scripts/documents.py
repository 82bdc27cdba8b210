"""Writes the documentation of settings and columns, and the dashboards, from their definitions (`make docs`).

The files are docs/settings.md, docs/metrics.md, docs/*.schema.json, cluster/grafana/dashboards/*.json, and tables of
docs/telemetry.md, docs/reports.md and docs/physics.md. A test checks that they are current.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from actors.aggregates.consumer import ConsumerCollector  # noqa: E402
from actors.aggregates.windows import Windows  # noqa: E402
from actors.fleet.metrics import FleetCollector  # noqa: E402
from actors.fleet.status import FleetStatus, LogStatus, SinkStatus  # noqa: E402
from datasets.log import Cursor  # noqa: E402
from datasets.observed import Observation  # noqa: E402
from datasets.schema import FIELDS, STREAMS, Stream, json_schema  # noqa: E402
from physics.car_models import CAR_MODELS  # noqa: E402
from physics.daily import DAILY, HOW  # noqa: E402
from physics.default_fleet import MODEL_SHARES  # noqa: E402
from physics.faults import KINDS  # noqa: E402
from physics.sensors import PROFILES  # noqa: E402
from scripts.dashboards import dashboards  # noqa: E402
from scripts.dashboards.ask import FOLDER as DASHBOARDS  # noqa: E402
from twin.settings import GROUPS, Group, default_of, extra_of, form_of  # noqa: E402

_HEAD = """# Which settings are there?

Every setting can be given on the command line, in the environment, or in a YAML file (`--config fleet.yaml`). The
command line beats the environment, and the environment beats the file. A command takes only some of them:
`twin COMMAND --help` lists those. `twin run --print-config` shows the resulting settings, with secrets masked.

A file uses the names of the first column, one `name: value` per line. The environment uses `TWIN_` and the name in
capitals: `TWIN_VEHICLES=500`. Addresses also come from the variables that other clients of the same services use.

Durations are `90s`, `10min`, `6h`, `30d`, `2y`, `1h30min`. Sizes are `500MB`, `20GB`, `1TB`. The words `off`, `no`,
`none` and `false` switch off an address, a port for metrics, or a limit.

This page is made from `twin/settings.py` by `make docs`.
"""


def settings_page() -> str:
    """docs/settings.md."""
    return "\n".join([_HEAD, *(_group(group) for group in GROUPS)])


def _group(group: type[Group]) -> str:
    lines = [
        f"## {group.title}",
        "",
        "| Name | Option | Value | Default | Meaning |",
        "|---|---|---|---|---|",
    ]
    for name, field in group.model_fields.items():
        extra, form = extra_of(field), form_of(field)
        flag = f"--{name.replace('_', '-')}"
        option = f"`{flag}`" if extra.get("option", True) else "none: it is a secret"
        if field.annotation is bool:
            option = f"`{flag}`, `--no-{flag.removeprefix('--')}`"
        value = f"`{form.metavar}`".replace("|", "\\|")
        meaning, default = field.description or "", default_of(field)
        default = f"`{default}`" if "<" in default else default
        if form.choices and form.metavar != "|".join(form.choices):
            meaning += f": {', '.join(form.choices)}"
        if environment := extra.get("environment"):
            meaning += f" (also from {environment})"
        lines.append(f"| `{group.prefix}{name}` | {option} | {value} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def columns_table(stream: Stream) -> str:
    """The table of one stream in docs/telemetry.md."""
    lines = [
        "| Column | Unit | Stored as | Decimals | What | COVESA VSS |",
        "|---|---|---|---|---|---|",
    ]
    for field in FIELDS[stream]:
        kind = "string (dictionary)" if str(field.type).startswith("dictionary") else f"{field.type}"
        decimals = "" if field.decimals is None else field.decimals
        cells = (field.name, field.unit, kind, decimals, field.description, field.vss or "")
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def telemetry_page(page: str) -> str:
    """docs/telemetry.md with new tables. Each stands under the heading of its stream."""
    for stream in STREAMS:
        before, heading, rest = page.partition(f"\n## {stream}\n")
        start = rest.index("| Column |")
        end = rest.index("\n\n", start)
        page = before + heading + rest[:start] + columns_table(stream) + rest[end:]
    return page


def profiles_table() -> str:
    """The figures of every profile, a row each."""
    rows: dict[str, list[str]] = {}
    for profile in PROFILES.values():
        for part, value in asdict(profile).items():
            figures = value if isinstance(value, dict) else {"": value}
            for name, figure in figures.items():
                if part not in ("name", "knows_all"):
                    rows.setdefault(f"{part}.{name}".rstrip("."), []).append(f"{figure:g}")
    lines = [f"| Figure | {' | '.join(PROFILES)} |", "|---" * (1 + len(PROFILES)) + "|"]
    return "\n".join([*lines, *(f"| `{name}` | {' | '.join(figures)} |" for name, figures in rows.items())])


def reports_page(page: str) -> str:
    """docs/reports.md with a new table of profiles."""
    start = page.index("| Figure |")
    return page[:start] + profiles_table() + page[page.index("\n\n", start) :]


def models_table() -> str:
    """The vehicle models."""
    lines = [
        "| Model | After | Share | Pack, kWh | Mass, kg | CdA, m2 | Cabin, W/K | Heated by | Fast charging, kW at % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, model in CAR_MODELS.items():
        curve = ", ".join(f"{kW:g} at {100 * soc:g}" for soc, kW in model.fast_kW)
        cells = (
            f"`{name}`", model.like, f"{MODEL_SHARES[name]:.0%}", f"{model.pack_kWh:g}", f"{model.curb_mass_kg:g}",
            f"{model.drag_area_m2:g}", f"{model.cabin_W_K:g}", "heat pump" if model.heat_pump else "resistor", curve,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def daily_table() -> str:
    """The columns of a vehicle's day."""
    lines = ["| Daily column | Unit | Type | How | What |", "|---|---|---|---|---|"]
    for column in DAILY:
        cells = (f"`{column.name}`", column.unit, column.type.__name__, column.how, column.description)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        *(
            f"{'How: ' if k == 0 else ''}**{how}** {text}" + (";" if k < len(HOW) - 1 else ".")
            for k, (how, text) in enumerate(HOW.items())
        ),
    ]
    return "\n".join(lines)


def faults_table() -> str:
    """The kinds of faults, the gravest first."""
    lines = ["| Fault | Severity | From | To | Drawn | A year | Rate by | What it does |", "|---" * 8 + "|"]
    for kind in KINDS:
        drawn = "evenly in the logarithm" if kind.log else "evenly"
        rate = f"{kind.rate:g}" + (", from new" if kind.born else "")
        cells = (kind.unit, f"{kind.low:g}", f"{kind.high:g}", drawn, rate, kind.source, kind.effect)
        lines.append(f"| `{kind.name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def physics_page(page: str) -> str:
    """docs/physics.md with new tables of vehicle models, faults and daily columns."""
    start = page.index("| Model | After |")
    page = page[:start] + models_table() + page[page.index("\n\n", start) :]
    start = page.index("| Fault |")
    page = page[:start] + faults_table() + page[page.index("\n\n", start) :]
    start = page.index("| Daily column |")
    return page[:start] + daily_table() + page[page.index("\n\n- Sums and currents", start) :]


_METRICS_HEAD = """# Which metrics are there?

`twin run` serves them at `127.0.0.1:9100/metrics`, `twin consume` at `127.0.0.1:9101/metrics` (`--metrics-port`, 0 for
off), for Prometheus. With `--metrics-host` others may ask, too, who send the token of `TWIN_METRICS_TOKEN`
(`TWIN_CONSUME_METRICS_TOKEN`): `authorization: {credentials_file: FILE}` in a scrape configuration. They are computed
when somebody asks. Counters continue from the logs, so a restart never sets them back; a histogram is of this process.

Beside them are `/health`, 200 as long as the process lives, and `/ready`, 200 while all flows and 503 while something
waits; both say what waits for what: `{"status": "ok", "waits_for": {"kafka": "127.0.0.1:9092 does not answer"}}`.

## How do I watch a run with Prometheus?

```
prometheus --config.file=cluster/prometheus/prometheus.yml      # scrapes twin run, twin consume and Ray on this machine
```

`cluster/prometheus/rules.yml` records rates, backlogs and the 99th percentiles of latency, and has an alert for what
somebody should be told: a run that does not answer, a sink or the fleet that waits, a backlog that grows, a fleet
slower than real time, a volume that fills, records rejected or lost, shards that restart, a consumer that is behind or
lacks records, a replica of the predictor that is down, a model whose inputs have moved or whose intervals hold too
seldom, vehicles that are hot, at risk or silent. Each says what to do. `alertmanager.yml` routes them: critical ones to
whoever is on call, the rest to operators; put the addresses of your own receivers in. The tests let promtool try every
rule (`rules_test.yml`), and a real Prometheus scrape a real run whose broker is killed: the alert fires, Alertmanager
tells a web hook, and tells it again when the broker is back. `make services` starts a Prometheus too.

What a metric of vehicles says is of the run itself. `silent` are vehicles whose shard owes records; one that was never
heard because its messages got lost shows on the live page ([watch.md](watch.md)), and as a gap in
`ev_consume_missing_records_total`. `ev_model_...` are there once `twin retrain --run DIR` has looked at the run
([retraining.md](retraining.md)); its `--watch` looks every hour, with `--dry-run` it does nothing else.

## Which figures are in Ray's dashboard?

`ev_vehicles`, `ev_real_time_factor`, `ev_telemetry_records_total`, `ev_predictions_total`,
`ev_predictor_backlog_records` and `ev_sink_backlog_records` are also among Ray's own metrics, as `ray_ev_vehicles` and
so on, with the labels `run_id` and `log_id` of `run.json`. `twin run` tells them to Ray once a second, which takes
0.05 ms. The node where it runs serves them at Ray's metrics port; Prometheus finds it by Ray's service discovery file,
and the Grafana behind Ray's dashboard can chart them beside Ray's figures. They appear within ten seconds.

## How do I follow one batch of records?

```
OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_TRACES_SAMPLER_ARG=0.1 twin run ...
```

One block of records in ten (without the second variable: in a hundred) is then a trace at an OpenTelemetry collector
there, Jaeger or Tempo say, which takes OTLP over HTTP:

| Span | From | To |
|---|---|---|
| `block` | its records were due | its shard is done with it |
| `compute`, `log`, in `block` | | |
| `predict`, in `block` | the feeder reads it | its predictions are logged |
| `ask`, `log`, in `predict` | the pool is asked | its answer is there, and logged |
| `deliver to kafka`, .. in `block`, of predictions in `predict` | the shipper reads it | the sink has acknowledged it |

A gap between two spans is a wait in the log. Runs without a pace are not traced. Without the variable nothing is
loaded and nothing is sent; a collector that is away costs its spans and nothing else
([why so](decisions/0033-traces.md)).

The tables below are made from the collectors by `make docs`.
"""


def metrics_page() -> str:
    """docs/metrics.md, from what the collectors tell of a made-up fleet and consumer."""
    logs = (LogStatus("telemetry", 0, 1, Cursor(), 1, "node"),)
    fleet = FleetStatus(
        vehicles=1, tick=1, simulated_s=1.0, elapsed_s=1.0, real_time_factor=1.0, records=1, predictions=1,
        predictor_backlog=0, prediction_latency_s=0.0, restarts=0, sinks=(SinkStatus("kafka", logs),), at_risk=0,
        replicas=(1, 1),
    )  # fmt: skip
    consumer: Any = SimpleNamespace(windows=Windows(), waiting="", lag={0: 0})
    with TemporaryDirectory() as run:
        Observation(0.0, {"SoH": (0.0, 1.0)}, 1.0).save(Path(run))
        families = {
            "twin run": list(FleetCollector(lambda: fleet, Path(run)).collect()),
            "twin consume": list(ConsumerCollector(consumer).collect()),
        }
    parts = [_METRICS_HEAD]
    for title, of in families.items():
        parts += [f"## {title}", "", "| Metric | Type | Labels | What |", "|---|---|---|---|"]
        for family in of:
            labels = dict.fromkeys(name for sample in family.samples for name in sample.labels if name != "le")
            name = family.name + ("_total" if family.type == "counter" else "")
            named = ", ".join(f"`{label}`" for label in labels)
            parts.append(f"| `{name}` | {family.type} | {named} | {family.documentation} |")
        parts.append("")
    return "\n".join(parts)


def documents() -> dict[Path, str]:
    """Every file made here, with its content."""
    docs = ROOT / "docs"
    found = {docs / "settings.md": settings_page(), docs / "metrics.md": metrics_page()}
    found[docs / "telemetry.md"] = telemetry_page((docs / "telemetry.md").read_text())
    found[docs / "reports.md"] = reports_page((docs / "reports.md").read_text())
    found[docs / "physics.md"] = physics_page((docs / "physics.md").read_text())
    found |= {DASHBOARDS / f"{name}.json": content for name, content in dashboards().items()}
    return found | {
        docs / f"{stream}.schema.json": json.dumps(json_schema(stream), indent=2) + "\n" for stream in STREAMS
    }


def main() -> None:
    """Write the files, or with --check say which ones are not current."""
    stale = {path: content for path, content in documents().items() if not path.exists() or path.read_text() != content}
    for path, content in stale.items():
        if "--check" not in sys.argv:
            path.write_text(content)
        print(path.relative_to(ROOT))
    sys.exit(bool(stale) if "--check" in sys.argv else 0)


if __name__ == "__main__":
    main()
