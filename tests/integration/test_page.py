"""The live page in a real browser, as `twin watch` serves it: seen, searched, by keys alone, and when things fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from paho.mqtt import publish
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from datasets.schema import Stream
from physics.columns import DIAGNOSTICS
from tests.command import Twin, environment
from tests.page import Sender
from tests.services import Mosquitto
from tests.services.base import free_ports
from tests.support import HANG_S, wait_until
from twin import Fleet
from twin.page.quantities import QUANTITIES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
VEHICLES = 300
HOT, RISKY, CODED, SILENT = 17, 23, 42, 99
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@dataclass
class Watch:
    """`twin watch` as a process."""

    process: subprocess.Popen[str]
    url: str

    def stop(self) -> int:
        """As Ctrl-C does. Returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(HANG_S)


def watching(broker: int, *arguments: str, port: int = 0, **more: str) -> Watch:
    """Returns when it answers."""
    port = port or free_ports(1)[0]
    command = [sys.executable, "-m", "twin", "watch", "--mqtt", f"mqtt://127.0.0.1:{broker}", "--page-port", str(port)]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert process.poll() is None, process.communicate()
        return answers(url)

    wait_until(up)
    return Watch(process, url)


def answers(url: str) -> bool:
    """Whether anything does."""
    with contextlib.suppress(OSError):
        return answer(url)[0] > 0
    return False


@contextlib.contextmanager
def watched(broker: int, *arguments: str, **more: Any) -> Iterator[Watch]:
    watch = watching(broker, *arguments, **more)
    try:
        yield watch
    finally:
        if watch.process.poll() is None:
            watch.stop()
            watch.process.communicate()


