"""The `twin` command. Every error a user can cause is one line on stderr and an exit code above zero."""

from __future__ import annotations

import logging
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twin.errors import Different, TwinError

if TYPE_CHECKING:
    from actors.status import FleetStatus
    from twin.fleet import Fleet
    from twin.settings import RunSettings

app = typer.Typer(
    help="A digital twin of an EV battery fleet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[Path | None, typer.Option("--config", help="settings from a YAML file")]
Kafka = Annotated[str | None, typer.Option(help="Kafka servers, host:port[,host:port]")]
Mqtt = Annotated[str | None, typer.Option(help="MQTT broker, mqtt://[user:password@]host[:port]")]
Timescale = Annotated[str | None, typer.Option(help="database, postgresql://user[:password]@host[:port]/database")]
Payload = Annotated[str | None, typer.Option(help="messages of Kafka and MQTT: json, avro [default: json]")]
Cell = Annotated[str | None, typer.Option(help="cell, or cells with shares [default: chen2020:0.75,prada2013:0.25]")]
Bundle = Annotated[str | None, typer.Option(help="model bundle (a folder) [default: the one that ships]")]
RestPort = Annotated[str | None, typer.Option(help="port of the predictor's REST interface [default: 8000]")]
Pace = Annotated[str | None, typer.Option(help="max, 1 for real time, 60 for 60 times it [default: max]")]
Address = Annotated[str | None, typer.Option(help="Ray cluster: auto or ray://host:port [default: local]")]
DrainTimeout = Annotated[str | None, typer.Option(help="patience with a sink at the end [default: 60s]")]
MetricsPort = Annotated[str | None, typer.Option(help="Prometheus metrics, 0 for off [default: 9100]")]


def _settings(flags: dict[str, Any], config: Path | None) -> RunSettings:
    from twin.settings import load_settings

    return load_settings(flags, config)


# Flags are text here and checked in one place (`twin.settings`), the same for flags, file and environment.
@app.command()
def run(
    vehicles: Annotated[str | None, typer.Option(help="how many vehicles [default: 1000]")] = None,
    duration: Annotated[str | None, typer.Option(help="simulated time: 90s, 10min, 6h, 30d [default: 1h]")] = None,
    step: Annotated[str | None, typer.Option(help="simulation step [default: 1s]")] = None,
    telemetry_every: Annotated[
        str | None, typer.Option(help="period of telemetry [default: 2s; 1d from 30d on]")
    ] = None,
    predict_every: Annotated[str | None, typer.Option(help="period of predictions [default: 5s; years: 30d]")] = None,
    checkpoint_every: Annotated[str | None, typer.Option(help="simulated time between checkpoints")] = None,
    pace: Pace = None,
    seed: Annotated[str | None, typer.Option(help="same seed, same fleet [default: 1]")] = None,
    shards: Annotated[str | None, typer.Option(help="Ray actors, or auto [default: auto]")] = None,
    out: Annotated[str | None, typer.Option(help="run directory, new [default: runs/<time>]")] = None,
    start: Annotated[str | None, typer.Option(help="simulated start [default: 2026-06-01T07:00Z]")] = None,
    run_id: Annotated[str | None, typer.Option(help="name of the run [default: from its settings]")] = None,
    cell: Cell = None,
    use: Annotated[str | None, typer.Option(help="commuter, delivery, taxi, long_distance [default: a mix]")] = None,
    oldest: Annotated[str | None, typer.Option(help="age of the oldest vehicle [default: 10y; 0s for lives]")] = None,
    fault_share: Annotated[str | None, typer.Option(help="vehicles with a fault in ten years [default: 0.02]")] = None,
    kafka: Kafka = None,
    mqtt: Mqtt = None,
    mqtt_retain: Annotated[
        bool | None, typer.Option("--mqtt-retain/--no-mqtt-retain", help="broker keeps each vehicle's last record")
    ] = None,
    timescale: Timescale = None,
    payload: Payload = None,
    predict: Annotated[bool | None, typer.Option("--predict/--no-predict", help="run the predictor pool")] = None,
    bundle: Bundle = None,
    replicas: Annotated[str | None, typer.Option(help="most predictor replicas [default: 2]")] = None,
    rest_host: Annotated[str | None, typer.Option(help="address of the REST interface [default: 127.0.0.1]")] = None,
    rest_port: RestPort = None,
    metrics_port: MetricsPort = None,
    address: Address = None,
    log_fsync: Annotated[str | None, typer.Option(help="checkpoint or always [default: checkpoint]")] = None,
    log_max_age: Annotated[str | None, typer.Option(help="drop delivered log older than this [default: keep]")] = None,
    log_max_size: Annotated[str | None, typer.Option(help="drop delivered log beyond this [default: keep]")] = None,
    drain_timeout: DrainTimeout = None,
    config: Config = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="write report.html at the end")] = True,
    print_config: Annotated[bool, typer.Option("--print-config", help="show the settings and stop")] = False,
) -> None:
    """Simulate a fleet, deliver its telemetry, predict, and report."""
    flags = dict(locals())
    settings = _settings(
        {k: v for k, v in flags.items() if k not in ("config", "quiet", "report", "print_config")}, config
    )
    # What is wrong is said before Ray is loaded, which takes seconds.
    from twin.runs import run_directory
    from twin.servers import targets_of

    targets_of(settings)
    if print_config:
        import yaml

        typer.echo(yaml.safe_dump(settings.shown(), sort_keys=False).rstrip())
        return
    run_directory(settings)
    from twin.fleet import Fleet

    raise typer.Exit(_run(Fleet(settings), quiet=quiet, report=report))


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="the directory of a run that was stopped or killed")],
    duration: Annotated[str | None, typer.Option(help="simulated time in all [default: as begun]")] = None,
    pace: Pace = None,
    kafka: Kafka = None,
    mqtt: Mqtt = None,
    timescale: Timescale = None,
    bundle: Bundle = None,
    rest_port: RestPort = None,
    metrics_port: MetricsPort = None,
    address: Address = None,
    drain_timeout: DrainTimeout = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="write report.html at the end")] = True,
) -> None:
    """Go on with a run from its checkpoint, to the same records it would have made; deliver what waits."""
    flags = {k: v for k, v in locals().items() if k not in ("directory", "quiet", "report")}
    from twin.fleet import Fleet

    raise typer.Exit(_run(Fleet.resume(directory, flags), quiet=quiet, report=report))


