"""The page as a process: this one (`twin watch`), or a child of the one that runs a fleet (`twin run --page-port`).

The child gets its socket already bound, so that a port in use is said before the run starts. What it is to show, with
secrets, comes through its standard input, which no other user can read; when that ends, its parent has ended, and so
does it. It is less urgent than the run: what it lacks of a busy machine costs the page updates, and nobody else.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.mqtt import MqttTarget
from twin.errors import BadInput
from twin.folders import ROOT
from twin.settings import Page

_NICER = 10


@contextmanager
def listening_at(page: Page) -> Iterator[socket.socket]:
    """A bound socket. BadInput where the address is not available."""
    host, port = page.page_host, page.page_port
    at = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        at.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        at.bind((host, port))
        at.listen(128)
    except OSError as error:
        at.close()
        raise BadInput(
            f"--page-port: cannot listen on {host}:{port} ({error.strerror}); choose another port"
        ) from error
    with at:
        yield at


def show(
    target: Any,
    page: Page,
    tls: Sequence[str] | None,
    at: socket.socket,
    stop: threading.Event,
    say: Callable[[str], object] = lambda _: None,
) -> None:
    """Read the broker and serve the page until `stop`. `tls`: the files of a certificate and its key. `say` is told
    when the broker goes or comes."""
    from twin.page.fleet_view import FleetView
    from twin.page.reader import Reader
    from twin.page.server import page_app, serve

    view = FleetView(page.page_vehicles)
    reader = Reader(target, view, say)
    reader.start()
    try:
        serve(page_app(view, reader, page.page_token, page.page_silent), tls, at, stop)
    finally:
        reader.stop()


@dataclass
class Beside:
    """The page of a run."""

    _child: subprocess.Popen[bytes]
    page: Page

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    @classmethod
    def start(cls, target: Any, page: Page, tls: Sequence[str] | None = None) -> Beside:
        """In a process beside this one. BadInput where the address is not available."""
        with listening_at(page) as at:
            child = subprocess.Popen(
                [sys.executable, "-m", "twin.page", str(at.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[at.fileno()],
                start_new_session=True,  # Ctrl-C is for the run, which ends the page
                cwd=ROOT,
            )
            assert child.stdin is not None
            told = {"url": target.url, "page": page.model_dump(mode="json"), "tls": tls}
            child.stdin.write(json.dumps(told).encode() + b"\n")
            child.stdin.flush()
        return cls(child, page)

    def close(self) -> None:
        """End it."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(5.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def be_beside() -> None:
    """What the child does: see the module's docstring."""
    os.nice(_NICER)
    at = socket.socket(fileno=int(sys.argv[1]))
    told = json.loads(sys.stdin.readline())
    stop = threading.Event()

    def until_the_run_ends() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=until_the_run_ends, daemon=True).start()
    show(MqttTarget.parse(told["url"], SinkOptions()), Page(**told["page"]), told["tls"], at, stop)
