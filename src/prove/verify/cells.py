"""What `verify slos` breaks, when the page is due, and whether what came was right (pure).

A cell is one fault at the service that owns an SLI, and the share of the SLI's events that turn
bad. Theory (`prove.slo.burn`) says when the page is due; it assumes a constant arrival and that
nothing was bad before, so each cell follows minutes of healthy traffic, and cells that would change
each other's events are never broken at once.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel

from prove.errors import UserError
from prove.slo.burn import Detection, detection, time_to_fire_s, time_to_resolve_s
from prove.slo.spec import SLO
from prove.slo.windows import AlertWindows

Service = Literal["product", "order", "payment"]
Kind = Literal["error", "latency"]
Traffic = Literal["checkouts", "payments"]

READS_PER_S = 20
SALES_PER_S = 10
"""Checkouts, or payments without an order; a payment belongs to each checkout anyway."""
PROBES_PER_S = 1
"""In the drill; each of them is a read, a checkout or a look at payments, too."""

SLOW_MS = 700
"""Added by a latency fault: over the objective of 500 ms, whatever else happens."""
FRESH_S = 60
"""How long an order may be unfinished (observability/slos/checkout.yaml)."""
STUCK_S = 90
"""How long the stuck order's payment stays unknown: until the page has come, and then some."""

TOLERATED_INTERVALS = 2
"""One for the evaluation, one for all that comes before and after it: export, scrape, delivery."""


@dataclass(frozen=True)
class Lease:
    """A fault lease at `service`; the share `rate` of the requests that match, picked by count."""

    service: Service
    kind: Kind
    method: str
    route: str
    rate: Fraction

    def body(self, ttl_s: int) -> dict[str, Any]:
        """What to PUT to /faults/{name}."""
        params: dict[str, Any] = {"rate": float(self.rate), "select": "count"}
        if self.kind == "error":
            params["status"] = 500
        else:
            params |= {"distribution": "constant", "delay_ms": SLOW_MS}
        return {
            "type": self.kind,
            "params": params,
            "match": {"method": self.method, "route": self.route},
            "ttl_s": ttl_s,
        }


@dataclass(frozen=True)
class Stop:
    """A process of the stack is killed and kept down."""

    process: str


@dataclass(frozen=True)
class Stuck:
    """An order whose payment nobody can tell the outcome of for `STUCK_S`."""


Fault = Lease | Stop | Stuck


@dataclass(frozen=True)
class Cell:
    """One fault and what it does to one SLI.

    `slo` is a `sloth_id`; `share` of its events are bad. `also` may page as well. `touches` are
    other SLOs whose events it changes, if only in number, or whose faults would keep it from
    coming about. `traffic`: None when any will do.
    """

    slo: str
    percent: int
    share: Fraction
    fault: Fault
    touches: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()
    traffic: Traffic | None = None

    @property
    def name(self) -> str:
        """`checkout-errors-50`."""
        return f"{self.slo}-{self.percent}"

    def fits(self, other: "Cell") -> bool:
        """Whether both can be broken at once without either noticing."""
        together = {self.traffic, other.traffic} - {None}
        apart = self.slo not in {other.slo, *other.touches} and other.slo not in self.touches
        return apart and len(together) < 2


_PRODUCTS, _PRODUCT = "/api/v1/products", "/api/v1/products/{sku}"
_ORDERS, _PAYMENTS = "/api/v1/orders", "/api/v1/payments"
_READS = frozenset({"product-reads-errors", "product-reads-latency"})
_PAID = frozenset({"payments-errors", "payments-latency"})
_BOUGHT = frozenset({"checkout-errors", "checkout-latency", "checkout-availability"})
_SHARES: Sequence[tuple[str, Kind, Sequence[int]]] = (
    ("errors", "error", (100, 50, 20)),
    ("latency", "latency", (100, 80, 50)),
)


def _catalogue() -> Iterable[Cell]:
    for sli, kind, percents in _SHARES:
        for percent in percents:
            rate = Fraction(percent, 100)
            # The probe reads the list, which is none of the reads that are hit.
            yield Cell(
                f"product-reads-{sli}",
                percent,
                rate * READS_PER_S / (READS_PER_S + PROBES_PER_S),
                Lease("product", kind, "GET", _PRODUCT, rate),
                touches=_READS,
            )
            # The canary is a customer like others: what fails for them fails for it.
            yield Cell(
                f"checkout-{sli}",
                percent,
                rate,
                Lease("order", kind, "POST", _ORDERS, rate),
                touches=_BOUGHT | _PAID if sli == "errors" else _BOUGHT,
                also=frozenset({"checkout-availability"} if sli == "errors" else ()),
                traffic="checkouts",
            )
            # Without checkouts, which would fail with their payments, and rest behind a breaker.
            yield Cell(
                f"payments-{sli}",
                percent,
                rate,
                Lease("payment", kind, "POST", _PAYMENTS, rate),
                touches=_BOUGHT | _PAID,
                traffic="payments",
            )
    whole = Fraction(1)
    yield Cell(
        "product-reads-availability",
        100,
        whole,
        Lease("product", "error", "GET", _PRODUCTS, whole),
        touches=_READS,
    )
    yield Cell(
        "payments-availability", 100, whole, Lease("payment", "error", "GET", _PAYMENTS, whole)
    )
    # Down, it counts no errors of its own.
    yield Cell(
        "checkout-availability",
        100,
        whole,
        Stop("order"),
        touches=_BOUGHT | _PAID | {"checkout-freshness"},
        traffic="checkouts",
    )
    # Placed as the fault begins: it must be let in, and its payment asked for.
    yield Cell(
        "checkout-freshness",
        100,
        whole,
        Stuck(),
        touches=_PAID | {"checkout-errors", "checkout-availability"},
    )


