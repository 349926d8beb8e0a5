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
from prove.verify import shop
from prove.verify.plan import CrashPoint, Cut, Fault, Kill, Link, Service
from prove.verify.shop import Shop

POLL_S = 0.01
CRASH_POINT_S = 5.0
"""How long a crash point waits for somebody to pass it; then the service is killed instead."""
KILL_TIMEOUT_S = 60.0
"""A process that is on its way up is killed when it is ready: before, it does nothing yet."""
PROXY_TIMEOUT_S = 30.0
REMOVE_ATTEMPTS = 5

Did = Literal["kill", "kill-worker", "crash-point", "kill-instead", "missed", "cut", "mend", "heal"]
KILLS: tuple[Did, ...] = ("kill", "kill-worker", "crash-point", "kill-instead")


@dataclass(frozen=True, slots=True)
class Act:
    """One line of the journal.

    `target` is a service, a crash point (`order.charge.after`) or a link with what befell it.
    `kill-instead` is of a crash point that nobody passed in time, `missed` of a fault that did not
    come about; `mend` ends a cut; `heal` ends them all, with the `restarts` by process so far.
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


class Toxiproxy:
    """Its HTTP API, as much of it as is needed (Toxiproxy 2.5, README)."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=PROXY_TIMEOUT_S,
            # A kept connection may be closed by Toxiproxy just when it is used again.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            transport=transport,
        )

    async def add(self, cut: Cut, name: str) -> None:
        """Raises httpx.HTTPError; so do the others."""
        toxic = {
            "name": name,
            "type": cut.toxic,
            "stream": cut.stream,
            "toxicity": 1.0,
            "attributes": cut.attributes,
        }
        answer = await self._client.post(f"/proxies/{cut.link}/toxics", json=toxic)
        answer.raise_for_status()

    async def remove(self, link: Link, name: str) -> None:
        """One that is gone already is no error; tried again, for one that stays spoils the run.

        The link's connections are closed first: Toxiproxy would wait for what is still to be
        written into dead ones, 5 s for each piece, and answer nobody meanwhile.
        """
        for left in reversed(range(REMOVE_ATTEMPTS)):
            try:
                await self._enable(link, enabled=False)
                answer = await self._client.delete(f"/proxies/{link}/toxics/{name}")
                if answer.status_code != httpx.codes.NOT_FOUND:
                    answer.raise_for_status()
                await self._enable(link, enabled=True)
            except httpx.HTTPError:
                if not left:
                    raise
                await asyncio.sleep(POLL_S)
            else:
                return

    async def _enable(self, link: Link, *, enabled: bool) -> None:
        answer = await self._client.post(f"/proxies/{link}", json={"enabled": enabled})
        answer.raise_for_status()

    async def reset(self) -> None:
        """Remove all toxics of all links."""
        (await self._client.post("/reset")).raise_for_status()

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class Nemesis:
    """Of one round. `last_op` tells the number of the latest purchase that was sent."""

    def __init__(self, shop: Shop, journal: Journal, last_op: Callable[[], int]) -> None:
        self._shop = shop
        self._journal = journal
        self._last_op = last_op
        self._proxy = Toxiproxy(shop.proxy_url) if shop.proxy_url else None
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
            try:
                await self._proxy.reset()
            except httpx.HTTPError as error:
                raise UserError(f"Toxiproxy does not end its cuts: {error!r}") from None
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
        try:
            await self._proxy.add(cut, name)
            detail = {"toxic": cut.toxic, "stream": cut.stream, "duration_s": cut.duration_s}
            self._journal.write("cut", target, cut.after_op, **detail, **cut.attributes)
            await asyncio.sleep(cut.duration_s)
            await self._proxy.remove(cut.link, name)
            self._journal.write("mend", target, cut.after_op)
        except httpx.HTTPError as error:  # `heal` mends what stays
            self._journal.write("missed", target, cut.after_op, error=repr(error))

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
