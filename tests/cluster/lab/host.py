"""What the machine must have for a cluster, and what one could leave behind on it."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil

CNI_PLUGINS = Path("/usr/lib/cni")
CLANG = Path("/usr/lib/llvm-19/bin/clang")
CGROUPS = Path("/sys/fs/cgroup")

_PROGRAMS = {
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "etcd": "etcd-server",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "openssl": "openssl",
}
"""Programs by the Debian package that has them."""


def why_not() -> str | None:
    """Why no cluster can run here, as the end of a sentence; None when one can."""
    if platform.system() != "Linux":
        return "it needs Linux"
    if os.geteuid() != 0:
        return "it needs root, for namespaces, mounts and cgroups"
    missing = sorted({package for name, package in _PROGRAMS.items() if not shutil.which(name)})
    if not (CNI_PLUGINS / "bridge").exists():
        missing.append("containernetworking-plugins")
    if missing:
        return (
            f"Debian's packages {' '.join(missing)} are missing: `make test-cluster` installs them"
        )
    kinds = Path("/proc/filesystems").read_text().split()
    if "overlay" not in kinds:
        return "its kernel has no overlay file system"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"it may not make namespaces ({tried.stderr.strip()})"
    if not any(True for _ in cgroup_hierarchies("memory")):
        return f"there is no memory controller in {CGROUPS}"
    return None


def why_not_cilium() -> str | None:
    """Why Cilium's agent can't run here, as the end of a sentence; None when it can."""
    if not CLANG.exists():
        return "Debian's package clang-19 is missing: `make test-cluster` installs it"
    if "bpf" not in Path("/proc/filesystems").read_text().split():
        return "its kernel has no bpf file system"
    if unified_cgroups() is None:
        return "there is no cgroup2 file system"
    return None


def unified_cgroups() -> Path | None:
    """Where cgroup2 is mounted: alone, or beside version 1."""
    for path in (CGROUPS / "unified", CGROUPS):
        if (path / "cgroup.controllers").is_file():
            return path
    return None


def cgroup_hierarchies(controller: str = "") -> Iterator[Path]:
    """The roots of all cgroup hierarchies, or of those with a controller."""
    if (CGROUPS / "cgroup.controllers").is_file():
        if controller in (CGROUPS / "cgroup.controllers").read_text():
            yield CGROUPS
        return
    for path in sorted(CGROUPS.iterdir()) if CGROUPS.is_dir() else ():
        wanted = not controller or controller in path.name.split(",")
        if wanted and path.is_dir() and not path.is_symlink():
            yield path


_SYSCTLS = ("kernel", "vm", "net/ipv4", "net/ipv6", "net/core", "net/bridge", "net/netfilter")
# Counters and random numbers: they change by themselves.
_RESTLESS = (
    "kernel/random/",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "net/netfilter/nf_conntrack_count",
)


def traces() -> dict[str, object]:
    """What is on the machine that a cluster touches elsewhere: to be the same before and after."""
    return {
        "interfaces": _lines("ip", "-brief", "link"),
        "addresses": _lines("ip", "-brief", "address"),
        "routes": _lines("ip", "route", "show", "table", "all"),
        "rules": _lines("ip", "rule"),
        "namespaces": _lines("ip", "netns"),
        "iptables": _firewall(),
        "mounts": _mounts(),
        "cgroups": sorted(
            str(path.relative_to(CGROUPS))
            for root in cgroup_hierarchies()
            for path in root.iterdir()
            if path.is_dir()
        ),
        "sysctls": _sysctls(),
        "directories": [
            str(path)
            for path in map(
                Path,
                (
                    "/var/lib/kubelet",
                    "/var/lib/cni",
                    "/var/log/containers",
                    "/var/log/pods",
                    "/etc/cni/net.d",
                    "/run/containerd",
                    "/run/cilium",
                    "/run/netns",
                    "/run/flannel",
                    "/opt/cni",
                ),
            )
            if path.exists()
        ],
        "processes": _processes(),
    }


def _mounts() -> list[str]:
    fields = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # Other tests mount in their own directories meanwhile.
    others = "/tmp/pytest-of-"  # noqa: S108
    return sorted(
        f"{line[4]} {line[line.index('-') + 1]}"
        for line in fields
        if not line[4].startswith(others)
    )


def _firewall() -> list[str]:
    # Counters and times are comments or in brackets: left out.
    lines = []
    for program in ("iptables-legacy-save", "iptables-nft-save"):
        if shutil.which(program):
            lines += [line.split(" [")[0] for line in _lines(program) if not line.startswith("#")]
    return lines


def _sysctls() -> dict[str, str]:
    values = {}
    for top in _SYSCTLS:
        root = Path("/proc/sys") / top
        for path in sorted(root.rglob("*")) if root.is_dir() else ():
            name = str(path.relative_to("/proc/sys"))
            # neigh and conf hold a directory for each interface, those of others too.
            if not path.is_file() or name.startswith(_RESTLESS):
                continue
            try:
                values[name] = path.read_text()
            except OSError:
                continue
    return values


def _processes() -> list[str]:
    """Running programs of the kind a cluster starts; threads of the kernel aside.

    Those of a node are told by its first process, for in one that lives they come and go.
    """
    kinds = ("containerd", "etcd", "kube", "runc", "pause", "toy", "cilium", "coredns", "metrics-")
    found = set()
    for process in psutil.process_iter():
        try:
            name = process.name()
            if name.startswith(kinds) and process.status() != psutil.STATUS_ZOMBIE:
                node = _node(process)
                found.add(f"of node {node.pid}" if node else f"{name} {process.pid}")
        except (psutil.Error, OSError):
            continue  # it has ended
    return sorted(found)


def _node(process: psutil.Process) -> psutil.Process | None:
    """The first process of the outermost process namespace that isn't ours; None in ours."""
    ours = _namespace("self")
    first = None
    for each in (process, *process.parents()):
        if _namespace(each.pid) == ours:  # the machine's own first process can't be asked
            break
        first = each
    return first


def _namespace(pid: object) -> Path:
    return Path(f"/proc/{pid}/ns/pid").readlink()


def _lines(*command: str) -> list[str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines()