def _run(fleet: Fleet, *, quiet: bool, report: bool) -> int:
    from twin.progress import Progress
    from twin.signals import stopped_by_signals

    logging.basicConfig(format="twin: %(message)s", level=logging.WARNING)
    duration = fleet.settings.duration
    assert duration is not None
    state = "failed"
    with stopped_by_signals() as stop:
        try:
            fleet.start()
            for warning in fleet.warnings:
                _say(warning)
            with Progress(duration, quiet=quiet) as progress:
                fleet.run(duration, progress, stop)
                fleet.deliver(progress, stop)
            state = "interrupted" if stop.is_set() else "finished"
        finally:
            fleet.close(state)
    _summary(fleet.status(), fleet.directory)
    if stop.is_set():
        _say(f"stopped; log sealed, cursors saved in {fleet.directory}")
        return 130
    if report:
        from twin.report import write_report

        typer.echo(f"report       {write_report(fleet.directory)}")
    return 0


def _summary(status: FleetStatus, directory: Path) -> None:
    from twin.progress import human_time

    rate = status.simulated_s / status.elapsed_s if status.elapsed_s else 0
    typer.echo(f"vehicles     {status.vehicles:,}, {human_time(status.simulated_s)} simulated")
    typer.echo(f"took         {human_time(status.elapsed_s)}, {rate:,.0f}x real time")
    typer.echo(f"telemetry    {status.records:,} records")
    typer.echo(f"predictions  {status.predictions:,}")
    for sink in status.sinks:
        left = f", {sum(sink.backlog.values()):,} waiting on disk" if any(sink.backlog.values()) else ""
        records, predictions = sink.delivered["telemetry"], sink.delivered["predictions"]
        typer.echo(f"{sink.name:<12} {records:,} records, {predictions:,} predictions{left}")
    if status.restarts:
        typer.echo(f"restarts     {status.restarts} shard(s), records complete all the same")
    typer.echo(f"data         {directory}")


