"""Taking faults back, whoever brought them about; each step may be repeated.

By the supervisor at once when the injector ends, however busy the machine: another injector takes
its time to start. And by `provectl up` and `down`, where both were killed.
"""

import asyncio
import contextlib
from pathlib import Path

import httpx

from prove.injector import journal, processes
from prove.injector.faults import (
    CertificateFault,
    DatabaseStopFault,
    DiskFullFault,
    DownFault,
    LinkFault,
    LoadFault,
    PauseFault,
)
from prove.injector.journal import Entry, Journal
from prove.stack import databases, drill, mesh
from prove.stack.settings import StackSettings
from prove.stack.toxiproxy import Toxiproxy

DISK = "disk"
IDS = "ids"
"""What is noted of a fault: the filled disk's directory, the stopped processes."""
FILLER = "prove-filler"


def take_back(home: Path, entry: Entry) -> None:
    """Undo a fault; raises OSError."""
    lease, noted = entry.lease, entry.noted
    match lease.fault:
        case PauseFault(params=target):
            processes.go_on(noted.get(IDS, ()))
            processes.go_on(processes.noted(processes.family(home, target.process)))
        case DownFault(params=target):
            processes.let_go(home, target.process)
        case DatabaseStopFault():
            processes.let_go(home, databases.NAME)
        case DiskFullFault() if DISK in noted:
            (Path(noted[DISK]) / FILLER).unlink(missing_ok=True)
        case CertificateFault(params=certificate):
            mesh.doomed_file(home, certificate.identity).unlink(missing_ok=True)
        case LoadFault():
            processes.kill(processes.of_lease(home, lease.name))


def clean_up(home: Path) -> list[str]:
    """Take back all that a dead injector left; returns the names of the leases.

    But for links, which end with the proxy's process. Raises OSError.
    """
    return _all(home, journal.in_force(journal.path(home)))


async def after_injector(settings: StackSettings) -> list[str]:
    """The same with the proxy still running; what it doesn't do is left for the next injector.

    Raises OSError.
    """
    home = settings.home
    left = journal.in_force(journal.path(home))
    links = [entry for entry in left if isinstance(entry.lease.fault, LinkFault)]
    others = [entry for entry in left if entry not in links]
    done = await asyncio.to_thread(_all, home, others)
    if links:
        with contextlib.suppress(httpx.HTTPError):
            await _mend(settings, links)
            done += await asyncio.to_thread(_all, home, links)
    return done


def _all(home: Path, left: list[Entry]) -> list[str]:
    book = Journal(journal.path(home))
    for entry in left:
        take_back(home, entry)
        book.end(entry.lease.name, "restart")
    return [entry.lease.name for entry in left]


async def _mend(settings: StackSettings, links: list[Entry]) -> None:
    proxy = Toxiproxy(settings.url(settings.toxiproxy_port))
    try:
        await proxy.adopt(drill.routes(settings))
        for entry in links:
            if isinstance(entry.lease.fault, LinkFault):
                await proxy.replace(entry.lease.fault.params.link)
    finally:
        await proxy.close()