def answer(url: str, **headers: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def marked(stream: Stream, _seq: int) -> dict[str, Any]:
    """Some vehicles that are worth an alarm."""
    if stream == "predictions":
        return {"failure_probability": {RISKY: 0.93}}
    return {"battery_temperature": {HOT: 57.5}, "diagnostics": {CODED: DIAGNOSTICS["cell_imbalance"]}}


@pytest.fixture(scope="module")
def fleet(mosquitto: Mosquitto) -> Iterator[Sender]:
    """Vehicles that report twice a second."""
    with Sender(mosquitto.port, VEHICLES, period_s=0.5, changed=marked) as sender:
        yield sender


@pytest.fixture(scope="module")
def watch(mosquitto: Mosquitto) -> Iterator[Watch]:
    """The page."""
    with watched(mosquitto.port, "--page-silent", "4s") as watch:
        yield watch


Look = Callable[..., "Page"]


@pytest.fixture
def look(chromium: Browser) -> Iterator[Look]:
    """`look(url, **context)`: a page that complains of nothing and asks no other host."""
    contexts, wrong = [], []

    def looking(url: str, *, may_fail: bool = False, **context: Any) -> Page:
        contexts.append(chromium.new_context(**({"viewport": DESK} | context)))
        page = contexts[-1].new_page()
        page.set_default_timeout(HANG_S * 1e3)
        host = url.split("/")[2]
        page.on("request", lambda request: wrong.append(request.url) if request.url.split("/")[2] != host else None)
        page.on("websocket", lambda socket: wrong.append(socket.url) if socket.url.split("/")[2] != host else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if not may_fail:
            page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(url)
        return page

    yield looking
    for context in contexts:
        context.close()
    assert not wrong


def says(page: Page, where: str, what: str) -> None:
    """Wait until the text of an element matches."""
    wait_until(
        lambda: re.search(what, page.locator(where).inner_text() if page.locator(where).is_visible() else ""),
        lambda: f"{where}: {page.locator(where).inner_text() if page.locator(where).is_visible() else 'hidden'}",
        look_s=0.1,
    )


def full(page: Page) -> Page:
    """The page once all vehicles are on it."""
    says(page, "#vehicles", f"^{VEHICLES}$")
    return page


def colours(page: Page, canvas: str) -> int:
    """How many different colours a drawing has."""
    found: int = page.evaluate(
        """(name) => { const canvas = document.querySelector(name);
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(data.buffer)).size; }""",
        canvas,
    )
    return found


@pytest.mark.usefixtures("fleet")
def test_a_fleet_is_seen(watch: Watch, look: Look) -> None:
    page = full(look(watch.url))
    says(page, "#records", r"^[1-9][\d,]*/s$")
    says(page, "#predictions", r"^[1-9][\d,]*/s$")
    says(page, "#last", r"^\d\.\d.s ago$")
    says(page, "#simulated", r"^2026-05-2\d \d\d:\d\d:\d\d$")
    says(page, "#broker", "MQTT at 127.0.0.1")
    assert not page.locator("#banner").is_visible()
    assert page.locator("#rows tr").count() == 20
    first = page.locator("#rows tr").first.inner_text().split()
    assert first[:2] == ["EV-000000", "parked"]
    assert colours(page, "#cells") > 20
    shown = [quantity for quantity in QUANTITIES if quantity.kind]
    assert page.locator("#spreads button").count() == len(shown)
    assert page.locator("#spreads .value").all_inner_texts().count("–") == 0
    says(page, "#field-says", r"Median \d+\.\d.%, nine of ten between")
    # It moves, by itself.
    before = page.locator("#simulated").inner_text()
    wait_until(lambda: page.locator("#simulated").inner_text() != before, look_s=0.1)


@pytest.mark.usefixtures("fleet")
def test_the_field_takes_any_quantity(watch: Watch, look: Look) -> None:
    page = full(look(watch.url))
    for quantity in QUANTITIES:
        if quantity.kind:
            page.select_option("#by", quantity.name)
            says(page, "#field-title", f"(?i)^every vehicle by {quantity.label}$")
            assert page.locator(f"#spreads button[data-name={quantity.name}]").get_attribute("aria-pressed") == "true"
    says(page, "#legend", "parked 75[\\s\\S]*driving 75")  # the last one was the state
    page.click("#spreads button[data-name=power_consumption]")
    says(page, "#legend", "kW[\\s\\S]*below 0: charging")
    assert page.locator("#by").input_value() == "power_consumption"
    assert "by=power_consumption" in page.url


@pytest.mark.usefixtures("fleet")
def test_a_vehicle_is_found_and_opened(watch: Watch, look: Look) -> None:
    page = full(look(watch.url))
    page.fill("#search", "ev-00004")
    says(page, "#found", "^10 of 300$")
    page.fill("#search", "EV-000041")
    says(page, "#found", "^1 of 300$")
    page.press("#search", "Enter")
    says(page, "#vehicle-title", "^EV-000041$")
    says(page, "#vehicle-says", r"^driving, \d+.km/h · last record \d\.\d.s ago")
    wait_until(lambda: page.locator("#strips canvas[role=img]").count() == 7, look_s=0.1)
    labels = [str(canvas.get_attribute("aria-label")) for canvas in page.locator("#strips canvas").all()]
    assert re.fullmatch(r"State of charge: \d+\.\d.%; between .* in the last .*", labels[0]), labels
    assert re.fullmatch(r"Remaining life: [\d,]+.cycles, interval [\d,]+ to [\d,]+; .*", labels[5]), labels
    wait_until(lambda: colours(page, ".strip.tall canvas") > 4, look_s=0.1)  # the interval is a band
    assert "vehicle=EV-000041" in page.url
    page.press("body", "Escape")
    wait_until(lambda: not page.locator("#vehicle").is_visible(), look_s=0.1)
    page.fill("#search", "EV-9")
    says(page, "#found", "No vehicle has “EV-9” in its name")


@pytest.mark.usefixtures("fleet")
def test_a_link_opens_a_vehicle_and_an_unknown_one_is_said(watch: Watch, look: Look) -> None:
    page = full(look(f"{watch.url}/#vehicle=EV-000007&by=soh"))
    says(page, "#vehicle-title", "^EV-000007$")
    says(page, "#field-title", "state of health")
    page = full(look(f"{watch.url}/#vehicle=EV-009999"))
    says(page, "#vehicle-says", "^No record of EV-009999 has come")


@pytest.mark.usefixtures("fleet")
def test_the_table_is_sorted_and_filtered(watch: Watch, look: Look) -> None:
    page = full(look(watch.url))
    page.select_option("#state", label="fast charging")
    says(page, "#found", "^75 of 300$")
    page.click("#heads th[data-name=soc] button")
    wait_until(lambda: page.locator("#heads th[data-name=soc]").get_attribute("aria-sort") == "descending", look_s=0.1)

    def falls() -> bool:
        charge = [float(text) for text in page.locator("#rows td:nth-child(3)").all_inner_texts()]
        return len(charge) == 20 and charge == sorted(charge, reverse=True)

    wait_until(falls, look_s=0.2)
    says(page, "#page", "page 1 of 4")
    page.click("#after")
    says(page, "#page", "page 2 of 4")


def test_alarms_say_what_and_who(fleet: Sender, watch: Watch, look: Look) -> None:
    page = full(look(watch.url))
    says(page, "#alarms", rf"Battery above 50 °C\s+1\s+EV-0000{HOT}")
    says(page, "#alarms", rf"Failure risk above 50 %\s+1\s+EV-0000{RISKY}")
    says(page, "#alarms", rf"Trouble code: cell imbalance\s+1\s+EV-0000{CODED}")
    try:
        fleet.left_out.add(f"EV-0000{SILENT}")
        says(page, "#alarms", rf"Silent for more than 4 s\s+1\s+EV-0000{SILENT}")
        page.click("#alarms li:has-text('Silent') .what")
        says(page, "#rows", rf"^EV-0000{SILENT}[\s\S]*silent$")
        assert page.locator("#rows tr").count() == 1
        page.click(f"#alarms button:text('EV-0000{HOT}')")
        says(page, "#vehicle-says", "Battery above 50 °C")
    finally:
        fleet.left_out.clear()
    wait_until(lambda: "Silent" not in page.locator("#alarms").inner_text(), look_s=0.1)


@pytest.mark.usefixtures("fleet")
def test_paused_it_stands(watch: Watch, look: Look) -> None:
    page = full(look(watch.url))
    page.click("#pause")
    says(page, "#banner", "^Paused")
    before = page.locator("#simulated").inner_text()
    page.wait_for_timeout(2500)
    assert page.locator("#simulated").inner_text() == before
    page.click("#pause")
    wait_until(lambda: page.locator("#simulated").inner_text() != before, look_s=0.1)


@pytest.mark.usefixtures("fleet")
def test_keys_reach_everything(watch: Watch, look: Look) -> None:
    page = full(look(watch.url))
    reached = []
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    for name in ("skip", "pause", "by", "order", "cells", "search", "state", "alarm", "scroll"):
        assert name in reached, reached
    page.focus("#cells")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    says(page, "#said", r"^EV-\d{6}: state of charge")
    wanted = page.locator("#said").inner_text().split(":")[0]
    page.keyboard.press("Enter")
    says(page, "#vehicle-title", f"^{wanted}$")
    wait_until(lambda: page.evaluate("document.activeElement.id") == "vehicle-title", look_s=0.1)
    page.keyboard.press("Escape")
    wait_until(lambda: page.evaluate("document.activeElement.id") == "cells", look_s=0.1)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"


def violations(page: Page) -> list[str]:
    """What axe-core finds serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {[node['html'] for node in rule['nodes']][:3]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.usefixtures("fleet")
def test_a_full_page_and_foreign_messages_are_said(mosquitto: Mosquitto, look: Look) -> None:
    with watched(mosquitto.port, "--page-vehicles", "100") as watch:
        page = look(watch.url)
        says(page, "#vehicles", "^100$")
        says(
            page, "#banner", r"The page is full: it keeps the first 100 vehicles, and [\d,]+ records of others were not"
        )
        publish.single("ev/battery/telemetry/EV-000001", "<b>no record</b>", port=mosquitto.port, hostname="127.0.0.1")
        says(page, "#banner", "1 message was malformed; the last: expected a JSON object .* got b'<b>no record</b>'")
        assert page.locator("#banner b").count() == 0  # text, whatever it holds


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious(scheme: str, size: dict[str, int], watch: Watch, look: Look) -> None:
    page = full(look(f"{watch.url}/#vehicle=EV-000042", color_scheme=scheme, viewport=size, bypass_csp=True))
    says(page, "#alarms", "Trouble code")
    wait_until(lambda: page.locator("#strips canvas[role=img]").count() == 7, look_s=0.1)
    assert violations(page) == []


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_scrolls_in_one_direction(width: int, watch: Watch, look: Look) -> None:
    page = full(look(f"{watch.url}/#vehicle=EV-000042", viewport={"width": width, "height": 844}, has_touch=True))
    says(page, "#vehicle-title", "^EV-000042$")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#cells").tap(position={"x": 4, "y": 60})
    wait_until(lambda: page.locator("#vehicle-title").inner_text() != "EV-000042", look_s=0.1)


def test_a_broker_that_goes_and_comes_back_is_said(
    fleet: Sender, mosquitto: Mosquitto, watch: Watch, look: Look
) -> None:
    page = full(look(watch.url))
    mosquitto.kill()
    try:
        says(page, "#banner", "MQTT at 127.0.0.1:.* does not answer.*values are the last that came")
        says(page, "#broker", "^No broker$")
        assert "Silent" not in page.locator("#alarms").inner_text()  # it is said once, not for each vehicle
        assert page.locator("#rows tr").count() == 20
    finally:
        mosquitto.restart()
    wait_until(lambda: "does not answer" not in page.locator("#banner").inner_text(), look_s=0.1)
    before = page.locator("#simulated").inner_text()
    wait_until(lambda: page.locator("#simulated").inner_text() != before, look_s=0.1)
    assert fleet.sent


@pytest.mark.usefixtures("mosquitto")
def test_without_a_broker_and_without_records_it_says_what_to_do(look: Look, free_port: int) -> None:
    broker = Mosquitto(port=free_port)
    with watched(free_port) as watch:
        page = look(watch.url)
        says(page, "#empty-says", f"MQTT at 127.0.0.1:{free_port} does not answer .Connection refused.")
        says(page, "#empty-command", f"--mqtt mqtt://127.0.0.1:{free_port}$")
        dark = look(watch.url, color_scheme="dark", bypass_csp=True)
        says(dark, "#empty-says", "does not answer")
        assert violations(dark) == []
        try:
            broker.start().wait_ready()
            says(page, "#empty-says", "^Connected to MQTT .* listening to ev/battery/telemetry")
            assert not page.locator("#banner").is_visible()
            with Sender(free_port, 3, period_s=0.5):
                says(page, "#vehicles", "^3$")
                assert page.locator("#rows tr").count() == 3
                assert not page.locator("#empty").is_visible()
        finally:
            broker.remove()
        watch.stop()
        _, err = watch.process.communicate()
    where = f"twin: MQTT at 127.0.0.1:{free_port}"
    assert err.splitlines()[:2] == [
        f"{where} does not answer (Connection refused); trying again every second",
        f"{where}: connected",
    ]


def test_a_vehicle_that_is_only_predicted_yet_is_there(look: Look, free_port: int) -> None:
    broker = Mosquitto(port=free_port)
    try:
        broker.start().wait_ready()
        with watched(free_port) as watch, Sender(free_port, 2, period_s=0.5, streams=("predictions",)):
            page = look(watch.url)
            says(page, "#vehicles", "^2$")
            says(page, "#rows", r"EV-000001\s+–")
            says(page, "#field-says", "^$")
    finally:
        broker.remove()


@pytest.mark.usefixtures("fleet")
def test_a_server_that_goes_and_comes_back_is_said(mosquitto: Mosquitto, look: Look) -> None:
    watch = watching(mosquitto.port)
    page = full(look(watch.url, may_fail=True))
    port = int(watch.url.rpartition(":")[2])
    assert watch.stop() == 0
    out, err = watch.process.communicate()
    assert out == f"page         {watch.url}, fed by MQTT at 127.0.0.1:{mosquitto.port}; Ctrl-C ends it\n"
    assert err == ""
    says(page, "#banner", "The server of this page does not answer since")
    with watched(mosquitto.port, port=port):
        wait_until(lambda: not page.locator("#banner").is_visible(), look_s=0.1)
        full(page)


TOKEN = "a-token-of-this-test"


def test_with_a_token_only_who_has_it_sees_anything(mosquitto: Mosquitto, look: Look) -> None:
    with watched(mosquitto.port, TWIN_PAGE_TOKEN=TOKEN) as watch, Sender(mosquitto.port, VEHICLES):
        for path in ("/", "/page.js", "/nowhere"):
            code, body = answer(watch.url + path)
            assert code == 401
            assert list(json.loads(body)) == ["detail"]
            assert "expected the page's token" in body
        assert answer(watch.url, Authorization="Bearer wrong")[0] == 401
        assert answer(watch.url, Authorization=f"Bearer {TOKEN}")[0] == 200
        live = watch.url.replace("http", "ws") + "/live"
        with pytest.raises(InvalidStatus) as refused, connect(live):
            pass
        assert refused.value.response.status_code in (401, 403)
        with connect(live, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as live_socket:
            assert "hello" in json.loads(live_socket.recv())
        page = look(watch.url, may_fail=True, bypass_csp=True)
        says(page, "main", "Expected the page's token")
        assert violations(page) == []
        page.fill("#token", "wrong")
        page.click("button")
        says(page, "main", "This is not the token")
        page.fill("#token", TOKEN)
        page.click("button")
        full(page)
        [cookie] = page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert TOKEN not in str(cookie["value"])


@pytest.mark.usefixtures("fleet")
def test_other_sites_get_nothing(watch: Watch) -> None:
    """A site of another name for our address, and a script of another site."""
    host = watch.url.removeprefix("http://")
    port = int(host.rpartition(":")[2])
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert answer(watch.url, **headers)[0] == 403
    with pytest.raises(InvalidStatus), connect(f"ws://{host}/live", origin=Origin("http://evil.example")):
        pass
    with socket.create_connection(("127.0.0.1", port)) as raw, pytest.raises(InvalidStatus):
        connect("ws://evil.example/live", sock=raw)
    assert answer(watch.url, Origin=watch.url)[0] == 200
    assert answer(f"{watch.url}/nowhere") == (404, '{"detail":"expected /, which is the page"}')


def test_bad_input_is_one_line(twin: Twin, mosquitto: Mosquitto, free_port: int, tmp_path: Path) -> None:
    broker = f"mqtt://127.0.0.1:{mosquitto.port}"
    twin("watch").complaint(2, "--mqtt: expected the broker to show")
    twin("watch", "--mqtt", "tcp://x:1").complaint(2, "--mqtt: expected an MQTT URL")
    twin("watch", "--mqtt", broker, "--page-host", "0.0.0.0").complaint(2, "expected a page_token (TWIN_PAGE_TOKEN)")
    twin("watch", "--mqtt", broker, "--page-silent", "0s").complaint(2, "--page-silent: expected a duration above zero")
    twin("run", "--page-port", free_port, "--out", tmp_path / "run").complaint(2, "--page-port: expected a broker")
    with watched(mosquitto.port, port=free_port):
        arguments = ["--mqtt", broker, "--page-port", free_port]
        said = f"--page-port: cannot listen on 127.0.0.1:{free_port} (Address already in use)"
        twin("watch", *arguments).complaint(2, said)
        twin("run", *arguments, "--out", tmp_path / "run", "--vehicles", 8).complaint(2, said)


_BESIDE = """
import sys, time
from actors.delivery.sinks import SinkOptions
from actors.delivery.sinks.mqtt import MqttTarget
from twin.page.process import Beside
from twin.settings import Page

target = MqttTarget.parse(sys.argv[1], SinkOptions())
print(Beside.start(target, Page(page_port=int(sys.argv[2]))).pid, flush=True)
time.sleep(1000)
"""


def test_it_ends_with_a_run_that_is_killed_and_shows_no_secret(mosquitto: Mosquitto, free_port: int) -> None:
    broker = f"mqtt://twin:hush@127.0.0.1:{mosquitto.port}"
    command = [sys.executable, "-c", _BESIDE, broker, str(free_port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        page = Path(f"/proc/{int(run.stdout.readline())}")
        wait_until(lambda: answers(f"http://127.0.0.1:{free_port}"))
        assert b"twin.page" in (page / "cmdline").read_bytes()
        for place in ("cmdline", "environ"):
            assert b"hush" not in (page / place).read_bytes()
        run.kill()
    wait_until(lambda: not page.exists() or not (page / "cmdline").read_bytes())


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster", "mosquitto")
@pytest.mark.timeout(600)
def test_beside_a_run_it_shows_the_run_and_ends_with_it(tmp_path: Path) -> None:
    broker, columns = Mosquitto(), len(QUANTITIES)
    [port] = free_ports(1)
    try:
        broker.start().wait_ready()
        url = f"mqtt://127.0.0.1:{broker.port}"
        with Fleet(
            vehicles=8, shards=1, predict=False, mqtt=url, payload="avro", page_port=port, out=tmp_path / "run"
        ) as fleet:
            [pid] = fleet.processes()["page"]
            assert os.getpriority(os.PRIO_PROCESS, pid) >= 10  # the run comes first
            with connect(f"ws://127.0.0.1:{port}/live") as live:

                def shows() -> bool:
                    fleet.run("2s")
                    message = live.recv()
                    return isinstance(message, bytes) and len(message) == 2 * 8 * columns

                wait_until(shows)
        with pytest.raises(OSError, match="refused"):
            connect(f"ws://127.0.0.1:{port}/live")
    finally:
        broker.remove()
