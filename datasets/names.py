"""Words that settings, files and messages have in common. Light to import."""

from __future__ import annotations

from typing import Literal

Stream = Literal["telemetry", "predictions"]
STREAMS: tuple[Stream, ...] = ("telemetry", "predictions")

Payload = Literal["json", "avro"]
PAYLOADS: tuple[Payload, ...] = ("json", "avro")

Fsync = Literal["checkpoint", "always"]
"""When the log is forced to the disk: with each checkpoint, or after each batch."""
