"""Cilium's agent as a process of the node: what enforces NetworkPolicy. No operator, no Envoy."""

import json
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx

from prove.tools import TOOLS, repository_root
from tests.cluster.lab import host
from tests.cluster.lab.containers import POD_CIDR, Containerd
from tests.cluster.lab.control import ControlPlane
from tests.cluster.lab.node import LabError, Node, until

_SETTINGS = {
    "identity-allocation-mode": "crd",
    "identity-management-mode": "agent",
    "ipam": "kubernetes",
    "cluster-name": "default",
    "cluster-id": "0",
    "enable-ipv4": "true",
    "enable-ipv6": "false",
    "enable-ipv4-masquerade": "false",
    "enable-ipv6-masquerade": "false",
    "routing-mode": "native",
    "ipv4-native-routing-cidr": POD_CIDR,
    "devices": "eth0",
    "enable-tcx": "true",
    "datapath-mode": "veth",
    # kube-proxy stays: as on most clusters.
    "kube-proxy-replacement": "false",
    "bpf-lb-sock": "false",
    "enable-l7-proxy": "false",
    "enable-hubble": "false",
    "enable-policy": "default",
    "enable-k8s-networkpolicy": "true",
    "enable-health-checking": "false",
    "enable-endpoint-health-checking": "false",
    "enable-health-check-nodeport": "false",
    "enable-dynamic-config": "false",
    "enable-drift-checker": "false",
    "enable-bpf-clock-probe": "false",
    "preallocate-bpf-maps": "false",
    "bpf-map-dynamic-size-ratio": "0.0025",
    "procfs": "/proc",
    "state-dir": "/run/cilium",
    "bpf-root": "/run/bpf",
}


class Cilium:
    """The agent, its settings and its CNI plugin."""

    def __init__(self, node: Node, binaries: Mapping[str, Path]) -> None:
        self.node, self.binaries = node, binaries
        self.directory = node.directory / "cilium"

    def start(self, control: ControlPlane, containerd: Containerd) -> None:
        """Start the agent, wait until it is well, and make it the node's CNI plugin."""
        source = _source()
        shutil.copytree(source / "bpf", self.directory / "lib/bpf")
        settings = self.directory / "settings"
        settings.mkdir()
        unified = host.unified_cgroups()
        assert unified is not None
        paths = {
            "lib-dir": str(self.directory / "lib"),
            "cgroup-root": str(unified),
            "k8s-kubeconfig-path": str(control.configs / "cilium.yaml"),
        }
        for name, value in {**_SETTINGS, **paths}.items():
            (settings / name).write_text(value)
        definitions = source / "pkg/k8s/apis/cilium.io/client/crds"
        control.kubectl.apply(definitions / "v2", definitions / "v2alpha1")
        self.node.run("sh", "-ec", "mkdir -p /run/bpf /run/cilium; mount -t bpf bpf /run/bpf")
        daemon = self.node.spawn(
            "cilium-agent",
            str(self.binaries["cilium-agent"]),
            f"--config-dir={settings}",
            env={
                "PATH": f"{host.CLANG.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
                "K8S_NODE_NAME": self.node.name,
                "CILIUM_K8S_NAMESPACE": "kube-system",
            },
        )
        for _ in until(240, step=0.2):
            daemon.check()
            if self._is_well():
                break
        else:
            raise LabError(f"Cilium's agent isn't well: {daemon.log}")
        plugin = self.node.directory / "cni/bin/cilium-cni"
        plugin.symlink_to(self.binaries["cilium-cni"])
        log = str(self.node.directory / "log/cilium-cni.log")
        containerd.configure(
            "cilium", [{"type": "cilium-cni", "enable-debug": False, "log-file": log}]
        )

    def enforce(self, on: bool) -> None:
        """Switch the enforcement of policies on, as it is at first, or off for all pods."""
        wanted = "default" if on else "never"
        with self._client() as client:
            answer = client.patch(
                "http://cilium/v1/config", json={"policy-enforcement": wanted, "options": {}}
            )
            answer.raise_for_status()

    def _is_well(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # httpx leaves one that is refused open
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
        try:
            with self._client() as client:
                answer = client.get("http://cilium/v1/healthz", headers={"brief": "true"})
                return bool(answer.json()["cilium"]["state"] == "Ok")
        except (httpx.HTTPError, KeyError, ValueError):
            return False

    @property
    def _socket(self) -> Path:
        return self.node.inside("/run/cilium/cilium.sock")

    def _client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self._socket)), timeout=30)


def _source() -> Path:
    """The agent's Go module: it brings what the agent compiles for the kernel, and its CRDs."""
    module = repository_root() / TOOLS["cilium"].directory
    answer = subprocess.run(
        ["go", "mod", "download", "-json", "github.com/cilium/cilium"],
        cwd=module,
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(json.loads(answer.stdout)["Dir"])
