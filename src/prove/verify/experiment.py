"""The run that proves: a shop under load and faults, then healed, drained and checked.

A run has one or more rounds, each a stretch of the same plan upon the same databases. With several,
what a round left is kept with a copy of the databases, and a run that is begun again in its home
goes on after the last round that was finished.
"""

import asyncio
import math
import shutil
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
from pydantic import BaseModel, ValidationError

from prove.errors import UserError
from prove.verify import audit, books, checker, conduct, figures, history, nemesis, shop
from prove.verify.books import Books, Sources
from prove.verify.checker import Violation
from prove.verify.clients import Clients
from prove.verify.figures import Figures
from prove.verify.history import Event, HistoryWriter
from prove.verify.nemesis import Journal, Nemesis
from prove.verify.plan import Fault, Plan, Purchase
from prove.verify.shop import Setup, Shop

PROGRESS = "progress.json"
DRAIN_S = 120.0
"""After the heal: an order that isn't finished when none was for so long is stuck."""
WATCH_S = 0.2
UNFINISHED = "SELECT count(*) FROM orders WHERE step <> ''"


class Watch(Protocol):
    """Is told how far a run is."""

    def phase(self, text: str) -> None:
        """What begins now."""

    def count(self, sent: int, kills: int, open_: int) -> None:
        """Of the run so far: purchases sent, kills that happened, purchases that are open."""


