"""The `twin` command. Every error a user can cause is one line on stderr and an exit code above zero."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twin.errors import TwinError

if TYPE_CHECKING:
    from actors.status import FleetStatus
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
Cell = Annotated[str | None, typer.Option(help="cell, or cells with shares [default: chen2020:0.75,prada2013:0.25]")]
Bundle = Annotated[str | None, typer.Option(help="model bundle (a folder) [default: the one that ships]")]
RestPort = Annotated[str | None, typer.Option(help="port of the predictor's REST interface [default: 8000]")]
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
    pace: Annotated[str | None, typer.Option(help="max, 1 for real time, 60 for 60 times it [default: max]")] = None,
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
    predict: Annotated[bool | None, typer.Option("--predict/--no-predict", help="run the predictor pool")] = None,
    bundle: Bundle = None,
    replicas: Annotated[str | None, typer.Option(help="most predictor replicas [default: 2]")] = None,
    rest_host: Annotated[str | None, typer.Option(help="address of the REST interface [default: 127.0.0.1]")] = None,
    rest_port: RestPort = None,
    metrics_port: MetricsPort = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster: auto or ray://host:port [default: local]")] = None,
    drain_timeout: Annotated[str | None, typer.Option(help="patience with a sink at the end [default: 60s]")] = None,
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
    if print_config:
        import yaml

        from twin.fleet import targets_of

        targets_of(settings)
        typer.echo(yaml.safe_dump(settings.shown(), sort_keys=False).rstrip())
        return
    raise typer.Exit(_run(settings, quiet=quiet, report=report))


def _run(settings: RunSettings, *, quiet: bool, report: bool) -> int:
    from twin.fleet import Fleet
    from twin.progress import Progress

    logging.basicConfig(format="twin: %(message)s", level=logging.WARNING)
    stop = threading.Event()

    def interrupt(_signal: int, _frame: object) -> None:
        if stop.is_set():  # a second Ctrl-C: the person means it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop.set()

    assert settings.duration is not None
    fleet = Fleet(settings)
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    state = "failed"
    try:
        fleet.start()
        for warning in fleet.warnings:
            _say(warning)
        with Progress(settings.duration, quiet=quiet) as progress:
            fleet.run(settings.duration, progress, stop)
            fleet.deliver(progress, stop)
        state = "interrupted" if stop.is_set() else "finished"
    finally:
        fleet.close(state)
        for number, handler in previous.items():
            signal.signal(number, handler)
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
def schema(stream: Annotated[str, typer.Argument(help="telemetry or predictions")] = "telemetry") -> None:
    """Print the JSON Schema of one record."""
    import json

    from datasets.schema import STREAMS, json_schema
    from twin.errors import BadInput

    for name in STREAMS:
        if name == stream:
            typer.echo(json.dumps(json_schema(name), indent=2))
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
