"""What is held against a scenario's claims."""

from dataclasses import replace

import pytest

from prove.incident import catalogue, judge
from prove.incident.judge import Found
from prove.incident.record import Entry, Expectation, Page, Result
from prove.incident.schema import Customers, Expect, ExpectedPage, PossiblePage, Quiet, Seen

OBJECTIVES = catalogue.objectives("drill")
T0 = 1_795_000_000.0


def page(slo: str, at_s: float, severity: str = "page", status: str = "firing") -> Page:
    return Page.model_validate(
        {
            "received_at_unix_us": round((T0 + at_s) * 1_000_000),
            "status": status,
            "labels": {"sloth_id": slo, "sloth_severity": severity, "alertname": f"Alert-{slo}"},
            "annotations": {},
            "starts_at": "",
            "fingerprint": slo,
        }
    )


def entry(at_s: float, result: Result, *, kind: str = "checkout", **more: object) -> Entry:
    at_us = round((T0 + at_s) * 1_000_000)
    known = {
        "at_unix_us": at_us,
        "done_unix_us": at_us + 1000,
        "kind": kind,
        "method": "POST" if kind == "checkout" else "GET",
        "route": "/",
        "status": 201,
        "outcome": result,
        "latency_ms": 30.0,
        "trace_id": "",
    }
    return Entry.model_validate(known | more)


def expect(**more: object) -> Expect:
    known = {"pages": [ExpectedPage(slo="checkout-errors", bad=0.5, why="half")]}
    return Expect.model_validate(known | more)


def judged(expected: Expect, found: Found) -> dict[str, Expectation]:
    told = judge.detections(judge.due(expected.pages, OBJECTIVES), found)
    return {each.what: each for each in judge.expectations([expected], told, found)}


def found(**more: object) -> Found:
    return Found(T0, T0 + 30, recovered_s=12.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("paged_s", "comes", "in_time"),
    [(None, False, None), (18.0, True, True), (24.8, True, True), (26.0, True, False)],
)
def test_a_page_comes_and_in_time(paged_s: float | None, comes: bool, in_time: bool | None) -> None:
    pages = [] if paged_s is None else [page("checkout-errors", paged_s)]
    told = judged(expect(), found(pages=pages))

    assert told["page CheckoutErrors"].holds is comes
    timely = told.get("page CheckoutErrors in time")
    assert (timely and timely.holds) == in_time


@pytest.mark.parametrize(
    ("paged_s", "earliest_s", "holds"),
    [(3.0, 17.0, False), (12.3, 17.0, False), (12.5, 17.0, True), (3.0, 5.0, True)],
)
def test_a_page_contradicts_theory_when_it_comes_too_soon(
    paged_s: float, earliest_s: float, holds: bool
) -> None:
    """Its earliest time is with the past and the events that there were."""
    due = replace(
        judge.due(expect().pages, OBJECTIVES)[0],
        earliest_s=earliest_s,
        not_before_s=OBJECTIVES.not_before_s(earliest_s),
    )
    what = found(pages=[page("checkout-errors", paged_s)])
    told = judge.expectations([expect()], judge.detections([due], what), what)
    soon = next(each for each in told if each.what == "page CheckoutErrors not too soon")
    assert soon.holds is holds
    assert f"{earliest_s:.0f} s by theory" in soon.expected


def test_where_nobody_knows_what_the_windows_held_sooner_is_not_judged() -> None:
    told = judged(expect(), found(pages=[page("checkout-errors", 3.0)]))
    assert told["page CheckoutErrors in time"].holds
    assert "by theory after 17.3 s" in told["page CheckoutErrors in time"].expected
    assert "page CheckoutErrors not too soon" not in told


def test_a_page_of_before_does_not_count() -> None:
    told = judged(expect(), found(pages=[page("checkout-errors", -1.0)]))
    assert not told["page CheckoutErrors"].holds


