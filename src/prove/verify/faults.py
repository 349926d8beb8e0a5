"""The run of `verify faults`: leases of all types, and the injector killed again and again.

Every fault must be gone `GRACE_S` after its time at the latest, whoever was killed meanwhile. First
each is set with nobody killed, so that it is known that it can be seen at all. Whatever happens,
there is a verdict: what does not recover is a violation, and ends the run.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp
from pydantic import BaseModel

from prove.clients.faults import INJECTOR, PLACES, Faults
from prove.clients.shop import Shop
from prove.errors import UserError
from prove.injector import journal
from prove.stack import lifecycle, processes, state
from prove.stack.settings import StackSettings, on_free_ports
from prove.verify.faultcases import (
    CATEGORY,
    DESCRIPTION,
    PATHS,
    PRICE_MINOR,
    PRODUCTS,
    SKU,
    Case,
    World,
    catalogue,
    lease_name,
)
from prove.verify.shop import supervised

GRACE_S = 10.0
"""How long after its time a fault may still be seen."""
DISK_MB = 32
STOCK = 1_000_000
ALONE_TTL_S = (3, 6, 12)
"""With nobody killed: again and for longer, where a slow machine did not see it in time."""
TTL_S = (1, 4)
BOTH_SHARE = 0.3
"""Of turns in which two faults are set at once."""
CLIENTS_SHARE = 0.1
"""Of turns whose faults are set by a client that is killed at any moment of so many seconds."""
CLIENT_LIVES_S = 1.5
LIVES_S = 2.0
"""So long the injector lives at the most once it is ready."""
EARLY_SHARE, EARLY_S = 0.2, 0.5
"""Of kills that meet it on its way up, when it takes back what was left."""
PASSING = (409, 503)
"""Another fault has what this one is about; what it is about is just being started."""
PAUSE_S = 2.0
ALONE_PAUSE_S = 30.0
"""Between two turns of what has to be alone: all others wait for it."""
LOOK_S = 0.15
WATCH_S = 0.5
POLL_S = 0.02
PUT_S = 10.0
READY_S = 180.0

Kind = Literal["stayed", "unseen", "left", "not-recovered"]
Database = Literal["sqlite", "postgres"]


class Watch(Protocol):
    """Is told how far a run is."""

    def phase(self, text: str, total: int) -> None:
        """What begins now, and how many of it there are."""

    def count(self, done: int, sets: int) -> None:
        """How many are done, and how many faults were set so far."""


class NotRecoveredError(Exception):
    """Something is not as it was, long after the fault's time; the message says what."""


class Violation(BaseModel):
    """A fault that stayed, or whose effect was never seen; or what was left in the end."""

    kind: Kind
    subject: str
    expected: str
    found: str


class Tally(BaseModel):
    """Of one case.

    `unknown`: nobody knows whether it was set, for the injector or the client was killed meanwhile.
    `seen`: turns in which its effect was. `late_s`: how long after its time at the most.
    """

    set: int = 0
    unknown: int = 0
    seen: int = 0
    late_s: float = 0.0


class Result(BaseModel):
    """What a run brought.

    `kills` of the injector, those `early` on its way up among them, and of `clients`. `refused`:
    faults that were not set, since another had what they are about. `late_s`: from the end of each
    one's time until it was gone; `ready_s`: from then until what was killed had started again.
    """

    seed: int
    database: Database = "sqlite"
    kills: int = 0
    early: int = 0
    clients: int = 0
    refused: int = 0
    left: int = 0
    cases: dict[str, Tally] = {}
    late_s: list[float] = []
    ready_s: list[float] = []
    seconds: float = 0.0
    violations: list[Violation] = []

    @property
    def sets(self) -> int:
        """Faults that were set, or may have been."""
        return sum(each.set + each.unknown for each in self.cases.values())

    def violated(self, kind: Kind, subject: str, expected: str, found: str) -> None:
        """Note one more."""
        self.violations.append(
            Violation(kind=kind, subject=subject, expected=expected, found=found)
        )


