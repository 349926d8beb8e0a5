"""An order every few seconds, placed and cancelled: is checkout there for customers?

A process of its own (`python -m prove.canary`), as small as can be. Prometheus scrapes the last
outcome as it would a blackbox probe's: `probe_success` and `probe_duration_seconds`. Success is an
answer of 2xx: an order that waits for its payment (202) was taken, and is freshness's to watch.
Where there is nothing to buy nothing was tried, so there is no outcome either.

Every order has a fresh key and is cancelled right away, so that stock and revenue stay as they
were. One that couldn't be, or whose answer never came, is looked up and cancelled later: also what
a killed canary left.
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, web

from prove.serving import serving

CUSTOMER = "canary"
TEST_PRODUCT = {
    "sku": "canary-feed",
    "name": "Canary feed",
    "description": "Put here by the canary, since there was nothing to buy.",
    "category": "canary",
    "price_minor": 100,
    "currency": "GBP",
    "stock": 1000,
}
PAGES = 20
"""How much of the catalogue is looked through for something in stock."""
NOT_TO_BE_HAD = ("/problems/stock-short", "/problems/unknown-sku")
"""The product is sold out or gone meanwhile: nothing is wrong with checkout."""
NOT_AN_ANSWER = (ClientError, TimeoutError, AttributeError, LookupError, TypeError, ValueError)
"""None at all, or none of the shop's."""


@dataclass(frozen=True)
class Outcome:
    """Of one order; `reason` says what went wrong with a failed one."""

    success: bool
    duration_s: float
    reason: str = ""
    trace_id: str = ""


class Canary:
    """Probes the shop at two base URLs; times in seconds."""

    def __init__(
        self, http: ClientSession, products: str, orders: str, interval_s: float, timeout_s: float
    ) -> None:
        self._http = http
        self._products = f"{products}/api/v1/products"
        self._orders = f"{orders}/api/v1/orders"
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._sku: str | None = None
        self._something_left = True
        self._begun = 0
        self._told = 0
        self.last: Outcome | None = None

    async def run(self) -> None:
        """Begin an order at every interval, whether the one before has been answered or not.

        A mistake in here ends the process: it must not go on telling its last outcome.
        """
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._tick())
                due = max(due + self._interval_s, time.monotonic())
                await asyncio.sleep(due - time.monotonic())

    async def _tick(self) -> None:
        self._begun += 1
        number = self._begun
        outcome = await self.probe()
        if number > self._told:  # a slow one doesn't speak for those that began after it
            self._told, self.last = number, outcome
        if outcome and not outcome.success:
            _log("probe failed", reason=outcome.reason, trace_id=outcome.trace_id)
        elif outcome and self._something_left:
            await self._clear_up()

    async def probe(self) -> Outcome | None:
        """Place an order and cancel it; None when there is nothing to buy."""
        try:
            async with asyncio.timeout(self._timeout_s):
                sku = self._sku or await self._in_stock()
            if sku is None:
                return None
            outcome, problem = await self._order(sku)
            if problem in NOT_TO_BE_HAD:
                self._sku = None
                async with asyncio.timeout(self._timeout_s):
                    sku = await self._in_stock(other_than=sku)
                if sku is None:
                    return None
                outcome, problem = await self._order(sku)
                if problem in NOT_TO_BE_HAD:  # sold out between two requests, twice
                    return None
        except NOT_AN_ANSWER as error:
            return Outcome(False, 0, f"the catalogue: {_said(error)}")
        self._sku = sku
        return outcome

    async def _order(self, sku: str) -> tuple[Outcome, str]:
        """The outcome, and the type of the problem that was the answer."""
        trace_id = secrets.token_hex(16)
        began = time.monotonic()
        order_id, reason, problem = None, "", ""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.post(
                    self._orders,
                    json={
                        "customer_id": CUSTOMER,
                        "lines": [{"sku": sku, "quantity": 1}],
                        "payment_method": "tok_approve",
                    },
                    headers={
                        "Idempotency-Key": secrets.token_hex(16),
                        "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01",
                        "x-envoy-expected-rq-timeout-ms": str(round(self._timeout_s * 1000)),
                    },
                ) as answer,
            ):
                body = await answer.json(content_type=None)
                if answer.ok:
                    order_id = str(body["id"])
                else:
                    reason = f"{answer.status} {body.get('title', '')}"
                    problem = str(body.get("type", ""))
        except NOT_AN_ANSWER as error:
            reason = _said(error)
            self._something_left = True
        outcome = Outcome(not reason, time.monotonic() - began, reason, trace_id)
        if order_id and not await self._cancel(order_id):
            self._something_left = True
        return outcome, problem

    async def _in_stock(self, other_than: str | None = None) -> str | None:
        params = {"limit": "100"}
        for _ in range(PAGES):
            page = await self._get(self._products, params)
            for item in page["items"]:
                if item["stock"] > 0 and item["sku"] != other_than:
                    return str(item["sku"])
            if not page["next_cursor"]:
                return None
            params["cursor"] = page["next_cursor"]
        return None

    async def _cancel(self, order_id: str) -> bool:
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.post(f"{self._orders}/{order_id}/cancel") as answer,
            ):
                return answer.status in (200, 202, 409)  # 409: it came to nothing by itself
        except NOT_AN_ANSWER:
            return False

    async def _clear_up(self) -> None:
        """Cancel this canary's orders that stand, but for those just being placed."""
        old = datetime.now(UTC) - timedelta(seconds=2 * self._timeout_s)
        self._something_left = False
        try:
            async with asyncio.timeout(self._timeout_s):
                page = await self._get(self._orders, {"customer_id": CUSTOMER, "limit": "100"})
            for order in page["items"]:
                if order["status"] in ("cancelled", "rejected"):
                    continue
                young = datetime.fromisoformat(order["created_at"]) > old
                if young or not await self._cancel(order["id"]):
                    self._something_left = True
        except NOT_AN_ANSWER as error:
            self._something_left = True
            _log("not cleared up", reason=_said(error))

    async def _get(self, url: str, params: dict[str, str]) -> dict[str, Any]:
        async with self._http.get(url, params=params) as answer:
            answer.raise_for_status()
            page: dict[str, Any] = await answer.json()
            return page


