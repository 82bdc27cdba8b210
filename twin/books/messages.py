"""Reads what the MQTT archive (`archive.py`) has written. Needs no MQTT client."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FILE = "messages.jsonl"
BASE64 = b"base64:"


def messages(directory: Path) -> Iterator[tuple[str, bytes]]:
    """(topic, payload) of each message in the order of arrival. Skips a torn last line, which was not acknowledged."""
    with open(directory / FILE, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            topic, _, payload = line[:-1].partition(b"\t")
            if payload.startswith(BASE64):
                with suppress(ValueError):  # we did not write it; the reader will find it unreadable
                    payload = base64.b64decode(payload.removeprefix(BASE64), validate=True)
            yield topic.decode(errors="replace"), payload