@dataclass(frozen=True)
class Siege:
    """A drill stack in `home`, whose injector is killed `kills` times.

    `only`: of the faults those whose name has this in it.
    """

    home: Path
    kills: int
    seed: int
    watch: Watch
    database: Database = "sqlite"
    only: str = ""

    def run(self) -> Result:
        """All of it; raises UserError when the stack does not start."""
        result = Result(seed=self.seed, database=self.database)
        began = time.monotonic()
        with self._stack() as settings:
            try:
                asyncio.run(self._besiege(settings, result))
            except NotRecoveredError as error:
                logs = settings.logs_dir
                expected = f"recovered within {READY_S:g} s"
                result.violated("not-recovered", str(error), expected, f"it was not; see {logs}")
        result.seconds = round(time.monotonic() - began, 1)
        return result

    @contextmanager
    def _stack(self) -> Iterator[StackSettings]:
        self.watch.phase("starting the stack", 1)
        settings = on_free_ports(self.home / "stack").model_copy(
            update={
                "profile": "drill",
                "database": self.database,
                "disk_mb": DISK_MB if self.database == "sqlite" else 0,
            }
        )
        binaries = processes.ensure_binaries()
        with lifecycle.lock(settings) as held:
            processes.prepare(settings, binaries)
            with supervised(settings, processes.specs(settings, binaries), held):
                yield settings

    async def _besiege(self, settings: StackSettings, result: Result) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, trust_env=False) as http:
            await asyncio.to_thread(Shop(settings).import_products, _products())
            world = World(settings, http)
            targets: dict[str, list[Case]] = {}
            for case in self._cases(settings):
                result.cases[case.name] = Tally()
                targets.setdefault(case.target, []).append(case)
            order = Order()
            turns = [
                _Turns(world, cases, random.Random(f"{self.seed} {target}"), result, order)  # noqa: S311
                for target, cases in targets.items()
            ]
            self.watch.phase("each fault once, nobody killed", len(result.cases))
            await self._watched(
                asyncio.gather(*(turn.each_once() for turn in turns)),
                lambda: sum(each.set > 0 for each in result.cases.values()),
                result,
            )
            for name, tally in result.cases.items():
                if not tally.seen:
                    result.violated("unseen", name, "its effect", "none")
            self.watch.phase("killing the injector", self.kills)
            killing = asyncio.ensure_future(self._kill(settings, result))
            await self._watched(
                asyncio.gather(killing, *(turn.until(killing) for turn in turns)),
                lambda: result.kills,
                result,
            )
            await _look_around(settings, result)

    def _cases(self, settings: StackSettings) -> list[Case]:
        cases = [case for case in catalogue(settings) if self.only in case.name]
        if not cases:
            names = ", ".join(case.name for case in catalogue(settings))
            raise UserError(f"no fault has {self.only!r} in its name; there are {names}")
        return cases

    async def _watched(
        self, work: "asyncio.Future[Any]", done: Callable[[], int], result: Result
    ) -> None:
        try:
            while not work.done():
                await asyncio.wait([work], timeout=WATCH_S)
                self.watch.count(done(), result.sets)
            await work
        finally:
            work.cancel()

    async def _kill(self, settings: StackSettings, result: Result) -> None:
        draw = random.Random(f"{self.seed} kills")  # noqa: S311 - an experiment, not a secret
        last: int | None = None
        while result.kills < self.kills:
            early = draw.random() < EARLY_SHARE
            pid = await _injector(settings, other_than=last, ready=not early)
            await asyncio.sleep(draw.random() * (EARLY_S if early else LIVES_S))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            last = pid
            result.kills += 1
            result.early += early


class Order:
    """Who breaks something that all others need is alone meanwhile."""

    def __init__(self) -> None:
        self._at_work, self._waiting = 0, 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, *, alone: bool) -> AsyncIterator[None]:
        """Whoever wants to be alone comes before those who don't mind."""
        async with self._changed:
            self._waiting += alone
            try:
                await self._changed.wait_for(
                    lambda: not self._at_work if alone else not self._waiting
                )
            except BaseException:
                self._waiting -= alone
                self._changed.notify_all()
                raise
            self._at_work += 1
        try:
            yield
        finally:
            async with self._changed:
                self._at_work -= 1
                self._waiting -= alone
                self._changed.notify_all()


