"""The run of `verify slos`: a drill stack under load, broken cell by cell, and its pager.

The stack is its own, in a home of its own, with the windows of the drill: a sixtieth of the real
ones. Cells that fit are broken at once; such a stage begins with healthy traffic, and what it
brought is kept when it is over, so that a long run can be resumed.
"""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ValidationError
from service_kit.ports import claim

from prove.clients.shop import Shop
from prove.errors import UserError
from prove.slo import rules, spec, windows
from prove.stack import lifecycle, processes
from prove.stack.settings import StackSettings, on_free_ports
from prove.tools import repository_root
from prove.verify import breaking, pager, traffic
from prove.verify.cells import (
    FRESH_S,
    STUCK_S,
    Cell,
    Objectives,
    Outcome,
    Page,
    Stuck,
    Traffic,
    Violation,
    judge,
    stages,
)
from prove.verify.experiment import alongside
from prove.verify.pager import Pager
from prove.verify.shop import supervised
from prove.verify.traffic import Arrivals

PROGRESS = "progress.json"
PRODUCTS = 20
STOCK = 10_000_000
ENV = {
    # About one token alone, which only the stuck order has.
    "acquirer": {"SLOW_MS": str(STUCK_S * 1000)},
    # A delayed request holds a thread: with 8 of them, slow reads would delay checkouts as well.
    "product": {"THREADS": "32"},
}
"""What processes of this stack are told beside their usual environment."""
START_S = 20
"""About as long as the stack takes to start; for the bar alone."""
GRACE_S = 30.0
"""How long after it was due a page, or the end of one, is still waited for."""
WATCH_S = 0.5


class Watch(Protocol):
    """Is told how far a run is."""

    def phase(self, text: str, lasts_s: float) -> None:
        """What begins now, and for about how long."""

    def pages(self, count: int) -> None:
        """How many pages came so far; told twice a second."""


class Stage(BaseModel):
    """What healthy traffic for `quiet_s` seconds and the faults after it brought.

    `late`: arrivals that were not sent when they were due.
    """

    quiet_s: float
    sent: int
    late: int
    answers: dict[str, int]
    outcomes: list[Outcome]
    violations: list[Violation]


