"""`twin consume`: fleet aggregates per simulated minute, from the stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from twin.errors import BadInput, NotDelivered, RunFailed
from twin.options import takes
from twin.say import log_as, say
from twin.settings import Consumer, Encryption, Given, Servers

if TYPE_CHECKING:
    from actors.aggregates.consumer import ConsumePlan

EXAMPLE = "twin consume --kafka 127.0.0.1:9092 --timescale postgresql://twin@127.0.0.1/twin_data"

_SERVERS = ("kafka", "kafka_config", "timescale")


@takes(Servers, Consumer, Encryption, only=(*_SERVERS, *Consumer.model_fields, *Encryption.model_fields))
def consume(given: Given) -> None:
    """Compute fleet aggregates per simulated minute, from Kafka to Kafka and the database."""
    settings = given.group(Consumer)
    log_as(settings.log_format, settings.log_level)
    for line in consume_until_stopped(given, say):
        typer.echo(line)


def plan_of(servers: Servers, settings: Consumer) -> ConsumePlan:
    """What to read and where to write. BadInput in one line."""
    from actors.aggregates.consumer import ConsumePlan
    from actors.delivery.sinks.kafka import KafkaTarget
    from actors.delivery.sinks.timescale import TimescaleTarget
    from twin.servers import targets_of

    targets = {type(target): target for target in targets_of(servers)}
    kafka, database = targets.get(KafkaTarget), targets.get(TimescaleTarget)
    if not isinstance(kafka, KafkaTarget):
        raise BadInput("expected Kafka servers: --kafka host:port or KAFKA_BOOTSTRAP_SERVERS")
    if not isinstance(database, TimescaleTarget):
        raise BadInput("expected a database: --timescale postgresql://user@host/database or PG_HOST")
    return ConsumePlan(
        kafka,
        database,
        group=settings.group,
        topic=kafka.prefix + settings.topic,
        output=kafka.prefix + settings.output,
        lateness_s=settings.lateness,
        idle_s=settings.idle_timeout,
        until_idle_s=settings.until_idle,
        max_open=settings.max_open,
    )


def consume_until_stopped(given: Given, say: Callable[[str], None]) -> list[str]:
    """Run until SIGINT, SIGTERM or idleness. Returns the lines of the summary. TwinError where it cannot go on."""
    servers, settings = given.group(Servers, only=_SERVERS), given.group(Consumer)
    plan = plan_of(servers, settings)
    from actors.aggregates.consumer import ConsumerCollector, FleetConsumer, Undelivered
    from actors.delivery.sinks import SinkRefused
    from twin.servers import check_targets, start_exporter, tls_of
    from twin.signals import stopped_by_signals

    tls = tls_of(given.group(Encryption))
    exporter = None
    with stopped_by_signals() as stop:
        try:
            check_targets((plan.kafka, plan.database))
            consumer = FleetConsumer(plan, say)
            exporter = start_exporter(
                settings,
                ConsumerCollector(consumer),
                lambda: {"consumer": consumer.waiting} if consumer.waiting else {},
                tls,
            )
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
