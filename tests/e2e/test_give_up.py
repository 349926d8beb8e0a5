"""A charge whose outcome comes too late, with the real services and the real acquirer."""

from pathlib import Path

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from prove.verify import audit, books, shop
from prove.verify.experiment import sources, unfinished
from prove.verify.plan import Product
from prove.verify.shop import Setup

pytestmark = pytest.mark.timeout(600)


def test_a_charge_that_is_given_up_is_refunded_when_it_succeeds_after_all(tmp_path: Path) -> None:
    setup = Setup(
        tmp_path / "shop",
        env={"order": {"PAYMENT_GIVE_UP_S": "5"}, "acquirer": {"SLOW_MS": "15000"}},
    )
    with shop.running(setup) as running, httpx.Client(timeout=PATIENT_S, trust_env=False) as client:
        running.import_products([Product("SKU-1", "One", 1_250, 10)])
        orders = f"{running.orders_url}/api/v1/orders"

        def buy() -> httpx.Response:
            wanted = {
                "customer_id": "c1",
                "lines": [{"sku": "SKU-1", "quantity": 2}],
                "payment_method": "tok_slow",
            }
            return client.post(orders, json=wanted, headers={"Idempotency-Key": "k1"})

        unsettled = wait_until(lambda: None if (it := buy()).status_code == 503 else it)
        assert unsettled.status_code == 202
        order = f"{orders}/{unsettled.json()['id']}"
        wait_until(lambda: client.get(order).json()["status"] == "rejected", what="the end")
        told = buy()
        wait_until(lambda: not unfinished(running), what="the refund")
        found = books.read(sources(running))

    assert told.status_code == 402
    assert told.json()["type"] == "/problems/payment-timeout"
    assert audit.audit(found) == []
    (only,) = found.orders
    assert (only.status, only.failure) == ("rejected", "payment-timeout")
    charge, refund = found.entries
    assert [(e.kind, e.status, e.amount_minor) for e in (charge, refund)] == [
        ("charge", "approved", 2_500),
        ("refund", "approved", 2_500),
    ]
    given_up_us = next(step.at_us for step in found.steps if step.status == "rejected")
    assert given_up_us < refund.created_at_us
    assert [(stock.sku, stock.quantity) for stock in found.stock] == [("SKU-1", 10)]