class _Turns:
    """The cases of one target: set, looked at, waited for, again and again."""

    def __init__(
        self,
        world: World,
        cases: Sequence[Case],
        draw: random.Random,
        result: Result,
        order: Order,
    ) -> None:
        self._world, self._cases, self._draw, self._result = world, cases, draw, result
        self._order, self._alone = order, any(case.alone for case in cases)
        token = world.settings.admin_token_file.read_text().strip()
        self._headers = {"Authorization": f"Bearer {token}"}

    async def each_once(self) -> None:
        for case in self._cases:
            for ttl_s in ALONE_TTL_S:
                if not self._result.cases[case.name].seen:
                    await self._alone_once(case, ttl_s)

    async def _alone_once(self, case: Case, ttl_s: int) -> None:
        until = time.monotonic() + READY_S
        # What the fault before was about may still be on its way back.
        while True:
            async with self._order.turn(alone=self._alone):
                done = await self._turn([case], ttl_s, client=False)
            if done:
                return
            self._give_up_after(until, [case])
            await asyncio.sleep(LOOK_S)

    async def until(self, killing: "asyncio.Future[None]") -> None:
        while not killing.done():
            cases = [self._draw.choice(self._cases)]
            other = self._draw.choice(self._cases)
            if self._draw.random() < BOTH_SHARE and other is not cases[0]:
                cases.append(other)
            client = self._draw.random() < CLIENTS_SHARE
            ttl_s = self._draw.randint(*TTL_S)
            async with self._order.turn(alone=self._alone):
                await self._turn(cases, ttl_s, client=client)
            pause_s = self._draw.random() * (ALONE_PAUSE_S if self._alone else PAUSE_S)
            await asyncio.wait([killing], timeout=pause_s)

    async def _turn(self, cases: Sequence[Case], ttl_s: int, *, client: bool) -> bool:
        """Set them, and wait until nothing is to be seen of them; that is due in time.

        False: none of them could be set.
        """
        for case in cases:
            self._world.remembered.pop(case.name, None)
            await case.look(self._world, case)  # for those that compare
        put = self._put_by_client if client else self._put
        there = [case for case in cases if await put(case, ttl_s)]
        over = time.monotonic() + ttl_s
        if not there:
            return False
        crowd = [
            asyncio.create_task(self._world.ask("GET", self._world.url(case.target) + path))
            for case in there
            for path in [PATHS.get(case.target, "/")] * case.crowd
        ]
        gone = await self._gone(there, over)
        await asyncio.gather(*crowd)
        late_s = round(max(0.0, gone - over), 3)
        self._result.late_s.append(late_s)
        for case in there:
            tally = self._result.cases[case.name]
            tally.late_s = max(tally.late_s, late_s)
        await self._ready(there, gone)
        return True

    async def _gone(self, cases: Sequence[Case], over: float) -> float:
        """Since when nothing is to be seen any more, or the process is being started again."""
        steady_s = max(case.steady_s for case in cases)
        seen: set[str] = set()
        told = False
        fine: float | None = None
        while True:
            began = time.monotonic()
            there = await self._there(cases)
            if began < over:
                seen |= {case.name for case in there}
            if not [case for case in there if not self._world.is_starting(case)]:
                fine = began if fine is None else fine
            else:
                fine = None
            now = time.monotonic()
            if fine is not None and now >= over and now - fine >= steady_s:
                break
            if not told and fine is None and now > over + GRACE_S:
                told = True
                names = " and ".join(case.name for case in there)
                expected = f"gone {GRACE_S:g} s after its time"
                self._result.violated("stayed", names, expected, "it was still to be seen")
            self._give_up_after(over + GRACE_S + READY_S, cases)
            await asyncio.sleep(LOOK_S)
        for name in seen:
            self._result.cases[name].seen += 1
        return fine

    async def _ready(self, cases: Sequence[Case], gone: float) -> None:
        """Until what was killed has started."""
        until = time.monotonic() + READY_S
        while await self._there(cases):
            self._give_up_after(until, cases)
            await asyncio.sleep(LOOK_S)
        self._result.ready_s.append(round(max(0.0, time.monotonic() - gone), 3))

    async def _there(self, cases: Sequence[Case]) -> list[Case]:
        """Those whose effect is to be seen now."""
        looks = await asyncio.gather(*(case.look(self._world, case) for case in cases))
        return [case for case, there in zip(cases, looks, strict=True) if there]

    @staticmethod
    def _give_up_after(until: float, cases: Sequence[Case]) -> None:
        if time.monotonic() > until:
            raise NotRecoveredError(" and ".join(case.name for case in cases))

    async def _put(self, case: Case, ttl_s: int) -> bool:
        """Whether the fault may be there now."""
        if case.place == INJECTOR:
            await _injector(self._world.settings, other_than=None, ready=True)
        status, _, _ = await self._world.ask(
            "PUT",
            f"{self._world.url(case.place)}/faults/{lease_name(case)}",
            patience_s=PUT_S,
            json=case.body(ttl_s),
            headers=self._headers,
        )
        tally = self._result.cases[case.name]
        tally.set += status == 200
        tally.unknown += status == 0
        self._result.refused += status not in (0, 200)
        if status not in (0, 200, *PASSING):
            raise UserError(f"{case.name} was answered {status}; the log of {case.place} says why")
        return status in (0, 200)

    async def _put_by_client(self, case: Case, ttl_s: int) -> bool:
        """The same by a `provectl` that is killed at any moment."""
        options = [f"--match={key}={value}" for key, value in (case.match or {}).items()]
        params = [f"{key}={json.dumps(value)}" for key, value in case.params.items()]
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "prove", "fault", "set", lease_name(case), *params),
            *(f"--service={case.place}", f"--type={case.type}", f"--for={ttl_s}s", *options),
            env={**os.environ, **self._world.settings.environment()},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(self._draw.random() * CLIENT_LIVES_S):
                done = await client.wait() == 0
        except TimeoutError:
            client.kill()
            await client.wait()
            done = False
            self._result.clients += 1
        tally = self._result.cases[case.name]
        tally.set += done
        tally.unknown += not done
        return True