class Silent:
    """Tells nobody."""

    def phase(self, text: str) -> None:
        """Nothing."""

    def count(self, sent: int, kills: int, open_: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Result:
    """What a run of `commit` found. `story` is of the first violation, '' when there is none.

    `recovery_limit_s`: what the 99th percentile of the recovery is held to; None: to nothing.
    """

    plan: Plan
    figures: Figures
    violations: list[Violation]
    story: str
    commit: str = ""
    recovery_limit_s: float | None = None

    @property
    def recovered(self) -> bool:
        """Whether the recovery was as fast as it has to be."""
        limit_s = self.recovery_limit_s
        return limit_s is None or self.figures.recovery.p99_s <= limit_s

    @property
    def holds(self) -> bool:
        """Whether every promise was kept, in time."""
        return not self.violations and self.recovered


class _Done(BaseModel):
    """What a home was begun with, and how many of its rounds are finished."""

    fingerprint: str
    commit: str
    rounds: int = 0
    late: int = 0
    violated: bool = False


@dataclass
class Experiment:
    """A plan and the shop it is carried out upon.

    `round_orders`: purchases in a round; None: all in one, and nothing to resume. `commit`: of what
    the run is; all rounds are of the same.
    """

    plan: Plan
    setup: Setup
    watch: Watch
    round_orders: int | None = None
    drain_s: float = DRAIN_S
    commit: str = ""

    def run(self) -> Result:
        """All rounds that aren't done yet, until one finds a violation.

        Raises UserError when the shop does not start or does not get ready again, or the home was
        begun with another plan or of another commit.
        """
        self.setup.home.mkdir(parents=True, exist_ok=True)
        done = self._resumed()
        (self.setup.home / "plan.json").write_bytes(self.plan.to_json())
        result: Result | None = None
        rounds = list(self._rounds())
        for number, (purchases, faults) in enumerate(rounds, start=1):
            if number <= done.rounds and number < len(rounds):
                continue
            if number <= done.rounds:
                purchases, faults = (), ()  # all is done: look once more at what is kept
            result = self._round(number, purchases, faults, done)
            done.violated = bool(result.violations)
            if self.round_orders and not done.violated:
                done.rounds = number
                self._keep(number)
            self._mark(done)
            if done.violated:
                return result
        if result is None:
            raise UserError("a plan without purchases proves nothing; ask for one order at least")
        return result

    def _rounds(self) -> Iterator[tuple[tuple[Purchase, ...], tuple[Fault, ...]]]:
        size = self.round_orders or max(1, len(self.plan.purchases))
        before = float("-inf")
        for start in range(0, len(self.plan.purchases), size):
            purchases = self.plan.purchases[start : start + size]
            last = purchases[-1].op
            yield purchases, tuple(f for f in self.plan.faults if before < f.after_op <= last)
            before = last

    def _round(
        self,
        number: int,
        purchases: tuple[Purchase, ...],
        faults: tuple[Fault, ...],
        done: _Done,
    ) -> Result:
        self.watch.phase("starting the shop")
        with shop.running(self.setup) as running:
            if purchases:
                if number == 1:
                    running.import_products(self.plan.products)
                try:
                    done.late += asyncio.run(self._load(number, purchases, faults, running))
                except* OSError as errors:
                    first: BaseException = errors
                    while isinstance(first, BaseExceptionGroup):
                        first = first.exceptions[0]
                    raise UserError(f"{self.setup.home} cannot be written: {first}") from None
            self.watch.phase("checking")
            running.stop()  # books that somebody writes meanwhile don't agree with each other
            return self._check(books.read(sources(running)), number, done.late)

    async def _load(
        self,
        number: int,
        purchases: tuple[Purchase, ...],
        faults: tuple[Fault, ...],
        running: Shop,
    ) -> int:
        """Load with faults, heal, drain; returns how many arrivals were late."""
        home = self.setup.home
        with Journal(_journal(home, number)) as journal:
            async with HistoryWriter(_history(home, number)) as written:
                clients = Clients(running.orders_url, purchases, written)
                faulty = Nemesis(running, journal, lambda: clients.last_op)
                watching = asyncio.create_task(self._tell(clients, faulty, purchases, faults))
                buying = asyncio.create_task(clients.run())
                try:
                    self.watch.phase("buying, and breaking")
                    await alongside(faulty.run(faults), buying)
                    await alongside(clients.all_sent.wait(), buying)
                    self.watch.phase("healing")
                    await faulty.heal()
                    self.watch.phase("draining")
                    await self._drain(clients, buying, running)
                finally:
                    watching.cancel()
                    buying.cancel()
                    await asyncio.gather(watching, buying, return_exceptions=True)
                return clients.late

    async def _drain(self, clients: Clients, buying: "asyncio.Task[None]", running: Shop) -> None:
        """Until every purchase has its answer and no order is unfinished."""

        async def left() -> tuple[int, int]:
            if buying.done():
                buying.result()
            return clients.open, await asyncio.to_thread(unfinished, running)

        if await drained(left, round(self.drain_s / WATCH_S)):
            await buying

    async def _tell(
        self,
        clients: Clients,
        faulty: Nemesis,
        purchases: tuple[Purchase, ...],
        faults: tuple[Fault, ...],
    ) -> None:
        sent_before = purchases[0].op - self.plan.purchases[0].op
        first_op = purchases[0].op
        killed_before = sum(f.kind != "cut" and f.after_op < first_op for f in self.plan.faults)
        while True:
            self.watch.count(sent_before + clients.sent, killed_before + faulty.kills, clients.open)
            await asyncio.sleep(WATCH_S)

    def _check(self, found: Books, rounds: int, late: int) -> Result:
        home = self.setup.home
        parts = [history.read(_history(home, number)) for number in range(1, rounds + 1)]
        acts = [
            act for number in range(1, rounds + 1) for act in nemesis.read(_journal(home, number))
        ]
        events: list[Event] = [event for part in parts for event in part]
        due = list(self._rounds())[:rounds]
        purchases = [purchase for part, _ in due for purchase in part]
        faults = [fault for _, part in due for fault in part]
        violations = sorted(
            checker.check(found, self.plan.products, events)
            + conduct.check(self.plan, purchases, faults, events, acts),
            key=lambda violation: audit.gravity(violation.kind),
        )
        return Result(
            plan=self.plan,
            figures=figures.measure(found, parts, acts, late),
            violations=violations,
            story=checker.story(violations[0], found, events) if violations else "",
            commit=self.commit,
        )

    def _resumed(self) -> _Done:
        """What was done in this home before; what an interrupted round left of itself is undone."""
        mark = self.setup.home / PROGRESS
        done = _Done(fingerprint=self._fingerprint(), commit=self.commit)
        try:
            done = _Done.model_validate_json(mark.read_bytes())
        except FileNotFoundError:
            if any(mark.parent.iterdir()):  # going on would remove its data
                raise UserError(
                    f"{mark.parent} is not empty and holds no run to resume; name another directory"
                ) from None
        except (OSError, ValidationError):
            raise UserError(f"{mark} cannot be read; remove {mark.parent} to begin again") from None
        if done.fingerprint != self._fingerprint():
            raise UserError(
                f"{mark.parent} holds a run with other options; resume it with the same ones, or "
                "name another directory"
            )
        if done.commit != self.commit:
            raise UserError(
                f"{mark.parent} holds a run of commit {done.commit}, and this is {self.commit}: a "
                "proof is of one commit; check that one out, or name another directory"
            )
        if done.violated:
            raise UserError(
                f"the run in {mark.parent} found a violation, which going on would wipe out; name "
                "another directory"
            )
        if self.setup.data_dir.exists():
            shutil.rmtree(self.setup.data_dir)
        if done.rounds:
            _copy(_snapshot(self.setup.home, done.rounds), self.setup.data_dir)
        for path in (_history, _journal):
            path(self.setup.home, done.rounds + 1).unlink(missing_ok=True)
        self._mark(done)
        return done

    def _keep(self, number: int) -> None:
        """Copy the databases to go on from."""
        self.watch.phase("keeping")
        part = self.setup.home / "snapshot.part"
        shutil.rmtree(part, ignore_errors=True)
        _copy(self.setup.data_dir, part)
        kept = _snapshot(self.setup.home, number)
        shutil.rmtree(kept, ignore_errors=True)
        part.rename(kept)

    def _mark(self, done: _Done) -> None:
        """Say how far the run is; a copy that is older is of no use any more."""
        mark = self.setup.home / PROGRESS
        written = mark.with_suffix(".part")
        written.write_text(done.model_dump_json())
        written.replace(mark)
        shutil.rmtree(_snapshot(self.setup.home, done.rounds - 1), ignore_errors=True)

    def _fingerprint(self) -> str:
        plan = self.plan
        return (
            f"{len(plan.purchases)} orders, {len(plan.faults)} faults, seed {plan.seed}, "
            f"{plan.rate_per_s:g}/s, {self.setup.database}, rounds of {self.round_orders}"
        )


async def drained(left: Callable[[], Awaitable[tuple[int, int]]], patience: int) -> bool:
    """Wait until no purchase and no order is left; False when `patience` looks saw no fewer.

    Fewer than ever: of purchases, which only ever end, or of orders while as many purchases are
    left, for a purchase that is tried again may make one order after the other. Looks and not
    seconds are counted, so a machine that is busy, or stands still, may take its time, and what is
    stuck is given up all the same.
    """
    least, idle = (math.inf, math.inf), 0
    while any(now := await left()):
        least, idle = (now, 0) if now < least else (least, idle + 1)
        if idle > patience:
            return False
        await asyncio.sleep(WATCH_S)
    return True


def unfinished(running: Shop) -> int:
    """How many orders aren't finished; reads only. Raises UserError."""
    url = running.databases["order"]
    try:
        if url.startswith("sqlite:///"):
            uri = f"{Path(url.removeprefix('sqlite:///')).as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                return int(connection.execute(UNFINISHED).fetchone()[0])
        with psycopg.connect(url) as server:
            (count,) = server.execute(UNFINISHED).fetchone() or (0,)
            return int(count)
    except (sqlite3.Error, psycopg.Error) as error:
        raise UserError(f"the order database cannot be read: {error}") from None


async def alongside(wanted: Coroutine[Any, Any, object], other: "asyncio.Task[None]") -> None:
    """Wait for `wanted`; should `other` fail meanwhile, fail with it.

    Either way `wanted` is over then, and has put right what it does at its end.
    """
    task = asyncio.create_task(wanted)
    try:
        await asyncio.wait([task, other], return_when=asyncio.FIRST_COMPLETED)
        if other.done() and not task.done():
            other.result()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


def sources(running: Shop) -> Sources:
    """Where its books are."""
    urls = running.databases
    return Sources(urls["order"], urls["payment"], urls["product"], urls["acquirer"])


def _history(home: Path, number: int) -> Path:
    return home / f"history-{number:03}.jsonl"


def _journal(home: Path, number: int) -> Path:
    return home / f"faults-{number:03}.jsonl"


def _snapshot(home: Path, number: int) -> Path:
    return home / f"snapshot-{number:03}"


def _copy(source: Path, target: Path) -> None:
    """With owners and modes, which PostgreSQL insists on. Raises UserError."""
    copied = subprocess.run(["cp", "-Rp", source, target], capture_output=True, text=True)
    if copied.returncode:
        raise UserError(f"{source} cannot be copied: {copied.stderr.strip()}")