def exposition(outcome: Outcome | None) -> str:
    """In Prometheus' text format; empty when nothing was tried."""
    if outcome is None:
        return ""
    return (
        "# HELP probe_success Whether the last order of the canary was taken.\n"
        "# TYPE probe_success gauge\n"
        f"probe_success {int(outcome.success)}\n"
        "# HELP probe_duration_seconds How long its answer took.\n"
        "# TYPE probe_duration_seconds gauge\n"
        f"probe_duration_seconds {outcome.duration_s:.6f}\n"
    )


async def serve(arguments: argparse.Namespace) -> None:
    """Probe, and answer GET /metrics and /-/ready, until cancelled or told to end."""
    if task := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with ClientSession() as http:
        canary = Canary(
            http, arguments.products, arguments.orders, arguments.interval, arguments.timeout
        )

        async def metrics(_: web.Request) -> web.Response:
            text = exposition(canary.last)
            return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4"})

        async def ready(_: web.Request) -> web.Response:
            return web.Response(text="ready\n")

        app = web.Application()
        app.add_routes([web.get("/metrics", metrics), web.get("/-/ready", ready)])
        async with serving(app, arguments.port, arguments.host):
            await canary.run()


async def once(arguments: argparse.Namespace) -> str:
    """Place one order and cancel it; what went wrong, or nothing.

    Where nothing can be bought a product is put there for it, with the admin token.
    """
    async with ClientSession() as http:
        canary = Canary(
            http, arguments.products, arguments.orders, arguments.interval, arguments.timeout
        )
        outcome = await canary.probe()
        if outcome is None and arguments.admin_token_file is not None:
            token = arguments.admin_token_file.read_text(encoding="utf-8").strip()
            async with http.put(
                f"{arguments.products}/api/v1/products/{TEST_PRODUCT['sku']}",
                json=TEST_PRODUCT,
                headers={"Authorization": f"Bearer {token}"},
            ) as answer:
                if not answer.ok:
                    return f"the catalogue takes no product: {answer.status} {await answer.text()}"
            outcome = await canary.probe()
    if outcome is None:
        return "there is nothing in stock: import goods, or name --admin-token-file"
    if outcome.success:
        ordered = f"ordered and cancelled in {outcome.duration_s:.3f} s"
        sys.stdout.write(f"{ordered}, trace {outcome.trace_id}\n")
    return outcome.reason


def main() -> None:
    """Run until SIGTERM or Ctrl-C; with --once, until an order is placed, exit code 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m prove.canary", description=__doc__)
    parser.add_argument("--once", action="store_true", help="one order, then end")
    parser.add_argument("--host", default="127.0.0.1", help="where to be scraped")
    parser.add_argument("--port", type=int, default=9116, help="where to be scraped")
    parser.add_argument(
        "--admin-token-file", type=Path, help="with --once: for goods, where there are none"
    )
    parser.add_argument("--products", required=True, help="base URL of the Product Service")
    parser.add_argument("--orders", required=True, help="base URL of the Order Service")
    parser.add_argument("--interval", type=float, default=15, help="seconds between orders")
    parser.add_argument("--timeout", type=float, default=10, help="seconds an answer may take")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        if not arguments.once:
            asyncio.run(serve(arguments))
        elif reason := asyncio.run(once(arguments)):
            sys.stderr.write(f"no order: {reason}\n")
            sys.exit(1)


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}"


def _log(event: str, **fields: str) -> None:
    ts = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {"ts": ts, "level": "warning", "event": event, "service": "canary", **fields}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
