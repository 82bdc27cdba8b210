"""How kernels are compiled and cached: in one folder per user and per version of these sources.

numba marks a cached function stale when *its own* file changes, not when a function it calls in another file does. So
the folder's name carries a hash of all sources of this package, and no change can leave a stale kernel behind. Where
the sources lie does not count: each job of `ray job submit` has them in a folder of its own, and would compile anew.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import numba
from numba.core.caching import UserProvidedCacheLocator

_config: Any = numba.config  # its names come from the environment and have no types

# Fused multiply-add is allowed, reordering of sums is not; no check for division by zero.
_OPTIONS: Final[dict[str, Any]] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True}


def physics_version() -> str:
    """Hash of this package's sources and of the versions of numba and Python.

    A result's bits depend on these and on the settings only.
    """
    digest = hashlib.sha256(f"{numba.__version__} {sys.version_info[:2]}".encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _base_folders() -> Iterator[Path]:
    """Folders to try, best first."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
    if os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.environ["XDG_CACHE_HOME"])
    with suppress(RuntimeError):  # no home directory
        yield Path.home() / ".cache"
    yield Path(tempfile.gettempdir()) / f"ev-battery-twin-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


@cache
def cache_folder() -> Path:
    """The folder of compiled kernels for these sources: the first one that is writable."""
    key = physics_version()
    for base in _base_folders():
        folder = base / "ev-battery-twin" / f"kernels-{key}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="ev-battery-twin-kernels-"))


class Anywhere(UserProvidedCacheLocator):
    """numba's way to a function's cache, by what is in its file and not by the file's path."""

    def __init__(self, function: Any, file: str) -> None:
        super().__init__(function, file)  # type: ignore[no-untyped-call]
        content = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
        self._cache_path = os.path.join(_config.CACHE_DIR, f"{Path(file).stem}-{content}")


def inner[F: Callable[..., Any]](function: F) -> F:
    """Compile a function that only kernels call. It becomes part of each kernel that calls it."""
    return _typed(numba.njit(**_OPTIONS), function)


def kernel[F: Callable[..., Any]](function: F) -> F:
    """Compile a function that Python calls. All processes share the machine code, which is kept in `cache_folder`.

    numba fixes a function's cache folder when the function is decorated. The settings are changed for that moment only,
    so other packages' caches stay where they are.
    """
    before = _config.CACHE_DIR, _config.CACHE_LOCATOR_CLASSES
    _config.CACHE_DIR, _config.CACHE_LOCATOR_CLASSES = str(cache_folder()), f"{__name__}.{Anywhere.__qualname__}"
    try:
        return _typed(numba.njit(cache=True, **_OPTIONS), function)
    finally:
        _config.CACHE_DIR, _config.CACHE_LOCATOR_CLASSES = before


def _typed[F: Callable[..., Any]](decorate: Callable[[F], Any], function: F) -> F:
    """numba has no type hints, so the compiled function is given the type of the original."""
    compiled: F = decorate(function)
    return compiled