async def _injector(settings: StackSettings, *, other_than: int | None, ready: bool) -> int:
    """The pid of one that runs; raises NotRecoveredError when there is none in time."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        current = state.load(settings.home)
        known = current.processes[INJECTOR] if current else None
        wanted = ("ready",) if ready else ("ready", "starting")
        if known and known.id and known.phase in wanted and known.id.pid != other_than:
            return known.id.pid
        await asyncio.sleep(POLL_S)
    raise NotRecoveredError("the injector itself")


async def _look_around(settings: StackSettings, result: Result) -> None:
    """Nothing may be left; what a killed client asked for may have come about a moment ago."""
    await _injector(settings, other_than=None, ready=True)
    until = time.monotonic() + TTL_S[1] + GRACE_S
    while True:
        left = await asyncio.to_thread(_left, settings)
        if not left or time.monotonic() > until:
            break
        await asyncio.sleep(LOOK_S)
    result.left = len(left)
    for each in left:
        result.violated("left", each, "nothing, when all was over", "it was still there")


def _left(settings: StackSettings) -> list[str]:
    """In lists and journal, and of what the supervisor is to hold back."""
    left = [
        f"{entry.lease.name} in the journal"
        for entry in journal.in_force(journal.path(settings.home))
    ]
    for place in PLACES:
        left += [
            f"{lease.name} in the list of {place}" for lease in Faults(settings, place).items()
        ]
    left += [f"{file.name} held" for file in state.hold_file(settings.home, "").glob("*")]
    left += [
        f"{process.name} {process.phase}"
        for process in state.require(settings.home).processes.values()
        if process.phase != "ready"
    ]
    return left


def _products() -> list[dict[str, object]]:
    """That which is bought and looked at, and others beside it in the list."""
    skus = [SKU, *(f"{SKU}-{number:02}" for number in range(1, PRODUCTS))]
    return [
        {
            "sku": sku,
            "name": "Sold by verify faults only",
            "description": DESCRIPTION,
            "category": CATEGORY,
            "price_minor": PRICE_MINOR,
            "currency": "GBP",
            "stock": STOCK,
        }
        for sku in skus
    ]
