"""A whole cluster: up, and down without a trace."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

import psutil
import yaml

from prove import images
from prove.kubernetes import kind
from prove.tools import ensure, repository_root
from prove.tools.progress import Progress
from tests.cluster.lab import host
from tests.cluster.lab.cilium import Cilium
from tests.cluster.lab.containers import SANDBOX, Containerd
from tests.cluster.lab.control import ControlPlane
from tests.cluster.lab.kubectl import Kubectl, Object, eventually
from tests.cluster.lab.node import Node, remove_cgroups

Network = Literal["bridge", "cilium"]
TOOLS = ("kubectl", "kubernetes", "coredns", "metrics_server")
TOY = "prove.local/toy:lab"
BUYER = "prove.local/buyer:lab"
METRICS_SERVER = "prove.local/metrics-server:lab"
PROGRAMS = Path(__file__).parents[1] / "programs"
MANIFESTS = Path(__file__).parent / "manifests"
_HOMES = Path("/tmp")  # noqa: S108  made by mkdtemp; a short path, for sockets; not under /run
_PREFIX = "prove-cluster-"


@dataclass
class Cluster:
    """One node, one control plane, DNS and metrics.

    `network` says how pods are connected: by a bridge, or by Cilium, which enforces policies.
    `seconds` tells how long each step of coming up took.
    """

    network: Network = "cilium"
    progress: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    _lock: IO[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as the administrator."""
        return self.control.kubectl

    def up(self) -> None:
        """Bring it up until name server and metrics are ready; raises LabError with the reason."""
        tools = (*TOOLS, "cilium") if self.network == "cilium" else TOOLS
        binaries = ensure(*tools, progress=self.progress)
        sweep()
        self.directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_HOMES))
        self._lock = (self.directory / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        binaries |= _programs(self.directory)
        self.node = Node(self.directory, binaries["pause"])
        self.containerd = Containerd(self.node)
        self.control = ControlPlane(self.node, binaries)
        self.cilium = Cilium(self.node, binaries) if self.network == "cilium" else None

        started = time.monotonic()
        self._step("namespaces", self.node.start)
        self._step("certificates", self.control.certify)
        self.control.start()
        self._step("containerd", self.containerd.start)
        self._step("images", lambda: self.containerd.load(*self._images(binaries)))
        self._step("API server", self.control.wait)
        self.control.start_proxy()
        self.control.start_kubelet()
        self._step("network", self._connect_pods)
        self._step(
            "node", lambda: eventually("the node is ready", self.control.node_ready, seconds=180)
        )
        self._step("name server and metrics", self._install_addons)
        self.seconds["all"] = time.monotonic() - started

    def down(self) -> None:
        """Take it down: what it was made of is gone when this returns."""
        if hasattr(self, "node"):
            self.node.stop()
            shutil.rmtree(self.directory)
        if self._lock:
            self._lock.close()

    def load(self, *archives: Path) -> None:
        """Bring images in, from archives as `docker save` writes them."""
        self.containerd.load(*archives)

    def processes(self, pod: Object) -> list[int]:
        """Ids, on this machine, of a pod's processes but for its sandbox's."""
        found = set()
        for root in host.cgroup_hierarchies("pids"):
            for path in (root / self.node.cgroup).glob(f"**/pod{pod['metadata']['uid']}/*"):
                if path.is_dir():
                    found |= {int(pid) for pid in (path / "cgroup.procs").read_text().split()}
        return sorted(pid for pid in found if psutil.Process(pid).name() != "pause")

    def provide_volumes(self, count: int = 24) -> None:
        """Directories of the node as PersistentVolumes, and a default class that claims get."""
        where = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node.name]}
        volumes = []
        for number in range(count):
            path = self.directory / "volumes" / str(number)
            path.mkdir(parents=True)
            path.chmod(0o777)
            volumes.append(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": f"lab-{number}"},
                    "spec": {
                        "capacity": {"storage": "8Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "persistentVolumeReclaimPolicy": "Retain",
                        "storageClassName": "lab",
                        "local": {"path": str(path)},
                        "nodeAffinity": {
                            "required": {"nodeSelectorTerms": [{"matchExpressions": [where]}]}
                        },
                    },
                }
            )
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        self.kubectl.apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": "lab", "annotations": default},
                "provisioner": "kubernetes.io/no-provisioner",
                "volumeBindingMode": "WaitForFirstConsumer",
            },
            *volumes,
        )

    def _step(self, name: str, do: Callable[[], object]) -> None:
        started = time.monotonic()
        do()
        self.seconds[name] = time.monotonic() - started

    def _connect_pods(self) -> None:
        if self.cilium:
            self.cilium.start(self.control, self.containerd)
        else:
            self.containerd.bridge()

    def _images(self, binaries: dict[str, Path]) -> list[Path]:
        made = []
        for reference in (
            SANDBOX,
            TOY,
            BUYER,
            "prove.local/coredns:lab",
            METRICS_SERVER,
        ):
            name = reference.split("/")[1].removesuffix(":lab")
            layer = self.directory / "images" / name
            layer.mkdir(parents=True)
            shutil.copy2(binaries[name], layer)
            archive = self.directory / f"{name}.tar"
            image = images.Image(name, name, entrypoint=(f"/{name}",), values=())
            images.archive(image, reference, [layer], archive)
            made.append(archive)
        return made

    def _install_addons(self) -> None:
        kubectl = self.kubectl
        kubectl.apply(MANIFESTS / "coredns.yaml", *metrics_server())
        kubectl.rolled_out("kube-system", "deployment/coredns", "deployment/metrics-server")


def metrics_server() -> list[Object]:
    """As on kind, but for kubelets whose certificates are the cluster's, and sooner figures."""
    objects: list[Object] = list(yaml.safe_load_all((repository_root() / kind.METRICS).read_text()))
    (deployment,) = (each for each in objects if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = METRICS_SERVER
    ca = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    instead = {
        "--kubelet-insecure-tls": f"--kubelet-certificate-authority={ca}",
        # Must be above the time that kubelet is given to answer.
        "--metric-resolution=15s": "--metric-resolution=10s",
        "--kubelet-request-timeout=10s": "--kubelet-request-timeout=5s",
    }
    container["args"] = [instead.pop(argument, argument) for argument in container["args"]]
    assert not instead, f"{kind.METRICS} has no {', '.join(instead)}"
    return objects


def _programs(into: Path) -> dict[str, Path]:
    """Build the lab's own little programs."""
    made = {name: into / name for name in ("pause", "toy", "buyer")}
    subprocess.run(
        ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(into), "./..."],
        cwd=PROGRAMS,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"},
        check=True,
    )
    return made


def sweep() -> None:
    """Remove what clusters left whose test run was killed: files and empty cgroups."""
    for directory in _HOMES.glob(f"{_PREFIX}*"):
        try:
            with (directory / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_cgroups(directory.name)
                shutil.rmtree(directory)
        except (BlockingIOError, FileNotFoundError):
            continue
