"""A TCP proxy in front of a real server, to break the network between it and a client: cut, stall, slow down."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.services.base import HOST

_CHUNK = 16 << 10
_TICK_S = 0.02


class Proxy:
    """Listens on `port` and forwards to `target_port`, both on loopback; one thread a direction of each connection.
    With a `listener` of another network, it is that one's `port`.

    with Proxy(server.port) as proxy:
        proxy.stall()      # nothing passes any more, connections stay; new ones are accepted and hang
        proxy.resume()     # all passes again, also what was held back
        proxy.cut()        # every connection is reset; new ones are accepted
        proxy.throttle(10_000)   # bytes a second, client to server, of each connection; None for no limit

    `sent`: bytes that clients have sent so far; `cuts`: how often a connection that was there has been reset.

    A Kafka broker tells its clients where to connect: its own address in that answer is replaced by ours.
    """

    def __init__(self, target_port: int, listener: socket.socket | None = None) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._bytes_per_s: float | None = None
        self._cut_after: int | None = None
        self.sent = 0
        self.cuts = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads: list[threading.Thread] = []
        self._listener = listener or socket.create_server((HOST, 0))
        host: str = self._listener.getsockname()[0]
        self.port: int = self._listener.getsockname()[1]
        assert len(host) == len(HOST), "an address of another length would not fit where Kafka's answer has its own"
        self._theirs, self._ours = HOST.encode() + target_port.to_bytes(4), host.encode() + self.port.to_bytes(4)
        self._start(self._accept)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True, name="proxy")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self._target_port), timeout=5)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            self._start(self._forward, client, server, pair, True)
            self._start(self._forward, server, client, pair, False)

    def _forward(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket], up: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                while not self._flowing.wait(_TICK_S):
                    if pair not in self._pairs:
                        return
                self.sent += len(data) if up else 0
                if up and self._bytes_per_s is not None:
                    time.sleep(len(data) / self._bytes_per_s)
                if up and self._cut_after is not None:
                    self._cut_after -= len(data)
                    if self._cut_after <= 0:
                        self._cut_after = None
                        self.cut()
                        return
                sink.sendall(data if up else data.replace(self._theirs, self._ours))
        self._end(pair, abort=False)

    def _end(self, pair: tuple[socket.socket, socket.socket], *, abort: bool) -> None:
        with self._lock:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                if abort:  # a reset, as a crashed peer gives it
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)
        for end in pair:
            end.close()

    def cut(self) -> None:
        """Reset every connection now."""
        pairs = list(self._pairs)
        self.cuts += bool(pairs)
        for pair in pairs:
            self._end(pair, abort=True)

    def cut_after(self, sent_bytes: int) -> None:
        """Reset every connection once so many more bytes have come from clients."""
        self._cut_after = sent_bytes

    def stall(self) -> None:
        """Let nothing pass; connections stay open."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let everything pass again, at full speed."""
        self._bytes_per_s = None
        self._flowing.set()

    def throttle(self, bytes_per_s: float | None) -> None:
        """Slow down what clients send."""
        self._bytes_per_s = bytes_per_s

    def close(self) -> None:
        """Cut everything and stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._flowing.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
