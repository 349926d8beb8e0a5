"""Was it as the scenario says? (pure) Pages, what was seen, customers, recovery, the books."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prove.incident.record import (
    Detection,
    Entry,
    Expectation,
    Figures,
    Page,
    Recovery,
)
from prove.incident.schema import Customers, Expect, ExpectedPage, Seen
from prove.incident.theory import Objectives

LATE_S = 20.0
"""How long after it had to be there a page is still waited for."""
SHOWN = 4


@dataclass(frozen=True)
class Due:
    """An expected page, and when it has to be there; seconds since its action."""

    page: ExpectedPage
    alert: str
    theory_s: float | None
    within_s: float
    earliest_s: float | None = None
    not_before_s: float | None = None


@dataclass
class Found:
    """What came of a run. Times are seconds since 1970; `begun` of each page's own action."""

    injected_s: float
    rolled_back_s: float
    pages: Sequence[Page] = ()
    begun_s: Mapping[str, float] = field(default_factory=dict)
    entries: Sequence[Entry] = ()
    seen: Sequence[tuple[Seen, float | None]] = ()
    recovered_s: float | None = None
    recoveries: Sequence[Recovery] = ()
    left: Sequence[str] = ()
    """Leases that were still there after the rollback."""
    differences: Sequence[str] = ()
    books: str = ""
    """What was compared."""
    spent: Mapping[str, float] = field(default_factory=dict)


def due(pages: Iterable[ExpectedPage], objectives: Objectives) -> list[Due]:
    """When each page has to be there, with a past without errors; raises UserError."""
    found = []
    for page in pages:
        slo = objectives.slo(page.slo)
        theory_s = None if page.bad is None else objectives.due_s(page.slo, page.bad)
        within_s = page.within_s
        if within_s is None and page.bad is not None:
            within_s = objectives.within_s(page.slo, page.bad)
        found.append(
            Due(
                page=page,
                alert=slo.page.name if slo.page else page.slo,
                theory_s=theory_s,
                within_s=float("inf") if within_s is None else within_s,
            )
        )
    return found


def first_page(pages: Iterable[Page], slo_id: str, since_s: float) -> Page | None:
    """The first that fires for an SLO after a moment."""
    for page in pages:
        fires = (page.slo, page.severity, page.status) == (slo_id, "page", "firing")
        if fires and page.received_at_unix_us >= since_s * 1_000_000:
            return page
    return None


def wrong(pages: Iterable[Page], allowed: frozenset[str]) -> list[Page]:
    """Pages that nothing of the scenario explains."""
    return [
        page
        for page in pages
        if page.severity == "page" and page.status == "firing" and page.slo not in allowed
    ]


def detections(dues: Sequence[Due], found: Found) -> list[Detection]:
    """Each expected page in figures."""
    told = []
    for each in dues:
        begun_s = found.begun_s.get(each.page.since or "", found.injected_s)
        page = first_page(found.pages, each.page.slo, begun_s)
        paged_s = None if page is None else page.received_at_unix_us / 1_000_000 - begun_s
        told.append(
            Detection(
                slo=each.page.slo,
                alert=each.alert,
                severity="page",
                bad=each.page.bad,
                theory_s=_rounded(each.theory_s),
                earliest_s=_rounded(each.earliest_s),
                within_s=round(each.within_s, 3),
                not_before_s=_rounded(each.not_before_s),
                paged_s=_rounded(paged_s),
            )
        )
    return told


def expectations(
    expected: Sequence[Expect], told: Sequence[Detection], found: Found
) -> list[Expectation]:
    """Everything that the scenarios claim, and what was found.

    Of several at once, what customers meet of the one is changed by the other, and isn't judged.
    """
    judged = [each for detection in told for each in _page(detection)]
    judged.append(_no_other_page(expected, found))
    judged += [_seen(seen, value) for seen, value in found.seen]
    if len(expected) == 1:
        judged += [_customers(claim, found) for claim in expected[0].customers]
    within_s = max(each.recover_within_s for each in expected)
    judged += [
        Expectation(
            what="faults after the rollback",
            expected="none",
            found=_listed(found.left),
            holds=not found.left,
        ),
        Expectation(
            what="recovery: every SLI within its objective, no page left, steady state",
            expected=f"within {within_s:g} s of the rollback",
            found="not seen" if found.recovered_s is None else f"after {found.recovered_s:.1f} s",
            holds=found.recovered_s is not None and found.recovered_s <= within_s,
        ),
        Expectation(
            what="books: orders, payments, ledger, stock, and what customers were told",
            expected="no difference",
            found=_listed(found.differences) + (f" ({found.books})" if found.books else ""),
            holds=not found.differences,
        ),
    ]
    return judged


def figures(told: Sequence[Detection], expected: Sequence[Expect], found: Found) -> Figures:
    """The run in short."""
    came = [each for each in told if each.paged_s is not None]
    first = min(came, key=lambda each: each.paged_s or 0.0, default=None)
    return Figures(
        time_to_detect_s=first.paged_s if first else None,
        theory_s=first.theory_s if first else None,
        recovery_s=_rounded(found.recovered_s),
        wrong_pages=len(wrong(found.pages, allowed(expected))),
        integrity_differences=len(found.differences),
        budget_spent=round(max(found.spent.values(), default=0.0), 6),
    )


