"""The leases in force: begun after they were journalled, ended by the wall clock or on demand."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable

from service_kit import logs
from service_kit.problem import Problem

from prove.injector import journal
from prove.injector.effects import Effects, FailedError, subject
from prove.injector.faults import Fault, Lease
from prove.injector.journal import Entry, Journal, Why
from prove.stack.settings import StackSettings

TICK_S = 0.2
RETRY_S = 0.5

_log = logs.get_logger("prove.injector")


class Leases:
    """Of one injector. `recover` first, `run` meanwhile, `close` at the end."""

    def __init__(
        self,
        settings: StackSettings,
        effects: Effects,
        clock_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        path = journal.path(settings.home)
        self._left = journal.in_force(path)
        self._journal = Journal(path)
        self._effects = effects
        self._clock_ms = clock_ms
        self._active: dict[str, Entry] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self.recovered = False

    async def recover(self) -> None:
        """Take back what an earlier injector left; tried until it is done."""
        await asyncio.gather(*map(self._recover, self._left))
        self.recovered = True

    def items(self) -> list[Lease]:
        """All that is in force, also what could not be taken back in time yet; by name."""
        return [self._active[name].lease for name in sorted(self._active)]

    async def put(self, name: str, fault: Fault) -> Lease:
        """Begin a fault, in place of one of that name.

        Raises:
            Problem: 422 when this stack can't have it, 409 when another lease has what it is about,
                503 when it could not be brought about; nothing is left of it then.
        """
        if not self.recovered:
            raise Problem(503, "unavailable", "Faults of an earlier injector are being taken back.")
        self._effects.check(fault)
        async with self._locks[name]:
            self._claim(name, fault)
            if name in self._active:
                await self._end(name, "replaced")
                self._claim(name, fault)  # somebody else may have been quicker
            now = int(self._clock_ms())
            lease = Lease(
                name=name,
                fault=fault,
                created_at_unix_ms=now,
                expires_at_unix_ms=now + fault.ttl_s * 1000,
            )
            entry = Entry(lease, self._effects.note(fault))
            self._active[name] = entry
            try:
                self._journal.begin(entry)
                await self._effects.begin(entry)
            except (FailedError, OSError) as error:
                await self._end(name, "failed")
                raise Problem(
                    503, "unavailable", f"The fault did not come about: {error}."
                ) from None
        self._changed.set()
        _log.warning("fault injected", fault=name, type=fault.type, ttl_s=fault.ttl_s)
        return lease

    async def delete(self, name: str) -> None:
        """End a fault; nothing happens when there is none.

        Raises:
            Problem: 503 when it could not be taken back; that is tried again until it is.
        """
        async with self._locks[name]:
            await self._end(name, "asked")

    async def run(self) -> None:
        """End what is over, for ever."""
        while True:
            if not self._active:
                self._changed.clear()
                await self._changed.wait()
            now = self._clock_ms()
            for name, entry in self._active.items():
                if name in self._at_work or self._locks[name].locked():
                    continue
                if now >= entry.lease.expires_at_unix_ms:
                    work = self._end_in_time(name, entry)
                elif self._effects.is_kept(entry.lease.fault):
                    work = self._keep(name, entry)
                else:
                    continue
                self._at_work[name] = asyncio.create_task(work)
            await asyncio.sleep(TICK_S)

    async def close(self) -> None:
        """End everything."""
        for name in list(self._active):
            async with self._locks[name]:
                try:
                    await self._end(name, "stop")
                except Problem:  # told already; `provectl down` takes back what can be
                    continue
        await self._effects.close()

    def _claim(self, name: str, fault: Fault) -> None:
        wanted = subject(fault)
        for other, entry in self._active.items():
            if wanted is not None and other != name and subject(entry.lease.fault) == wanted:
                detail = f"The lease {other} has the {wanted} until it ends."
                raise Problem(409, "conflict", detail, fault=other)

    async def _end_in_time(self, name: str, entry: Entry) -> None:
        try:
            async with self._locks[name]:
                if self._active.get(name) is entry:
                    await self._end(name, "time")
        except Problem:
            await asyncio.sleep(RETRY_S)
        finally:
            del self._at_work[name]

    async def _keep(self, name: str, entry: Entry) -> None:
        try:
            async with self._locks[name]:
                if self._active.get(name) is entry:
                    await self._effects.keep(entry.lease.fault)
        finally:
            del self._at_work[name]

    async def _end(self, name: str, why: Why) -> None:
        entry = self._active.get(name)
        if entry is None:
            return
        try:
            await self._effects.end(entry)
            self._journal.end(name, why)
        except (FailedError, OSError) as error:
            _log.error("fault not taken back", fault=name, reason=str(error))
            detail = f"The fault is not taken back yet: {error}."
            raise Problem(503, "unavailable", detail) from None
        del self._active[name]
        _log.warning("fault ended", fault=name, why=why)

    async def _recover(self, entry: Entry) -> None:
        while True:
            try:
                await self._effects.end(entry)
                self._journal.end(entry.lease.name, "restart")
            except (FailedError, OSError) as error:
                _log.error("fault not taken back", fault=entry.lease.name, reason=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                _log.warning("fault ended", fault=entry.lease.name, why="restart")
                return
