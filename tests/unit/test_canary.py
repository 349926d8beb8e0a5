"""The canary against a shop that answers as it is told."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from prove.canary import CUSTOMER, TEST_PRODUCT, Canary, Outcome, exposition, once

ORDERS = "/api/v1/orders"


@dataclass
class FakeShop:
    """Answers orders with `statuses` in turn, the last of them again and again; 0 is silence."""

    stock: dict[str, int] = field(default_factory=lambda: {"MUG": 1})
    statuses: list[int] = field(default_factory=lambda: [201])
    problem: str = "/problems/stock-short"
    cancel_status: int = 200
    left: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    catalogue: Callable[[], Awaitable[web.Response]] | None = None

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/api/v1/products", self.products),
                web.put("/api/v1/products/{sku}", self.put),
                web.post(ORDERS, self.order),
                web.get(ORDERS, self.orders),
                web.post(ORDERS + "/{id}/cancel", self.cancel),
            ]
        )
        return app

    async def products(self, request: web.Request) -> web.Response:
        if self.catalogue:
            return await self.catalogue()
        skus = list(self.stock)
        at = int(request.query.get("cursor", 0))
        item = [{"sku": sku, "stock": self.stock[sku]} for sku in skus[at : at + 1]]
        more = str(at + 1) if at + 1 < len(skus) else None
        return web.json_response({"items": item, "next_cursor": more})

    async def put(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer opensesame":
            return web.json_response({"title": "Unauthorized"}, status=401)
        product = await request.json()
        self.stock[request.match_info["sku"]] = product["stock"]
        return web.json_response(product, status=201)

    async def order(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers["Idempotency-Key"])
        self.bodies.append(await request.json())
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if not status:
            await asyncio.sleep(3600)
        body = {"id": f"o{len(self.keys)}", "title": f"problem {status}", "type": self.problem}
        return web.json_response(body, status=status)

    async def orders(self, request: web.Request) -> web.Response:
        assert request.query["customer_id"] == CUSTOMER
        return web.json_response({"items": self.left, "next_cursor": None})

    async def cancel(self, request: web.Request) -> web.Response:
        self.cancelled.append(request.match_info["id"])
        return web.json_response({}, status=self.cancel_status)


@asynccontextmanager
async def watched(shop: FakeShop, timeout_s: float = 30) -> AsyncIterator[Canary]:
    async with TestServer(shop.app()) as server, ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        yield Canary(http, url, url, interval_s=0.01, timeout_s=timeout_s)


def probe(shop: FakeShop, times: int = 1, timeout_s: float = 30) -> list[Outcome | None]:
    async def main() -> list[Outcome | None]:
        async with watched(shop, timeout_s) as canary:
            return [await canary.probe() for _ in range(times)]

    return asyncio.run(main())


def test_each_order_has_a_fresh_key_and_is_cancelled() -> None:
    shop = FakeShop()
    first, second = probe(shop, times=2)

    assert first
    assert second
    assert (first.success, second.success) == (True, True)
    assert len(set(shop.keys)) == 2
    assert shop.cancelled == ["o1", "o2"]
    assert shop.bodies[0] == {
        "customer_id": CUSTOMER,
        "lines": [{"sku": "MUG", "quantity": 1}],
        "payment_method": "tok_approve",
    }


@pytest.mark.parametrize(("status", "success"), [(201, True), (202, True), (503, False)])
def test_an_order_that_is_taken_is_success_and_a_refused_one_is_not(
    status: int, success: bool
) -> None:
    (outcome,) = probe(FakeShop(statuses=[status], problem="/problems/unavailable"))

    assert outcome
    assert outcome.success is success
    assert outcome.reason == ("" if success else "503 problem 503")
    assert len(outcome.trace_id) == 32


def test_no_answer_in_time_is_no_success() -> None:
    (outcome,) = probe(FakeShop(statuses=[0]), timeout_s=0.2)

    assert outcome
    assert (outcome.success, outcome.reason) == (False, "no answer in time")


def test_a_shop_that_is_down_is_no_success() -> None:
    async def main() -> Outcome | None:
        async with ClientSession() as http:
            # Port 1 of the loopback address refuses every connection.
            return await Canary(http, "http://127.0.0.1:1", "http://127.0.0.1:1", 1, 1).probe()

    outcome = asyncio.run(main())
    assert outcome
    assert not outcome.success
    assert "127.0.0.1:1" in outcome.reason


@pytest.mark.parametrize("stock", [{}, {"MUG": 0}])
def test_with_nothing_to_buy_nothing_is_said(stock: dict[str, int]) -> None:
    shop = FakeShop(stock=stock)
    (outcome,) = probe(shop)

    assert outcome is None
    assert exposition(outcome) == ""
    assert not shop.keys


def test_what_is_in_stock_is_found_on_a_later_page() -> None:
    shop = FakeShop(stock={"A": 0, "B": 0, "C": 3})
    (outcome,) = probe(shop)

    assert outcome
    assert outcome.success
    assert shop.bodies[0]["lines"][0]["sku"] == "C"


def test_a_product_that_is_sold_out_meanwhile_is_no_failure() -> None:
    shop = FakeShop(stock={"A": 1, "B": 1}, statuses=[409, 201])
    (outcome,) = probe(shop)

    assert outcome
    assert outcome.success
    assert [body["lines"][0]["sku"] for body in shop.bodies] == ["A", "B"]


def test_an_order_that_is_refused_for_another_reason_is_a_failure() -> None:
    shop = FakeShop(stock={"A": 1, "B": 1}, statuses=[422], problem="/problems/unknown-method")
    (outcome,) = probe(shop)

    assert outcome
    assert not outcome.success
    assert len(shop.bodies) == 1


def test_a_catalogue_that_answers_nonsense_is_a_failure() -> None:
    async def nonsense() -> web.Response:
        return web.json_response([1])

    (outcome,) = probe(FakeShop(catalogue=nonsense))
    assert outcome
    assert not outcome.success
    assert outcome.reason.startswith("the catalogue: ")


def test_what_was_left_standing_is_cancelled_but_not_what_is_just_being_placed() -> None:
    now = datetime.now(UTC)

    def left(order_id: str, status: str, age_s: float) -> dict[str, object]:
        created = (now - timedelta(seconds=age_s)).isoformat().replace("+00:00", "Z")
        return {"id": order_id, "status": status, "created_at": created}

    shop = FakeShop(
        left=[
            left("young", "pending", 1),
            left("stands", "confirmed", 100),
            left("done", "cancelled", 100),
            left("refused", "rejected", 100),
        ]
    )

    async def main() -> None:
        async with watched(shop) as canary:
            running = asyncio.create_task(canary.run())
            while "stands" not in shop.cancelled:  # noqa: ASYNC110 - the shop has no event to tell
                await asyncio.sleep(0.01)
            running.cancel()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert not {"young", "done", "refused"} & set(shop.cancelled)


def test_prometheus_is_told_the_last_outcome() -> None:
    lines = exposition(Outcome(True, 0.25)).splitlines()

    assert "probe_success 1" in lines
    assert "probe_duration_seconds 0.250000" in lines
    assert "probe_success 0" in exposition(Outcome(False, 1))


def order_once(shop: FakeShop, token: Path | None = None) -> str:
    async def main() -> str:
        async with TestServer(shop.app()) as server:
            url = str(server.make_url("")).rstrip("/")
            return await once(
                Namespace(products=url, orders=url, interval=1, timeout=30, admin_token_file=token)
            )

    return asyncio.run(main())


def test_one_order_is_placed_and_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    shop = FakeShop()

    assert order_once(shop) == ""
    assert shop.cancelled == ["o1"]
    assert "ordered and cancelled in" in capsys.readouterr().out


def test_one_order_that_fails_says_why() -> None:
    assert (
        order_once(FakeShop(statuses=[503], problem="/problems/unavailable")) == "503 problem 503"
    )


def test_where_there_is_nothing_something_is_put_to_buy(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("opensesame\n")
    shop = FakeShop(stock={})

    assert order_once(shop).startswith("there is nothing in stock")
    assert order_once(shop, token) == ""
    assert shop.bodies[0]["lines"][0]["sku"] == TEST_PRODUCT["sku"]

    token.write_text("wrong")
    assert order_once(FakeShop(stock={}), token).startswith("the catalogue takes no product: 401")
