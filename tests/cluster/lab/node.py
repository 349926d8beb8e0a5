"""The node: a first process with namespaces of its own, and what is run inside them."""

import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.cluster.lab import host

# Settings of the whole machine that kubelet insists on and would set. It is shown files that hold
# them already, and can't write to any other: nor can Cilium, which would switch off unprivileged
# BPF until the next boot.
_PRETENDED = {
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}
_WEIGHTS = {"cpu.shares": "4096", "cpu.weight": "400"}
"""Of all pods together, by version of cgroups. The node's servers, each in a session of its own,
have 1024 (100) each: all pods had no more than one of them, and in need less than they request.
"""
_SETUP = """
# What Kubernetes leaves in fixed places is left in here, and gone with the mount namespace.
for directory in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs $directory; done
mkdir -p /run/lock /run/pretended /var/lib/etcd
for directory in kernel vm; do
  mount --bind /proc/sys/$directory /proc/sys/$directory
  mount -o remount,bind,ro /proc/sys/$directory
done
while read -r name value; do
  file=/run/pretended/$(echo $name | tr / .)
  echo $value > $file
  mount --bind $file /proc/sys/$name
done
hostname $NODE
ip link set lo up
ip address add $ADDRESS/30 dev eth0
ip link set eth0 up
ip route add default via $GATEWAY
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
if [ -e /proc/sys/net/bridge ]; then sysctl -qw net.bridge.bridge-nf-call-iptables=1; fi
"""


class LabError(Exception):
    """The cluster can't be brought up, or something in it ended: a sentence and a log's tail."""


@dataclass
class Daemon:
    """A server that runs inside the node."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise LabError when it has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace").splitlines()[-8:]
            raise LabError(f"{self.name} ended: {' / '.join(tail)} (all of it: {self.log})")

    def stop(self) -> None:
        """End it for good; it is gone when this returns."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.kill()
        self.process.wait()


@dataclass
class Node:
    """A machine in miniature, reached from this one over one veth pair.

    `directory` holds all its files; `pause` is the first process, which reaps orphans. When that
    one ends, the kernel ends all others with it, and mounts and interfaces go with the namespaces.
    """

    directory: Path
    pause: Path
    name: str = "prove-node"
    daemons: dict[str, Daemon] = field(default_factory=dict)
    address: str = ""
    gateway: str = ""
    _unshare: subprocess.Popen[bytes] | None = None
    _pid: int = 0

    @property
    def cgroup(self) -> str:
        """The name of its own cgroup in every hierarchy."""
        return self.directory.name

    def start(self) -> None:
        """Make the namespaces, the network and the cgroups."""
        self._unshare = subprocess.Popen(
            [
                # Ended with us, however we end.
                *("setpriv", "--pdeathsig", "KILL"),
                *("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork"),
                *("--kill-child=SIGKILL", "--mount-proc"),
                str(self.pause),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pid = self._first_process()
        self._connect()
        self._make_cgroups()
        settings = "\n".join(f"{name} {value}" for name, value in _PRETENDED.items())
        done = subprocess.run(
            [*self.enter, "sh", "-euc", _SETUP],
            input=settings,
            env={
                **os.environ,
                "NODE": self.name,
                "ADDRESS": self.address,
                "GATEWAY": self.gateway,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"the node's namespaces can't be set up: {done.stderr.strip()}")

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs inside the node."""
        return ["nsenter", "-t", str(self._pid), "-m", "-n", "-p", "-u", "-i", "--"]

    def inside(self, path: str) -> Path:
        """A file in the node as it is reached from outside."""
        return Path(f"/proc/{self._pid}/root{path}")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program in the node to its end; what it says on stdout."""
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise LabError(f"{' '.join(command[:3])} … failed: {done.stderr.strip()}")
        return done.stdout

    def spawn(self, name: str, *command: str, env: dict[str, str] | None = None) -> Daemon:
        """Start a server in the node; it logs into NAME.log."""
        log = self.directory / "log" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*self.enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.daemons[name] = Daemon(name, process, log)
        return self.daemons[name]

    def check(self) -> None:
        """Raise LabError when one of the servers has ended."""
        for daemon in self.daemons.values():
            daemon.check()

    def stop(self) -> None:
        """End everything in it and take back what it had of this machine."""
        if self._unshare is None:
            return
        with suppress(ProcessLookupError):
            if self._pid:
                os.kill(self._pid, 9)
        self._unshare.kill()
        self._unshare.wait()
        for daemon in self.daemons.values():
            daemon.process.wait()
        subprocess.run(["ip", "link", "delete", self._host_end], capture_output=True, check=False)
        remove_cgroups(self.cgroup)

    @property
    def _host_end(self) -> str:
        return f"pv{self._pid}"

    def _first_process(self) -> int:
        assert self._unshare is not None
        for _ in until(10):
            if self._unshare.poll() is not None:
                break
            children = psutil.Process(self._unshare.pid).children()
            # Not before its exec: only then are its mounts its own.
            if children and children[0].name() == self.pause.name:
                return children[0].pid
        raise LabError("the node's first process can't be started")

    def _connect(self) -> None:
        """A veth pair with a /30 that nothing on this machine uses; nothing is forwarded."""
        peer = ("type", "veth", "peer", "name", "eth0", "netns", str(self._pid))
        _must("ip", "link", "add", self._host_end, *peer)
        used = _must("ip", "-4", "-oneline", "address") + _must("ip", "-4", "route")
        for third, fourth in itertools.product((255, 254), range(0, 256, 4)):
            prefix = f"172.31.{third}."
            if prefix + f"{fourth + 1}/" in used or prefix + f"{fourth}/" in used:
                continue
            self.gateway, self.address = prefix + str(fourth + 1), prefix + str(fourth + 2)
            _must("ip", "address", "add", f"{self.gateway}/30", "dev", self._host_end)
            _must("ip", "link", "set", self._host_end, "up")
            return
        raise LabError("every network from 172.31.254.0 to 172.31.255.255 is taken")

    def _make_cgroups(self) -> None:
        for root in host.cgroup_hierarchies():
            own = root / self.cgroup
            own.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (root / setting).is_file() and (own / setting).is_file():
                    (own / setting).write_text((root / setting).read_text())
            for setting, weight in _WEIGHTS.items():
                if (own / setting).is_file():
                    (own / setting).write_text(weight)


def remove_cgroups(name: str) -> None:
    """Remove a cgroup and all below it in every hierarchy, as soon as its processes are gone."""
    for root in host.cgroup_hierarchies():
        for _ in until(10):
            for path, _directories, _files in os.walk(root / name, topdown=False):
                with suppress(OSError):  # busy: a process of it is still ending
                    Path(path).rmdir()
            if not (root / name).exists():
                break


def until(seconds: float, step: float = 0.05) -> Iterator[None]:
    """Once and again, `step` seconds apart, for so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(step)


def _must(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
