"""Words that settings, files and messages have in common. Light to import."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

Stream = Literal["telemetry", "predictions"]
STREAMS: tuple[Stream, ...] = ("telemetry", "predictions")

Payload = Literal["json", "avro", "vss"]
PAYLOADS: tuple[Payload, ...] = ("json", "avro", "vss")

Fsync = Literal["checkpoint", "always"]
"""When the log is forced to the disk: with each checkpoint, or after each batch."""


def utc_text(time: datetime) -> str:
    """2026-06-01T07:00:02Z: ISO 8601 to the second. In four digits, which strftime gives no year before 1000."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


REGISTERED_MODEL = "ev-battery-fleet"
"""The name of our model in a registry, unless another is set."""
