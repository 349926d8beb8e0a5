"""Runs incidents: load on, steady state, injection, page, rollback, recovery, books, verdict.

A session is one installation under load; incidents follow one another on it. Whatever happens in a
run, also Ctrl-C, its rollbacks are carried out; should even that fail, each fault ends with its
lease.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from prove.bench.measure import commit
from prove.errors import UserError
from prove.incident import judge, leases, record
from prove.incident.activities import Activities
from prove.incident.catalogue import TOGETHER, Entry
from prove.incident.guard import Guard
from prove.incident.integrity import GRACE_S, Integrity
from prove.incident.judge import LATE_S, Due, Found
from prove.incident.ledger import Customers, Ledger, goods
from prove.incident.record import (
    Action,
    Expectation,
    Incident,
    Load,
    Page,
    Recovery,
    Truths,
    Verdict,
    Window,
    Windows,
)
from prove.incident.schema import Expect, Step
from prove.incident.target import Target
from prove.incident.telemetry import Inbox, Telemetry
from prove.incident.theory import Objectives
from prove.slo.spec import WINDOW
from prove.verify.experiment import alongside

BASELINE_S = 15.0
STEADY_S = 420.0
"""How long the steady state is waited for: after an incident windows have to forget it."""
RECOVERY_S = 120.0
"""How long, beyond what is claimed, recovery is still waited for."""
WORD_S = 30.0
"""Between two words of why there is no steady state yet."""
DRAIN_S = 90.0
LOOK_AGAIN_S = 30.0
"""Books that differ are compared again for so long, also where draining took all its time."""
SETTLE_S = 30.0
POLL_S = 0.25
CHECK_S = 1.0
ROLLBACK_TRIES = 3
EXPORT_S = 2.5
"""Until what happened is in Prometheus: export, scrape, evaluation."""
IMPORT_TIMEOUT_S = 120.0
NOT_POSSIBLE = 422

T = TypeVar("T")


class Watch(Protocol):
    """Is told how far a run is."""

    def run(self, number: int, of: int, name: str) -> None:
        """Which incident begins now."""

    def phase(self, text: str, lasts_s: float) -> None:
        """What begins now, and for about how long."""

    def count(self, sent: int, bad: int, pages: int) -> None:
        """Of the run so far: requests, those that got nothing, pages."""

    def told(self, text: str) -> None:
        """Something happened."""


Export = Callable[[Target, Incident, Path], None]
"""Is called with a finished run before the next, to keep more of it than the record."""


@dataclass
class Session:
    """Incidents on one installation, whose records go below `records`.

    `abort_on`: the share of an SLO's error budget that an incident may spend at the most.
    """

    target: Target
    objectives: Objectives
    records: Path
    seed: int
    abort_on: float
    watch: Watch
    export: Export | None = None
    load: float = 1.0
    """Times as many customers as the scenarios have."""

    async def run(self, runs: Sequence[Sequence[Entry]]) -> list[Incident]:
        """All of them, one after another; raises UserError when there is no shop to run them on."""
        self.commit = commit()
        self.telemetry = Telemetry(self.target, self.objectives)
        self.inbox = Inbox(self.target)
        self.guard = Guard(self.abort_on, self.objectives, self.telemetry)
        self.activities = Activities(self.target.configuration, self.target.token)
        wares = goods()
        await asyncio.to_thread(self._fill, [ware.item() for ware in wares])
        self.integrity = await asyncio.to_thread(Integrity, self.target)
        self.customers = Customers(self.target.urls, wares, self.seed)
        found: list[Incident] = []
        loading = asyncio.create_task(self.customers.run())
        try:
            await alongside(self._runs(runs, found), loading)
        finally:
            loading.cancel()
            await asyncio.wait([loading])
        return found

    async def _runs(self, runs: Sequence[Sequence[Entry]], found: list[Incident]) -> None:
        for number, entries in enumerate(runs, start=1):
            name = TOGETHER.join(entry.name for entry in entries)
            self.watch.run(number, len(runs), name)
            found.append(await _Run(self, entries, name).carry_out())

    def _fill(self, items: Sequence[dict[str, Any]]) -> None:
        url = f"{self.target.urls['product']}/api/v1/products/import"
        headers = {"Authorization": f"Bearer {self.target.token}"}
        try:
            httpx.post(
                url,
                json={"items": items},
                headers=headers,
                timeout=IMPORT_TIMEOUT_S,
                trust_env=False,
            ).raise_for_status()
        except httpx.HTTPError as error:
            raise UserError(f"the goods of the drill could not be imported: {error}") from None


class _Run:
    """One incident, of one scenario or of several at once."""

    def __init__(self, session: Session, entries: Sequence[Entry], name: str) -> None:
        self._session, self._entries = session, entries
        self._watch, self._target = session.watch, session.target
        self._expected: list[Expect] = [entry.prove.expect for entry in entries]
        self._dues = judge.due(
            [page for expect in self._expected for page in expect.pages], session.objectives
        )
        self._directory, started_us = self._directory_of(name)
        self._ledger = Ledger(self._directory / record.LEDGER)
        self._actions: list[Action] = []
        self._baseline_s: float | None = None
        self._injected_s: float | None = None
        self._rolled_back_s: float | None = None
        self._doing: asyncio.Task[Action] | None = None
        self._to_undo: list[Step] = []
        self._why = ""
        self._incident = Incident(
            id=self._directory.name,
            scenario=name,
            title=" + ".join(entry.scenario.title for entry in entries),
            description="\n\n".join(entry.scenario.description.strip() for entry in entries),
            seed=session.seed,
            profile=self._target.profile,
            commit=session.commit,
            home=str(self._target.settings.home) if self._target.settings else "",
            urls=dict(self._target.urls),
            started_unix_us=started_us,
            ended_unix_us=started_us,
            load=Load(
                reads_per_s=session.load * max(e.prove.load.reads_per_s for e in entries),
                checkouts_per_s=session.load * max(e.prove.load.checkouts_per_s for e in entries),
            ),
            verdict="running",
        )

    async def carry_out(self) -> Incident:
        """The record, which is on the disk by then; re-raises what interrupted it."""
        session = self._session
        record.write(self._directory / record.INCIDENT, self._incident)
        record.write(
            self._directory / record.TRUTH,
            Truths(id=self._incident.id, scenarios=[entry.truth for entry in self._entries]),
        )
        session.customers.load = self._entries[0].prove.load.model_copy(
            update=self._incident.load.model_dump(include={"reads_per_s", "checkouts_per_s"})
        )
        session.customers.ledger = self._ledger
        counting = asyncio.create_task(self._count())
        try:
            incident = await self._phases()
        except BaseException:
            await self._roll_back()
            self._end("interrupted", "it was stopped from outside; its rollbacks were carried out")
            raise
        finally:
            counting.cancel()
            session.customers.ledger = None
            self._ledger.close()
        if session.export and incident.windows:
            self._watch.phase("keeping the evidence", 5)
            await asyncio.to_thread(session.export, self._target, incident, self._directory)
            incident = await asyncio.to_thread(record.read, self._directory)
        return incident

    async def _phases(self) -> Incident:
        self._baseline_s = await self._steady()
        if self._baseline_s is None:
            return self._end("aborted", self._why)
        why = self._missing()
        if why:
            return self._end("not possible", why)
        injected_s, begun_s = await self._inject()
        stopped = self._why if injected_s is None else await self._wait(injected_s, begun_s)
        rolled_back_s = await self._roll_back()
        if injected_s is None:
            refused = any(action.status == NOT_POSSIBLE for action in self._actions)
            return self._end("not possible" if refused else "aborted", stopped)
        found = Found(injected_s, rolled_back_s, begun_s=begun_s)
        await self._recover(found)
        await self._compare(found)
        await self._collect(found)
        told = judge.detections(self._dues, found)
        judged = judge.expectations(self._expected, told, found)
        self._incident = self._incident.model_copy(
            update={
                "detections": told,
                "recoveries": list(found.recoveries),
                "expectations": judged,
                "figures": judge.figures(told, self._expected, found),
            }
        )
        if stopped:
            return self._end("aborted", stopped)
        return self._end("holds" if all(each.holds for each in judged) else "does not hold", "")

    # -- phases

    async def _steady(self) -> float | None:
        """When healthy traffic alone began, which lasted a while; None: it never did."""
        self._watch.phase("steady state", BASELINE_S)
        deadline = time.monotonic() + STEADY_S
        since: float | None = None
        next_word = time.monotonic() + WORD_S
        last = ""
        while time.monotonic() < deadline:
            if why := await asyncio.to_thread(self._unsteady):
                since, last = None, why
                if time.monotonic() > next_word:
                    next_word = time.monotonic() + WORD_S
                    self._watch.told(f"not yet: {why}")
            elif since is None:
                since = time.time()
            elif time.time() - since >= BASELINE_S:
                return since
            await asyncio.sleep(CHECK_S)
        self._why = f"no steady state within {STEADY_S:g} s: {last}"
        return None

    async def _inject(self) -> tuple[float | None, dict[str, float]]:
        """When the first action was answered, None when one failed; and when each was."""
        self._watch.phase("inject", 1)
        self._to_undo = [
            step for entry in reversed(self._entries) for step in entry.scenario.rollbacks
        ]
        begun_s: dict[str, float] = {}
        steps = [step for entry in self._entries for step in entry.scenario.method]
        last = [entry.scenario.method[-1] for entry in self._entries]
        for step in steps:
            await asyncio.sleep(step.pauses.before)
            self._doing = asyncio.create_task(
                asyncio.to_thread(self._session.activities.do, step, "inject")
            )
            action = await asyncio.shield(self._doing)
            self._note(action)
            if not action.ok:
                self._why = f"{step.name!r} was refused ({action.status}): {action.detail}"
                return None, begun_s
            begun_s[step.name] = action.at_unix_us / 1_000_000
            if self._injected_s is None:
                self._injected_s = begun_s[step.name]
            if step not in last:  # that pause is for `chaos run`, which waits for no page
                await asyncio.sleep(step.pauses.after)
        return self._injected_s, begun_s

    async def _wait(self, injected_s: float, begun_s: dict[str, float]) -> str:
        """Until the pages have come, or the quiet is over; why it had to be aborted, or ''."""
        quiet_s = max((each.quiet.for_s for each in self._expected if each.quiet), default=0.0)
        latest_s = max((due.within_s for due in self._dues), default=0.0)
        hold_s = max(entry.prove.hold_s for entry in self._entries)
        what = ", ".join(due.alert for due in self._dues)
        self._watch.phase(
            f"wait for {what}" if what else "nothing has to page", latest_s or quiet_s
        )
        last_begun_s = max(begun_s.values())
        quiet_until = injected_s + quiet_s
        late_until = last_begun_s + latest_s + LATE_S
        known: set[str] = set()
        next_check = 0.0
        while True:
            await asyncio.sleep(POLL_S)
            pages = await self._pages()
            for page in pages:
                if page.alert not in known and (page.severity, page.status) == ("page", "firing"):
                    known.add(page.alert)
                    at_s = page.received_at_unix_us / 1_000_000 - injected_s
                    self._watch.told(f"{at_s:6.1f} s  page {page.alert}")
            came = [self._came(due, pages, injected_s, begun_s) for due in self._dues]
            over = time.time() >= (quiet_until if all(came) else late_until)
            if over and time.time() >= quiet_until:
                break
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + CHECK_S
                if why := await asyncio.to_thread(self._cost, injected_s):
                    self._watch.told(why)
                    return why
        self._watch.phase("hold", hold_s)
        until = time.time() + hold_s
        while time.time() < until:
            await asyncio.sleep(min(CHECK_S, max(0.0, until - time.time())))
            if why := await asyncio.to_thread(self._cost, injected_s):
                return why
        return ""

    async def _roll_back(self) -> float:
        """Undo the method; when that was done. Interrupted, it goes on with what is left.

        A service that hangs can't be asked to: on this machine its leases are a file.
        """
        if self._doing is not None:  # what is under way would come after its own rollback
            await asyncio.wait([self._doing])
            if (action := self._doing.result()) not in self._actions:
                self._note(action)
                if action.ok and self._injected_s is None:
                    self._injected_s = action.at_unix_us / 1_000_000
        if self._to_undo:
            self._watch.phase("roll back", 1)
        while self._to_undo:
            await asyncio.sleep(self._to_undo[0].pauses.before)
            await self._undo(self._to_undo[0])
            self._to_undo.pop(0)
            self._rolled_back_s = time.time()
        return self._rolled_back_s or time.time()

    async def _undo(self, step: Step) -> None:
        for attempt in range(1, ROLLBACK_TRIES + 1):
            action = await asyncio.to_thread(self._session.activities.do, step, "rollback")
            self._note(action)
            if action.ok:
                return
            if file := await asyncio.to_thread(leases.revoke, self._target, step):
                self._note(_by_file(step, file))
                return
            if attempt < ROLLBACK_TRIES:
                await asyncio.sleep(CHECK_S)

    async def _recover(self, found: Found) -> None:
        """Until all is as it was before; notes when."""
        within_s = max(each.recover_within_s for each in self._expected)
        self._watch.phase("recovery", within_s)
        deadline = found.rolled_back_s + within_s + RECOVERY_S
        good_s: dict[str, float] = {}
        while time.time() < deadline:
            now_s = time.time()
            bad = await asyncio.to_thread(self._bad)
            for slo_id in self._session.objectives.slos:
                if bad is None or slo_id in bad:
                    good_s.pop(slo_id, None)
                else:
                    good_s.setdefault(slo_id, now_s)
            if bad is not None and not bad and not await asyncio.to_thread(self._unsteady):
                found.recovered_s = now_s - found.rolled_back_s
                break
            await asyncio.sleep(CHECK_S)
        found.recoveries = [
            Recovery(
                slo=slo_id,
                recovered_s=round(good_s[slo_id] - found.rolled_back_s, 3)
                if slo_id in good_s
                else None,
            )
            for slo_id in self._session.objectives.slos
        ]
        found.left = await asyncio.to_thread(leases.left, self._target, self._entries)

    async def _compare(self, found: Found) -> None:
        """Until every customer knows and every order is finished; then the books."""
        self._watch.phase("drain and compare the books", DRAIN_S)
        session = self._session
        await session.customers.settle(time.monotonic() + SETTLE_S)
        before_s, deadline = time.time(), time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            if not await asyncio.to_thread(session.integrity.unfinished, before_s):
                break
            await asyncio.sleep(CHECK_S)
        await asyncio.sleep(max(0.0, GRACE_S - (time.time() - found.rolled_back_s)))
        deadline = max(deadline, time.monotonic() + LOOK_AGAIN_S)
        while True:
            found.differences, found.books = await asyncio.to_thread(
                session.integrity.differences, list(self._ledger.entries)
            )
            # A refund, or a release, may be on its way; what is lost stays lost.
            if not found.differences or time.monotonic() > deadline:
                break
            await asyncio.sleep(GRACE_S)
        session.integrity.remember()

    async def _collect(self, found: Found) -> None:
        """What the telemetry knows of it by now; where it isn't there, nothing."""
        session, telemetry = self._session, self._session.telemetry
        since_s = self._incident.started_unix_us / 1_000_000
        injected_s, rolled_back_s = found.injected_s, found.rolled_back_s
        found.pages = await self._pages()
        record.write_lines(self._directory / record.PAGES, found.pages)
        found.pages = [
            page for page in found.pages if page.received_at_unix_us >= injected_s * 1_000_000
        ]
        found.entries = self._ledger.entries
        self._dues = [await asyncio.to_thread(self._with_past, due, found) for due in self._dues]
        changes = await _had(telemetry.changes, since_s, time.time())
        record.write_lines(self._directory / record.ALERTS, changes or [])
        found.spent = await _had(telemetry.spent, injected_s, rolled_back_s + EXPORT_S) or {}
        seconds = round(rolled_back_s + EXPORT_S - injected_s)
        seen = []
        for each in (claim for expect in self._expected for claim in expect.seen):
            query = _windowed(each.query, seconds)
            value = await _had(telemetry.total, query, rolled_back_s + EXPORT_S)
            seen.append((each, value))
        found.seen = seen
        session.watch.count(self._ledger.sent, self._failed(), len(found.pages))

    # -- questions

    def _unsteady(self) -> str:
        """Why this isn't the steady state; '' when it is."""
        try:
            if paging := self._session.telemetry.paging():
                return f"{', '.join(sorted(paging))} pages"
            if over := self._session.telemetry.over_budget():
                return f"{', '.join(over)} is over its objective or has no data"
        except UserError as error:
            return str(error)
        for entry in self._entries:
            for probe in entry.scenario.hypothesis.probes:
                if why := self._session.activities.met(probe):
                    return f"{probe.name}: {why}"
        return ""

    def _bad(self) -> list[str] | None:
        """SLIs over their objectives; None where nobody can tell."""
        try:
            return self._session.telemetry.over_budget()
        except UserError:
            return None

    def _missing(self) -> str:
        """What the scenarios need and this installation doesn't have; '' when nothing."""
        for entry in self._entries:
            needed = entry.prove.needs_database
            if needed and needed != self._target.database:
                return f"{entry.name} needs databases in {needed}; here they are in SQLite"
            if entry.prove.needs_mesh and not self._target.mesh:
                return f"{entry.name} needs the mesh (`provectl up --drill --mesh`)"
            for name in entry.scenario.configuration:
                if name.removesuffix("_url") not in self._target.urls:
                    return f"{entry.name} needs {name}, which this installation doesn't have"
        return ""

    def _cost(self, injected_s: float) -> str:
        return self._session.guard.crossed(injected_s, list(self._ledger.entries))

    def _with_past(self, due: Due, found: Found) -> Due:
        """With what the windows held when it began, and the events since; unknown, as it is."""
        telemetry, objectives, slo_id = (
            self._session.telemetry, self._session.objectives, due.page.slo
        )  # fmt: skip
        since_s = found.begun_s.get(due.page.since or "", found.injected_s)
        bad = 1.0 if due.page.bad is None else due.page.bad
        try:
            past = telemetry.past(slo_id, since_s)
            events = telemetry.events(slo_id, since_s, found.rolled_back_s)
        except UserError:
            return due
        earliest_s = objectives.earliest_s(slo_id, bad, past, events) if past else None
        if earliest_s is None:
            return due
        return replace(due, earliest_s=earliest_s, not_before_s=objectives.not_before_s(earliest_s))

    def _came(
        self, due: Due, pages: Sequence[Page], injected_s: float, begun_s: dict[str, float]
    ) -> bool:
        since_s = begun_s.get(due.page.since or "", injected_s)
        return judge.first_page(pages, due.page.slo, since_s) is not None

    async def _pages(self) -> list[Page]:
        return await _had(self._session.inbox.since, self._incident.started_unix_us) or []

    # -- the record

    def _directory_of(self, name: str) -> tuple[Path, int]:
        """A new directory, and when this run began; raises UserError."""
        started_us = time.time_ns() // 1000
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started_us / 1_000_000))
        directory = self._session.records / f"{stamp}-{name}"
        try:
            directory.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"{directory} cannot be made: {error.strerror}") from None
        return directory, started_us

    def _note(self, action: Action) -> None:
        self._actions.append(action)
        since = action.at_unix_us / 1_000_000 - (self._injected_s or action.at_unix_us / 1_000_000)
        failed = "" if action.ok else f": {action.status or 'no answer'} {action.detail}"
        self._watch.told(f"{since:6.1f} s  {action.phase}: {action.name}{failed}")

    def _failed(self) -> int:
        return sum(entry.outcome in ("failed", "no-answer") for entry in self._ledger.entries)

    def _end(self, verdict: Verdict, why: str) -> Incident:
        if verdict in record.UNFINISHED:
            what = {"aborted": "the run", "not possible": "the fault"}.get(verdict, "the run")
            failed = Expectation(what=what, expected="carried out", found=why, holds=False)
            judged = [*self._incident.expectations, failed]
        else:
            judged = self._incident.expectations
        windows = None
        if self._baseline_s and self._injected_s:
            windows = Windows(
                baseline=Window(start_unix_s=self._baseline_s, end_unix_s=self._injected_s),
                incident=Window(start_unix_s=self._injected_s, end_unix_s=time.time()),
            )
        load = self._incident.load.model_copy(
            update={"sent": self._ledger.sent, "late": self._ledger.late}
        )
        self._incident = self._incident.model_copy(
            update={
                "ended_unix_us": time.time_ns() // 1000,
                "injected_unix_us": _us(self._injected_s),
                "rolled_back_unix_us": _us(self._rolled_back_s),
                "windows": windows,
                "load": load,
                "actions": self._actions,
                "expectations": judged,
                "verdict": verdict,
                "why": why,
            }
        )
        record.write(self._directory / record.INCIDENT, self._incident)
        return self._incident

    async def _count(self) -> None:
        while True:
            self._watch.count(self._ledger.sent, self._failed(), 0)
            await asyncio.sleep(CHECK_S)


async def _had(ask: Callable[..., T], *arguments: Any) -> T | None:
    """The answer of a server that may be down just now: then None."""
    try:
        return await asyncio.to_thread(ask, *arguments)
    except UserError:
        return None


def _windowed(query: str, seconds: int) -> str:
    return WINDOW.sub(f"{max(2, seconds)}s", query)


def _by_file(step: Step, file: Path) -> Action:
    """What was done in place of a rollback that its service did not answer."""
    return Action(
        at_unix_us=time.time_ns() // 1000,
        phase="rollback",
        name=f"{step.name}, by its file",
        method="EDIT",
        url=file.as_uri(),
        status=None,
        ok=True,
        detail="the lease was taken out of the file, which the service reads without being asked",
    )


def _us(at_s: float | None) -> int | None:
    return None if at_s is None else round(at_s * 1_000_000)
