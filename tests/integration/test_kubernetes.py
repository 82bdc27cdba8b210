"""Kubernetes: what kustomize makes of the overlays is what KubeRay and Kubernetes take, and what a cluster wants.

Whether it runs there is another question: `make kube-test`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.services.fixtures import needed
from tests.services.kubernetes import KUBERNETES, Manifests
from twin import __version__
from twin.folders import ROOT
from twin.settings import load_settings, setting_names

OVERLAYS = ("dev", "production")

Object = dict[str, Any]


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    with needed():
        Manifests.install()
    return Manifests()


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest, manifests: Manifests) -> list[Object]:
    return manifests.build(ROOT / "cluster" / "kubernetes" / "overlays" / request.param)


@pytest.fixture(scope="module")
def production(manifests: Manifests) -> list[Object]:
    return manifests.build(ROOT / "cluster" / "kubernetes" / "overlays" / "production")


def of_kuberay(objects: list[Object]) -> list[Object]:
    return [thing for thing in objects if thing["apiVersion"].startswith("ray.io/")]


def the(kind: str, objects: list[Object]) -> Object:
    [found] = [thing for thing in objects if thing["kind"] == kind]
    return found


def clusters(objects: list[Object]) -> list[Object]:
    """The specifications of Ray clusters."""
    return [the("RayCluster", objects)["spec"], the("RayService", objects)["spec"]["rayClusterConfig"]]


def pods(objects: list[Object]) -> list[Object]:
    """The specifications of all pods of Ray."""
    groups = [
        group for cluster in clusters(objects) for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    ]
    return [group["template"]["spec"] for group in groups]


def strings(thing: Any) -> Iterator[str]:
    """All text in an object."""
    if isinstance(thing, dict):
        for value in thing.values():
            yield from strings(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from strings(value)
    elif isinstance(thing, str):
        yield thing


def test_kuberay_and_kubernetes_take_it(objects: list[Object], manifests: Manifests) -> None:
    assert {thing["kind"] for thing in of_kuberay(objects)} == {"RayCluster", "RayJob", "RayService"}
    assert manifests.complaints(of_kuberay(objects)) == ""
    for thing in objects:
        if thing not in of_kuberay(objects):
            kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def test_what_they_do_not_take_is_found(production: list[Object], manifests: Manifests) -> None:
    misspelt = copy.deepcopy(the("RayCluster", production))
    misspelt["spec"]["rayVerison"] = misspelt["spec"].pop("rayVersion")
    assert "rayVerison" in manifests.complaints([misspelt])
    deep = copy.deepcopy(the("RayService", production))
    pods([the("RayCluster", production), deep])[-1]["containers"][0]["readinesProbe"] = {}
    assert "readinesProbe" in manifests.complaints([deep])
    budget = copy.deepcopy(next(thing for thing in production if thing["kind"] == "PodDisruptionBudget"))
    budget["spec"]["minAvailible"] = budget["spec"].pop("minAvailable")
    with pytest.raises(kubernetes_validate.ValidationError, match="minAvailible"):
        kubernetes_validate.validate(budget, KUBERNETES, strict=True)


def test_all_is_in_one_namespace_with_the_strictest_pods(objects: list[Object]) -> None:
    namespace = the("Namespace", objects)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    there = {thing["metadata"]["namespace"] for thing in objects if thing["kind"] != "Namespace"}
    assert there == {namespace["metadata"]["name"]}


def test_every_container_has_probes_and_limits_and_may_nothing(objects: list[Object]) -> None:
    assert len(pods(objects)) == 4
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert all(container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe"))
            for part in ("requests", "limits"):
                assert set(container["resources"][part]) == {"cpu", "memory"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_images_and_versions_are_said(objects: list[Object]) -> None:
    locked = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert {cluster["rayVersion"] for cluster in clusters(objects)} == {locked[1]}
    images = {container["image"] for pod in pods(objects) for container in pod["containers"]}
    assert {image.rpartition(":")[2] for image in images} == {__version__}


def test_no_two_heads_have_one_service(objects: list[Object]) -> None:
    """KubeRay calls a head's Service by the name of the RayCluster, or of the RayService."""
    assert the("RayCluster", objects)["metadata"]["name"] != the("RayService", objects)["metadata"]["name"]


