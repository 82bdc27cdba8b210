"""One node: Kubernetes' servers, containerd, CoreDNS and KubeRay's operator, in namespaces of their own.

Its network has no way out, and its processes end with it. What it mounts it mounts where nobody else sees it; what the
kubelet would set for the whole machine, it sets in copies.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any, Self

from physics.compiled import cache_folder
from tests.kubernetes.programs import CNI, install
from tests.services.base import ServiceFailed, run, tied
from tests.services.kubernetes import kuberay_definitions
from tests.services.namespace import ALONE, Namespace, first_inside, remove_control_group
from tests.support import HANG_S
from twin import __version__
from twin.folders import ROOT

ADDRESS = "10.99.1.1"
"""The node's, in its own network. As long as 127.0.0.1, which a proxy of Kafka replaces by it."""
_IMAGE = f"docker.io/library/ev-twin:{__version__}"
_CONFIGURATIONS = Path(__file__).with_name("configurations")
# What a kubelet sets, of the whole machine.
_MACHINE_WIDE = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)  # fmt: skip
KERNELS = "/var/cache/kernels"
"""Where pods find compiled kernels."""


class Node:
    """A node that is Ready, with the operator, in `folder`. `kubectl` speaks to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs = install()
        self._ends = contextlib.ExitStack()
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    # ---- what a test does with it

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl says; ServiceFailed with its complaint."""
        done = self._kubectl(*arguments, stdin=stdin)
        if done.returncode:
            raise ServiceFailed(f"kubectl {shlex.join(arguments)}: {done.stderr.strip()}{done.stdout[-3000:]}")
        return done.stdout

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """The complaint of kubectl, which is to have one."""
        done = self._kubectl(*arguments, stdin=stdin)
        assert done.returncode, done.stdout
        return done.stderr

    def get(self, *arguments: str) -> Any:
        """An object, or a list of them."""
        found = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found["items"] if found["kind"].endswith("List") else found

    def inside(self, *command: str) -> str:
        """What a command in the node's network says."""
        return subprocess.run([*self.network.entered, *command], check=True, capture_output=True, text=True).stdout

    def volumes(self, count: int) -> None:
        """Empty volumes, for whoever claims one."""
        for number in range(count):
            disk = self.folder / "disks" / str(number)
            disk.mkdir(parents=True)
            os.chown(disk, 1000, 1000)
            volume = {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"disk-{number}"},
                "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "storageClassName": "disks",
                         "hostPath": {"path": str(disk)}},
            }  # fmt: skip
            self.kubectl("create", "-f", "-", stdin=json.dumps(volume))

    # ---- life

    def _begin(self) -> None:
        for name in ("etcd", "certificates", "containerd", "kubelet", "cni", "kernels", "sys"):
            (self.folder / name).mkdir(parents=True)
        self.network = self._ends.enter_context(Namespace("kube"))
        ip = ["ip", "-n", self.network.name]
        run([*ip, "link", "add", "node", "type", "bridge"])
        run([*ip, "address", "add", f"{ADDRESS}/24", "dev", "node"])
        run([*ip, "link", "set", "node", "up"])
        # The servers look for the interface of the default route. It leads nowhere.
        run([*ip, "route", "add", "default", "dev", "node"])
        self._ends.callback(_remove_control_groups)
        self._hold()
        self._configure()
        self._start_servers()

    def _hold(self) -> None:
        """A process whose mount and PID namespaces the others enter; with it, they end."""
        copies = self.folder / "sys"
        script = ["set -e", *(f"mount -t tmpfs tmpfs {path}" for path in ("/run", "/var/lib", "/var/log"))]
        for name in _MACHINE_WIDE:
            copy = copies / name.replace("/", "-")
            script += [f"cat /proc/sys/{name} > {copy}", f"mount --bind {copy} /proc/sys/{name}"]
        (self.folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        kubelet = self.folder / "kubelet"
        script += [
            f"mount --bind {self.folder}/resolv.conf $(realpath /etc/resolv.conf)",
            f"mount --bind {kubelet} {kubelet}", f"mount --make-shared {kubelet}",
            f"touch {self.folder}/held", "exec sleep infinity",
        ]  # fmt: skip
        with open(self.folder / "namespaces.log", "wb") as log:
            holder = tied([*self.network.entered, *ALONE, "bash", "-c", "\n".join(script)], log)
        self._ends.callback(_end, holder)
        self._wait(lambda: (self.folder / "held").exists() or holder.poll() is not None, "namespaces")
        first = first_inside(holder.pid)
        self._entered = ["nsenter", f"--mount=/proc/{first}/ns/mnt", f"--pid=/proc/{first}/ns/pid",
                         f"--net=/run/netns/{self.network.name}", "--"]  # fmt: skip

    def _configure(self) -> None:
        run(["openssl", "genrsa", "-out", str(self.folder / "service-accounts.key"), "2048"])
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f"{token},admin,1,system:masters\n")
        values = {"folder": self.folder, "address": ADDRESS, "token": token, "cni": CNI, "image": _IMAGE}
        for path in _CONFIGURATIONS.iterdir():
            (self.folder / path.name).write_text(Template(path.read_text()).substitute(values))
        shutil.copy(self.folder / "bridge.conflist", self.folder / "cni")
        spec = subprocess.run(["ctr", "oci", "spec"], check=True, capture_output=True, text=True).stdout
        kernels = self.folder / "kernels"
        shutil.copytree(cache_folder(), kernels / "ev-battery-twin" / cache_folder().name)
        run(["chown", "-R", "1000:1000", str(kernels)])
        (self.folder / "container.json").write_text(json.dumps(container_spec(json.loads(spec), kernels)))

    def _start_servers(self) -> None:
        f = self.folder
        self._start("etcd", "--data-dir", f / "etcd", "--unsafe-no-fsync", "--listen-client-urls",
                    "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379")  # fmt: skip
        self._start(
            "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--cert-dir={f}/certificates",
            f"--advertise-address={ADDRESS}", "--secure-port=6443", "--service-cluster-ip-range=10.96.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc", f"--token-auth-file={f}/tokens.csv",
            f"--service-account-signing-key-file={f}/service-accounts.key", "--authorization-mode=RBAC",
            f"--service-account-key-file={f}/service-accounts.key", "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        self._start("containerd", "--config", f / "containerd.toml")
        self._wait(lambda: self._kubectl("get", "--raw", "/readyz").stdout == "ok", "kube-apiserver")
        kubeconfig = f"--kubeconfig={f}/kubeconfig"
        self._start(
            "kube-controller-manager", kubeconfig, "--leader-elect=false", "--use-service-account-credentials",
            f"--service-account-private-key-file={f}/service-accounts.key",
            f"--root-ca-file={f}/certificates/apiserver.crt", f"--flex-volume-plugin-dir={f}/volume-plugins",
        )  # fmt: skip
        self._start("kube-scheduler", kubeconfig, "--leader-elect=false")
        self._import_image()
        self._start("kubelet", f"--config={f}/kubelet.yaml", kubeconfig, f"--root-dir={f}/kubelet",
                    f"--node-ip={ADDRESS}", f"--cert-dir={f}/certificates", "--hostname-override=node")  # fmt: skip
        self._start("kube-proxy", f"--config={f}/kube-proxy.yaml", "--hostname-override=node")
        self._start("coredns", "-conf", f / "Corefile")
        for definition in kuberay_definitions():
            self.kubectl("create", "-f", "-", stdin=json.dumps(definition))
        self.kubectl("apply", "-f", str(f / "system.yaml"))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all")
        self._start("ray-operator", "-kubeconfig", f / "kubeconfig", "-enable-leader-election=false", "-metrics-addr",
                    "127.0.0.1:18080", "-health-probe-bind-address", "127.0.0.1:18082")  # fmt: skip
        self._wait(lambda: self._kubectl("get", "node", "node").returncode == 0, "kubelet")
        self.kubectl("wait", "--for=condition=Ready", "node/node", f"--timeout={HANG_S:g}s")

    def _start(self, name: str, *arguments: object) -> None:
        """A server in the node's namespaces, in its own log."""
        own = self._programs / name
        command = [str(own) if own.exists() else name, *map(str, arguments)]
        with open(self.folder / f"{name}.log", "wb") as log:
            self._started[name] = subprocess.Popen(
                [*self._entered, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip

    def _import_image(self) -> None:
        """The image by name. What is in it is this machine's: its /usr, its Python, these sources, all to read only."""
        socket = ["ctr", "--address", str(self.folder / "containerd.sock"), "--namespace", "k8s.io"]
        self._wait(lambda: subprocess.run([*socket, "version"], capture_output=True).returncode == 0, "containerd")
        archive = self.folder / "image.tar"
        write_image(archive, self._programs / "pause")
        run([*socket, "images", "import", str(archive)])

    def _kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [*self.network.entered, str(self._programs / "kubectl"), f"--kubeconfig={self.folder}/kubeconfig"]
        return subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True)

    def _wait(self, holds: Any, server: str) -> None:
        deadline = time.monotonic() + HANG_S
        while not holds():
            for name, process in self._started.items():
                if process.poll() is not None:
                    raise ServiceFailed(f"{name} ended with {process.returncode}:\n{self._end_of_log(name)}")
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{server} is not ready in time:\n{self._end_of_log(server)}")
            time.sleep(0.2)

    def _end_of_log(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""

    def close(self) -> None:
        """End all of it; the folder's logs stay."""
        self._ends.close()
        for process in self._started.values():
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _remove_control_groups() -> None:
    """The kubelet's, which are empty once its pods are dead."""
    for group in Path("/sys/fs/cgroup").glob("*/kubepods"):
        remove_control_group(group)


def container_spec(default: dict[str, Any], kernels: Path) -> dict[str, Any]:
    """What every container of the node begins with: this machine's programs, Python and these sources.

    `kernels`: compiled ones, which each pod else compiles for a minute.
    """
    binds = {path: path for path in ("/usr", sys.base_prefix, sys.prefix)} | {str(ROOT): "/opt/ev-twin"}
    read_only = ["rbind", "ro", "nosuid", "nodev"]
    default["mounts"] += [
        {"type": "bind", "source": source, "destination": target, "options": read_only}
        for source, target in binds.items()
    ]
    default["mounts"].append(
        {"type": "bind", "source": str(kernels), "destination": KERNELS, "options": ["rbind", "rw"]}
    )
    default["process"]["rlimits"] = []
    return default


def write_image(archive: Path, pause: Path) -> None:
    """An image with the names of the root Dockerfile's, and nothing in it but `pause` and places to mount things."""
    layer = BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("etc", "tmp", "data", "usr", "opt/ev-twin", "proc", "dev", "sys", "var/cache/kernels"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name in ("bin", "sbin", "lib", "lib64"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\ntwin:x:1000:1000::/data:/bin/sh\n")
        _add(tar, "pause", pause.read_bytes(), 0o755)
    content = layer.getvalue()
    variables = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": "/opt/ev-twin",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    config = {
        "architecture": "amd64", "os": "linux",
        "config": {"Env": [f"{name}={value}" for name, value in variables.items()], "User": "1000:1000",
                   "WorkingDir": "/opt/ev-twin", "Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [_IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", content)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, BytesIO(content))
