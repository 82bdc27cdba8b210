"""The page's web server: one page, its style and its script, and a WebSocket that brings what is new once a second.

To a browser: text, JSON: `hello` (what there is to show), `vehicles` (ids by row), `facts` (broker, flow), `past` (of
the vehicle it looks at); and binary, `FleetView.snapshot`. From a browser: {"vehicle": "EV-000042"}, or null.
It answers the loopback, or those who have the token: as a header, or as the cookie that the form of the 401 page sets.
Nothing can be changed here. A browser that is slow gets fewer updates, and each gets the newest.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from actors.prediction.plan import LOOPBACK
from actors.secret import bears
from twin.page.fleet_view import FleetView
from twin.page.quantities import NONE, QUANTITIES, STATES, alarms
from twin.page.reader import Reader

_STATIC = Path(__file__).parent / "static"
_UPDATE_S = 1.0
_COOKIE = "ev_twin_page"
_MOST_FORM_BYTES = 4096
_HEADERS = {
    # The browser itself refuses whatever would go to another host.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_OPEN = ("/page.css", "/icon.svg")  # the form for the token looks like the page
_ASKS = "expected the page's token (TWIN_PAGE_TOKEN of the one who started it)"


class _Guard:
    """Lets in who may see the page, and adds the headers above."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token
        # What the browser keeps opens this page only, and is not the token.
        self._cookie = hmac.new(token.encode(), b"ev-twin-page", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if scope["type"] == "http" and scope["path"] == "/token" and scope["method"] == "POST":
            response = await self._let_in(Request(scope, receive))
        elif scope["path"] in _OPEN or (refusal := self._refusal(connection)) is None:
            await self._app(scope, receive, _with_headers(send))
            return
        else:
            response = refusal
        await response(scope, receive, send)

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        headers = connection.headers
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _plain(403, f"expected a page of {host}, got one of {origin}")
        if not self._token:  # another site's name for our address would make its scripts ours
            named = re.sub(r":\d*$", "", host).strip("[]")
            ours = ", ".join(LOOPBACK)
            return None if named in LOOPBACK else _plain(403, f"expected one of {ours} as host, got {named}")
        known = connection.cookies.get(_COOKIE, "")
        if hmac.compare_digest(known.encode(), self._cookie.encode()):
            return None
        if bears(headers.get("authorization", ""), self._token):
            return None
        return _asks(headers, _ASKS)

    async def _let_in(self, request: Request) -> Response:
        form = b""
        async for part in request.stream():
            form += part
            if len(form) > _MOST_FORM_BYTES:
                break
        given = parse_qs(form.decode("latin-1")).get("token", [""])[0]
        if not (self._token and hmac.compare_digest(given.encode(), self._token.encode())):
            return _asks(request.headers, f"this is not the token; {_ASKS}")
        response = RedirectResponse("/", 303, headers=_HEADERS)
        encrypted = request.url.scheme == "https"
        response.set_cookie(_COOKIE, self._cookie, httponly=True, samesite="strict", secure=encrypted)
        return response


def _asks(headers: Headers, line: str) -> Response:
    """401: one line, for a person with a field for the token."""
    if "text/html" not in headers.get("accept", ""):
        return _plain(401, f"{line}: the header 'Authorization: Bearer <token>'")
    form = (_STATIC / "token.html").read_text()
    return HTMLResponse(form.replace("{line}", line[0].upper() + line[1:] + "."), 401, headers=_HEADERS)


def _plain(status: int, line: str) -> Response:
    return JSONResponse({"detail": line}, status, headers=_HEADERS)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message["headers"] = [*message.get("headers", []), *own]
        await send(message)

    return sending


class _Newest:
    """What all browsers get, made once for each moment."""

    def __init__(self, view: FleetView, reader: Reader) -> None:
        self._view, self._reader = view, reader
        self._made = 0.0
        self._both: tuple[str, bytes] = ("", b"")

    def both(self) -> tuple[str, bytes]:
        """Facts and snapshot, at most half an update old."""
        if time.monotonic() - self._made > _UPDATE_S / 2:
            facts = json.dumps({"facts": self._view.facts() | {"broker": self._reader.facts()}})
            self._both, self._made = (facts, self._view.snapshot()), time.monotonic()
        return self._both


class _Viewer:
    """One browser."""

    def __init__(self, socket: WebSocket, view: FleetView, newest: _Newest, silent_s: float) -> None:
        self._socket, self._view, self._newest = socket, view, newest
        self._silent_s = silent_s
        self._asked = asyncio.Event()
        self._vehicle: str | None = None
        self._known = 0

    async def run(self) -> None:
        """Until it leaves."""
        await self._socket.accept()
        hello = {
            "quantities": [asdict(quantity) for quantity in QUANTITIES],
            "none": NONE,
            "states": STATES,
            "alarms": [asdict(alarm) for alarm in alarms(self._silent_s)],
            "update_s": _UPDATE_S,
        }
        listening = asyncio.create_task(self._listen())
        try:
            await self._socket.send_text(json.dumps({"hello": hello}))
            while not listening.done():
                await self._update()
                began = time.monotonic()
                while (left := began + _UPDATE_S - time.monotonic()) > 0 and not listening.done():
                    try:
                        await asyncio.wait_for(self._asked.wait(), left)
                    except TimeoutError:
                        break
                    self._asked.clear()
                    await self._past()
        except (WebSocketDisconnect, RuntimeError):  # it left while we were sending
            pass
        finally:
            listening.cancel()

    async def _update(self) -> None:
        facts, snapshot = self._newest.both()
        if new := self._view.vehicles(self._known):
            await self._socket.send_text(json.dumps({"vehicles": new, "begin": self._known}))
            self._known += len(new)
        await self._socket.send_text(facts)
        await self._socket.send_bytes(snapshot)
        await self._past()

    async def _past(self) -> None:
        if self._vehicle is not None:
            past = self._view.past(self._vehicle) or {"vehicle": self._vehicle, "unknown": True}
            await self._socket.send_text(json.dumps({"past": past}))

    async def _listen(self) -> None:
        try:
            while True:
                asked = json.loads(await self._socket.receive_text())
                vehicle = asked.get("vehicle") if isinstance(asked, dict) else None
                self._vehicle = vehicle[:64] if isinstance(vehicle, str) else None
                self._asked.set()
        except (WebSocketDisconnect, ValueError, RuntimeError):  # it left, or says what no page of ours says
            self._asked.set()


def page_app(view: FleetView, reader: Reader, token: str, silent_s: float) -> ASGIApp:
    """The application for any ASGI server."""
    newest = _Newest(view, reader)

    def file(name: str) -> Callable[[Request], Any]:
        async def answer(_: Request) -> Response:
            return FileResponse(_STATIC / name)

        return answer

    async def live(socket: WebSocket) -> None:
        await _Viewer(socket, view, newest, silent_s).run()

    async def nothing(_request: Request, _error: Exception) -> Response:
        return _plain(404, "expected /, which is the page")

    names = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"}
    routes = [*(Route(path, file(name)) for path, name in names.items()), WebSocketRoute("/live", live)]
    return _Guard(Starlette(routes=routes, exception_handlers={404: nothing}), token)


def serve(app: ASGIApp, tls: Sequence[str] | None, at: socket.socket, stop: threading.Event) -> None:
    """Until `stop`. `tls`: the files of a certificate and its key. The caller handles signals."""
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws_max_size=4096, ws_per_message_deflate=False,
        timeout_graceful_shutdown=1, ssl_certfile=certificate, ssl_keyfile=key,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([at],), name="page-server", daemon=True)  # leaves signals alone
    thread.start()
    while not stop.wait(0.5) and thread.is_alive():
        pass
    server.should_exit = True
    thread.join()
