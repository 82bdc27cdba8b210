"""Messages that are not results: one line each, on stderr."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print `twin: text` as one line, whatever the text holds."""
    print(f"twin: {' '.join(text.split())}", file=sys.stderr, flush=True)
