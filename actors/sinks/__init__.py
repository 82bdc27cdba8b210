"""Where records go. A sink delivers one batch and returns when the peer has acknowledged all of it (or refused
single records for themselves, which it names); nothing else.

Buffering is the log's (`datasets/log.py`), pace and retries are the shipper's (`actors/shipper.py`), the bytes are the
codec's (`datasets/codec.py`). Open `base.py` first.
"""

from actors.sinks.base import DeadLetter, Receipt, Sink, SinkError, SinkRefused, SinkUnavailable, Target
from actors.sinks.kafka import KafkaTarget
from actors.sinks.mqtt import MqttTarget
from actors.sinks.parquet import ParquetTarget
from actors.sinks.timescale import TimescaleTarget

__all__ = [
    "DeadLetter",
    "KafkaTarget",
    "MqttTarget",
    "ParquetTarget",
    "Receipt",
    "Sink",
    "SinkError",
    "SinkRefused",
    "SinkUnavailable",
    "Target",
    "TimescaleTarget",
]
