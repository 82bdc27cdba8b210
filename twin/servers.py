"""The servers a command talks to (the sinks that are switched on), and the metrics it serves itself."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client.registry import Collector

from actors.delivery.sinks import LIVE_SINKS, SINKS, SinkError, SinkOptions, SinkUnavailable, Target, reader_of
from actors.delivery.sinks.base import mask, unmasked
from actors.exporter import Exporter, Waits
from actors.secret import Secret
from twin.errors import BadInput
from twin.settings import PASSWORDS, Consumer, Encryption, Processes, Servers


def targets_of(servers: Servers) -> tuple[Target, ...]:
    """The sinks that are switched on. BadInput for a malformed address."""
    options = SinkOptions(
        payload=servers.payload,
        retain=servers.mqtt_retain,
        clients=servers.mqtt_clients,
        connections=servers.timescale_connections,
        partitions=servers.kafka_partitions or -1,
        replication=servers.kafka_replication or -1,
        kafka_config=str(servers.kafka_config.absolute()) if servers.kafka_config else "",
    )
    found: list[Target] = []
    for name in LIVE_SINKS:
        if address := getattr(servers, name):
            try:
                found.append(_without_secrets(SINKS[name].parse(address, options)))
            except ValueError as error:
                raise BadInput(f"--{name}: {error}") from None
    return tuple(found)


def target_of(servers: Servers, name: str) -> Target:
    """The sink of this name, which is switched on. BadInput for a malformed address."""
    return next(target for target in targets_of(servers) if target.name == name)


def _without_secrets(target: Any) -> Target:
    """The target as it may be pickled."""
    changes: dict[str, Secret] = {}
    if password := getattr(target, "password", None):
        changes["password"] = Secret(password, PASSWORDS[target.name])
    options = getattr(target, "options", "")
    if mask(f"?{options}") != f"?{options}":
        changes["options"] = Secret(options)
    sealed: Target = replace(target, **changes)
    return sealed


def adopt_old_cursors(directory: Path, run: Mapping[str, Any]) -> None:
    """Cursors and dead letters once had a folder for each kind of sink. They belong to the peer of that time."""
    for name in LIVE_SINKS:
        if not (address := run["settings"].get(name)):
            continue
        reader = reader_of(SINKS[name].parse(unmasked(address)))
        for folder in ("cursors", "dead-letters"):
            if (directory / folder / name).is_dir() and not (directory / folder / reader).exists():
                (directory / folder / name).rename(directory / folder / reader)


def check_targets(targets: Sequence[Target]) -> list[str]:
    """One line for each peer that is away but may come back. BadInput where a peer refuses us."""
    away = []
    for target in targets:
        try:
            target.check()
        except SinkUnavailable as error:
            away.append(str(error))
        except SinkError as error:
            raise BadInput(f"--{target.name}: {error}") from error
    return away


def tls_of(encryption: Encryption) -> tuple[str, str] | None:
    """The files of our certificate and its key, None for no TLS. BadInput where no server could use them."""
    if encryption.tls_cert is None or encryption.tls_key is None:
        return None
    files = {"tls_cert": encryption.tls_cert.absolute(), "tls_key": encryption.tls_key.absolute()}
    for name, file in files.items():
        try:
            file.open("rb").close()
        except OSError as error:
            raise BadInput(f"--{name.replace('_', '-')}: cannot read {file} ({error.strerror})") from None
    certificate, key = map(str, files.values())

    def asked() -> str:
        raise BadInput(f"--tls-key: expected a key without a passphrase, and {key} asks for one")

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, asked)
    except ssl.SSLError as error:
        said = (error.reason or "no PEM").replace("_", " ").lower()
        raise BadInput(
            f"--tls-cert: expected a certificate and its key (PEM), got {certificate} and {key}: {said}"
        ) from None
    return certificate, key


def start_exporter(
    settings: Processes | Consumer, collector: Collector, waits: Waits, tls: tuple[str, str] | None
) -> Exporter | None:
    """Serve metrics and health; None for port 0. BadInput where the address is not available."""
    host, port = settings.metrics_host, settings.metrics_port
    try:
        return Exporter(host, port, collector, waits, settings.metrics_token, tls) if port else None
    except OSError as error:
        raise BadInput(
            f"--metrics-port: cannot listen on {host}:{port} ({error.strerror}); choose another port, or 0 for off"
        ) from error
