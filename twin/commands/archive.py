"""`twin archive`: a subscriber that keeps every message."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from twin.errors import BadInput
from twin.options import takes
from twin.say import say
from twin.settings import Given, Servers, checked, parse_duration

EXAMPLE = "twin archive --mqtt mqtt://127.0.0.1:1883 --out archive"


@takes(Servers, only=("mqtt",))
def archive(
    *,
    out: Annotated[Path, typer.Option(metavar="PATH", help="folder for messages.jsonl; an existing one is continued")],
    client_id: Annotated[
        str, typer.Option(metavar="NAME", help="name of the MQTT session, a different one for each archive")
    ] = "ev-twin-archive",
    keep: Annotated[
        str, typer.Option(metavar="DURATION", help="how long the broker keeps new messages after this command ends")
    ] = "1d",
    given: Given,
) -> None:
    """Keep every MQTT message of all vehicles on disk until Ctrl-C, as input for `twin ledger --verify`."""
    from twin.signals import stopped_by_signals

    url = given.group(Servers, only=("mqtt",)).mqtt
    with stopped_by_signals() as stop:
        written = archive_until(url, out, client_id, stop, keep)
    typer.echo(f"archived {written:,} messages in {out}")


def archive_until(url: str, directory: Path, client_id: str, stop: threading.Event, keep: str) -> int:
    """Archive what the broker at `url` carries until `stop`. Returns the number of messages this call wrote."""
    if not url:
        raise BadInput("--mqtt: expected the broker to listen to, like mqtt://127.0.0.1:1883")
    keep_s = checked("--keep", lambda text: parse_duration(text, zero=True), keep)
    from actors.delivery.sinks import SinkError, SinkOptions
    from actors.delivery.sinks.mqtt import MqttTarget
    from twin.books.archive import Archive
    from twin.run_directory import in_utf8

    in_utf8(directory)
    target = checked("--mqtt", lambda text: MqttTarget.parse(text, SinkOptions()), url)
    try:
        archive = Archive(target, directory, client_id, keep_s)
        archive.start()
    except SinkError as error:
        raise BadInput(f"--mqtt: {error}") from error
    except OSError as error:
        raise BadInput(f"--out: cannot write to {directory}: {error.strerror}") from error
    say(f"archiving to {directory}; Ctrl-C ends it")
    reason = ""
    try:
        while not stop.wait(0.5):
            if archive.waiting_for != reason:
                reason = archive.waiting_for
                say(f"waiting for {reason}" if reason else "writing again")
    finally:
        archive.stop()
    return archive.written