class Kept(BaseModel):
    """What is known of a run; a file of its home.

    `fingerprint` is of the rules: results of other rules don't belong together. `soaked_s` is the
    longest stretch of nothing but healthy traffic so far.
    """

    fingerprint: str
    soaked_s: float = 0
    stages: list[Stage] = []

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all cells so far."""
        return [outcome for stage in self.stages for outcome in stage.outcomes]

    @property
    def violations(self) -> list[Violation]:
        """Of all stages so far."""
        return [violation for stage in self.stages for violation in stage.violations]


@dataclass
class Drill:
    """Cells to be broken by a stack in `home`, after a soak of `soak_s` seconds at the least."""

    home: Path
    cells: Sequence[Cell]
    soak_s: float
    objectives: Objectives
    watch: Watch

    def run(self) -> Kept:
        """All that isn't done yet.

        Raises UserError when the stack does not start, or the home holds another run.
        """
        for cell in self.cells:
            self.objectives.due(cell)
        kept = self._resumed()
        done = {outcome.cell for outcome in kept.outcomes}
        left = stages(cell for cell in self.cells if cell.name not in done)
        if kept.soaked_s < self.soak_s and not left:
            left = [[]]
        if left:
            port = claim()[0]
            with self._stack(pager.url(port)) as settings:
                asyncio.run(self._break(settings, port, left, kept))
        return kept

    @contextmanager
    def _stack(self, webhook_url: str) -> Iterator[StackSettings]:
        self.watch.phase("starting the stack", START_S)
        settings = on_free_ports(self.home / "stack").model_copy(
            update={"profile": "drill", "alert_webhook_url": webhook_url}
        )
        binaries = processes.ensure_binaries()
        with lifecycle.lock(settings) as held:
            lifecycle.clean_up(settings.home)
            for directory in (settings.data_dir, settings.logs_dir):
                shutil.rmtree(directory)  # of a run that was interrupted
                directory.mkdir()
            processes.prepare(settings, binaries)
            specs = [
                replace(each, env={**each.env, **ENV.get(each.name, {})})
                for each in processes.specs(settings, binaries)
            ]
            with supervised(settings, specs, held):
                yield settings

    async def _break(
        self, settings: StackSettings, port: int, left: Sequence[Sequence[Cell]], kept: Kept
    ) -> None:
        skus = await asyncio.to_thread(_fill, settings)
        urls = {name: settings.url(each) for name, each in settings.ports.items()}
        arrivals = Arrivals(urls, skus)
        async with pager.listening(port) as ours:
            telling = asyncio.create_task(self._tell(ours))
            loading = asyncio.create_task(arrivals.run())
            try:
                await alongside(self._stages(settings, ours, arrivals, left, kept), loading)
            finally:
                telling.cancel()
                loading.cancel()
                await asyncio.gather(telling, loading, return_exceptions=True)

    async def _stages(
        self,
        settings: StackSettings,
        ours: Pager,
        arrivals: Arrivals,
        left: Sequence[Sequence[Cell]],
        kept: Kept,
    ) -> None:
        for number, cells in enumerate(left, start=1):
            quiet_s = float(self.objectives.healthy_s)
            if kept.soaked_s < self.soak_s:
                quiet_s = max(quiet_s, self.soak_s)
            title = f"{number} of {len(left)}: " if len(left) > 1 else ""
            stage = await _Run(self, settings, ours, arrivals, cells).stage(quiet_s, title)
            kept.soaked_s = max(kept.soaked_s, quiet_s)
            kept.stages.append(stage)
            self._keep(kept)

    async def _tell(self, ours: Pager) -> None:
        while True:
            self.watch.pages(len(ours.since(0)))
            await asyncio.sleep(WATCH_S)

    def _resumed(self) -> Kept:
        self.home.mkdir(parents=True, exist_ok=True)
        new = Kept(fingerprint=fingerprint(self.objectives))
        mark = self.home / PROGRESS
        try:
            found = Kept.model_validate_json(mark.read_bytes())
        except FileNotFoundError:
            if any(self.home.iterdir()):  # going on would remove what is there
                raise UserError(
                    f"{self.home} is not empty and holds no run to resume; name another directory"
                ) from None
            self._keep(new)
            return new
        except (OSError, ValidationError):
            raise UserError(f"{mark} cannot be read; remove {self.home} to begin again") from None
        if found.fingerprint != new.fingerprint:
            raise UserError(
                f"{self.home} holds a run of other SLOs or windows; name another directory"
            )
        return found

    def _keep(self, kept: Kept) -> None:
        mark = self.home / PROGRESS
        written = mark.with_suffix(".part")
        try:
            written.write_text(kept.model_dump_json(indent=1))
            written.replace(mark)
        except OSError as error:
            raise UserError(f"{mark} cannot be written: {error.strerror}") from None


class _Run:
    """Of one stage."""

    def __init__(
        self,
        drill: Drill,
        settings: StackSettings,
        ours: Pager,
        arrivals: Arrivals,
        cells: Sequence[Cell],
    ) -> None:
        self._settings, self._pager, self._arrivals, self._cells = settings, ours, arrivals, cells
        self._objectives, self._watch = drill.objectives, drill.watch
        self._began = time.monotonic()

    async def stage(self, quiet_s: float, title: str) -> Stage:
        arrivals = self._arrivals
        sent, late, answers = arrivals.sent, arrivals.late, arrivals.answers.copy()
        wanted: Traffic = next((cell.traffic for cell in self._cells if cell.traffic), "checkouts")
        async with AsyncExitStack() as stack:
            arrivals.sales = wanted
            if wanted == "payments":  # the canary's orders are checkouts, too
                await stack.enter_async_context(breaking.held(self._settings, "canary"))
            self._watch.phase(f"{title}healthy traffic", quiet_s)
            await asyncio.sleep(quiet_s)
            names = ", ".join(cell.name for cell in self._cells)
            self._watch.phase(f"{title}{names}", max(map(self._lasts_s, self._cells), default=0))
            outcomes = await asyncio.gather(*map(self._cell, self._cells))
        pages = [
            Page(slo=notice.slo, alert=notice.alert, at_s=self._at(notice.at))
            for notice in self._pager.since(self._began)
        ]
        return Stage(
            quiet_s=quiet_s,
            sent=arrivals.sent - sent,
            late=arrivals.late - late,
            answers=dict(arrivals.answers - answers),
            outcomes=outcomes,
            violations=judge(outcomes, pages, self._objectives.tolerated_s),
        )

    async def _cell(self, cell: Cell) -> Outcome:
        due = self._objectives.due(cell)
        async with breaking.broken(self._settings, cell, self._arrivals.skus[0]) as times:
            until = times.began + float(due.fires_s) + GRACE_S
            paged = await self._pager.wait(cell.slo, "firing", times.began, until)
        over = None
        resolves_s = self._objectives.resolves_s(cell, times.ended - times.began)
        if paged is not None:
            until = times.ended + resolves_s + GRACE_S
            over = await self._pager.wait(cell.slo, "resolved", paged, until)
        return Outcome(
            cell=cell.name,
            slo=cell.slo,
            share=float(cell.share),
            due_s=round(float(due.fires_s), 3),
            paged_s=None if paged is None else round(paged - times.began, 3),
            resolves_s=round(resolves_s, 3),
            resolved_s=None if over is None else round(over - times.ended, 3),
            began_s=self._at(times.began),
            ended_s=self._at(time.monotonic()),
        )

    def _lasts_s(self, cell: Cell) -> float:
        due = self._objectives.due(cell)
        return float(due.fires_s + due.resolves_s) + isinstance(cell.fault, Stuck) * FRESH_S

    def _at(self, moment: float) -> float:
        return round(moment - self._began, 3)


def objectives() -> Objectives:
    """The repository's SLOs with the windows of the drill; raises UserError outside a checkout."""
    slos = repository_root() / "observability" / "slos"
    file = slos / "windows" / "drill.yaml"
    return Objectives(
        {
            slo.id: slo
            for path in sorted(slos.glob("*.yaml"))
            for slo in spec.parse(path.read_text(encoding="utf-8"), str(path))
        },
        windows.parse(file.read_text(encoding="utf-8"), str(file)),
    )


def fingerprint(of: Objectives) -> str:
    """Of the rules that a run is about."""
    text = rules.build(list(of.slos.values()), of.windows, source="verify slos")
    return hashlib.sha256(text.encode()).hexdigest()


def _fill(settings: StackSettings) -> list[str]:
    items = [
        {
            "sku": f"DRILL-{number:02}",
            "name": f"Drill {number}",
            "description": "Sold in drills only.",
            "category": "drill",
            "price_minor": traffic.AMOUNT_MINOR,
            "currency": traffic.CURRENCY,
            "stock": STOCK,
        }
        for number in range(1, PRODUCTS + 1)
    ]
    Shop(settings).import_products(items)
    return [str(item["sku"]) for item in items]
