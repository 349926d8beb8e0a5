"""Brings faults about and takes them back."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from service_kit.problem import Problem

from prove.injector import processes, recovery
from prove.injector.faults import (
    Bandwidth,
    CertificateFault,
    DatabaseStopFault,
    DiskFullFault,
    DownFault,
    Fault,
    KillFault,
    Latency,
    LinkFault,
    LinkParams,
    LoadFault,
    PauseFault,
    Reset,
)
from prove.injector.journal import Entry
from prove.stack import databases, drill, mesh, state, toxiproxy
from prove.stack.settings import StackSettings
from prove.stack.toxiproxy import Toxiproxy

OUT_OF_REACH = (drill.INJECTOR, toxiproxy.NAME)
STOPPED_S = 10.0
POLL_S = 0.05
CHUNK = bytes(1 << 20)


class FailedError(Exception):
    """A fault could not be brought about or taken back; the message says why."""


@dataclass(frozen=True)
class _Cut:
    """In Toxiproxy's terms."""

    link: str
    toxic: str
    stream: str
    attributes: Mapping[str, int]


class Effects:
    """Of one stack, whose processes its supervisor starts again."""

    def __init__(self, settings: StackSettings) -> None:
        self._settings = settings
        self._home = settings.home
        self._routes = drill.routes(settings)
        self._proxy = Toxiproxy(settings.url(settings.toxiproxy_port))
        self._loads: dict[str, asyncio.subprocess.Process] = {}

    def check(self, fault: Fault) -> None:
        """Raises Problem, 422, for a fault that this stack can't have."""
        match fault:
            case KillFault() | PauseFault() | DownFault():
                self._check_process(fault.params.process)
            case LinkFault(params=params):
                if params.link not in self._routes:
                    raise _refused("link", f"{params.link} needs services on PostgreSQL")
            case DiskFullFault(params=target):
                self._check_disk(target.process)
            case DatabaseStopFault():
                if not databases.has_own_server(self._settings):
                    why = "this stack has no PostgreSQL of its own (PROVE_DATABASE=postgres)"
                    raise _refused("type", why, at="body")

            case CertificateFault(params=certificate):
                self._check_identity(certificate.identity)

    def note(self, fault: Fault) -> dict[str, Any]:
        """What has to be known to take it back, before it is brought about."""
        match fault:
            case PauseFault(params=target):
                found = processes.family(self._home, target.process)
                return {recovery.IDS: processes.noted(found)}
            case DiskFullFault(params=target):
                return {recovery.DISK: str(drill.disk(self._settings, target.process))}
        return {}

    async def begin(self, entry: Entry) -> None:
        """Bring it about; raises FailedError."""
        fault = entry.lease.fault
        try:
            match fault:
                case LinkFault(params=params):
                    await self._proxy.adopt(self._routes)
                    await self._proxy.add(_cut(params), entry.lease.name)
                case LoadFault():
                    await self._send(entry)
                case _:
                    await asyncio.to_thread(self._act, entry)
        except httpx.HTTPError as error:
            raise FailedError(f"Toxiproxy: {error!r}") from None
        except OSError as error:
            raise FailedError(error.strerror or repr(error)) from None

    async def end(self, entry: Entry) -> None:
        """Take it back, also what an injector before this one brought about; raises FailedError."""
        fault = entry.lease.fault
        try:
            if isinstance(fault, LinkFault):
                await self._proxy.adopt(self._routes)
                await self._proxy.replace(fault.params.link)
                return
            if own := self._loads.pop(entry.lease.name, None):
                with contextlib.suppress(ProcessLookupError):
                    own.kill()
                await own.wait()
            await asyncio.to_thread(recovery.take_back, self._home, entry)
        except httpx.HTTPError as error:
            raise FailedError(f"Toxiproxy: {error!r}") from None
        except OSError as error:
            raise FailedError(error.strerror or repr(error)) from None

    @staticmethod
    def is_kept(fault: Fault) -> bool:
        """Whether something is to be done again and again while it is in force."""
        return isinstance(fault, DownFault | DatabaseStopFault)

    async def keep(self, fault: Fault) -> None:
        """That; the supervisor may have been about to start the process."""
        if isinstance(fault, DownFault):
            await asyncio.to_thread(self._kill_what_runs, fault.params.process)
        elif isinstance(fault, DatabaseStopFault):
            await asyncio.to_thread(self._kill_what_runs, databases.NAME)

    async def close(self) -> None:
        """Nothing more is done."""
        await self._proxy.close()

    def _act(self, entry: Entry) -> None:
        match entry.lease.fault:
            case KillFault(params=target):
                processes.kill(self._running(target.process))
            case PauseFault(params=target):
                self._pause(target.process)
            case DownFault(params=target):
                processes.hold(self._home, target.process)
                self._kill_what_runs(target.process)
            case DiskFullFault():
                _fill(Path(entry.noted[recovery.DISK]) / recovery.FILLER)
            case DatabaseStopFault():
                self._stop_database()
            case CertificateFault(params=certificate):
                until_s = entry.lease.created_at_unix_ms / 1000 + certificate.expires_in_s
                mesh.doom(self._home, certificate.identity, until_s)

    def _pause(self, name: str) -> None:
        # Again, for what was being started while the first was stopped.
        for _ in range(2):
            processes.send(self._running(name), signal.SIGSTOP)

    def _kill_what_runs(self, name: str) -> None:
        processes.kill(processes.family(self._home, name))

    def _stop_database(self) -> None:
        processes.hold(self._home, databases.NAME)
        members = processes.family(self._home, databases.NAME)
        processes.send(members[:1], signal.SIGINT)
        psutil.wait_procs(members, STOPPED_S)
        processes.kill(members)

    def _running(self, name: str) -> list[psutil.Process]:
        members = processes.family(self._home, name)
        if not members:
            current = state.load(self._home)
            phase = current.process(name).phase if current else "gone"
            raise FailedError(f"{name} is not running (it is {phase})")
        return members

    async def _send(self, entry: Entry) -> None:
        lease = entry.lease
        if not isinstance(lease.fault, LoadFault):
            return
        settings = self._settings
        self._loads[lease.name] = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "prove.injector.load"),
            f"--products={settings.url(settings.product_port)}",
            f"--orders={settings.url(settings.order_port)}",
            f"--until-unix-ms={lease.expires_at_unix_ms}",
            f"--load={lease.fault.params.model_dump_json()}",
            stdin=asyncio.subprocess.PIPE,  # it ends when this process does
            env={**os.environ, processes.FAULT_MARKER: lease.name},
        )

    def _check_process(self, name: str) -> None:
        current = state.load(self._home)
        known = [each for each in current.processes if each not in OUT_OF_REACH] if current else []
        if name in OUT_OF_REACH:
            raise _refused("process", f"{name} is what faults are made with")
        if name not in known:
            raise _refused("process", f"there is no {name}; there are {', '.join(known)}")

    def _check_identity(self, name: str) -> None:
        if not self._settings.mesh:
            why = "this stack has no mesh; start it with `provectl up --drill --mesh`"
            raise _refused("type", why, at="body")
        if name not in (known := mesh.identities()):
            raise _refused("identity", f"there is no {name}; there are {', '.join(known)}")

    def _check_disk(self, name: str) -> None:
        self._check_process(name)
        disk = drill.disk(self._settings, name)
        if disk is None:
            raise _refused("process", f"{name} has no SQLite file on a disk of this stack")
        if not self._settings.disk_mb:
            why = f"{name} has no disk of its own; start the stack with PROVE_DISK_MB=64"
            raise _refused("process", why)
        if not os.path.ismount(disk):
            why = "could not be mounted, which takes root on Linux (logs/supervisor.log says why)"
            raise _refused("process", f"the disk of {name} {why}")


