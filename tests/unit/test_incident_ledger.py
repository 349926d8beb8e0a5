"""Customers arrive at a constant rate, and write down what became of each request."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from service_kit.testing import wait_until

from prove.incident import ledger, record
from prove.incident.ledger import Customers, Ledger
from prove.incident.record import Entry
from prove.incident.schema import Load
from prove.serving import serving


class Shop:
    """Answers orders as it is told to: by status, 0 for no answer in time."""

    def __init__(self, statuses: list[int], price_minor: int = 700) -> None:
        self.statuses, self.price_minor = statuses, price_minor
        self.bodies: list[dict[str, object]] = []
        self.keys: list[str] = []
        self.over = asyncio.Event()

    async def order(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers["Idempotency-Key"])
        self.bodies.append(await request.json())
        status = self.statuses.pop(0) if self.statuses else 201
        if not status:
            await self.over.wait()
        body = {"id": self.keys[-1], "status": "confirmed", "total_minor": self.price_minor}
        return web.json_response(body, status=status or 201)

    async def look(self, request: web.Request) -> web.Response:
        return web.json_response({"id": request.match_info["id"], "status": "confirmed"})

    async def product(self, request: web.Request) -> web.Response:
        body = {"sku": request.match_info["sku"], "price_minor": self.price_minor}
        return web.json_response(body)

    async def products(self, request: web.Request) -> web.Response:
        items = [
            {"sku": each.sku, "price_minor": self.price_minor}
            for each in ledger.goods()
            if each.category == request.query["category"]
        ]
        return web.json_response({"items": items})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "CHECKOUT_TIMEOUT_S", 120.0)
    monkeypatch.setattr(ledger, "LOOKS_S", 0.05)
    monkeypatch.setattr(ledger, "DECLINES", 0.0)


def visited(
    shop: Shop, path: Path, until: Callable[[list[Entry]], bool], *, settle: bool = False
) -> list[Entry]:
    """What customers wrote down until there is enough of it."""

    async def run() -> list[Entry]:
        app = web.Application()
        app.add_routes(
            [
                web.post("/api/v1/orders", shop.order),
                web.get("/api/v1/orders/{id}", shop.look),
                web.get("/api/v1/products", shop.products),
                web.get("/api/v1/products/{sku}", shop.product),
            ]
        )
        async with serving(app) as port:
            url = f"http://127.0.0.1:{port}"
            customers = Customers({"product": url, "order": url}, ledger.goods(), seed=1)
            customers.load = Load(reads_per_s=40, checkouts_per_s=20)
            customers.ledger = kept = Ledger(path)
            task = asyncio.create_task(customers.run())
            try:
                await asyncio.to_thread(wait_until, lambda: until(kept.entries), what="the entries")
                if settle:
                    await customers.settle(time.monotonic() + 120)
            finally:
                shop.over.set()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                kept.close()
        return list(kept.entries)

    return asyncio.run(run())


def of(entries: list[Entry], kind: str) -> list[Entry]:
    return [entry for entry in entries if entry.kind == kind]


def test_each_request_is_written_down(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    entries = visited(
        Shop([201, 402, 503]),
        path,
        lambda all_: (
            {e.outcome for e in of(all_, "checkout")} >= {"failed", "ok", "refused"}
            and of(all_, "read") != []
        ),
    )

    assert list(record.lines(path, Entry)) == entries
    outcomes = Counter(entry.outcome for entry in of(entries, "checkout"))
    assert set(outcomes) == {"failed", "ok", "refused"}
    assert outcomes["failed"] == outcomes["refused"] == 1
    reads = of(entries, "read")
    assert {entry.outcome for entry in reads} == {"ok"}
    assert len({entry.trace_id for entry in entries}) == len(entries)
    assert all(entry.done_unix_us >= entry.at_unix_us for entry in entries)


def test_customers_expect_to_pay_what_they_were_shown(tmp_path: Path) -> None:
    shop = Shop([], price_minor=12_300)
    visited(shop, tmp_path / "ledger.jsonl", lambda all_: len(of(all_, "read")) >= 60)

    asked = [(body["expected_total_minor"], body["lines"]) for body in shop.bodies]
    assert any(total == 12_300 * lines[0]["quantity"] for total, lines in asked)  # type: ignore[index]


def test_who_got_no_answer_asks_again_under_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "CHECKOUT_TIMEOUT_S", 3.0)
    shop = Shop([0])
    entries = visited(
        shop,
        tmp_path / "ledger.jsonl",
        lambda all_: any(entry.outcome == "no-answer" for entry in all_),
        settle=True,
    )

    open_ = next(entry for entry in entries if entry.outcome == "no-answer")
    again = [entry for entry in entries if entry.key == open_.key and entry.attempt == 2]
    assert not open_.final
    assert [(entry.outcome, entry.final) for entry in again] == [("ok", True)]
    assert shop.keys.count(open_.key) == 2


def test_who_was_told_to_wait_looks_until_it_is_settled(tmp_path: Path) -> None:
    entries = visited(
        Shop([202]),
        tmp_path / "ledger.jsonl",
        lambda all_: any(e.method == "GET" and e.kind == "checkout" for e in all_),
    )

    taken = next(entry for entry in entries if entry.outcome == "unsettled")
    looked = next(e for e in entries if e.key == taken.key and e.method == "GET")
    assert not taken.final
    assert (looked.outcome, looked.final, looked.route) == ("ok", True, "/api/v1/orders/{id}")


def test_the_same_seed_makes_the_same_customers(tmp_path: Path) -> None:
    def bought(name: str) -> list[object]:
        shop = Shop([], price_minor=0)
        visited(shop, tmp_path / name, lambda all_: len(of(all_, "checkout")) >= 3)
        return [body["lines"] for body in shop.bodies[:1]]

    assert bought("one") == bought("other")
