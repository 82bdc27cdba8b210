"""`twin watch`: the fleet in a browser, live."""

from __future__ import annotations

import typer

from twin.errors import BadInput
from twin.options import takes
from twin.say import say
from twin.settings import Encryption, Given, Page, Servers

EXAMPLE = "twin watch --mqtt mqtt://127.0.0.1:1883"

_PORT = 8050


@takes(Servers, Page, Encryption, only=("mqtt", *Page.model_fields, *Encryption.model_fields))
def watch(given: Given) -> None:
    """Show what an MQTT broker carries on a live page, until Ctrl-C."""
    url = given.group(Servers, only=("mqtt",)).mqtt
    page, encryption = given.group(Page), given.group(Encryption)
    page = page.model_copy(update={"page_port": page.page_port or _PORT})
    if not url:
        raise BadInput("--mqtt: expected the broker to show, like mqtt://127.0.0.1:1883")
    from twin.page.process import listening_at, show
    from twin.servers import targets_of, tls_of
    from twin.signals import stopped_by_signals

    [target] = targets_of(Servers(mqtt=url))
    tls = tls_of(encryption)
    with listening_at(page) as at, stopped_by_signals() as stop:
        typer.echo(f"page         {encryption.scheme}://{page.place}, fed by MQTT at {target.peer}; Ctrl-C ends it")
        show(target, page, tls, at, stop, say)
