"""Real invoices as orders."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from prove import replay
from prove.loadtest import MAX_ORDER_LINES, Request
from prove.retail import Sale, SalesFile
from tests.support.december import december

START = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def sale(
    invoice: str, sku: str, quantity: int = 1, minutes: float = 0, customer: str = "17850"
) -> Sale:
    when = START + timedelta(minutes=minutes)
    return Sale(invoice, sku, "MUG", quantity, when, 100, customer)


def invoices(*sales: Sale, known: str = "ABC") -> replay.Invoices:
    collected = replay.Invoices(set(known))
    for each in sales:
        collected.add(each)
    return collected


def bodies(requests: Sequence[Request]) -> list[dict[str, object]]:
    return [json.loads(request.body or "") for request in requests]


def requests(collected: replay.Invoices, speed: float = 1) -> list[Request]:
    return replay.requests(collected.timed(), speed, seed=1, decline=0)


def test_an_invoice_is_an_order_with_its_basket() -> None:
    (request,) = requests(invoices(sale("1", "A", 2), sale("1", "B", 3), sale("1", "A", 4)))
    assert bodies([request]) == [
        {
            "customer_id": "17850",
            "lines": [{"sku": "A", "quantity": 6}, {"sku": "B", "quantity": 3}],
            "payment_method": "tok_approve",
        }
    ]


def test_orders_keep_their_spacing_speeded_up() -> None:
    collected = invoices(sale("2", "A", minutes=61), sale("1", "A"), sale("3", "A", minutes=62))
    assert [request.at_ms for request in requests(collected, speed=60)] == [0, 61_000, 62_000]


def test_invoices_of_one_minute_are_spread_over_it() -> None:
    collected = invoices(*(sale(str(n), "A") for n in range(4)), sale("9", "A", minutes=1))
    times = [request.at_ms for request in requests(collected)]
    assert times == [0, 15_000, 30_000, 45_000, 60_000]


def test_a_quantity_is_what_an_order_may_have_at_most() -> None:
    (body,) = bodies(requests(invoices(sale("1", "A", 9_000), sale("1", "A", 9_000))))
    assert body["lines"] == [{"sku": "A", "quantity": 10_000}]


def test_a_large_basket_becomes_orders_at_the_same_time() -> None:
    skus = [f"S{n}" for n in range(2 * MAX_ORDER_LINES + 1)]
    collected = replay.Invoices(set(skus))
    for sku in skus:
        collected.add(sale("1", sku))
    orders = requests(collected)
    lines = [each["lines"] for each in bodies(orders)]
    assert [len(each) for each in lines if isinstance(each, list)] == [500, 500, 1]
    assert {order.at_ms for order in orders} == {0}


@pytest.mark.parametrize(
    ("customer", "customer_id"),
    [("17850", "17850"), ("17850.0", "17850"), ("", "guest-1"), ("two words", "guest-1")],
)
def test_who_has_no_number_is_a_guest(customer: str, customer_id: str) -> None:
    (body,) = bodies(requests(invoices(sale("1", "A", customer=customer))))
    assert body["customer_id"] == customer_id


def test_products_the_shop_does_not_have_are_counted() -> None:
    collected = invoices(sale("1", "A"), sale("1", "Z"), sale("2", "Z"))
    assert (len(collected), collected.unknown_lines) == (1, 2)


def test_december_2010() -> None:
    with SalesFile(december()) as sales:
        lines = [line for line in sales if isinstance(line, Sale)]
    collected = replay.Invoices({line.sku for line in lines})
    for line in lines:
        collected.add(line)
    orders = requests(collected, speed=600)
    assert (len(collected), collected.unknown_lines) == (1_449, 0)
    baskets = [each["lines"] for each in bodies(orders)]
    assert sum(len(basket) for basket in baskets if isinstance(basket, list)) == 37_607
    times = [order.at_ms or 0 for order in orders]
    assert times == sorted(times)
    assert times[-1] / 1000 == pytest.approx(19.32 * 86_400 / 600, rel=0.01)