def test_what_is_neither_expected_nor_allowed_is_wrong() -> None:
    expected = expect(may_page=[PossiblePage(slo="checkout-latency", why="follows")])
    pages = [
        page("checkout-errors", 18),
        page("checkout-latency", 19),
        page("payments-errors", 20, severity="ticket"),
        page("payments-errors", 20, status="resolved"),
    ]
    assert judged(expected, found(pages=pages))["no other page"].holds

    pages.append(page("payments-errors", 21))
    told = judged(expected, found(pages=pages))
    assert told["no other page"].found == "Alert-payments-errors"
    assert not told["no other page"].holds
    assert judge.figures([], [expected], found(pages=pages)).wrong_pages == 1


def test_where_nothing_has_to_page_a_page_is_wrong() -> None:
    expected = Expect(
        quiet=Quiet(for_s=20, why="it is no 5xx"),
        customers=[Customers(kind="checkout", outcomes=["refused"], at_least=0.5)],
    )
    told = judged(expected, found(pages=[page("checkout-errors", 3.0)]))
    assert not told["no page"].holds
    assert "it is no 5xx" in told["no page"].expected


def test_customers_are_counted_while_it_lasts() -> None:
    entries = [
        entry(-5, "ok"),
        *(entry(second, "failed" if second % 2 else "ok") for second in range(30)),
        entry(3, "failed", kind="read"),
        entry(4, "ok", attempt=2),
        entry(40, "ok"),
    ]
    claim = Customers(kind="checkout", outcomes=["failed"], at_least=0.49, at_most=0.51)
    told = judged(expect(customers=[claim]), found(entries=entries))
    assert told["customers' checkouts: failed"].found == "50.0% (15 of 30)"
    assert told["customers' checkouts: failed"].holds

    slow = Customers(kind="checkout", slower_than_ms=500, at_least=0.1)
    told = judged(expect(customers=[slow]), found(entries=entries))
    assert not told["customers' checkouts: slower than 500 ms"].holds
    assert not judged(expect(customers=[slow]), found())[
        "customers' checkouts: slower than 500 ms"
    ].holds


@pytest.mark.parametrize(("value", "holds"), [(None, False), (4.0, False), (5.0, True)])
def test_what_telemetry_must_have_seen(value: float | None, holds: bool) -> None:
    seen = Seen(what="restarts", query="up", at_least=5)
    told = judged(expect(seen=[seen]), found(seen=[(seen, value)]))
    assert told["restarts"].holds is holds


def test_leases_recovery_and_books() -> None:
    good = judged(expect(), found())
    assert all(each.holds for what, each in good.items() if not what.startswith("page")), (
        good.values()
    )

    bad = Found(T0, T0 + 30, left=["order/x"], differences=["lost-order 1"] * 6)
    told = judged(expect(), bad)
    assert [what.partition(" ")[0].strip(":") for what, each in told.items() if not each.holds] == [
        *("page", "faults", "recovery", "books"),
    ]
    assert told["books: orders, payments, ledger, stock, and what customers were told"].found == (
        "lost-order 1, lost-order 1, lost-order 1, lost-order 1 … and 2 more"
    )


def test_what_a_customer_was_told_is_kept() -> None:
    entries = [
        entry(1, "ok", order_id="a", amount_minor=100),
        entry(2, "ok", order_id="b", amount_minor=100),
        entry(3, "ok", order_id="c", amount_minor=100),
        entry(4, "ok", order_id="d", amount_minor=100),
        entry(5, "failed"),
    ]
    orders = {"a": ("confirmed", 100), "b": ("rejected", 100), "c": ("confirmed", 200)}
    assert judge.broken_promises(entries, orders) == [
        "order b was confirmed to its customer and is rejected",
        "order c: its customer was told 100, the books say 200",
        "order d was confirmed to its customer and is missing",
    ]


def test_the_ledger_knows_what_servers_do_not() -> None:
    entries = [
        *(entry(second, "no-answer") for second in range(3)),
        entry(4, "ok"),
        entry(5, "ok", kind="read"),
        entry(6, "ok", method="GET"),
    ]
    assert judge.bad_shares(entries) == {"checkout-errors": 0.75, "product-reads-errors": 0.0}
