"""Carries out the faults of a plan, and puts everything right again afterwards.

What it does is in its journal, with the time, before and after it is done.
"""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import httpx

from prove.errors import UserError
from prove.stack import toxiproxy
from prove.verify import shop
from prove.verify.plan import CrashPoint, Cut, Fault, Kill, Link, Service
from prove.verify.shop import Shop

POLL_S = 0.01
CRASH_POINT_S = 5.0
"""How long a crash point waits for somebody to pass it; then the service is killed instead."""
MEND_TIMEOUT_S = 30.0
"""How long Toxiproxy may take to end a cut; then it is killed instead."""
KILL_TIMEOUT_S = 60.0
"""A process that is on its way up is killed when it is ready: before, it does nothing yet."""

Did = Literal["kill", "kill-worker", "crash-point", "kill-instead", "missed", "cut", "mend", "heal"]
KILLS: tuple[Did, ...] = ("kill", "kill-worker", "crash-point", "kill-instead")


@dataclass(frozen=True, slots=True)
class Act:
    """One line of the journal.

    `target` is a service, a crash point (`order.charge.after`) or a link with what befell it.
    `kill-instead` is of a crash point that nobody passed in time, `missed` of a fault that did not
    come about, for all that is known; `mend` ends a cut; `heal` ends them all, with the `restarts`
    by process so far.
    """

    at_unix_us: int
    did: Did
    target: str
    after_op: int = -1
    detail: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """Appends acts to a file, each at once."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, did: Did, target: str, after_op: int = -1, **detail: Any) -> Act:
        """Note what was done, now."""
        act = Act(time.time_ns() // 1000, did, target, after_op, detail)
        self._file.write(json.dumps(asdict(act)) + "\n")
        self._file.flush()
        return act


def read(path: Path) -> list[Act]:
    """All acts in the order written; raises UserError naming the file."""
    try:
        with path.open() as lines:
            return [Act(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no journal of faults: {error}") from None


class Nemesis:
    """Of one round. `last_op` tells the number of the latest purchase that was sent."""

    def __init__(self, shop: Shop, journal: Journal, last_op: Callable[[], int]) -> None:
        self._shop = shop
        self._journal = journal
        self._last_op = last_op
        self._proxy = toxiproxy.Toxiproxy(shop.proxy_url) if shop.proxy_url else None
        self._proxies_killed = 0
        self._points: dict[str, asyncio.Lock] = {}
        self.kills = 0

    async def run(self, faults: Sequence[Fault]) -> None:
        """Each fault when it is due, until the last is over."""
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                while self._last_op() < fault.after_op:  # noqa: ASYNC110 - moves with each request
                    await asyncio.sleep(POLL_S)
                tasks.create_task(self._carry_out(fault))

    async def heal(self) -> int:
        """Disarm and mend everything, and wait for all to be ready; returns when, in Unix µs.

        Raises UserError when a process does not get ready.
        """
        for file in self._shop.setup.crash_dir.iterdir():
            file.unlink(missing_ok=True)
        if self._proxy:
            for link in shop.LINKS:
                await self._mend(self._proxy, link)
            await self._proxy.close()
        await self._shop.until_ready()
        return self._journal.write("heal", "everything", **self._shop.restarts()).at_unix_us

    async def _carry_out(self, fault: Fault) -> None:
        if isinstance(fault, Cut):
            await self._cut(fault)
        elif isinstance(fault, CrashPoint):
            await self._crash(fault)
        else:
            await self._kill(fault, "kill-worker" if fault.worker else "kill", fault.service)

    async def _cut(self, cut: Cut) -> None:
        if self._proxy is None:
            return
        name = f"{cut.name}-{cut.after_op}"
        target = f"{cut.link} {cut.name}"
        proxy = None
        try:
            proxy = await self._proxy.add(cut, name)
            detail = {"toxic": cut.toxic, "stream": cut.stream, "duration_s": cut.duration_s}
            self._journal.write("cut", target, cut.after_op, **detail, **cut.attributes)
            await asyncio.sleep(cut.duration_s)
        except httpx.HTTPError as error:  # it may have come about all the same: it is mended too
            self._journal.write("missed", target, cut.after_op, error=repr(error))
        sooner = await self._mend(self._proxy, cut.link, proxy)
        told = {"sooner": sooner} if sooner else {}
        self._journal.write("mend", target, cut.after_op, **told)

    async def _mend(
        self, through: toxiproxy.Toxiproxy, link: Link, proxy: str | None = None
    ) -> str:
        """End what disturbs a link, whatever it takes; returns with what it was ended before.

        A cut that stays keeps the load from going on: a Toxiproxy that doesn't end it is killed,
        and the supervisor starts it again, with all links undisturbed.
        """
        killed = self._proxies_killed
        try:
            async with asyncio.timeout(MEND_TIMEOUT_S):
                return "" if await through.replace(link, proxy) else "with another cut of the link"
        except (httpx.HTTPError, TimeoutError):
            if killed == self._proxies_killed:
                self._proxies_killed += 1
                leader = self._shop.process(toxiproxy.NAME)
                if leader:
                    shop.kill(leader)
                through.forget()
            return "with Toxiproxy, which did not answer"

    async def _crash(self, point: CrashPoint) -> None:
        name = point.file_name
        armed = self._shop.setup.crash_dir / name
        async with self._points.setdefault(name, asyncio.Lock()):
            armed.touch()
            deadline = time.monotonic() + CRASH_POINT_S
            while armed.exists() and time.monotonic() < deadline:  # noqa: ASYNC110 - as there
                await asyncio.sleep(POLL_S)
            try:
                armed.unlink()
            except FileNotFoundError:
                pids = [self._claimed(file) for file in armed.parent.glob(f"{name}.fired.*")]
                self.kills += 1
                self._journal.write("crash-point", name, point.after_op, pids=pids)
                return
        await self._kill(Kill(point.after_op, point.service), "kill-instead", name)

    @staticmethod
    def _claimed(file: Path) -> int:
        file.unlink()
        return int(file.suffix.removeprefix("."))

    async def _kill(self, fault: Kill, did: Did, target: str) -> None:
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while time.monotonic() < deadline:
            if pid := self._strike(fault.service, worker=fault.worker):
                self.kills += 1
                self._journal.write(did, target, fault.after_op, pid=pid)
                return
            await asyncio.sleep(POLL_S)
        self._journal.write("missed", target, fault.after_op, error="no process to kill")

    def _strike(self, service: Service, *, worker: bool) -> int | None:
        """The pid that was killed; None when there is none just now."""
        if not worker:
            leader = self._shop.process(service)
            return leader.pid if leader and shop.kill(leader) else None
        workers = self._shop.workers(service)
        if not workers:
            return None
        pid = random.choice(workers)  # noqa: S311 - not a secret
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return pid
        return None
