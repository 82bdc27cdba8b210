"""A fleet for the live page without a fleet: plausible records of any vehicle, and a thread that sends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import paho.mqtt.client as mqtt
import pyarrow as pa
from paho.mqtt.enums import CallbackAPIVersion

from datasets.codec import encode
from datasets.schema import FIELDS, SCHEMAS, Payload, Stream, vehicle_id
from physics import MODES

TOPICS: dict[Stream, str] = {"telemetry": "ev/battery/telemetry/", "predictions": "ev/battery/prediction/"}
PERIOD_S = 2.0


def fleet_batch(
    vehicles: range, seq: int, stream: Stream = "telemetry", run_id: str = "run-page", **columns: Any
) -> pa.RecordBatch:
    """A record of each vehicle; `columns` replaces values, by name: one for all, or one a vehicle."""
    number = np.arange(vehicles.start, vehicles.stop)
    share, mode = (number * 0.61803) % 1.0, number % 4
    wave = np.sin(0.1 * seq + number)
    power = np.choose(mode, [np.zeros(len(number)), 14 + 12 * wave, -7 + 0.3 * wave, -80 + 5 * wave])
    soc = np.clip(0.2 + 0.75 * share - 1e-4 * seq * np.sign(power), 0.02, 1.0)
    voltage = 330 + 60 * soc - 0.1 * power
    soh = 1.0 - 0.2 * ((number * 0.37) % 1.0)
    rul = 4000 * (soh - 0.75)
    made: dict[str, Any] = {
        "soc": soc, "soh": soh, "battery_voltage": voltage, "battery_current": 1e3 * power / voltage,
        "battery_temperature": 22 + 12 * share + wave, "charge_cycles": 3000 * (1 - soh), "power_consumption": power,
        "driving_speed": np.where(mode == 1, 50 + 30 * wave, 0.0), "rul": rul, "rul_low": 0.7 * rul,
        "rul_high": 1.4 * rul, "failure_probability": 0.01 + 0.2 * share**4,
    }  # fmt: skip
    made |= {name: np.broadcast_to(value, len(number)) for name, value in columns.items()}
    labels = {"run_id": [run_id] * len(number), "vehicle_id": [vehicle_id(int(v)) for v in number]}
    labels |= {"mode": [MODES[m] for m in mode], "model_version": ["1.0.0"] * len(number)}
    ts = 1_780_000_000_000_000 + int((seq + 1) * PERIOD_S * 1e6)
    found = {}
    for field in FIELDS[stream]:
        if field.name in labels:
            found[field.name] = pa.array(labels[field.name]).dictionary_encode()
        elif field.name in ("seq", "ts"):
            found[field.name] = pa.array([seq if field.name == "seq" else ts] * len(number))
        else:
            values = np.asarray(made.get(field.name, np.zeros(len(number))), np.float64)
            found[field.name] = pa.array(np.round(values, field.decimals or 0))
    return pa.record_batch(
        [found[field.name].cast(field.type, safe=False) for field in FIELDS[stream]], schema=SCHEMAS[stream]
    )


class Sender:
    """Publishes a fleet with QoS 0, evenly over each period, until left; on and on, whatever the broker does."""

    def __init__(
        self,
        port: int,
        vehicles: int,
        *,
        period_s: float = PERIOD_S,
        predict_every: int = 2,
        payload: Payload = "json",
        parts: int = 10,
        streams: tuple[Stream, ...] = ("telemetry", "predictions"),
        changed: Callable[[Stream, int], dict[str, Any]] = lambda _stream, _seq: {},
    ) -> None:
        self._port, self._vehicles, self._payload = port, vehicles, payload
        self._period_s, self._predict_every, self._parts = period_s, predict_every, parts
        self._changed, self._streams = changed, streams
        self.left_out: set[str] = set()
        """Vehicles that are silent."""
        self.sent = 0
        self._leaving = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._thread = threading.Thread(target=self._send, name="sender", daemon=True)

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _send(self) -> None:
        began, seq = time.monotonic(), 0
        while not self._leaving.is_set():
            streams = [s for s in self._streams if s == "telemetry" or seq % self._predict_every == 0]
            for part in range(self._parts):
                first, last = (self._vehicles * k // self._parts for k in (part, part + 1))
                for stream in streams if last > first else []:
                    batch = fleet_batch(range(first, last), seq, stream)
                    for name, value in self._changed(stream, seq).items():
                        place = batch.schema.get_field_index(name)
                        given = batch.column(name).to_pylist()
                        made = [value.get(v, was) for v, was in zip(range(first, last), given, strict=True)]
                        field = batch.schema.field(name)
                        batch = batch.set_column(place, field, pa.array(made).cast(field.type))
                    messages = encode(batch, stream, self._payload)
                    for vehicle, value in zip(messages.vehicle_ids, messages.values, strict=True):
                        if vehicle not in self.left_out and self._client.is_connected():
                            self._client.publish(TOPICS[stream] + vehicle, value, 0)
                            self.sent += 1
                due = began + self._period_s * (seq + (part + 1) / self._parts)
                self._leaving.wait(max(0.0, due - time.monotonic()))
            seq += 1
