"""Gives memory back to the machine after work that needed much of it for a moment.

What is freed stays with the process otherwise: glibc keeps the free parts of its heaps, Arrow those of its pool.
"""

from __future__ import annotations

import ctypes

import pyarrow as pa

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it


def give_back() -> None:
    """Takes milliseconds, so after set-up or a segment, not after each record."""
    pa.default_memory_pool().release_unused()
    if _trim is not None:
        _trim(0)