def allowed(expected: Sequence[Expect]) -> frozenset[str]:
    """The SLOs that may page."""
    return frozenset(
        slo
        for each in expected
        for slo in (*(page.slo for page in each.pages), *(page.slo for page in each.may_page))
    )


def broken_promises(entries: Iterable[Entry], orders: Mapping[str, tuple[str, int]]) -> list[str]:
    """Orders that a customer was told of as confirmed, and that the books have otherwise.

    `orders`: of each id its status and its total.
    """
    found = []
    for entry in entries:
        if entry.kind != "checkout" or entry.outcome != "ok" or not entry.order_id:
            continue
        status, total = orders.get(entry.order_id, ("missing", 0))
        if status != "confirmed":
            found.append(f"order {entry.order_id} was confirmed to its customer and is {status}")
        elif entry.amount_minor not in (None, total):
            found.append(
                f"order {entry.order_id}: its customer was told {entry.amount_minor}, "
                f"the books say {total}"
            )
    return found


def bad_shares(entries: Iterable[Entry]) -> dict[str, float]:
    """By the customers' own ledger, of the SLIs that are theirs: the share that got nothing."""
    counts: dict[str, list[int]] = {}
    for entry in entries:
        if entry.method == "GET" and entry.kind == "checkout":
            continue  # a look at an order that was taken
        slo = "checkout-errors" if entry.kind == "checkout" else "product-reads-errors"
        count = counts.setdefault(slo, [0, 0])
        count[0] += entry.outcome in ("failed", "no-answer")
        count[1] += 1
    return {slo: bad / total for slo, (bad, total) in counts.items()}


def _page(told: Detection) -> Iterable[Expectation]:
    came = told.paged_s
    yield Expectation(
        what=f"page {told.alert}",
        expected="it comes",
        found="it did not come" if came is None else f"after {came:.1f} s",
        holds=came is not None,
    )
    if came is None:
        return
    theory = "" if told.theory_s is None else f", by theory after {told.theory_s:.1f} s"
    yield Expectation(
        what=f"page {told.alert} in time",
        expected=f"within {told.within_s:.1f} s{theory}",
        found=f"after {came:.1f} s",
        holds=came <= told.within_s,
    )
    if told.not_before_s is None:
        return
    most = "" if told.bad is not None else ", were all bad"
    yield Expectation(
        what=f"page {told.alert} not too soon",
        expected=(
            f"not before {told.not_before_s:.1f} s: with what the windows held, and the events that"
            f" came, {told.earliest_s:.0f} s by theory{most}"
        ),
        found=f"after {came:.1f} s",
        holds=came >= told.not_before_s,
    )


def _no_other_page(expected: Sequence[Expect], found: Found) -> Expectation:
    others = wrong(found.pages, allowed(expected))
    names = sorted(page.alert for page in others)
    quiet = [each.quiet for each in expected if each.quiet]
    what = "no page" if len(quiet) == len(expected) else "no other page"
    return Expectation(
        what=what,
        expected="none" + (f": {quiet[0].why}" if what == "no page" and quiet[0] else ""),
        found=_listed(names),
        holds=not others,
    )


def _seen(seen: Seen, value: float | None) -> Expectation:
    bounds = []
    if seen.at_least is not None:
        bounds.append(f"at least {seen.at_least:g}")
    if seen.at_most is not None:
        bounds.append(f"at most {seen.at_most:g}")
    holds = value is not None and (
        (seen.at_least is None or value >= seen.at_least)
        and (seen.at_most is None or value <= seen.at_most)
    )
    return Expectation(
        what=seen.what,
        expected=" and ".join(bounds),
        found="not to be had" if value is None else f"{value:.4g}",
        holds=holds,
    )


def _customers(claim: Customers, found: Found) -> Expectation:
    begun = [
        entry
        for entry in found.entries
        if entry.kind == claim.kind
        and not (entry.kind == "checkout" and entry.method == "GET")
        and entry.attempt == 1
        and found.injected_s <= entry.at_unix_us / 1_000_000 < found.rolled_back_s
    ]
    if claim.slower_than_ms is None:
        hit = sum(entry.outcome in claim.outcomes for entry in begun)
        which = " or ".join(claim.outcomes)
    else:
        hit = sum(entry.latency_ms > claim.slower_than_ms for entry in begun)
        which = f"slower than {claim.slower_than_ms} ms"
    share = hit / len(begun) if begun else 0.0
    return Expectation(
        what=f"customers' {claim.kind}s: {which}",
        expected=f"{claim.at_least:.1%} to {claim.at_most:.1%}",
        found=f"{share:.1%} ({hit:,} of {len(begun):,})",
        holds=bool(begun) and claim.at_least <= share <= claim.at_most,
    )


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
