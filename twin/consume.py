"""`twin consume`: settings checked, servers looked at, signals caught, then `actors.consumer` until told to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actors.consumer import ConsumePlan, ConsumerCollector, FleetConsumer, Undelivered
from actors.sinks import KafkaTarget, SinkRefused, TimescaleTarget
from twin.errors import BadInput, NotDelivered, RunFailed
from twin.servers import check_targets, start_exporter, targets_of
from twin.settings import Duration, load_settings, one_line
from twin.signals import stopped_by_signals

_NAME = r"^[A-Za-z0-9._-]{1,200}$"


class ConsumeSettings(BaseModel):
    """What `twin consume` takes beside the servers. Times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    group: str = Field("ev-twin-consume", pattern=_NAME)
    topic: str = Field("ev-telemetry", pattern=_NAME)
    output: str = Field("ev-fleet-minute", pattern=_NAME)
    lateness: Duration = Field(10.0)
    idle_timeout: Duration = Field(30.0)
    until_idle: Duration | None = Field(None)
    max_open: int = Field(1_000_000, ge=1)
    metrics_port: int = Field(9101, ge=0, le=65535)


def plan_of(flags: Mapping[str, Any], config: Path | None) -> tuple[ConsumePlan, ConsumeSettings]:
    """The servers as `twin run` finds them (flags, environment, file), the rest from flags. BadInput in one line."""
    servers = load_settings({name: flags[name] for name in ("kafka", "timescale")}, config)
    try:
        settings = ConsumeSettings(
            **{k: v for k, v in flags.items() if k not in ("kafka", "timescale") and v is not None}
        )
    except ValidationError as error:
        raise BadInput(one_line(error)) from None
    targets = {type(target): target for target in targets_of(servers)}
    kafka, database = targets.get(KafkaTarget), targets.get(TimescaleTarget)
    if not isinstance(kafka, KafkaTarget):
        raise BadInput("expected Kafka servers: --kafka host:port or KAFKA_BOOTSTRAP_SERVERS")
    if not isinstance(database, TimescaleTarget):
        raise BadInput("expected a database: --timescale postgresql://user@host/database or PG_HOST")
    plan = ConsumePlan(
        kafka,
        database,
        group=settings.group,
        topic=settings.topic,
        output=settings.output,
        lateness_s=settings.lateness,
        idle_s=settings.idle_timeout,
        until_idle_s=settings.until_idle,
        max_open=settings.max_open,
    )
    return plan, settings


def consume(flags: Mapping[str, Any], config: Path | None, say: Callable[[str], None]) -> list[str]:
    """Run until SIGINT, SIGTERM or idleness; the lines of the summary. TwinError where it cannot go on."""
    plan, settings = plan_of(flags, config)
    exporter = None
    with stopped_by_signals() as stop:
        try:
            check_targets((plan.kafka, plan.database))
            consumer = FleetConsumer(plan, say)
            exporter = start_exporter(settings.metrics_port, ConsumerCollector(consumer))
            consumer.run(stop)
        except SinkRefused as error:
            raise RunFailed(str(error)) from None
        except Undelivered as error:
            raise NotDelivered(str(error)) from None
        finally:
            if exporter is not None:
                exporter.close()
    counts = consumer.windows.counts
    return [
        f"consumed     {counts.counted:,} records, {counts.late:,} of them late, {counts.duplicates:,} duplicates"
        + (f", {counts.again:,} read again" if counts.again else ""),
        f"malformed    {counts.malformed:,}" + (f", in {plan.dead_letters}" if counts.malformed else ""),
        f"windows      {counts.windows:,} written to fleet_minute and {plan.output}",
    ]
