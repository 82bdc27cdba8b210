"""`twin run`: a new fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from twin.options import takes
from twin.say import log_as, say
from twin.settings import RUN_GROUPS, Given

if TYPE_CHECKING:
    from pathlib import Path

    from actors.fleet.status import FleetStatus
    from twin.fleet import Fleet

EXAMPLE = "twin run --vehicles 5000 --duration 6h --pace 60 --kafka 127.0.0.1:9092"

Quiet = Annotated[bool, typer.Option("--quiet", help="show no progress")]
Report = Annotated[bool, typer.Option("--report/--no-report", help="write report.html at the end")]


@takes(*RUN_GROUPS)
def run(
    *,
    quiet: Quiet = False,
    report: Report = True,
    print_config: Annotated[bool, typer.Option("--print-config", help="show the settings and exit")] = False,
    given: Given,
) -> None:
    """Simulate a fleet, deliver its telemetry, predict, and report."""
    settings = given.run()
    # Report mistakes before Ray is loaded, which takes seconds.
    from twin.run_directory import new_directory, stamp
    from twin.servers import targets_of

    targets_of(settings.servers)
    if print_config:
        import yaml

        typer.echo(yaml.safe_dump(settings.shown(), sort_keys=False).rstrip())
        return
    new_directory(settings.log.out, stamp())
    from twin.fleet import Fleet

    raise typer.Exit(run_to_its_end(Fleet(settings), quiet=quiet, report=report))


def run_to_its_end(fleet: Fleet, *, quiet: bool, report: bool) -> int:
    """Run, deliver and print a summary. Returns the exit code."""
    from twin.show.progress import Progress
    from twin.signals import stopped_by_signals

    processes = fleet.settings.processes
    log_as(processes.log_format, processes.log_level, fleet.run_id)
    duration = fleet.settings.clock.duration
    assert duration is not None
    state = "failed"
    with stopped_by_signals() as stop:
        try:
            if address := fleet.show_page():
                say(f"live page at {address}")
            fleet.start()
            for warning in fleet.warnings:
                say(warning)
            with Progress(duration, quiet=quiet or processes.log_format == "json") as progress:
                fleet.run(duration, progress, stop)
                fleet.deliver(progress, stop)
            state = "interrupted" if stop.is_set() else "finished"
        finally:
            fleet.close(state)
    _summary(fleet.status(), fleet.directory)
    if stop.is_set():
        say(f"stopped; log sealed, cursors saved in {fleet.directory}")
        return 130
    if report:
        _report(fleet.directory)
    return 0


def _report(directory: Path) -> None:
    from twin.books.sealed import sealed
    from twin.show.report import write_report

    if sealed(directory, "telemetry"):
        typer.echo(f"report       {write_report(directory)}")
    else:
        # In a cluster the log is on the disks of the nodes where the shards are.
        say(f"no report, because {directory} on this machine holds no telemetry")


def _summary(status: FleetStatus, directory: Path) -> None:
    from twin.show.progress import human_time

    rate = status.simulated_s / status.elapsed_s if status.elapsed_s else 0
    typer.echo(f"vehicles     {status.vehicles:,}, {human_time(status.simulated_s)} simulated")
    typer.echo(f"took         {human_time(status.elapsed_s)}, {rate:,.{0 if rate >= 10 else 2}f}x real time")
    never = f", {status.sent.never:,} never sent" if status.sent.never else ""
    typer.echo(f"telemetry    {status.records:,} records{never}")
    typer.echo(f"predictions  {status.predictions:,}")
    for sink in status.sinks:
        left = f", {sum(sink.backlog.values()):,} waiting on disk" if any(sink.backlog.values()) else ""
        records, predictions = sink.delivered["telemetry"], sink.delivered["predictions"]
        typer.echo(f"{sink.name:<12} {records:,} records, {predictions:,} predictions{left}")
    if status.restarts:
        typer.echo(f"restarts     {status.restarts} shard(s); no record is missing")
    typer.echo(f"data         {directory}")
