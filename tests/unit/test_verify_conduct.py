"""A run that does less than its plan asks for does not hold."""

from dataclasses import replace

import pytest

from prove.verify import conduct
from prove.verify.audit import Kind
from prove.verify.history import Event, Type
from prove.verify.nemesis import Act
from prove.verify.plan import PATIENT_S, Cut, Fault, Kill, Plan, Product, Purchase

ORDINARY = Purchase(
    op=0,
    offset_s=0.0,
    customer="customer-0",
    key="key-0",
    lines=(("AMPLE", 2),),
    method="tok_approve",
    timeout_s=PATIENT_S,
    double=False,
    cancel_after_s=None,
)
SCARCE = replace(ORDINARY, lines=(("AMPLE", 1), ("SCARCE", 2)))
CUT = Cut(0, "order-payment", "reset", "reset_peer", "downstream", {"timeout": 0}, 1.0)


def plan(purchase: Purchase, *faults: Fault) -> Plan:
    products = (Product("AMPLE", "Ample", 100, 50), Product("SCARCE", "Scarce", 100, 1))
    return Plan(1, 10.0, False, products, (purchase,), faults)


def event(type_: Type, kind: str = "order", status: int = 0, detail: str = "") -> Event:
    return Event(1, 0, 1, kind, type_, "key-0", "customer-0", status=status, detail=detail)  # type: ignore[arg-type]


ASKED, CANCELS = event("invoke"), event("invoke", "cancel")
CONFIRMED = event("ok", status=201)


def kinds(of: Plan, *events: Event, acts: tuple[Act, ...] = ()) -> list[Kind]:
    found = conduct.check(of, of.purchases, of.faults, events, acts)
    return [violation.kind for violation in found]


def test_a_run_as_planned_holds() -> None:
    of = plan(ORDINARY, Kill(0, "order"), CUT)
    assert kinds(of, ASKED, CONFIRMED, acts=(Act(1, "kill-instead", "order"),)) == []


@pytest.mark.parametrize(
    "events",
    [
        (),
        (ASKED,),
        (ASKED, event("info", status=503)),
        (ASKED, event("info"), ASKED, event("info", status=202)),
        (ASKED, CONFIRMED, CANCELS, event("info", "cancel", 503)),
    ],
)
def test_a_purchase_that_stays_open_is_told(events: tuple[Event, ...]) -> None:
    assert kinds(plan(ORDINARY), *events) == [Kind.UNANSWERED]


def test_kills_that_are_missing_are_told() -> None:
    of = plan(ORDINARY, Kill(0, "order"), Kill(0, "payment", worker=True), CUT)
    acts = (Act(1, "kill", "order"), Act(1, "missed", "payment"), Act(1, "cut", "order-payment"))
    assert kinds(of, ASKED, CONFIRMED, acts=acts) == [Kind.TOO_FEW_KILLS]


@pytest.mark.parametrize(
    ("purchase", "status", "detail", "explained"),
    [
        (replace(ORDINARY, method="tok_decline"), 402, "declined", True),
        (replace(ORDINARY, method="tok_decline_funds"), 402, "declined", True),
        (ORDINARY, 402, "declined", False),
        (replace(ORDINARY, method="tok_unknown"), 402, "declined", False),
        (replace(ORDINARY, method="tok_decline"), 402, "payment-timeout", False),
        (SCARCE, 409, "stock-short", True),
        (SCARCE, 409, "reservation-gone", True),
        (ORDINARY, 409, "stock-short", False),
        (ORDINARY, 409, "reservation-gone", False),
        (replace(ORDINARY, cancel_after_s=1.0), 409, "order-cancelled", True),
        (ORDINARY, 409, "order-cancelled", False),
        *((SCARCE, status, "whatever", False) for status in (400, 404, 413, 415, 422)),
    ],
)
def test_a_refusal_needs_a_reason_in_the_plan(
    purchase: Purchase, status: int, detail: str, explained: bool
) -> None:
    fail = event("fail", status=status, detail=detail)
    found = kinds(plan(purchase), ASKED, fail, ASKED, fail)
    assert found == ([] if explained else [Kind.WRONG_REFUSAL])


@pytest.mark.parametrize(("status", "detail"), [(409, "not-cancellable"), (404, "not-found")])
def test_so_does_the_refusal_of_a_cancellation(status: int, detail: str) -> None:
    refused = event("fail", "cancel", status, detail)
    found = kinds(plan(ORDINARY), ASKED, CONFIRMED, CANCELS, refused)
    assert found == ([] if status == 409 else [Kind.WRONG_REFUSAL])
