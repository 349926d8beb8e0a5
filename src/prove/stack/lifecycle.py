"""Bringing a stack up and taking it down: one at a time per home, and nothing left behind."""

import contextlib
import fcntl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil

from prove.errors import UserError
from prove.injector import recovery
from prove.stack import disks, logfiles, state
from prove.stack.hints import command
from prove.stack.settings import StackSettings
from prove.stack.state import StackState
from prove.stack.supervisor import Plan

POLL_S = 0.05
STOP_TIMEOUT_S = 90.0
SUPERVISOR = "supervisor"


class StartError(Exception):
    """The stack did not come up, and nothing of it runs; the message says why."""


@contextlib.contextmanager
def lock(settings: StackSettings) -> Iterator[IO[bytes]]:
    """Be the only one to start, stop or clean up the stack of this home.

    A supervisor inherits the lock and so holds it for its life, `kill -9` included. Raises
    UserError when another process has it, or the home cannot be written.
    """
    try:
        for directory in (settings.data_dir, settings.logs_dir, settings.run_dir):
            directory.mkdir(parents=True, exist_ok=True)
        file = (settings.run_dir / "lock").open("ab")
    except OSError as error:
        raise UserError(
            f"{settings.home} cannot be written ({error.strerror}); make room there or "
            "make it writable, or set PROVE_HOME to another directory"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another provectl is starting or stopping the stack in {settings.home}; "
                f"wait for it ({command('status')} shows it) and try again"
            ) from None
        yield file


def spawn(plan: Plan, held: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start the supervisor of `plan`, handing the lock on to it."""
    settings = plan.settings
    for held_file in state.hold_file(settings.home, "").glob("*"):
        held_file.unlink()
    with (
        tempfile.TemporaryFile() as stdin,
        logfiles.open_for_append(logfiles.path(settings, SUPERVISOR)) as log,
    ):
        stdin.write(plan.model_dump_json().encode())
        stdin.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "prove.stack.supervisor"],
            stdin=stdin,
            stdout=log,
            stderr=log,
            pass_fds=[held.fileno()],
            start_new_session=True,
        )


def wait_ready(
    supervisor: "subprocess.Popen[bytes]", home: Path, show: Callable[[StackState], None]
) -> StackState:
    """Until every process is ready, showing each state on the way; raises StartError."""
    while True:
        ended = supervisor.poll() is not None
        current = state.load(home)
        if current and current.supervisor.pid == supervisor.pid:
            show(current)
            if current.phase == "ready":
                return current
            if current.phase == "failed" and current.failure:
                supervisor.wait()
                raise StartError(current.failure)
        if ended:
            log = home / "logs" / f"{SUPERVISOR}.log"
            raise StartError(f"the supervisor ended while it was starting; {log} says why")
        time.sleep(POLL_S)


def stop(home: Path) -> bool:
    """Stop the running stack in order; False when none runs.

    A supervisor that hangs is killed; `clean_up` then ends what it leaves.
    """
    current = state.load(home)
    supervisor = current.supervisor.find() if current else None
    if not supervisor:
        return False
    deadline = time.monotonic() + STOP_TIMEOUT_S
    with contextlib.suppress(psutil.NoSuchProcess):
        supervisor.terminate()
    while state.runs(supervisor):
        if time.monotonic() > deadline:
            with contextlib.suppress(psutil.NoSuchProcess):
                supervisor.kill()
        time.sleep(POLL_S)
    return True


def clean_up(home: Path) -> list[str]:
    """End what a killed supervisor left behind; returns a description of each process.

    To be called under the `lock`, so that no supervisor runs. Faults that its injector could not
    take back are taken back, before so that a stopped process hears that it is to end.
    """
    recovery.clean_up(home)
    left = state.leftovers(home)
    current = state.load(home)
    known = {p.id.pid: p for p in current.processes.values() if p.id} if current else {}
    told = [f"{known[p.pid].name if p.pid in known else _name(p)} (pid {p.pid})" for p in left]
    servers = {pid for pid, process in known.items() if process.group == "observability"}
    # The shop first: it still delivers its telemetry.
    state.end([process for process in left if process.pid not in servers])
    state.end([process for process in left if process.pid in servers])
    recovery.clean_up(home)
    disks.release(home)
    state.remove(home)
    return told


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "process"
