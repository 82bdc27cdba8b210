"""Prometheus from its Debian package, with the project's rules."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from tests.services.base import HOST, Service, ServiceFailed, apt_install

FOLDER = Path(__file__).resolve().parents[2] / "cluster" / "prometheus"


def answer_of(url: str) -> Any:
    """The JSON at an address."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


class Prometheus(Service):
    """Scrapes what cluster/prometheus/prometheus.yml says; in a test another address of `twin run`, every second."""

    name = "prometheus"
    _config: dict[str, Any] | None = None
    _rules: dict[str, Any] | None = None
    _alertmanager = ""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        return {"PROMETHEUS_URL": self.url}

    @classmethod
    def install(cls) -> None:
        if shutil.which("prometheus") is None or shutil.which("promtool") is None:
            apt_install("prometheus", "Prometheus")

    def scraping(self, port: int, others: Mapping[str, str] = MappingProxyType({})) -> Prometheus:
        """Scrape `twin run` at this port, and others by job and address, each second; judge as often, and let no alert
        wait."""
        targets = {"twin": f"{HOST}:{port}", **others}
        config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        assert set(targets) <= {job["job_name"] for job in config["scrape_configs"]}
        config["scrape_configs"] = [
            {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
        ]
        self._rules = yaml.safe_load((FOLDER / "rules.yml").read_text())
        for group in self._rules["groups"]:
            for rule in group["rules"]:
                rule.pop("for", None)
        self._config = config
        return self

    def telling(self, alertmanager: str) -> Prometheus:
        """Tell an Alertmanager at this address of alerts."""
        self._alertmanager = alertmanager
        return self

    def _prepare(self) -> None:
        config = self._config or yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        rules = self._rules or yaml.safe_load((FOLDER / "rules.yml").read_text())
        config.pop("alerting", None)
        if self._alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [self._alertmanager]}]}]}
        (self.directory / "rules.yml").write_text(yaml.safe_dump(rules))
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(config))

    def _command(self) -> list[str]:
        server = shutil.which("prometheus")
        assert server is not None
        return [
            server,
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
        ]

    def _check(self) -> None:
        if not self.asked("status/buildinfo"):
            raise ServiceFailed("it does not say what it is")

    def asked(self, what: str, **parameters: str) -> Any:
        """The data of an answer of its API."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return answer_of(f"{self.url}/api/v1/{what}{query}")["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        found: list[dict[str, Any]] = self.asked("query", query=expression)["result"]
        return found

    def firing(self) -> set[tuple[str, str]]:
        """(alert, part or sink it is about) of the alerts that fire."""
        alerts = self.asked("alerts")["alerts"]
        labels = [alert["labels"] for alert in alerts if alert["state"] == "firing"]
        return {(of["alertname"], of.get("part", of.get("sink", ""))) for of in labels}