@app.command()
def consume(
    kafka: Kafka = None,
    timescale: Timescale = None,
    group: Annotated[str | None, typer.Option(help="consumer group [default: ev-twin-consume]")] = None,
    topic: Annotated[str | None, typer.Option(help="telemetry [default: ev-telemetry]")] = None,
    output: Annotated[str | None, typer.Option(help="topic of the aggregates [default: ev-fleet-minute]")] = None,
    lateness: Annotated[str | None, typer.Option(help="simulated time a minute waits for records [10s]")] = None,
    idle_timeout: Annotated[str | None, typer.Option(help="a minute without new records closes after [30s]")] = None,
    until_idle: Annotated[str | None, typer.Option(help="end when nothing came for so long [default: never]")] = None,
    max_open: Annotated[str | None, typer.Option(help="vehicles in open minutes, 200 bytes each [1000000]")] = None,
    metrics_port: Annotated[str | None, typer.Option(help="Prometheus metrics, 0 for off [default: 9101]")] = None,
    config: Config = None,
) -> None:
    """Fleet aggregates by the simulated minute, from Kafka to Kafka and the database."""
    from twin.consume import consume

    flags = {k: v for k, v in locals().items() if k not in ("config", "consume")}
    logging.basicConfig(format="twin: %(message)s", level=logging.WARNING)
    for line in consume(flags, config, say=_say):
        typer.echo(line)


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="a run directory")]) -> None:
    """Write DIRECTORY/report.html from what a run left on disk."""
    from twin.report import write_report

    typer.echo(str(write_report(directory)))


