"""What `provectl orders reconcile` says of a shop that goes on while its books are read.

(Every single difference is planted by test_verify_checker.py.)
"""

import random
from collections.abc import Callable

import pytest

from prove.verify import audit
from prove.verify.audit import Kind
from prove.verify.books import Order
from tests.support.shopworld import World, changed, simulate

GRACE_S = 60.0
LATER_US = 3_600_000_000


def of_status(world: World, status: str) -> Order:
    orders = [order for order in world.orders.values() if order.status == status]
    return random.Random(1).choice(orders)


def kinds(world: World, grace_s: float | None = GRACE_S) -> set[Kind]:
    return {difference.kind for difference in audit.audit(world.books(), grace_s)}


def uncharge(world: World, order: Order) -> None:
    world.entries = [entry for entry in world.entries if entry.reference != order.id]
    world.payments = {p.id: p for p in world.payments.values() if p.order_id != order.id}


def unfinish(world: World, order: Order) -> None:
    """Its last step was never recorded."""
    world.orders[order.id] = changed(order, step="cancel-payment", attempts=3)
    world.steps.remove([step for step in world.steps if step.order_id == order.id][-1])


def unrefund(world: World, order: Order) -> None:
    payment = world.payments[order.payment_id]
    world.payments[payment.id] = changed(payment, status="refund_pending")


def uncommit(world: World, order: Order) -> None:
    world.reservations[order.id] = changed(world.reservations[order.id], status="held")


@pytest.mark.parametrize(
    ("spoil", "status", "kind"),
    [
        (uncharge, "confirmed", Kind.UNCHARGED_ORDER),
        (unfinish, "cancelled", Kind.STUCK_ORDER),
        (unrefund, "cancelled", Kind.STUCK_PAYMENT),
        (uncommit, "confirmed", Kind.UNCOMMITTED_STOCK),
    ],
)
def test_what_just_changed_is_in_progress(
    spoil: Callable[[World, Order], None], status: str, kind: Kind
) -> None:
    world = simulate(5)
    spoil(world, of_status(world, status))
    assert kinds(world) == set()  # the whole run was less than a minute
    assert kinds(world, grace_s=None) == {kind}
    world.now_us += LATER_US
    assert kinds(world) == {kind}


def test_what_no_later_step_can_put_right_is_told_at_once() -> None:
    world = simulate(5)
    order = of_status(world, "confirmed")
    charge = next(entry for entry in world.entries if entry.reference == order.id)
    twice = changed(charge, key=f"{charge.key}-2", charge_key=f"{charge.key}-2")
    world.entries.append(twice)
    assert kinds(world) == {Kind.DOUBLE_CHARGE, Kind.UNKNOWN_ENTRY}


def test_an_order_that_is_tried_again_and_again_is_stuck() -> None:
    """It was changed a moment ago, but has had its status for an hour."""
    world = simulate(5)
    order = of_status(world, "cancelled")
    world.now_us += LATER_US
    world.orders[order.id] = changed(order, step="release", attempts=99, updated_at_us=world.now_us)
    last = [step for step in world.steps if step.order_id == order.id][-1]
    again = changed(last, seq=last.seq + 1, at_us=world.now_us, step="release", attempts=99)
    world.steps.append(again)
    (difference,) = audit.audit(world.books(), GRACE_S)
    assert difference.kind is Kind.STUCK_ORDER
    assert difference.trace_id == order.trace_id
    assert difference.found == "status cancelled, step release not done, attempt 99"


def test_goods_held_beyond_their_time_are_told() -> None:
    world = simulate(5)
    order = of_status(world, "confirmed")
    world.orders[order.id] = changed(order, status="paid", step="commit")
    world.steps = [
        step for step in world.steps if (step.order_id, step.status) != (order.id, "confirmed")
    ]
    uncommit(world, order)
    assert kinds(world) == set()
    world.now_us += LATER_US
    assert kinds(world) == {Kind.STUCK_ORDER, Kind.STOCK_HELD}


def test_a_tombstone_is_no_difference() -> None:
    """Releasing what nobody reserved leaves a row, for orders that never got that far."""
    world = simulate(5)
    order = next(o for o in world.orders.values() if o.failure == "stock-short")
    some = next(iter(world.reservations.values()))
    for order_id in (order.id, "never-an-order"):
        world.reservations[order_id] = changed(some, id=order_id, status="released", lines=())
    world.now_us += LATER_US
    assert kinds(world) == set()


def test_the_sums_are_those_of_the_books() -> None:
    world = simulate(5)
    (sums,) = audit.money_by_currency(world.books()).values()
    confirmed = [order for order in world.orders.values() if order.status == "confirmed"]
    assert sums.net == sums.captured - sums.refunded == sums.confirmed
    assert sums.confirmed == sum(order.total_minor for order in confirmed)
    assert sums.refunded > 0


def test_the_gravest_is_told_first() -> None:
    world = simulate(5)
    world.now_us += LATER_US
    unfinish(world, of_status(world, "cancelled"))
    uncharge(world, of_status(world, "confirmed"))
    first, second = audit.audit(world.books(), GRACE_S)
    assert (first.kind, second.kind) == (Kind.UNCHARGED_ORDER, Kind.STUCK_ORDER)
    assert first.expected.startswith("a charge of ")
    assert first.found == "no approved charge in the acquirer's ledger"