CATALOGUE: Mapping[str, Cell] = {cell.name: cell for cell in _catalogue()}
ONE_OF_EACH_KIND = (
    "product-reads-errors-100",
    "checkout-latency-100",
    "payments-availability-100",
    "checkout-freshness-100",
)
"""Errors, latency, probes, freshness; they fit, so that they take one stage."""


def choose(names: Sequence[str]) -> list[Cell]:
    """The cells called so, each once; raises UserError naming those there are."""
    for name in names:
        if name not in CATALOGUE:
            near = difflib.get_close_matches(name, CATALOGUE, 3, cutoff=0) or list(CATALOGUE)[:3]
            raise UserError(
                f"there is no cell {name!r}; there are {', '.join(near)} … "
                "(docs/how-to/verify-slos.md has all)"
            )
    return [CATALOGUE[name] for name in dict.fromkeys(names)]


def stages(cells: Iterable[Cell]) -> list[list[Cell]]:
    """What is broken at once, in which order: each cell as early as it fits."""
    planned: list[list[Cell]] = []
    for cell in cells:
        for stage in planned:
            if all(cell.fits(other) for other in stage):
                stage.append(cell)
                break
        else:
            planned.append([cell])
    return planned


@dataclass(frozen=True)
class Objectives:
    """What the stack's rules are made from."""

    slos: Mapping[str, SLO]
    windows: AlertWindows

    @property
    def healthy_s(self) -> int:
        """What theory wants to have seen nothing bad: the longest window of a page."""
        return max(pair.long_s for pair in self.windows.pairs("page"))

    @property
    def tolerated_s(self) -> int:
        """How far from theory a page may come, to either side."""
        return TOLERATED_INTERVALS * self.windows.interval_s

    def due(self, cell: Cell) -> Detection:
        """When the page of a cell comes by theory; raises UserError when it never would."""
        slo = self.slos.get(cell.slo)
        if slo is None:
            raise UserError(f"{cell.name} needs the SLO {cell.slo}, which observability/slos lacks")
        found = detection(self.windows.pairs("page"), slo.budget, cell.share, self.windows.period_s)
        if found is None:
            raise UserError(f"{cell.name}: at {float(cell.share):.1%} bad there is never a page")
        return found

    def resolves_s(self, cell: Cell, lasted_s: float) -> float:
        """From the fault's end until no condition holds of those that fired while it lasted."""
        budget = self.slos[cell.slo].budget
        resolves = [Fraction(0)]
        for pair in self.windows.pairs("page"):
            fires_s = time_to_fire_s(pair, budget, cell.share)
            if fires_s is not None and fires_s <= lasted_s:
                resolves.append(time_to_resolve_s(pair, budget, cell.share) or Fraction(0))
        return float(max(resolves))


class Page(BaseModel):
    """A page that came: of which SLO, and when, in seconds of the stage."""

    slo: str
    alert: str
    at_s: float


class Outcome(BaseModel):
    """What became of a cell. Seconds; None: it did not come.

    `paged_s` from the fault's begin to the page's arrival, `resolved_s` from its end to the news
    that the alert is over; `due_s` and `resolves_s` are the same by theory. `began_s` and `ended_s`
    in seconds of the stage.
    """

    cell: str
    slo: str
    share: float
    due_s: float
    paged_s: float | None
    resolves_s: float
    resolved_s: float | None
    began_s: float
    ended_s: float

    @property
    def off_s(self) -> float | None:
        """How much later than in theory the page came."""
        return None if self.paged_s is None else round(self.paged_s - self.due_s, 3)


class Violation(BaseModel):
    """A page that was missed, early, late, false, or that did not end."""

    kind: Literal["missed", "early", "late", "unresolved", "false-page"]
    subject: str
    expected: str
    found: str


def judge(
    outcomes: Sequence[Outcome], pages: Iterable[Page], tolerated_s: float
) -> list[Violation]:
    """Everything of a stage that was not as theory has it."""
    found = [violation for each in outcomes for violation in _of_cell(each, tolerated_s)]
    found += [
        Violation(
            kind="false-page",
            subject=page.slo,
            expected="no page of what was not broken",
            found=f"{page.alert}, {page.at_s:.0f} s after the stage began",
        )
        for page in pages
        if not any(_explains(outcome, page) for outcome in outcomes)
    ]
    return found


def _of_cell(outcome: Outcome, tolerated_s: float) -> Iterable[Violation]:
    due = f"a page after {outcome.due_s:.1f} s, ± {tolerated_s:g} s"
    if outcome.paged_s is None or outcome.off_s is None:
        yield Violation(kind="missed", subject=outcome.cell, expected=due, found="none")
        return
    if abs(outcome.off_s) > tolerated_s:
        yield Violation(
            kind="late" if outcome.off_s > 0 else "early",
            subject=outcome.cell,
            expected=due,
            found=f"after {outcome.paged_s:.1f} s",
        )
    if outcome.resolved_s is None:
        yield Violation(
            kind="unresolved",
            subject=outcome.cell,
            expected=f"over {outcome.resolves_s:.1f} s after the fault",
            found="it still fired long after that",
        )


def _explains(outcome: Outcome, page: Page) -> bool:
    cell = CATALOGUE[outcome.cell]
    of_cell = page.slo == cell.slo or page.slo in cell.also
    return of_cell and outcome.began_s <= page.at_s <= outcome.ended_s
