"""Taking faults back, whoever brought them about; each step may be repeated.

Also by `provectl up` and `down`, where the injector and its supervisor were killed. (Links are not
here: they end with the proxy's process.)
"""

from pathlib import Path

from prove.injector import journal, processes
from prove.injector.faults import (
    DatabaseStopFault,
    DiskFullFault,
    DownFault,
    LoadFault,
    PauseFault,
)
from prove.injector.journal import Entry, Journal
from prove.stack import databases

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
        case LoadFault():
            processes.kill(processes.of_lease(home, lease.name))


def clean_up(home: Path) -> list[str]:
    """Take back all that a dead injector left; returns the names of the leases."""
    file = journal.path(home)
    left = journal.in_force(file)
    if not left:
        return []
    book = Journal(file)
    for entry in left:
        take_back(home, entry)
        book.end(entry.lease.name, "restart")
    return [entry.lease.name for entry in left]
