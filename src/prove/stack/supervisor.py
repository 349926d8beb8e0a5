"""Starts, watches, restarts and stops the processes of a stack; one supervisor per home.

It is a process of its own (`python -m prove.stack.supervisor`, the plan as JSON on stdin), tells
what it knows through `state` and what it does on stdout, one JSON object a line. SIGTERM, SIGINT
and SIGHUP stop the stack in order; a second one ends it at once. docs/adr/0002-supervision.md
says why it is not supervisord.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import textwrap
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import psutil
from pydantic import BaseModel

from prove import __version__
from prove.injector import recovery
from prove.stack import databases, disks, drill, logfiles, state
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec
from prove.stack.state import ProcessId, ProcessPhase, ProcessState, StackState

PROBE_INTERVAL_S = 0.1
ROTATE_INTERVAL_S = 5.0
LAST_LINES = 5
LINE_WIDTH = 300


class Plan(BaseModel):
    """What one supervisor runs."""

    settings: StackSettings
    specs: list[ProcessSpec]


@dataclass
class _Child:
    spec: ProcessSpec
    state: ProcessState
    was_ready: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    log_from: int = 0
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None


class _StartError(Exception):
    """A process did not become ready when the stack was started."""


class Supervisor:
    """Runs the processes of one plan until it is told to stop."""

    def __init__(self, plan: Plan) -> None:
        self._settings = plan.settings
        self._stop_asked = asyncio.Event()
        self._children = {spec.name: self._child(spec, plan.settings) for spec in plan.specs}
        self._state = StackState(
            version=__version__,
            home=plan.settings.home,
            supervisor=ProcessId.of(os.getpid()),
            started_at=time.time(),
            profile=plan.settings.profile,
            ports=plan.settings.ports,
            processes={name: child.state for name, child in self._children.items()},
        )

    @staticmethod
    def _child(spec: ProcessSpec, settings: StackSettings) -> _Child:
        log = logfiles.path(settings, spec.name)
        initial = ProcessState(
            name=spec.name, group=spec.group, ports=spec.ports, ready_url=spec.ready_url, log=log
        )
        return _Child(spec, initial, log_from=logfiles.size(log))

    async def run(self) -> int:
        """Until a signal or a failed start; returns the exit code."""
        with disks.mounted(self._settings) as problem:
            if problem:
                self._log("disks_not_mounted", level="warning", detail=problem)
            return await self._run()

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        state.save(self._state)
        rotation = asyncio.create_task(self._rotate_logs())
        async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
            for child in self._children.values():
                child.task = asyncio.create_task(self._keep(child, client))
            await self._watch()
            await self._stop_all()
        rotation.cancel()
        if self._state.failure:
            self._state.phase = "failed"
            self._save()
            return 1
        state.remove(self._settings.home)
        return 0

    async def _watch(self) -> None:
        """Until the stack is to be stopped, by a signal or because its start failed."""
        started = asyncio.create_task(self._all_ready())
        stop = asyncio.create_task(self._stop_asked.wait())
        tasks = [child.task for child in self._children.values() if child.task]
        # `_keep` never returns by itself: a task that is done has failed.
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done() and (error := task.exception()):
                self._state.failure = str(error)
                self._log("start_failed", level="error", detail=str(error))
                if not isinstance(error, _StartError):
                    raise error
        started.cancel()
        stop.cancel()

    async def _all_ready(self) -> None:
        for child in self._children.values():
            await child.was_ready.wait()
        self._state.phase = "ready"
        self._save()
        self._log("stack_ready", seconds=round(time.time() - self._state.started_at, 2))

    async def _keep(self, child: _Child, client: httpx.AsyncClient) -> None:
        """The life of one process: start it in its turn and again whenever it ends."""
        for need in child.spec.needs:
            await self._children[need].was_ready.wait()
        while True:
            await self._while_held(child)
            outcome = await self._run_once(child, client)
            child.state.last_exit = outcome
            if child.spec.name == drill.INJECTOR:
                await self._take_faults_back()
            if not child.was_ready.is_set():
                raise _StartError(self._why_not_ready(child, outcome))
            child.failures += 1
            delay_s = self._delay_s(child.failures)
            self._change(child, "backoff", level="warning", reason=outcome, delay_s=delay_s)
            await asyncio.sleep(delay_s)
            child.state.restarts += 1

    async def _take_faults_back(self) -> None:
        try:
            for name in await recovery.after_injector(self._settings):
                self._log("fault_taken_back", level="warning", fault=name)
        except OSError as error:  # the next injector tries, too
            self._log("faults_not_taken_back", level="error", detail=str(error))

    def _delay_s(self, failures: int) -> float:
        """Doubles with every end since the process was last ready."""
        doubled = self._settings.restart_delay_min_s * 2.0 ** min(failures - 1, 30)
        return min(doubled, self._settings.restart_delay_max_s)

    async def _run_once(self, child: _Child, client: httpx.AsyncClient) -> str:
        """Start the process and wait for its end; returns how it ended."""
        try:
            process = await self._spawn(child)
        except OSError as error:
            return f"could not be started: {error.strerror} ({child.spec.argv[0]})"
        try:
            try:
                async with asyncio.timeout(self._settings.ready_timeout_s):
                    await self._until_ready(child.spec.ready_url, process, client)
            except TimeoutError:
                return f"was not ready within {self._settings.ready_timeout_s:g} s"
            if process.returncode is None:
                child.failures = 0
                child.state.ready_at = time.time()
                child.was_ready.set()
                self._change(child, "ready")
            return _describe(await process.wait())
        finally:
            await self._end(child, process)

    async def _spawn(self, child: _Child) -> asyncio.subprocess.Process:
        home = self._settings.home
        with logfiles.open_for_append(child.state.log) as log:
            process = await asyncio.create_subprocess_exec(
                *child.spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **child.spec.env, state.MARKER: str(home)},
                cwd=home,
                start_new_session=True,  # Ctrl-C in a terminal reaches the supervisor alone
                user=child.spec.user,
            )
        child.process = process
        child.state.started_at = time.time()
        child.state.ready_at = None
        with contextlib.suppress(psutil.NoSuchProcess):
            child.state.id = ProcessId.of(process.pid)
        self._change(child, "starting")
        return process

    @staticmethod
    async def _until_ready(
        url: str, process: asyncio.subprocess.Process, client: httpx.AsyncClient
    ) -> None:
        """Returns when the process is ready or has ended."""
        while process.returncode is None:
            if url.startswith(databases.SCHEME):
                if await asyncio.to_thread(databases.answers, url):
                    return
            else:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(url)).is_success:
                        return
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _end(self, child: _Child, process: asyncio.subprocess.Process) -> None:
        """Leave nothing of the process: SIGTERM to it alone, then SIGKILL to its whole group.

        SIGTERM is for the leader: gunicorn passes it on, and its workers must not get it twice.
        A leader that crashed leaves workers that hold its port.
        """
        if process.returncode is None:
            self._change(child, "stopping")
            _signal_group(process.pid, signal.SIGCONT)  # a suspended one could not hear SIGTERM
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(child.spec.stop_signal)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(child.spec.stop_timeout_s):
                    await process.wait()
        _signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        child.process = None
        child.state.id = None
        child.state.ready_at = None
        self._change(child, "stopped")

    async def _while_held(self, child: _Child) -> None:
        held = state.hold_file(self._settings.home, child.spec.name)
        if held.exists():
            self._change(child, "held")
        while held.exists():  # noqa: ASYNC110 - a file has no event to wait for
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _stop_all(self) -> None:
        """Stop each process once those that need it have stopped."""
        self._state.phase = "stopping"
        self._save()
        stopped = {name: asyncio.Event() for name in self._children}

        async def stop(child: _Child) -> None:
            for other in self._children.values():
                if child.spec.name in other.spec.needs:
                    await stopped[other.spec.name].wait()
            if child.task:
                child.task.cancel()
                await asyncio.wait([child.task])
            stopped[child.spec.name].set()

        await asyncio.gather(*map(stop, self._children.values()))

    def _on_signal(self) -> None:
        if self._stop_asked.is_set():
            for child in self._children.values():
                if child.process:
                    _signal_group(child.process.pid, signal.SIGKILL)
        self._stop_asked.set()

    @staticmethod
    def _why_not_ready(child: _Child, outcome: str) -> str:
        log = child.state.log
        lines = logfiles.tail(log, LAST_LINES, child.log_from)
        said = "".join(f"\n    {textwrap.shorten(line, LINE_WIDTH)}" for line in lines)
        told = f"ends with:{said}" if lines else "says nothing"
        return f"{child.spec.name} {outcome}; its log {log} {told}"

    def _change(
        self, child: _Child, phase: ProcessPhase, *, level: str = "info", **fields: object
    ) -> None:
        child.state.phase = phase
        pid = child.state.id.pid if child.state.id else None
        self._log(f"process_{phase}", level=level, process=child.spec.name, pid=pid, **fields)
        self._save()

    def _save(self) -> None:
        try:
            state.save(self._state)
        except OSError as error:  # a full disk must not take the shop down
            self._log("state_not_saved", level="error", detail=str(error))

    async def _rotate_logs(self) -> None:
        while True:
            for log in self._settings.logs_dir.glob("*.log"):
                try:
                    logfiles.rotate(log, self._settings.log_max_bytes, self._settings.log_backups)
                except OSError as error:
                    self._log("log_not_rotated", level="error", detail=str(error))
            await asyncio.sleep(ROTATE_INTERVAL_S)

    @staticmethod
    def _log(event: str, *, level: str = "info", **fields: object) -> None:
        ts = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = {"ts": ts, "level": level, "event": event, "service": "supervisor", **fields}
        with contextlib.suppress(OSError):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


def _describe(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"exited with code {returncode}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The id of a group isn't given to a new process while the group has members.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def main() -> None:
    """Read the plan from stdin and run it."""
    plan = Plan.model_validate_json(sys.stdin.buffer.read())
    sys.exit(asyncio.run(Supervisor(plan).run()))


if __name__ == "__main__":
    main()
