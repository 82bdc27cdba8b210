"""What a run serves itself, with TLS: the REST interface, the metrics, the live page."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.command import Twin, environment
from tests.services import Mosquitto
from tests.services.base import free_ports
from tests.services.secured import Authority
from tests.support import HANG_S, wait_until
from twin.folders import ROOT

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

_TOKENS = {"TWIN_API_TOKEN": "canary-rest", "TWIN_METRICS_TOKEN": "canary-metrics", "TWIN_PAGE_TOKEN": "canary-page"}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("ours"))
    authority.issue("server")
    return authority


def _files(authority: Authority) -> list[str]:
    return ["--tls-cert", f"{authority.folder / 'server.pem'}", "--tls-key", f"{authority.folder / 'server.key'}"]


def _trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca))


def _status(url: str, context: ssl.SSLContext | None, token: str) -> int:
    """0 where nobody answers yet; SSLError where whoever answers is not trusted."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=HANG_S, context=context) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise error.reason from None
        return 0


@pytest.mark.cluster
def test_all_that_a_run_serves(ours: Authority, mosquitto: Mosquitto, tmp_path: Path) -> None:
    others, run, log = Authority(tmp_path / "others"), tmp_path / "run", tmp_path / "log"
    rest, metrics, page = free_ports(3)
    command = [
        *(sys.executable, "-m", "twin", "run", "--vehicles", "4", "--shards", "1", "--pace", "1", "--no-report"),
        *("--duration", "1h", "--out", f"{run}", "--mqtt", f"mqtt://127.0.0.1:{mosquitto.port}", "--quiet"),
        *("--rest-port", f"{rest}", "--rest-rate", "1", "--metrics-port", f"{metrics}", "--page-port", f"{page}"),
        *_files(ours),
    ]  # fmt: skip
    asked = {
        f"127.0.0.1:{rest}/health": _TOKENS["TWIN_API_TOKEN"],
        f"127.0.0.1:{metrics}/metrics": _TOKENS["TWIN_METRICS_TOKEN"],
        f"127.0.0.1:{page}/": _TOKENS["TWIN_PAGE_TOKEN"],
    }
    with open(log, "wb") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(**_TOKENS), stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:

        def up(place: str, token: str) -> bool:
            assert process.poll() is None, log.read_text()
            return _status(f"https://{place}", _trust(ours), token) == 200

        for place, token in asked.items():
            wait_until(partial(up, place, token), log.read_text)
            with pytest.raises(ssl.SSLCertVerificationError):
                _status(f"https://{place}", _trust(others), token)
            with contextlib.suppress(OSError):  # it hangs up
                assert _status(f"http://{place}", None, token) != 200
        model = f"https://127.0.0.1:{rest}/model"
        wait_until(lambda: _status(model, _trust(ours), _TOKENS["TWIN_API_TOKEN"]) == 429)  # two in one second
        headers = {"Authorization": f"Bearer {_TOKENS['TWIN_PAGE_TOKEN']}"}
        with connect(f"wss://127.0.0.1:{page}/live", additional_headers=headers, ssl=_trust(ours)) as live:
            assert "hello" in json.loads(live.recv())
    finally:
        process.terminate()
        process.wait(HANG_S)
    assert "Traceback" not in log.read_text()


_CASES = {
    "a certificate without a key": (["--tls-cert", "server.pem"], "expected tls_key, because tls_cert is given"),
    "a key without a certificate": (["--tls-key", "server.key"], "expected tls_cert, because tls_key is given"),
    "no such file": (["--tls-cert", "nothing.pem", "--tls-key", "server.key"], "--tls-cert: cannot read"),
    "a folder": (["--tls-cert", "server.pem", "--tls-key", "."], "--tls-key: cannot read"),
    "no certificate": (["--tls-cert", "server.key", "--tls-key", "server.key"], "expected a certificate and its key"),
    "another's key": (["--tls-cert", "server.pem", "--tls-key", "other.key"], "key values mismatch"),
    "a passphrase": (["--tls-cert", "server.pem", "--tls-key", "closed.key"], "expected a key without a passphrase"),
}


@pytest.mark.parametrize("case", _CASES)
@pytest.mark.parametrize("command", ["run", "watch", "consume"])
def test_what_no_server_could_use_is_one_line(
    command: str, case: str, ours: Authority, twin: Twin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, says = _CASES[case]
    ours.issue("other")
    ours.close("server", "closed")
    monkeypatch.chdir(ours.folder)
    servers: dict[str, list[object]] = {
        "run": ["--out", tmp_path / "run", "--no-predict"],
        "watch": ["--mqtt", "mqtt://127.0.0.1:9"],
        "consume": ["--kafka", "127.0.0.1:9", "--timescale", "postgresql://twin@127.0.0.1:9/twin_data"],
    }
    twin(command, *servers[command], *given).complaint(2, says)
    assert not (tmp_path / "run").exists()


def test_doctor_knows_our_certificate(ours: Authority, twin: Twin) -> None:
    ours.issue("old", days=-1)
    fine = twin("doctor", *_files(ours))
    assert "ok    tls        " in fine.out
    late = twin("doctor", *(word.replace("server.", "old.") for word in _files(ours)))
    assert "WRONG tls        " in late.out
    assert "renew it" in late.out
    mixed = twin("doctor", *_files(ours)[:3], ours.folder / "old.key")
    assert "WRONG tls        --tls-cert: expected a certificate and its key" in mixed.out
