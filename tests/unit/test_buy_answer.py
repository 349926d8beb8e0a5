"""What `buy` takes for the shop's answer."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from prove.clients.server import NoAnswerInTimeError
from prove.clients.shop import Order, OrderAnswer, Shop
from prove.commands import buy
from prove.stack.settings import StackSettings

PLACED = {
    "id": "o-1",
    "status": "confirmed",
    "customer_id": "c",
    "lines": [],
    "total_minor": 1,
    "currency": "GBP",
    "trace_id": "t",
    "created_at": "2026-11-23T20:54:28Z",
}
IN_FLIGHT = {"type": "/problems/key-in-flight", "status": 409}
UNAVAILABLE = {"type": "/problems/unavailable", "detail": "the catalogue did not answer"}


def ask(answer: Callable[[httpx.Request], httpx.Response], timeout_s: float) -> OrderAnswer:
    shop = Shop(StackSettings(), httpx.MockTransport(answer))
    body: dict[str, Any] = {"customer_id": "c"}
    return buy._answer(shop, body, "key", "00-t-s-01", timeout_s)


def test_an_answer_that_our_own_time_limit_made_is_none() -> None:
    def late(_: httpx.Request) -> httpx.Response:
        time.sleep(0.02)
        return httpx.Response(503, json=UNAVAILABLE)

    with pytest.raises(NoAnswerInTimeError):
        ask(late, 0.01)


def test_a_shop_that_is_out_of_order_is_believed_before() -> None:
    answer = ask(lambda _: httpx.Response(503, json=UNAVAILABLE), 60)
    assert (answer.status_code, answer.problem["detail"]) == (503, "the catalogue did not answer")


def test_the_first_request_of_a_key_is_waited_for() -> None:
    answers: Iterator[httpx.Response] = iter(
        [httpx.Response(409, json=IN_FLIGHT), httpx.Response(201, json=PLACED)]
    )
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        return next(answers)

    order = ask(answer, 60).order
    assert order
    assert order.id == "o-1"
    assert keys == ["key", "key"]


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("declined", 402, "declined"),
        ("payment-timeout", 402, "failed"),
        ("stock-short", 409, "short"),
        ("reservation-gone", 409, "failed"),
        ("order-cancelled", 409, "failed"),
        ("unknown-sku", 422, "refused"),
        ("unavailable", 503, "failed"),
    ],
)
def test_an_order_is_expected_where_the_shop_counts_it(
    code: str, status: int, outcome: str
) -> None:
    refused = ask(lambda _: httpx.Response(status, json={"type": f"/problems/{code}"}), 60)
    assert buy._outcome(refused, None) == outcome
    late = Order.model_validate(PLACED | {"status": "rejected", "failure": {"code": code}})
    accepted = OrderAnswer(202, late, {}, replayed=False)
    assert buy._outcome(accepted, late) == outcome


def test_a_key_that_stays_in_flight_ends_with_the_time() -> None:
    with pytest.raises(NoAnswerInTimeError):
        ask(lambda _: httpx.Response(409, json=IN_FLIGHT), 0.3)
