"""Loops that end only when they are told to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


def keep_calling(
    turn: Callable[[], float], stopping: threading.Event, tell: Callable[[str], None], retry_s: float
) -> None:
    """Call `turn` until `stopping`. It returns how long to wait [s] before the next call.

    An exception does not end the loop, because a thread that is gone looks like one that has nothing to do. It is a
    full disk or a defect of ours: it is logged, told in one line, and `turn` is called again after `retry_s`.
    """
    while not stopping.is_set():
        try:
            wait_s = turn()
        except OSError as error:
            _log.warning("%s; trying again", error)
            tell(f"{error.filename or 'the disk'}: {error.strerror or error}")
            wait_s = retry_s
        except Exception as error:
            _log.exception("an internal error; trying again")
            tell(f"internal error, see this process's log: {error!r}")
            wait_s = retry_s
        stopping.wait(wait_s)