def subject(fault: Fault) -> str | None:
    """What only one lease may have at a time."""
    match fault:
        case KillFault() | PauseFault() | DownFault():
            return f"process {fault.params.process}"
        case DatabaseStopFault():
            return f"process {databases.NAME}"
        case LinkFault():
            return f"link {fault.params.link}"
        case DiskFullFault():
            return f"disk of {fault.params.process}"
        case CertificateFault():
            return f"certificate of {fault.params.identity}"
    return None


def _cut(params: LinkParams) -> _Cut:
    match params:
        case Latency():
            delay = {"latency": params.latency_ms, "jitter": params.jitter_ms}
            return _Cut(params.link, "latency", "downstream", delay)
        case Reset():
            return _Cut(params.link, "reset_peer", "downstream", {"timeout": params.after_ms})
        case Bandwidth():
            return _Cut(params.link, "bandwidth", "downstream", {"rate": params.kib_per_s})
    # With a time-out of 0 the connection stays open until the proxy is replaced.
    stream = "upstream" if params.kind == "black-hole" else "downstream"
    return _Cut(params.link, "timeout", stream, {"timeout": 0})


def _refused(field: str, why: str, *, at: str = "body.params") -> Problem:
    loc = [*at.split("."), field]
    where = ".".join(loc)
    return Problem(422, "validation", f"{where}: {why}.", errors=[{"loc": loc, "msg": why}])


def _fill(file: Path) -> None:
    """Write until there is no room left."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        size = len(CHUNK)
        while size:
            try:
                os.write(descriptor, CHUNK[:size])
            except OSError:
                size //= 2  # down to the last block
    finally:
        os.close(descriptor)
