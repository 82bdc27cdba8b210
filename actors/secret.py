"""A password or a token on its way to another process: pickled it is a reference, never the secret itself.

Ray keeps the arguments of its actors: in the head's memory, in the object store, in a store outside where the head is
set up to survive its death. What is pickled there names a file of this process, which only its user can read, and which
goes with the process. A process on the same machine reads it. One on another node takes the secret from its own
environment, where that node's administrator has put it.
"""

from __future__ import annotations

import atexit
import functools
import hmac
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Self

_log = logging.getLogger(__name__)


class SecretMissing(RuntimeError):
    """Neither this machine nor this node's environment has the secret. One line says where it was looked for."""


class Secret(str):
    """Text like any other in this process. `variable`: where a process on another node finds it, "" for nowhere.

    There, without the variable, it is empty: a server then refuses us, and says so. Without any `variable` it is not
    made at all (SecretMissing).
    """

    variable: str

    def __new__(cls, value: str, variable: str = "") -> Self:
        secret = super().__new__(cls, value)
        secret.variable = variable
        return secret

    def __reduce__(self) -> tuple[Any, ...]:
        return _recalled, (_file(), _kept(str(self)), self.variable)

    def __repr__(self) -> str:
        return "Secret(***)"


@functools.cache
def _file() -> str:
    """This process's file, readable by its user only, until the process ends."""
    handle, name = tempfile.mkstemp(prefix="ev-twin-", suffix=".secrets")  # of mode 0600
    os.close(handle)
    atexit.register(Path(name).unlink, missing_ok=True)
    return name


@functools.cache
def _kept(value: str) -> int:
    """The line of the file that holds this value."""
    with open(_file(), "r+") as file:
        number = len(file.readlines())
        file.write(json.dumps(value) + "\n")
    return number


def _recalled(file: str, line: int, variable: str) -> Secret:
    try:
        return Secret(json.loads(Path(file).read_text().splitlines()[line]), variable)
    except (OSError, ValueError, IndexError):
        pass  # of another machine, or of a process that has ended
    if not variable:
        raise SecretMissing(f"expected a secret in {file}, which is on the machine of the process that made it")
    if variable not in os.environ:
        _log.warning("expected a secret in %s, or in %s of this node's environment; found neither", file, variable)
    return Secret(os.environ.get(variable, ""), variable)


def bears(header: str, token: str) -> bool:
    """Whether an Authorization header has this token. It comes decoded as Latin-1, and text beyond ASCII cannot be
    compared, so bytes are."""
    return hmac.compare_digest(header.encode("latin-1"), f"Bearer {token}".encode())
