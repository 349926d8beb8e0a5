"""containerd and the CNI configuration of a node."""

import json
import subprocess
from pathlib import Path

from tests.cluster.lab import host
from tests.cluster.lab.node import LabError, Node, until

POD_CIDR = "10.244.0.0/16"
NODE_POD_CIDR = "10.244.0.0/24"
SANDBOX = "prove.local/pause:lab"

_CONFIG = """# Generated for one run of the tests.
version = 2
root = "{directory}/containerd"
state = "/run/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  # A machine without CAP_SYS_RESOURCE can't lower a score: runc would die of it.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "/run/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni/bin"
    conf_dir = "{directory}/cni/net.d"
"""


class Containerd:
    """The node's container runtime."""

    socket = "/run/containerd/containerd.sock"
    """In the node; kubelet measures containers only if it finds their runtime there."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def start(self) -> None:
        """Start it and wait until it answers."""
        directory = self.node.directory
        for part in ("cni/bin", "cni/net.d", "containerd"):
            (directory / part).mkdir(parents=True)
        for plugin in host.CNI_PLUGINS.iterdir():
            (directory / "cni/bin" / plugin.name).symlink_to(plugin)
        config = directory / "containerd.toml"
        config.write_text(_CONFIG.format(directory=directory, socket=self.socket, sandbox=SANDBOX))
        daemon = self.node.spawn("containerd", "containerd", "-c", str(config))
        for _ in until(60):
            daemon.check()
            done = subprocess.run([*self._ctr, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return
        raise LabError(f"containerd doesn't answer: {daemon.log}")

    def load(self, *archives: Path) -> None:
        """Bring images in, from archives."""
        for archive in archives:
            self.node.run(*self._ctr[len(self.node.enter) :], "images", "import", str(archive))

    def bridge(self) -> None:
        """Connect pods by a bridge. NetworkPolicies are accepted, and do nothing."""
        plugins = [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isDefaultGateway": True,
                "hairpinMode": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam",
                    "ranges": [[{"subnet": NODE_POD_CIDR}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ]
        self.configure("bridge", plugins)

    def configure(self, name: str, plugins: list[dict[str, object]]) -> None:
        """Make a CNI configuration the node's; pods can start from now on."""
        path = self.node.directory / "cni/net.d" / f"10-{name}.conflist"
        path.write_text(json.dumps({"cniVersion": "0.3.1", "name": name, "plugins": plugins}))

    @property
    def _ctr(self) -> list[str]:
        return [*self.node.enter, "ctr", "-a", self.socket, "-n", "k8s.io"]
