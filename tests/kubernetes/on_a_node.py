"""What docs/kubernetes.md says, on a node of its own: `make kube-test`.

The overlay for a desk is applied as it is, but for the address of a Kafka, where compiled kernels are, and how long the
runs last. Pods have this machine's Python and these sources instead of the image's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.kubernetes.node import ADDRESS, KERNELS, Node
from tests.services import Kafka
from tests.services.fixtures import needed
from tests.services.proxy import Proxy
from twin.folders import ROOT

pytestmark = pytest.mark.timeout(1800)

OVERLAYS = ROOT / "cluster" / "kubernetes" / "overlays"
NAMESPACE = ("--namespace", "ev-twin")
LONG_S = 900.0
VEHICLES = 60
ROW = {"SoC": 0.6, "SoH": 0.92, "Battery_Voltage": 355, "Battery_Current": 20, "Battery_Temperature": 24,
       "Charge_Cycles": 300, "Power_Consumption": 7.1}  # fmt: skip
_ASK = """
import json, sys, urllib.request
asked = urllib.request.Request("http://ev-twin-predictor-serve-svc.ev-twin:8000/predict", sys.argv[1].encode())
if len(sys.argv) > 2:
    asked.add_header("Authorization", "Bearer " + sys.argv[2])
try:
    print(urllib.request.urlopen(asked, timeout=60).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""


def run_of(name: str, **variables: str) -> str:
    """Another run, as the page says: a copy of the job with another name and directory."""
    job = yaml.safe_load((ROOT / "cluster" / "kubernetes" / "base" / "ray-job.yaml").read_text())
    job["metadata"]["name"] = name
    job["spec"]["runtimeEnvYAML"] = yaml.safe_dump({"env_vars": {"TWIN_OUT": f"/data/{name}", **variables}})
    return json.dumps(job)


def until(holds: Callable[[], Any], otherwise: Callable[[], object], seconds: float = LONG_S) -> Any:
    """What it gives once that is true, looking every second."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(1)
    return found


class Cluster:
    """The overlay for a desk, applied to a node."""

    def __init__(self, node: Node, kafka: str) -> None:
        self.node = node
        node.volumes(8)
        settings = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "NUMBA_CACHE_DIR": KERNELS}
        patch = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ev-twin"}, "data": settings}
        overlay = node.folder / "overlay"
        overlay.mkdir()
        (overlay / "kustomization.yaml").write_text(
            yaml.safe_dump(
                {
                    "resources": [os.path.relpath(OVERLAYS / "dev", overlay)],
                    "patches": [{"patch": yaml.safe_dump(patch)}],
                }
            )
        )
        node.kubectl("apply", "--validate=strict", "-k", str(overlay))

    def pods(self, *labels: str) -> list[str]:
        """The names of running pods."""
        found = self.node.get(
            *NAMESPACE, "pods", "--selector", ",".join(labels), "--field-selector=status.phase=Running"
        )
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]

    @property
    def head(self) -> str:
        [name] = self.pods("ray.io/cluster=ev-twin", "ray.io/node-type=head")
        return name

    @property
    def workers(self) -> list[str]:
        return self.pods("ray.io/cluster=ev-twin", "ray.io/node-type=worker")

    def within(self, pod: str, *command: str) -> str:
        """What a command says in a pod's container of Ray."""
        return self.node.kubectl("exec", *NAMESPACE, pod, "--", *command)

    def status(self, job: str) -> str:
        return str(self.node.get(*NAMESPACE, "rayjob", job).get("status", {}).get("jobStatus", ""))

    def begin(self, name: str, **variables: str) -> None:
        self.node.kubectl("apply", *NAMESPACE, "--validate=strict", "-f", "-", stdin=run_of(name, **variables))

    def ended(self, job: str) -> str:
        """How it ended, once it has."""
        until(lambda: self.status(job) in ("SUCCEEDED", "FAILED", "STOPPED"), lambda: self.said(job))
        return self.status(job)

    def said(self, job: str) -> str:
        """What a job said, and what is there."""
        identity = self.node.get(*NAMESPACE, "rayjob", job).get("status", {}).get("jobId", "")
        log = f"cat /tmp/ray/session_latest/logs/job-driver-{identity}.log"
        return self.within(self.head, "bash", "-c", f"{log} || true") + self.overview()

    def overview(self) -> str:
        return self.node.kubectl("get", *NAMESPACE, "rayjob,rayservice,raycluster,pods,pvc")

    def ledger(self, run: str) -> str:
        """What `twin ledger --verify` says; it fails where a record is missing."""
        return self.within(self.head, "python", "-m", "twin", "ledger", f"/data/{run}", "--verify")

    def counts(self, run: str) -> dict[str, Any]:
        found = json.loads(self.within(self.head, "cat", f"/data/{run}/run.json"))
        assert found["state"] == "finished"
        counts: dict[str, Any] = found["counts"]
        return counts


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with needed():
        node = Node(tmp_path_factory.mktemp("node"))
    with node:
        yield node


@pytest.fixture(scope="module")
def cluster(node: Node, kafka: Kafka) -> Cluster:
    proxy = Proxy(kafka.port, node.network.listener(ADDRESS, 9092))
    return Cluster(node, f"{ADDRESS}:{proxy.port}")


def test_the_server_takes_production_and_no_misspelling(node: Node) -> None:
    node.kubectl("apply", "-f", str(OVERLAYS.parent / "base" / "namespace.yaml"))
    strictly = ("apply", "--dry-run=server", "--validate=strict")
    assert "rayservice.ray.io/ev-twin-predictor" in node.kubectl(*strictly, "-k", str(OVERLAYS / "production"))
    misspelt = run_of("other").replace('"entrypoint"', '"entrypiont"')
    assert "entrypiont" in node.refused(*strictly, *NAMESPACE, "-f", "-", stdin=misspelt)


def test_a_pod_with_more_rights_is_refused(cluster: Cluster) -> None:
    """The namespace holds every pod to the strictest standard."""
    container = {"name": "root", "image": "ev-twin:0.1.0"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {"containers": [container]}}
    assert "restricted" in cluster.node.refused("apply", *NAMESPACE, "-f", "-", stdin=json.dumps(pod))


def test_a_run_comes_to_its_end(cluster: Cluster) -> None:
    assert cluster.ended("ev-twin") == "SUCCEEDED", cluster.said("ev-twin")
    counts = cluster.counts("first")
    assert counts["telemetry"] == 200 * 600 // 2
    assert counts["predictions"] == 200 * 600 // 5
    print(cluster.ledger("first"))


def test_the_predictor_answers_who_has_the_token(cluster: Cluster) -> None:
    cluster.node.kubectl(
        "wait", *NAMESPACE, "--for=condition=Ready", "rayservice/ev-twin-predictor", f"--timeout={LONG_S:g}s"
    )
    pod = cluster.head
    assert cluster.within(pod, "python", "-c", _ASK, json.dumps(ROW)).strip() == "401"
    answer = json.loads(cluster.within(pod, "python", "-c", _ASK, json.dumps(ROW), "development"))
    assert 0 <= answer["failure_probability"] <= 1


def test_a_killed_worker_loses_nothing(cluster: Cluster) -> None:
    cluster.begin(
        "second", TWIN_VEHICLES=f"{VEHICLES}", TWIN_SHARDS="2", TWIN_DURATION="40min", TWIN_PACE="15",
        TWIN_CHECKPOINT_EVERY="20s",
    )  # fmt: skip
    points = "ls /data/second/restart | grep -c npz || true"
    until(
        lambda: cluster.status("second") == "RUNNING" and int(cluster.within(cluster.head, "bash", "-c", points)) >= 2,
        lambda: cluster.said("second"),
    )
    holds = "ls -d /data/second/telemetry/shard=* 2>/dev/null || true"
    before = cluster.workers
    killed = next(pod for pod in before if cluster.within(pod, "bash", "-c", holds).strip())
    cluster.node.kubectl("delete", *NAMESPACE, "pod", killed, "--grace-period=0", "--force")
    assert cluster.ended("second") == "SUCCEEDED", cluster.said("second")
    counts = cluster.counts("second")
    assert counts["telemetry"] == VEHICLES * 2400 // 2
    assert counts["shard_restarts"] >= 1
    print(cluster.ledger("second"))
    assert killed not in cluster.workers
    until(lambda: len(cluster.workers) >= 2, cluster.overview)


def test_a_run_whose_head_was_killed_goes_on(cluster: Cluster) -> None:
    settings = {"TWIN_VEHICLES": f"{VEHICLES}", "TWIN_SHARDS": "2", "TWIN_DURATION": "30min", "TWIN_PACE": "15"}
    cluster.begin("third", **settings, TWIN_CHECKPOINT_EVERY="20s")
    head = cluster.head
    points = "ls /data/third/restart | grep -c npz || true"
    until(
        lambda: cluster.status("third") == "RUNNING" and int(cluster.within(head, "bash", "-c", points)) >= 2,
        lambda: cluster.said("third"),
    )
    cluster.node.kubectl("delete", *NAMESPACE, "pod", head, "--grace-period=0", "--force")
    cluster.node.kubectl("delete", *NAMESPACE, "rayjob", "third")
    until(lambda: head not in cluster.pods("ray.io/cluster=ev-twin", "ray.io/node-type=head"), cluster.overview)
    cluster.begin("third", **settings, TWIN_CHECKPOINT_EVERY="20s")
    assert cluster.ended("third") == "SUCCEEDED", cluster.said("third")
    assert cluster.counts("third")["telemetry"] == VEHICLES * 1800 // 2
    print(cluster.ledger("third"))
