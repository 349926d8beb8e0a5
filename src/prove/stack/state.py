"""`.prove/run/stack.json`: what the supervisor knows, for every command that asks."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ValidationError

from prove.errors import UserError
from prove.stack.hints import command
from prove.stack.spec import Group

FILE = "stack.json"
MARKER = "PROVE_STACK"
"""Environment variable of every process of a stack; its value is the stack's home."""

Phase = Literal["starting", "ready", "failed", "stopping"]
ProcessPhase = Literal["waiting", "starting", "ready", "backoff", "held", "stopping", "stopped"]


class ProcessId(BaseModel):
    """A process for good: a pid alone is given to another process sooner or later."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Raises psutil.NoSuchProcess when `pid` is gone."""
        return cls(pid=pid, create_time=psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, if it still runs."""
        try:
            process = psutil.Process(self.pid)
            # The clock that `create_time` is reckoned from may be corrected between two readings.
            same = abs(process.create_time() - self.create_time) < 1.5
        except psutil.NoSuchProcess:
            return None
        return process if same and runs(process) else None


class ProcessState(BaseModel):
    """One supervised process. Times are Unix seconds."""

    name: str
    group: Group
    phase: ProcessPhase = "waiting"
    id: ProcessId | None = None
    ports: tuple[int, ...]
    ready_url: str
    log: Path
    started_at: float | None = None
    ready_at: float | None = None
    restarts: int = 0
    last_exit: str | None = None


class StackState(BaseModel):
    """The whole stack as the supervisor last saw it."""

    version: str
    home: Path
    supervisor: ProcessId
    started_at: float
    phase: Phase = "starting"
    failure: str | None = None
    profile: str = "standard"
    ports: dict[str, int]
    processes: dict[str, ProcessState]

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self.supervisor.find() is not None

    @property
    def meshed(self) -> bool:
        """Whether it was started with the mesh."""
        return "edge" in self.processes

    def process(self, name: str) -> ProcessState:
        """Raises UserError naming the processes there are."""
        try:
            return self.processes[name]
        except KeyError:
            known = ", ".join(self.processes)
            raise UserError(f"there is no process called {name}; choose one of {known}") from None


def load(home: Path) -> StackState | None:
    """The state of the stack in `home`; None when there is none that can be read."""
    try:
        return StackState.model_validate_json((home / "run" / FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def require(home: Path) -> StackState:
    """The state of the running stack; raises UserError when none runs."""
    state = load(home)
    if state is None or not state.alive:
        raise UserError(f"no stack is running in {home}; start one with {command('up')}")
    return state


def save(state: StackState) -> None:
    """Replace the file in one step: a reader never sees half of it. Raises OSError."""
    target = state.home / "run" / FILE
    written = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        written.write_text(state.model_dump_json(indent=1))
        os.replace(written, target)
    except OSError:
        written.unlink(missing_ok=True)
        raise


def remove(home: Path) -> None:
    """Forget the stack in `home`."""
    (home / "run" / FILE).unlink(missing_ok=True)


def hold_file(home: Path, name: str) -> Path:
    """While this file exists, the supervisor does not start the process `name` again."""
    return home / "run" / "held" / name


def leftovers(home: Path) -> list[psutil.Process]:
    """Processes of a stack in `home` whose supervisor is gone, eldest first.

    Known by pid and creation time from the state file, or by the marker in their environment
    (which also finds their own children). Never this process or one it was started by.
    """
    state = load(home)
    ids = [process.id for process in state.processes.values() if process.id] if state else []
    found = {process.pid: process for id_ in ids if (process := id_.find())}
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == str(home):
                found[process.pid] = process
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's: not ours
    return sorted((p for pid, p in found.items() if pid not in mine), key=_create_time)


def end(processes: list[psutil.Process], timeout_s: float = 10) -> None:
    """SIGTERM, and SIGKILL after `timeout_s` for those that are still there.

    SIGTERM is for heads of families: they pass it on, and to many a worker a second one means
    that it shall not wait for its requests.
    """
    pids = {process.pid for process in processes}
    _send([process for process in processes if _parent(process) not in pids], signal.SIGTERM)
    left = _wait(processes, timeout_s)
    _send(left, signal.SIGKILL)
    _wait(left, timeout_s)


def _send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _wait(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that still run when the time is over."""
    deadline = time.monotonic() + timeout_s
    while (left := [each for each in processes if runs(each)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def runs(process: psutil.Process) -> bool:
    """Whether the process still runs.

    A zombie has ended: that its parent, perhaps a container's init, doesn't reap it is moot."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _create_time(process: psutil.Process) -> float:
    try:
        return process.create_time()
    except psutil.NoSuchProcess:
        return 0.0
