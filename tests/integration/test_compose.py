"""The image and the stack of cluster/compose.yaml: built without a network, started with what stands in for its images,
a run delivered from the fleet's container, and all of it there again after `down` and `up`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.services.base import ServiceFailed
from tests.services.docker import STAND_INS, Docker, wheels
from tests.support import wait_until
from twin.folders import ROOT

CLUSTER: Final = ROOT / "cluster"
CORE: Final = {"ray-head", "ray-worker", "fleet", "timescaledb", "redpanda", "mosquitto"}
FULL: Final = CORE | {"minio", "mlflow", "prometheus", "grafana"}
SERVICES: Final[dict[str, Any]] = yaml.safe_load((CLUSTER / "compose.yaml").read_text())["services"]
PORTS: Final = {
    "fleet": {9100, 8050}, "ray-head": {8265, 8000}, "timescaledb": {5432}, "redpanda": {9092},
    "mosquitto": {1883, 9002}, "minio": {9000, 9001}, "mlflow": {5000}, "prometheus": {9090}, "grafana": {3000},
    "ray-worker": set(),
}  # fmt: skip


def test_the_dockerfile_is_clean() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_services_are_those_of_the_reference() -> None:
    assert set(SERVICES) == FULL
    assert {name for name, service in SERVICES.items() if "core" in service["profiles"]} == CORE


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["networks"] == ["twin-net"]
    assert service["healthcheck"]["test"]
    assert re.search(r":v?[A-Z.]*\d+\.?[\w.-]*$", service["image"]), "an image has a version"
    assert {int(port.rsplit(":", 1)[1]) for port in service.get("ports", ())} == PORTS[name]
    assert all(port.startswith("${PUBLISH:-127.0.0.1}:") for port in service.get("ports", ()))
    if service["image"].startswith("ev-twin:"):
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_every_variable_is_in_the_example() -> None:
    example = dict(
        line.split("=", 1) for line in (CLUSTER / ".env.example").read_text().splitlines() if re.match(r"[A-Z]", line)
    )
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (CLUSTER / "compose.yaml").read_text()))
    assert used | {"COMPOSE_PROFILES"} == set(example)
    required = set(re.findall(r"\$\{(\w+):\?", (CLUSTER / "compose.yaml").read_text()))
    assert required == {name for name, value in example.items() if not value}, "what is secret has no default"


def test_no_secret_is_in_a_command_line() -> None:
    secret = re.compile(r"PASSWORD|TOKEN|SECRET")
    for service in SERVICES.values():
        words = [*service.get("entrypoint", ()), *service.get("command", ()), *service["healthcheck"]["test"]]
        assert not [word for word in words if re.search(r"(?<!\$)\$\{\w*(PASSWORD|TOKEN|SECRET)", word)]
        assert not [word for word in words if word.startswith("--") and secret.search(word)]


def test_prometheus_has_the_jobs_of_a_run_on_its_own() -> None:
    here = yaml.safe_load((CLUSTER / "prometheus" / "compose.yml").read_text())
    alone = yaml.safe_load((CLUSTER / "prometheus" / "prometheus.yml").read_text())
    assert here["rule_files"] == alone["rule_files"]
    jobs = [{job["job_name"] for job in config["scrape_configs"]} for config in (here, alone)]
    assert jobs[0] == jobs[1] - {"twin-consume"}


@dataclass(frozen=True)
class Stack:
    """A copy of what `docker compose` reads, with secrets of its own."""

    engine: Docker
    folder: Path

    def compose(self, *words: object) -> str:
        return self.engine.docker(
            "compose", "-f", self.folder / "cluster" / "compose.yaml", *words, env=self.environment
        )

    @property
    def environment(self) -> dict[str, str]:
        """A fleet in small. The machine's own settings do not count."""
        kept = {name: value for name, value in os.environ.items() if not re.match("TWIN_|PG_|MQTT_|MLFLOW_|AWS_", name)}
        small = {"TWIN_RUN": "small", "TWIN_VEHICLES": "40", "TWIN_DURATION": "1d", "RAY_CPUS": "4"}
        return kept | small

    def up(self) -> None:
        """All but Grafana, for which nothing stands in; first the broker and who archives what it carries."""
        self.compose("up", "--detach", "--wait", "mosquitto")
        archive = ("fleet", "archive", "--out=/data/archive")
        self.compose("run", "--detach", "--no-deps", "--name=archive", "--entrypoint=twin", *archive)
        self.compose("up", "--detach", "--wait", "--no-build", *sorted(FULL - {"grafana"}))

    def down(self, *options: str) -> None:
        """Containers and network are gone, volumes stay."""
        self.engine.docker("rm", "--force", "archive")
        self.compose("down", *options)

    def asked(self, address: str, *options: str) -> str:
        """What a client on the engine's machine gets at a published port; "" for no or no good answer."""
        command = [*self.engine.inside, "curl", "--silent", "--fail", *options, f"http://127.0.0.1:{address}"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

    def delivered(self) -> int:
        """The records that the database has acknowledged, as the run counts them."""
        env = (self.folder / "cluster" / ".env").read_text()
        [token] = re.findall("^TWIN_METRICS_TOKEN=(.+)$", env, re.MULTILINE)
        metric = r'^ev_sink_delivered_records_total\{sink="timescale",stream="telemetry"\} (\S+)$'
        found = re.search(metric, self.asked("9100/metrics", "-H", f"Authorization: Bearer {token}"), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def counted(self) -> int:
        """Stop the fleet and let the ledger count at both ends. Returns the records in each place."""
        self.compose("stop", "fleet")
        ledger = ("ledger", "/data/small", "--verify", "--archive=/data/archive")
        said = self.compose("run", "--rm", "--no-deps", "--entrypoint=twin", "fleet", *ledger)
        line = r"^(log|kafka|mqtt|timescale) +telemetry +([\d,]+) +0 +0 +\d+ +([\d,]+) +ok$"
        rows = [(int(number.replace(",", "")) for number in row[1:]) for row in re.findall(line, said, re.MULTILINE)]
        different = [received - again for received, again in rows]
        assert len(different) == 4, said
        assert len(set(different)) == 1, said
        return different[0]


@pytest.fixture(scope="module")
def stack(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The image is built, without a network, and nothing runs yet."""
    folder = tmp_path_factory.mktemp("context")
    left_out = shutil.ignore_patterns("__pycache__", ".env")
    for name in ("actors", "cluster", "datasets", "models", "physics", "scripts", "training", "twin"):
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    names = (".dockerignore", "Dockerfile", "LICENSE", "pyproject.toml")
    for path in (*(ROOT / name for name in names), *ROOT.glob("requirements*.lock")):
        shutil.copy(path, folder)
    shutil.copytree(wheels(), folder / "wheels")
    subprocess.run([folder / "scripts" / "new_env.sh"], check=True)
    made = Stack(docker, folder)
    made.down("--volumes")  # what a test that was killed has left
    made.compose("build", "fleet")
    yield made
    made.down("--volumes")


@pytest.mark.services
def test_compose_takes_the_file(stack: Stack) -> None:
    for profile, services in (("core", CORE), ("full", FULL)):
        assert set(stack.compose("--profile", profile, "config", "--services").split()) == services
    with pytest.raises(ServiceFailed, match=r"run scripts/new_env\.sh"):
        stack.compose("--env-file", ROOT / "cluster" / ".env.example", "config", "--quiet")


def test_the_stand_ins_have_the_names_of_the_images() -> None:
    ours = SERVICES["fleet"]["image"]
    images = {service["image"] for service in SERVICES.values()} - {ours, SERVICES["grafana"]["image"]}
    [python] = set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert set(STAND_INS.values()) == images | {python}


@pytest.mark.services
def test_the_image(docker: Docker, stack: Stack) -> None:
    name = SERVICES["fleet"]["image"]
    [image] = json.loads(docker.docker("image", "inspect", name))
    assert image["Size"] < 1.5e9
    alone = ("run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:exec", "--cap-drop=ALL", "--shm-size=256m")
    said = docker.docker(
        *alone, "--entrypoint=sh", name, "-c", "id -u; touch /opt/ev-twin/x 2>&1; touch /data/x && echo kept"
    )
    assert re.fullmatch(r"1000\n.*Read-only file system\nkept\n", said)
    small = ("--vehicles=20", "--duration=20s", "--no-predict", "--metrics-port=0", "--out=/data/run")
    assert "200 records" in docker.docker(*alone, name, "run", *small)


@pytest.mark.services
@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_nothing_is_lost_when_the_stack_goes_down(stack: Stack) -> None:
    artefact = "5000/api/2.0/mlflow-artifacts/artifacts/kept"
    stack.up()
    assert not stack.asked("9100/metrics"), "without the token"
    assert not stack.asked("8265/api/v0/nodes"), "without the token"
    stack.asked(artefact, "--upload-file", str(stack.folder / "LICENSE"))
    wait_until(lambda: stack.delivered() > 200, lambda: stack.compose("logs", "--tail=20", "fleet"), look_s=0.5)
    wait_until(lambda: '"up"' in stack.asked("9090/api/v1/targets?scrapePool=twin"), look_s=0.5)
    scraped = time.time()
    before = stack.counted()
    assert before > 200
    stack.down()
    stack.up()
    wait_until(lambda: stack.delivered() > before, lambda: stack.compose("logs", "--tail=20", "fleet"), look_s=0.5)
    assert stack.counted() > before
    assert stack.asked(artefact) == (ROOT / "LICENSE").read_text()
    assert '"value"' in stack.asked(f"9090/api/v1/query?query=ev_vehicles&time={scraped}")
