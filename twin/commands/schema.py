"""`twin schema`: what a message is made of."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from datasets.names import Payload, Stream

EXAMPLE = "twin schema predictions --payload avro"


def schema(
    stream: Annotated[Stream, typer.Argument(help="kind of record")] = "telemetry",
    payload: Annotated[Payload, typer.Option(help="JSON Schema, also of the VSS form, or Avro schema")] = "json",
) -> None:
    """Print the schema of one record on the wire."""
    from datasets.schema import avro_schema, json_schema
    from datasets.vss import SIGNALS

    fields = tuple(signal.field for signal in SIGNALS[stream]) if payload == "vss" else ()
    typer.echo(json.dumps(avro_schema(stream) if payload == "avro" else json_schema(stream, fields), indent=2))
