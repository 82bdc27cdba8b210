"""Kubernetes' own programs, built from their Go modules: kustomize and kubeconform for the checks of manifests, and
KubeRay's definitions of its kinds as JSON schemas.

What a manifest may say is Kubernetes' to decide, and nobody's memory: a misspelt key is one that no schema lists.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.services.base import ServiceFailed, ServiceUnavailable, cache_folder, install_once

KUBERNETES = "1.34"
"""The version whose schemas hold."""
KUBERAY = "github.com/ray-project/kuberay/ray-operator@v1.6.0"
_KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"
_KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"


def go(*arguments: str, cwd: Path | None = None, **variables: str) -> str:
    """Run Go with its caches beside ours, and return what it said; ServiceUnavailable where it cannot be had."""
    if shutil.which("go") is None:
        raise ServiceUnavailable("Kubernetes' programs are built by Go; install it with: apt-get install golang")
    cache = cache_folder() / "go"
    environment = {
        "GOMODCACHE": str(cache / "mod"), "GOCACHE": str(cache / "build"), "CGO_ENABLED": "0", "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw",
    }  # fmt: skip
    done = subprocess.run(
        ["nice", "-n", "15", "go", *arguments], cwd=cwd, env=os.environ | environment | variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise ServiceUnavailable(f"go {' '.join(arguments)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


class Manifests:
    """Reads kustomizations, and says what is wrong with manifests of KubeRay's kinds."""

    name = "manifests"
    folder = cache_folder() / "manifests"

    @classmethod
    def install(cls) -> None:
        """Build both programs (a minute, once) and fetch KubeRay's definitions; ServiceUnavailable otherwise."""
        recipe = f"{_KUSTOMIZE} {_KUBECONFORM} {KUBERAY} 1".encode()
        with install_once(cls.folder, recipe) as fresh:
            if fresh is None:
                return
            for program in (_KUSTOMIZE, _KUBECONFORM):
                go("install", program, cwd=fresh, GOBIN=str(fresh))
            for definition in kuberay_definitions():
                for name, schema in _schemas(definition):
                    (fresh / f"{name}.json").write_text(json.dumps(schema))

    def build(self, kustomization: Path) -> list[dict[str, Any]]:
        """The objects of a kustomization."""
        return list(yaml.safe_load_all(self.text(kustomization)))

    def text(self, kustomization: Path) -> str:
        """The objects of a kustomization as YAML."""
        built = subprocess.run([self.folder / "kustomize", "build", kustomization], capture_output=True, text=True)
        if built.returncode:
            raise ServiceFailed(built.stderr.strip())
        return built.stdout

    def complaints(self, objects: Sequence[dict[str, Any]]) -> str:
        """What KubeRay's definitions have against objects of its kinds; "" for nothing."""
        checked = subprocess.run(
            [self.folder / "kubeconform", "-strict", "-schema-location",
             f"{self.folder}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"],
            input=yaml.safe_dump_all(objects), capture_output=True, text=True,
        )  # fmt: skip
        said = (checked.stdout + checked.stderr).strip()
        if checked.returncode and not said:
            raise ServiceFailed(f"kubeconform ended with {checked.returncode} and said nothing")
        return said


def kuberay_definitions() -> Iterator[dict[str, Any]]:
    """The CustomResourceDefinitions of KubeRay."""
    found = json.loads(go("mod", "download", "-json", KUBERAY))
    for path in sorted(Path(found["Dir"]).glob("config/crd/bases/*.yaml")):
        # The C loader: these are megabytes.
        yield yaml.load(path.read_text(), yaml.CSafeLoader)


def _schemas(definition: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The name by which kubeconform asks for it, and the schema, of each version."""
    kind = definition["spec"]["names"]["kind"].lower()
    for version in definition["spec"]["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {"type": "object"}
        yield f"{kind}_{version['name']}", _closed(schema)


def _closed(schema: Any) -> Any:
    """The schema as JSON Schema, in which a key that is not listed is wrong."""
    if isinstance(schema, list):
        return [_closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if closed.pop("x-kubernetes-int-or-string", None) is True:
        closed.pop("anyOf", None)
        closed["oneOf"] = [{"type": "string"}, {"type": "integer"}]
    if isinstance(closed.get("properties"), dict) and closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
