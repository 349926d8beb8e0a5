"""The control plane and kubelet, as processes of the node."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.cluster.lab import pki
from tests.cluster.lab.containers import POD_CIDR, Containerd
from tests.cluster.lab.kubectl import Kubectl, RefusedError
from tests.cluster.lab.node import LabError, Node, until

SERVICE_CIDR = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
DNS = "10.96.0.10"
DOMAIN = "cluster.local"

_CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "apiserver-to-kubelet": "/O=system:masters/CN=apiserver-to-kubelet",
    "cilium": "/O=system:masters/CN=cilium",
}


class ControlPlane:
    """etcd, the API server, its controllers, the scheduler, kubelet and kube-proxy of one node."""

    def __init__(self, node: Node, binaries: Mapping[str, Path]) -> None:
        self.node, self.binaries = node, binaries
        self.pki = node.directory / "pki"
        self.configs = node.directory / "kubeconfig"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, for use outside the node."""
        return self.configs / "admin.yaml"

    @property
    def kubectl(self) -> Kubectl:
        """kubectl as the administrator."""
        return Kubectl(self.binaries["kubectl"], self.kubeconfig)

    def certify(self) -> None:
        """Make all certificates and kubeconfigs."""
        node = self.node
        authority = pki.Authority(self.pki, "ca")
        names = [f"DNS:kubernetes{end}" for end in ("", ".default", ".default.svc")]
        names += [f"DNS:kubernetes.default.svc.{DOMAIN}", "DNS:localhost"]
        names += [f"IP:{address}" for address in ("127.0.0.1", FIRST_SERVICE, node.address)]
        authority.sign("apiserver", "/CN=kube-apiserver", "serverAuth", ",".join(names))
        subject = f"/O=system:nodes/CN=system:node:{node.name}"
        authority.sign(
            "kubelet-server", subject, "serverAuth", f"DNS:{node.name},IP:{node.address}"
        )
        for name, who in {**_CLIENTS, "kubelet": subject}.items():
            authority.sign(name, who, "clientAuth")
            server = f"https://{node.address}:6443"
            authority.kubeconfig(name, server, self.configs / f"{name}.yaml")
        front = pki.Authority(self.pki, "front")
        front.sign("front-client", "/CN=front-proxy-client", "clientAuth")
        pki.service_account_keys(self.pki)

    def start(self) -> None:
        """Start etcd and the API server, and what works on its objects once it is ready."""
        node, keys = self.node, self.pki
        node.spawn(
            "etcd",
            *("etcd", "--name=prove", "--data-dir=/var/lib/etcd", "--log-level=warn"),
            *("--logger=zap", "--listen-client-urls=http://127.0.0.1:2379"),
            *("--advertise-client-urls=http://127.0.0.1:2379",),
            *("--listen-peer-urls=http://127.0.0.1:2380",),
            *("--initial-advertise-peer-urls=http://127.0.0.1:2380",),
            "--initial-cluster=prove=http://127.0.0.1:2380",
        )
        node.spawn(
            "kube-apiserver",
            str(self.binaries["kube-apiserver"]),
            "--etcd-servers=http://127.0.0.1:2379",
            *(f"--advertise-address={node.address}", f"--bind-address={node.address}"),
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction"),
            *("--allow-privileged=true", "--profiling=false"),
            f"--client-ca-file={keys}/ca.crt",
            *(f"--tls-cert-file={keys}/apiserver.crt", f"--cert-dir={keys}"),
            f"--tls-private-key-file={keys}/apiserver.key",
            f"--kubelet-certificate-authority={keys}/ca.crt",
            f"--kubelet-client-certificate={keys}/apiserver-to-kubelet.crt",
            f"--kubelet-client-key={keys}/apiserver-to-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-key-file={keys}/sa.pub",
            f"--service-account-signing-key-file={keys}/sa.key",
            f"--requestheader-client-ca-file={keys}/front.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={keys}/front-client.crt",
            f"--proxy-client-key-file={keys}/front-client.key",
        )

    def wait(self) -> None:
        """Wait for the API server, then start the controllers and the scheduler.

        Not earlier: the controller-manager ends for good when it may not read yet how requests are
        authenticated.
        """
        for _ in until(180, step=0.2):
            self.node.check()
            try:
                self.kubectl("get", "--raw", "/readyz", timeout=20)
                break
            except (RefusedError, subprocess.TimeoutExpired):
                continue
        else:
            raise LabError(f"the API server isn't ready: {self.node.directory / 'log'}")
        common = ("--bind-address=127.0.0.1", "--leader-elect=false", f"--cert-dir={self.pki}")
        self.node.spawn(
            "kube-controller-manager",
            str(self.binaries["kube-controller-manager"]),
            *common,
            *self._as("controller-manager"),
            "--use-service-account-credentials=true",
            *("--allocate-node-cidrs=true", f"--cluster-cidr={POD_CIDR}"),
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--root-ca-file={self.pki}/ca.crt",
            f"--service-account-private-key-file={self.pki}/sa.key",
            f"--cluster-signing-cert-file={self.pki}/ca.crt",
            f"--cluster-signing-key-file={self.pki}/ca.key",
            # Metrics are 10 s apart here: looking only every 15 s would add to every figure.
            "--horizontal-pod-autoscaler-sync-period=5s",
        )
        self.node.spawn(
            "kube-scheduler",
            str(self.binaries["kube-scheduler"]),
            *common,
            *self._as("scheduler"),
        )

    def start_kubelet(self) -> None:
        """Start kubelet, which registers the node."""
        directory, keys = self.node.directory, self.pki
        (directory / "resolv.conf").touch()
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.node.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{keys}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{keys}/kubelet-server.crt",
            "tlsPrivateKeyFile": f"{keys}/kubelet-server.key",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.node.cgroup}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [DNS],
            "clusterDomain": DOMAIN,
            "resolvConf": str(directory / "resolv.conf"),
            "containerRuntimeEndpoint": f"unix://{Containerd.socket}",
            "volumePluginDir": str(directory / "volume-plugins"),
            "healthzBindAddress": "127.0.0.1",
            # The test machine's disk and memory are others' too: nothing is thrown out for them.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                **dict.fromkeys(
                    ("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "0%"
                ),
            },
        }
        path = directory / "kubelet.yaml"
        path.write_text(yaml.safe_dump(config))
        self.node.spawn(
            "kubelet",
            str(self.binaries["kubelet"]),
            f"--config={path}",
            f"--kubeconfig={self.configs / 'kubelet.yaml'}",
            f"--hostname-override={self.node.name}",
            f"--node-ip={self.node.address}",
            f"--root-dir={directory / 'kubelet'}",
            f"--cert-dir={keys}",
        )

    def start_proxy(self) -> None:
        """Start kube-proxy, which makes Services reachable."""
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": POD_CIDR,
            "bindAddress": "0.0.0.0",  # noqa: S104  of its own network namespace
            "clientConnection": {"kubeconfig": str(self.configs / "proxy.yaml")},
            # In a network namespace these can be read only: 0 leaves them as they are.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
        path = self.node.directory / "proxy.yaml"
        path.write_text(yaml.safe_dump(config))
        self.node.spawn(
            "kube-proxy",
            str(self.binaries["kube-proxy"]),
            f"--config={path}",
            f"--hostname-override={self.node.name}",
        )

    def node_ready(self) -> bool:
        """Whether the node takes pods."""
        self.node.check()
        try:
            conditions = self.kubectl.get("node", self.node.name)["status"]["conditions"]
        except (RefusedError, KeyError):
            return False
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _as(self, user: str) -> list[str]:
        path = self.configs / f"{user}.yaml"
        kinds = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
        return [f"--{kind}={path}" for kind in kinds]