@app.command()
def doctor(
    cell: Cell = None,
    kafka: Kafka = None,
    mqtt: Mqtt = None,
    timescale: Timescale = None,
    bundle: Bundle = None,
    rest_port: RestPort = None,
    metrics_port: MetricsPort = None,
    config: Config = None,
) -> None:
    """Check each part a run would use, one line each."""
    from twin.doctor import examine

    flags = {k: v for k, v in locals().items() if k not in ("config", "examine")}
    wrong = 0
    for finding in examine(_settings(flags, config)):
        sign = {True: "ok   ", False: "WRONG", None: "off  "}[finding.ok]
        wrong += finding.ok is False
        typer.echo(f"{sign} {finding.part:<10} {finding.says}")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def ledger(
    directory: Annotated[Path, typer.Argument(help="a run directory")],
    verify: Annotated[
        bool, typer.Option("--verify", help="ask log, broker, database and MQTT archive themselves, by vehicle")
    ] = False,
    archive: Annotated[Path | None, typer.Option(help="folder of the `twin archive` that listened to MQTT")] = None,
    kafka: Kafka = None,
    mqtt: Mqtt = None,
    timescale: Timescale = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """What was made, what is where, what is missing. With --verify: exit code 4 where anything differs."""
    import json

    from twin import ledger as books_of

    books = books_of.Books(directory, {"kafka": kafka, "mqtt": mqtt, "timescale": timescale})
    found = books_of.verify(books, archive, say=_say) if verify else books.ledger()
    typer.echo(json.dumps(books_of.as_json(found), indent=2) if as_json else books_of.table(found))
    if verify and not found.complete:
        raise Different(books_of.verdict(found))


@app.command()
def replay(
    directory: Annotated[Path, typer.Argument(help="a run directory")],
    to: Annotated[str, typer.Option(help="kafka, mqtt, timescale or parquet")],
    begin: Annotated[str | None, typer.Option("--from", help="first simulated time, ISO 8601 [default: all]")] = None,
    end: Annotated[str | None, typer.Option("--to-time", help="simulated time to stop before [default: all]")] = None,
    pace: Pace = None,
    kafka: Kafka = None,
    mqtt: Mqtt = None,
    timescale: Timescale = None,
    payload: Payload = None,
    out: Annotated[Path | None, typer.Option(help="folder for --to parquet")] = None,
    drain_timeout: DrainTimeout = None,
    config: Config = None,
) -> None:
    """Deliver an old run to a sink, again or for the first time; the same command twice delivers once."""
    from twin.replay import replay_run
    from twin.signals import stopped_by_signals

    names = ("kafka", "mqtt", "timescale", "payload", "pace", "drain_timeout")
    settings = _settings({name: value for name, value in locals().items() if name in names}, config)
    with stopped_by_signals() as stop:
        replay_run(directory, to, settings, begin=begin, end=end, out=out, stop=stop, say=_say)
    raise typer.Exit(130 if stop.is_set() else 0)


@app.command()
def archive(
    out: Annotated[Path, typer.Option(help="folder for messages.jsonl; an existing one goes on")],
    mqtt: Mqtt = None,
    client_id: Annotated[str, typer.Option(help="name of the MQTT session, one for each archive")] = "ev-twin-archive",
    keep: Annotated[str, typer.Option(help="how long the broker keeps what comes once this has ended")] = "1d",
    config: Config = None,
) -> None:
    """Subscribe to all vehicles and keep every message on disk, until Ctrl-C: what `twin ledger --verify` asks."""
    from twin.archive import archive_until
    from twin.signals import stopped_by_signals

    url = _settings({"mqtt": mqtt}, config).mqtt
    with stopped_by_signals() as stop:
        written = archive_until(url, out, client_id, stop, _say, keep)
    typer.echo(f"archived {written:,} messages in {out}")


@app.command()
def schema(
    stream: Annotated[str, typer.Argument(help="telemetry or predictions")] = "telemetry",
    payload: Annotated[str, typer.Option(help="json: JSON Schema; avro: Avro schema")] = "json",
) -> None:
    """Print the schema of one record on the wire."""
    import json

    from datasets.schema import PAYLOADS, STREAMS, avro_schema, json_schema
    from twin.errors import BadInput

    if payload not in PAYLOADS:
        raise BadInput(f"--payload: expected json or avro, got {payload}")
    for name in STREAMS:
        if name == stream:
            typer.echo(json.dumps((json_schema if payload == "json" else avro_schema)(name), indent=2))
            return
    raise BadInput(f"expected telemetry or predictions, got {stream}")


@app.command()
def cell(
    cycle: Annotated[str, typer.Option(help='protocol, such as "CC 1C to 2.5V; rest 1h; CCCV 0.5C 4.2V C/50"')],
    cell: Annotated[str | None, typer.Option(help="parameter set of the cell [default: chen2020]")] = None,
    bpx: Annotated[Path | None, typer.Option(help="the cell from a Battery Parameter eXchange file instead")] = None,
    cycles: Annotated[str, typer.Option(help="repetitions of the protocol")] = "1",
    ambient: Annotated[str, typer.Option(help="air around the cell [degC]")] = "25",
    soc: Annotated[
        str | None, typer.Option(help="at the start, 0 to 1 [default: full, empty if charged first]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="new folder for plot and tables [default: runs/cell-<time>]")] = None,
) -> None:
    """Cycle one cell as in the laboratory: a table, a plot, the data."""
    from twin.laboratory import cycle_cell

    cycle_cell(cell, cycle, bpx=bpx, cycles=cycles, ambient=ambient, soc=soc, out=out, say=typer.echo)


validate = typer.Typer(help="Compare with independent references.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(validate, name="validate")


@validate.command("physics")
def validate_physics(
    quick: Annotated[
        bool, typer.Option("--quick", help="25 degC and 30 cycles only, nothing beyond 20 % of loss")
    ] = False,
    only: Annotated[str | None, typer.Option(help="electrical, aging or pack [default: all]")] = None,
    out: Annotated[Path | None, typer.Option(help="new folder [default: runs/validate-physics-<time>]")] = None,
) -> None:
    """Voltage, temperature, aging against PyBaMM; packs against all their cells: tables and a figure (minutes)."""
    from twin.validation.command import validate_physics

    validate_physics(quick=quick, out=out, only=only, say=typer.echo)


@validate.command("life")
def validate_life(
    quick: Annotated[bool, typer.Option("--quick", help="few conditions")] = False,
    out: Annotated[Path | None, typer.Option(help="new folder [default: runs/validate-life-<time>]")] = None,
) -> None:
    """Years of storage and cycling against published cells: tables and a figure, made afresh (a minute)."""
    from twin.validation.life_command import validate_life

    validate_life(quick=quick, out=out, say=typer.echo)


def _say(text: str) -> None:
    print(f"twin: {' '.join(text.split())}", file=sys.stderr, flush=True)


def main() -> None:
    """The entry point: runs the command, turns errors into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
    except TwinError as error:
        _say(str(error))
        code = error.exit_code
    except typer.TyperException as error:
        _say(f"{error.format_message() if isinstance(error, typer.BadParameter) else error} Try: twin --help")
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        _say("stopped")
        code = 130
    except Exception as error:
        # Ours, not the user's: one line for the person, the rest for whoever mends it.
        with tempfile.NamedTemporaryFile("w", prefix="twin-error-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        _say(f"internal error: {error!r}; please report it with {file.name}")
        code = 1
    sys.exit(code or 0)
