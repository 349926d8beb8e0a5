"""The customers of an experiment, against a small real server that answers as it is told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from prove.serving import serving
from prove.verify import history
from prove.verify.clients import (
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    Answer,
    Clients,
    backoff_s,
    cancel_type,
    order_type,
)
from prove.verify.history import Event, HistoryWriter
from prove.verify.plan import Purchase

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PURCHASE = Purchase(
    op=0,
    offset_s=0,
    customer="customer-1",
    key="key-0",
    lines=(("SKU-0001", 2),),
    method="tok_approve",
    timeout_s=120,
    double=False,
    cancel_after_s=None,
)


def purchases(count: int) -> list[Purchase]:
    return [replace(PURCHASE, op=op, key=f"key-{op}") for op in range(count)]


def confirmed(order_id: str = "order-1") -> web.Response:
    return web.json_response(
        {"id": order_id, "status": "confirmed", "total_minor": 250}, status=201
    )


def problem(status: int, slug: str, **more: Any) -> web.Response:
    return web.json_response({"type": f"/problems/{slug}", **more}, status=status)


def buy(file: Path, wanted: list[Purchase], order: Handler, cancel: Handler | None = None) -> None:
    """Let them buy at a server with these handlers, until each has its answer."""

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/api/v1/orders", order)
        app.router.add_post("/api/v1/orders/{id}/cancel", cancel or order)
        async with serving(app) as port, HistoryWriter(file) as written, asyncio.timeout(60):
            await Clients(f"http://127.0.0.1:{port}", wanted, written).run()

    asyncio.run(run())


def told(events: list[Event]) -> list[tuple[str, str, int]]:
    return [(event.kind, event.type, event.attempt) for event in events]


@pytest.mark.parametrize(
    ("status", "slug", "order", "cancel"),
    [
        (200, "", "info", "ok"),
        (201, "", "ok", "info"),
        (202, "", "info", "ok"),
        (402, "declined", "fail", "fail"),
        (409, "stock-short", "fail", "fail"),
        (409, "order-cancelled", "fail", "fail"),
        (409, "not-cancellable", "fail", "fail"),
        (409, "key-in-flight", "info", "info"),
        (409, "conflict", "info", "info"),
        (422, "validation", "fail", "fail"),
        (408, "request-timeout", "info", "info"),
        (429, "", "info", "info"),
        (500, "internal", "info", "info"),
        (503, "unavailable", "info", "info"),
        (0, "TimeoutError", "info", "info"),
    ],
)
def test_only_what_is_definite_ends_a_purchase(
    status: int, slug: str, order: str, cancel: str
) -> None:
    answer = Answer(status, detail=slug)

    assert order_type(answer) == order
    assert cancel_type(answer) == cancel


def test_digests_are_of_what_is_said_not_of_the_request() -> None:
    first = Answer(402, {"type": "/problems/declined", "reason": "a", "request_id": "1"})
    again = Answer(402, {"request_id": "2", "reason": "a", "type": "/problems/declined"})
    other = Answer(402, {"type": "/problems/declined", "reason": "b", "request_id": "1"})

    assert first.digest == again.digest != other.digest
    # The trace of an order belongs to the order.
    assert Answer(201, {"trace_id": "1"}).digest != Answer(201, {"trace_id": "2"}).digest


def test_a_shop_that_asks_for_patience_gets_it() -> None:
    assert backoff_s(0, Answer(503, retry_after_s=2)) > 2
    longest = BACKOFF_MAX_S + BACKOFF_MIN_S
    assert all(0 < backoff_s(failures, Answer()) <= longest for failures in (0, 1, 50))


def test_an_attempt_is_in_the_history_before_it_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    seen: list[list[Event]] = []

    async def order(request: web.Request) -> web.StreamResponse:
        seen.append(history.read(file))
        return confirmed()

    buy(file, [PURCHASE], order)

    assert [told(events) for events in seen] == [[("order", "invoke", 1)]]
    invoke, ok = history.read(file)
    assert (invoke.key, invoke.lines, invoke.method) == ("key-0", PURCHASE.lines, "tok_approve")
    assert (ok.type, ok.status, ok.order_id, ok.total_minor) == ("ok", 201, "order-1", 250)
    assert len(ok.body_sha256) == 64


def test_arrivals_do_not_wait_for_those_before_them(tmp_path: Path) -> None:
    last_is_here = asyncio.Event()

    async def order(request: web.Request) -> web.StreamResponse:
        if request.headers["Idempotency-Key"] == "key-2":
            last_is_here.set()
        await last_is_here.wait()
        return confirmed()

    buy(tmp_path / "history.jsonl", purchases(3), order)

    assert [event.type for event in history.read(tmp_path / "history.jsonl")].count("ok") == 3


def test_what_is_open_is_asked_again_under_its_key(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    keys: list[str] = []
    over = asyncio.Event()

    async def order(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Idempotency-Key"])
        match len(keys):
            case 1:
                await over.wait()  # this client does not wait so long
            case 2:
                assert request.transport is not None
                request.transport.abort()
            case 3:
                return problem(409, "key-in-flight")
            case 4:
                return web.json_response({"id": "order-1"}, status=202)
        over.set()
        return problem(402, "declined", order_id="order-1")

    buy(file, [replace(PURCHASE, timeout_s=3)], order)

    events = history.read(file)
    ends = [(event.status, event.type) for event in events if event.type != "invoke"]
    assert ends == [(0, "info"), (0, "info"), (409, "info"), (202, "info"), (402, "fail")]
    assert set(keys) == {"key-0"}
    assert [event.attempt for event in events] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert (events[-1].detail, events[-1].order_id) == ("declined", "order-1")


def test_double_submits_are_under_way_together(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    both = asyncio.Barrier(2)

    async def order(request: web.Request) -> web.StreamResponse:
        await both.wait()
        return confirmed()

    buy(file, [replace(PURCHASE, double=True)], order)

    events = history.read(file)
    assert sorted(event.attempt for event in events if event.type == "ok") == [1, 2]
    assert [event.type for event in events[:2]] == ["invoke", "invoke"]


def test_an_order_is_cancelled_once_it_is_known(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    asked: list[str] = []

    async def order(request: web.Request) -> web.StreamResponse:
        return confirmed("order-7")

    async def cancel(request: web.Request) -> web.StreamResponse:
        asked.append(request.match_info["id"])
        if len(asked) == 1:
            return problem(503, "unavailable")
        return web.json_response({"id": "order-7", "status": "cancelled"})

    buy(file, [replace(PURCHASE, cancel_after_s=0.0)], order, cancel)

    assert asked == ["order-7", "order-7"]
    assert [(event.kind, event.type) for event in history.read(file)] == [
        ("order", "invoke"),
        ("order", "ok"),
        ("cancel", "invoke"),
        ("cancel", "info"),
        ("cancel", "invoke"),
        ("cancel", "ok"),
    ]


def test_what_was_never_an_order_is_not_cancelled(tmp_path: Path) -> None:
    async def order(request: web.Request) -> web.StreamResponse:
        return problem(409, "stock-short")

    async def cancel(request: web.Request) -> web.StreamResponse:
        raise AssertionError("there is nothing to cancel")

    buy(tmp_path / "history.jsonl", [replace(PURCHASE, cancel_after_s=0.0)], order, cancel)

    kinds = [event.kind for event in history.read(tmp_path / "history.jsonl")]
    assert kinds == ["order", "order"]
