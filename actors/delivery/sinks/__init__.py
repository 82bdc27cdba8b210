"""Where records go. A sink delivers one batch. It returns when the peer has acknowledged all of it except single
rejected records, which it names. It does nothing else.

The log buffers (`datasets/log`), the shipper paces and retries (`actors/delivery/shipper.py`), the codec makes the
bytes (`datasets/codec.py`). Open `base.py` first. A new sink is a file here, a line in `SINKS`, a setting for its
address (`twin/settings.py`) and a way to count what it has (`twin/books/peers.py`). No Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from actors.delivery.sinks.base import (
    DeadLetter,
    Receipt,
    Sink,
    SinkError,
    SinkOptions,
    SinkRefused,
    SinkUnavailable,
    Target,
    reader_of,
)


@dataclass(frozen=True)
class SinkKind:
    """One kind of sink: its name, and the class of its targets, which is imported when it is needed.

    `live`: a run can deliver to it, by the setting of its name. Otherwise only a replay can. `ordered`: its readers see
    records as they come, so several logs are delivered in the order of simulated time.
    """

    name: str
    target: str
    live: bool = True
    ordered: bool = False

    def parse(self, address: str, options: SinkOptions | None = None) -> Target:
        """The target at an address. A malformed address raises a one-line ValueError."""
        module, _, name = self.target.partition(":")
        kind: type[Target] = getattr(import_module(module), name)
        return kind.parse(address, options or SinkOptions())


SINKS: dict[str, SinkKind] = {
    kind.name: kind
    for kind in (
        SinkKind("kafka", "actors.delivery.sinks.kafka:KafkaTarget", ordered=True),
        SinkKind("mqtt", "actors.delivery.sinks.mqtt:MqttTarget", ordered=True),
        SinkKind("timescale", "actors.delivery.sinks.timescale:TimescaleTarget"),
        SinkKind("parquet", "actors.delivery.sinks.parquet:ParquetTarget", live=False),
    )
}
LIVE_SINKS: tuple[str, ...] = tuple(kind.name for kind in SINKS.values() if kind.live)

__all__ = [
    "LIVE_SINKS",
    "SINKS",
    "DeadLetter",
    "Receipt",
    "Sink",
    "SinkError",
    "SinkKind",
    "SinkOptions",
    "SinkRefused",
    "SinkUnavailable",
    "Target",
    "reader_of",
]
