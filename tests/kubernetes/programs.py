"""Kubernetes' servers, KubeRay's operator and CoreDNS, compiled from their Go modules."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.services.base import apt_install, cache_folder, install_once
from tests.services.kubernetes import KUBERAY, go

VERSION = "1.34.4"
_COREDNS = "github.com/coredns/coredns@v1.12.4"
_SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
CNI = Path("/usr/lib/cni")

_LDFLAGS = "-s -w " + " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in (("gitVersion", f"v{VERSION}"), ("gitMajor", "1"), ("gitMinor", VERSION.split(".")[1]))
)

# Keeps a pod's namespaces. Static, because nothing is mounted where it runs.
_PAUSE = """package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	<-ended
}
"""


def install() -> Path:
    """The folder of all programs; ServiceUnavailable where they cannot be had."""
    if shutil.which("containerd") is None or shutil.which("runc") is None:
        apt_install("containerd", "containerd")
    if not CNI.is_dir():
        apt_install("containernetworking-plugins", "CNI's plug-ins")
    if shutil.which("iptables") is None:
        apt_install("iptables", "iptables")
    folder = cache_folder() / f"kubernetes-{VERSION}"
    with install_once(folder, f"{VERSION} {KUBERAY} {_COREDNS} 1".encode()) as fresh:
        if fresh is not None:
            _build(fresh)
    return folder


def _build(folder: Path) -> None:
    """`go install` refuses modules that replace others, as Kubernetes' own does, so they are built from one of ours."""
    (folder / "go.mod").write_text("module programs\n\ngo 1.24.0\n")
    packages = [f"k8s.io/kubernetes/cmd/{name}" for name in _SERVERS]
    imports = "\n".join(f'import _ "{package}"' for package in ("go.etcd.io/etcd/server/v3", *packages))
    # Not to be compiled: it tells `go mod tidy` what is needed.
    (folder / "programs.go").write_text(f"//go:build never\n\npackage programs\n\n{imports}\n")
    (folder / "pause.go").write_text(_PAUSE)
    go("build", "-ldflags", "-s -w", "-o", str(folder / "pause"), "pause.go", cwd=folder)
    module = f"k8s.io/kubernetes@v{VERSION}"
    found = json.loads(go("mod", "download", "-json", module))
    replaced = re.findall(r"^\s+(k8s\.io/[a-z0-9-]+) => \./staging", Path(found["GoMod"]).read_text(), re.MULTILINE)
    staged = VERSION.replace("1.", "v0.", 1)
    go("mod", "edit", f"-require={module}", *(f"-replace={name}={name}@{staged}" for name in replaced), cwd=folder)
    go("mod", "tidy", cwd=folder)
    build = ("build", "-p", "2", "-trimpath", "-ldflags", _LDFLAGS, "-o")
    go(*build, str(folder / "etcd"), "go.etcd.io/etcd/server/v3", cwd=folder)
    for name, package in zip(_SERVERS, packages, strict=True):
        go(*build, str(folder / name), package, cwd=folder)
    for program in (KUBERAY, _COREDNS):
        go("install", "-p", "2", "-trimpath", "-ldflags", "-s -w", program, cwd=folder, GOBIN=str(folder))
