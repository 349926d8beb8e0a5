"""Killing, stopping and holding the processes of a stack, with their workers."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from prove.stack import state
from prove.stack.state import ProcessId

GONE_S = 5.0
POLL_S = 0.02
FAULT_MARKER = "PROVE_FAULT"
"""Environment variable of a process that belongs to a lease; its value is the lease's name."""


def family(home: Path, name: str) -> list[psutil.Process]:
    """The process called `name` and all it has started; empty when it doesn't run."""
    current = state.load(home)
    known = current.processes.get(name) if current else None
    leader = known.id.find() if known and known.id else None
    if leader is None:
        return []
    try:
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [leader]


def kill(members: Iterable[psutil.Process]) -> None:
    """SIGKILL to all at once, and until they are gone."""
    members = list(members)
    send(members, signal.SIGKILL)
    deadline = time.monotonic() + GONE_S
    while any(map(state.runs, members)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def send(members: Iterable[psutil.Process], number: signal.Signals) -> None:
    """A signal to each that is still there."""
    for member in members:
        with contextlib.suppress(psutil.Error):
            member.send_signal(number)


def noted(members: Iterable[psutil.Process]) -> list[dict[str, Any]]:
    """What finds them again, for a journal."""
    found = []
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(ProcessId.of(member.pid).model_dump())
    return found


def go_on(ids: Iterable[Mapping[str, Any]]) -> None:
    """SIGCONT to all that were `noted`; those that run are not disturbed by it."""
    for id_ in ids:
        if process := ProcessId.model_validate(id_).find():
            send([process], signal.SIGCONT)


def hold(home: Path, name: str) -> None:
    """Keep the supervisor from starting the process again."""
    file = state.hold_file(home, name)
    file.parent.mkdir(exist_ok=True)
    file.touch()


def let_go(home: Path, name: str) -> None:
    """The supervisor may start it again."""
    state.hold_file(home, name).unlink(missing_ok=True)


def of_lease(home: Path, lease: str) -> list[psutil.Process]:
    """Processes that a lease brought about."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            mine = variables.get(state.MARKER) == str(home)
            if mine and variables.get(FAULT_MARKER) == lease and process.pid != os.getpid():
                found.append(process)
    return found
