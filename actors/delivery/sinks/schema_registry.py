"""A schema registry with Confluent's interface, as Redpanda, Karapace, Apicurio and Confluent's own have it.

In Confluent's wire format a message begins with 0 and, in four bytes, the number under which the registry keeps the
writer's schema. Each number and each schema is asked for once per process.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from actors.delivery.sinks.base import SinkRefused, SinkUnavailable, mask
from datasets.codec import schema_fingerprint
from datasets.schema import Stream, avro_schema

_OURS: Final = {"timeout": 10, "max.retries": 0}  # who calls repeats
_NOT_FOUND, _TOO_MANY = 404, 429


class SchemaRegistry:
    """`properties`: SchemaRegistryClient's. A one-line ValueError where they are none."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        self.where = f"the schema registry at {mask(properties.get('url', ''))}"
        try:
            self._client: Any = SchemaRegistryClient({**properties, **_OURS})
        except (ValueError, TypeError, OSError) as error:
            said = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
            raise ValueError(f"expected properties of a schema registry's clients: {said}") from None

    def number(self, topic: str, stream: Stream) -> int:
        """Of the schema of the values on this topic, which is registered if it is not. SinkError."""
        schema, subject = Schema(json.dumps(avro_schema(stream)), "AVRO"), f"{topic}-value"

        def known_or_made() -> int:
            # Looking needs no right to write: a registry may be filled beforehand.
            try:
                return int(self._client.lookup_schema(subject, schema).schema_id)
            except SchemaRegistryError as error:
                if error.http_status_code != _NOT_FOUND:
                    raise
            return int(self._client.register_schema(subject, schema))

        return self._asked(known_or_made, f"the schema of {topic}")

    def fingerprint(self, number: int) -> bytes:
        """Of the schema that has this number; b"" where the registry has none. SinkError."""

        def found() -> bytes:
            try:
                return schema_fingerprint(json.loads(self._client.get_schema(number).schema_str))
            except SchemaRegistryError as error:
                if error.http_status_code != _NOT_FOUND:
                    raise
                return b""

        return self._asked(found, f"schema {number}")

    def check(self) -> str:
        """That it answers us. SinkError."""
        subjects = self._asked(self._client.get_subjects, "its subjects")
        return f"{self.where}: {len(subjects)} subject(s)"

    def _asked[T](self, ask: Callable[[], T], what: str) -> T:
        try:
            return ask()
        except SchemaRegistryError as error:
            status, said = error.http_status_code, str(error.error_message).splitlines()[0][:200]
            if status >= 500 or status == _TOO_MANY:
                raise SinkUnavailable(f"{self.where} cannot answer now ({status}: {said})") from None
            raise SinkRefused(
                f"{self.where} refused us {what} ({status}: {said}); check user, password, rights and compatibility"
            ) from None
        except httpx2.HTTPError as error:
            if _untrusted(error):
                raise SinkRefused(
                    f"{self.where} is not trusted ({error}); check schema.registry.ssl.ca.location"
                ) from None
            raise SinkUnavailable(
                f"{self.where} does not answer ({type(error).__name__}); is it running there?"
            ) from None
        except ValueError as error:
            raise SinkRefused(f"{self.where} answers as none does ({error!s:.100}); is it one?") from None


def _untrusted(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