def test_a_cluster_asks_for_its_token_and_grows(objects: list[Object]) -> None:
    for cluster in clusters(objects):
        assert cluster["authOptions"] == {"mode": "token", "secretName": "ev-twin"}
        assert cluster["enableInTreeAutoscaling"]
        for group in cluster["workerGroupSpecs"]:
            assert 1 <= group["minReplicas"] == group["replicas"] <= group["maxReplicas"]
    settings = the("ConfigMap", objects)["data"]
    assert settings["RAY_worker_niceness"] == "0"


def test_secrets_are_referred_to_and_are_written_in_dev_only(objects: list[Object], production: list[Object]) -> None:
    for pod in pods(objects):
        for container in pod["containers"]:
            assert {"secretRef": {"name": "ev-twin"}} in container["envFrom"]
            assert "env" not in container
    assert not [thing for thing in production if thing["kind"] == "Secret"]
    written = [text for thing in objects if thing["kind"] != "Secret" for text in strings(thing)]
    assert not [
        text for text in written if re.search(r"://[^/\s]*:[^/\s]*@|(password|token|secret)=", text, re.IGNORECASE)
    ]
    assert not {"TWIN_API_TOKEN", "TWIN_METRICS_TOKEN", "PG_PASSWORD", "MQTT_PASSWORD"} & set(
        the("ConfigMap", objects)["data"]
    )


def test_the_network_is_closed_but_for_what_is_said(objects: list[Object]) -> None:
    policies = {thing["metadata"]["name"]: thing["spec"] for thing in objects if thing["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    # From outside the namespace, nobody comes in to a port that is not named.
    for name, policy in policies.items():
        for rule in policy.get("ingress", []):
            own = all(set(source) == {"podSelector"} for source in rule["from"])
            assert own or rule["ports"], name


def test_disruption_budgets_are_of_pods_that_there_are(objects: list[Object]) -> None:
    """Of pods that belong to no set of Kubernetes' own kinds, an eviction is allowed by minAvailable only."""
    cluster = the("RayCluster", objects)["spec"]
    service = the("RayService", objects)["spec"]["rayClusterConfig"]
    there = {
        "ev-twin-head": 1,
        "ev-twin-shards": cluster["workerGroupSpecs"][0]["minReplicas"],
        "ev-twin-replicas": service["workerGroupSpecs"][0]["minReplicas"],
    }
    budgets = {thing["metadata"]["name"]: thing["spec"] for thing in objects if thing["kind"] == "PodDisruptionBudget"}
    assert set(budgets) == set(there)
    for name, budget in budgets.items():
        assert set(budget) == {"minAvailable", "selector"}
        assert budget["minAvailable"] <= there[name]
    assert budgets["ev-twin-shards"]["minAvailable"] < there["ev-twin-shards"]


def test_what_a_run_has_to_keep_is_on_volumes(objects: list[Object]) -> None:
    head, worker, *_ = pods(objects)
    claim = the("PersistentVolumeClaim", objects)["metadata"]["name"]
    for pod, volume in ((head, {"persistentVolumeClaim": {"claimName": claim}}), (worker, {"ephemeral": ...})):
        [data] = [volume for volume in pod["volumes"] if volume["name"] == "data"]
        assert set(volume) <= set(data)
        assert {"name": "data", "mountPath": "/data"} in pod["containers"][0]["volumeMounts"]
    assert "TWIN_OUT: /data/" in the("RayJob", objects)["spec"]["runtimeEnvYAML"]


def test_settings_are_those_of_the_twin(objects: list[Object]) -> None:
    """Names and values as `twin run` reads them on the head."""
    job = yaml.safe_load(the("RayJob", objects)["spec"]["runtimeEnvYAML"])["env_vars"]
    environ = the("ConfigMap", objects)["data"] | job | {"TWIN_METRICS_TOKEN": "t", "TWIN_API_TOKEN": "t"}
    known = {f"TWIN_{name.upper()}" for name in setting_names()}
    assert {name for name in environ if name.startswith("TWIN_")} <= known
    settings = load_settings({}, environ=environ)
    assert str(settings.log.out) == job["TWIN_OUT"]
    workers = the("RayCluster", objects)["spec"]["workerGroupSpecs"][0]
    cpus = workers["minReplicas"] * int(workers["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert settings.processes.shards + settings.pool.min_replicas <= cpus
