"""What is said beside the results: a line on stderr."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """`twin: text`, one line whatever the text holds."""
    print(f"twin: {' '.join(text.split())}", file=sys.stderr, flush=True)
