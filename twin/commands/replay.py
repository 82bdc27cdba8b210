"""`twin replay`: an old run into a sink."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.delivery.sinks import SINKS
from actors.delivery.sinks.base import mask
from twin.errors import BadInput, NotDelivered, RunFailed
from twin.options import takes
from twin.say import say
from twin.settings import ADDRESSES, Clock, Given, Servers, checked, parse_time

if TYPE_CHECKING:
    from actors.delivery.replay import Replayed
    from actors.delivery.sinks import Target

EXAMPLE = "twin replay runs/2026-11-24T20-41-38 --to kafka --kafka 127.0.0.1:9092"

_MARKER = "replay.json"
_TELL_S = 5.0


_TAKEN = (
    "pace", *ADDRESSES, "kafka_partitions", "kafka_replication", "mqtt_retain", "mqtt_clients", "payload",
    "drain_timeout",
)  # fmt: skip


@takes(Clock, Servers, only=_TAKEN)
def replay(
    directory: Annotated[Path, typer.Argument(help="a run directory")],
    *,
    to: Annotated[str, typer.Option(metavar="|".join(SINKS), help="sink to deliver to")],
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="first simulated time, ISO 8601 \\[default: the start]")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to-time", metavar="TIME", help="simulated time to stop before \\[default: the end]")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="folder for --to parquet")] = None,
    given: Given,
) -> None:
    """Deliver an old run to a sink. The same command run twice delivers only once."""
    from twin.signals import stopped_by_signals

    servers, pace = given.group(Servers), given.group(Clock, only=("pace",)).pace
    with stopped_by_signals() as stop:
        replay_run(directory, to, servers, pace, begin=begin, end=end, out=out, stop=stop, say=say)
    raise typer.Exit(130 if stop.is_set() else 0)


def replay_run(
    directory: Path,
    to: str,
    servers: Servers,
    pace: float,
    *,
    begin: str | None,
    end: str | None,
    out: Path | None,
    stop: threading.Event,
    say: Callable[[str], None],
) -> Replayed:
    """Says a line every few seconds, and one at the end. Raises BadInput, NotDelivered or RunFailed."""
    from actors.delivery.replay import Replay
    from actors.delivery.sinks import SinkRefused, SinkUnavailable
    from datasets.log import LogDamaged
    from twin.run_directory import load_run, shard_count

    run = load_run(directory)
    target, where = _target(to, servers, out)
    first = checked("--from", parse_time, begin) if begin is not None else None
    last = checked("--to-time", parse_time, end) if end is not None else None
    if first and last and first >= last:
        raise BadInput(f"--to-time: expected a time after --from ({begin}), got {end}")
    replay = Replay(
        directory,
        run.get("log_id", run["run_id"]),
        shard_count(run),
        target,
        where=where,
        begin=first,
        end=last,
        pace=pace,
        patience_s=servers.drain_timeout,
    )
    if to == "parquet":
        _claim(Path(target.url), replay.id)
    told_at, told = time.monotonic(), ""

    def tell(counts: Replayed) -> None:
        nonlocal told_at, told
        if counts.waiting_for != told or time.monotonic() - told_at > _TELL_S:
            told_at, told = time.monotonic(), counts.waiting_for
            say(counts.waiting_for or f"{counts.records:,} records, {counts.predictions:,} predictions")

    try:
        counts = replay.run(tell, stop)
    except SinkRefused as error:
        raise BadInput(f"--{'out' if to == 'parquet' else to}: {error}") from error
    except SinkUnavailable as error:
        raise NotDelivered(f"{error}; run the same command again to go on from here") from error
    except LogDamaged as error:
        raise RunFailed(str(error)) from error
    refused = f", {counts.duplicates:,} were there already" if counts.duplicates else ""
    dead = f", {counts.dead:,} rejected for good" if counts.dead else ""
    ended = "stopped after" if stop.is_set() else "replayed"
    say(f"{ended} {counts.records:,} records, {counts.predictions:,} predictions to {target.name}{refused}{dead}")
    return counts


def _target(to: str, servers: Servers, out: Path | None) -> tuple[Target, str]:
    """The sink, and its address without secrets."""
    if to not in SINKS:
        raise BadInput(f"--to: expected {' or '.join((', '.join([*SINKS][:-1]), [*SINKS][-1]))}, got {to}")
    if not SINKS[to].live:
        if out is None:
            raise BadInput("--out: expected a folder for the Parquet files")
        from twin.run_directory import in_utf8

        target = SINKS[to].parse(str(in_utf8(out)))
        return target, target.url
    address = getattr(servers, to)
    if not address:
        raise BadInput(f"--{to}: expected an address to deliver to, got nothing")
    from twin.servers import target_of

    return target_of(servers, to), mask(address)


def _claim(folder: Path, replay_id: str) -> None:
    """Reserve the folder for this replay, because files are named only by rows. BadInput where it holds another one."""
    from datasets.log.durable import replace_file  # loads Arrow

    marker = folder / _MARKER
    try:
        if marker.exists():
            if json.loads(marker.read_text()).get("id") == replay_id:
                return
        elif not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            replace_file(marker, (json.dumps({"id": replay_id}) + "\n").encode())
            return
    except (OSError, ValueError) as error:
        raise BadInput(f"--out: cannot use {folder}: {' '.join(str(error).split())}") from error
    raise BadInput(f"--out: expected a new folder or that of the same replay, but {folder} holds something else")
