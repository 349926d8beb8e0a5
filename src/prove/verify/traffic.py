"""The customers of `verify slos`: a constant arrival, whatever becomes of those before them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any
from uuid import uuid4

import aiohttp

from prove.verify.cells import READS_PER_S, SALES_PER_S, Traffic

LATE_S = 0.1
TIMEOUT_S = 10.0
"""Of a request; so no more than 300 are ever under way."""
CURRENCY = "GBP"
AMOUNT_MINOR = 1_999
CUSTOMERS = 1_000
NO_ANSWER = "none"


@dataclass
class Arrivals:
    """Sends reads and sales until it is cancelled.

    `answers` counts them by status. `late`: arrivals that were sent over 0.1 s after they were due;
    many of them, and the arrival was not constant.
    """

    urls: Mapping[str, str]
    skus: Sequence[str]
    sales: Traffic = "checkouts"
    sent: int = 0
    late: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Until cancelled; what is under way then is let go."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as http,
            asyncio.TaskGroup() as tasks,
        ):
            skus = cycle(self.skus)
            numbers = count()

            async def read() -> None:
                url = f"{self.urls['product']}/api/v1/products/{next(skus)}"
                await self._ask(http.get(url))

            async def sale() -> None:
                to = self._order if self.sales == "checkouts" else self._payment
                url, body = to(next(numbers), next(skus))
                headers = {"Idempotency-Key": str(uuid4())}
                await self._ask(http.post(url, json=body, headers=headers))

            tasks.create_task(self._arrive(READS_PER_S, read))
            tasks.create_task(self._arrive(SALES_PER_S, sale))

    async def _arrive(self, per_s: float, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as under_way:
            for number in count():
                due = began + number / per_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.sent += 1
                self.late += time.monotonic() - due > LATE_S
                under_way.create_task(send())

    async def _ask(self, request: Any) -> None:
        try:
            async with request as answer:
                await answer.read()
                self.answers[str(answer.status)] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.answers[NO_ANSWER] += 1

    def _order(self, number: int, sku: str) -> tuple[str, dict[str, Any]]:
        return f"{self.urls['order']}/api/v1/orders", order(f"drill-{number % CUSTOMERS}", sku)

    def _payment(self, number: int, _sku: str) -> tuple[str, dict[str, Any]]:
        return f"{self.urls['payment']}/api/v1/payments", {
            "order_id": f"drill-{number}",
            "amount_minor": AMOUNT_MINOR,
            "currency": CURRENCY,
            "method_token": "tok_approve",
        }


def order(customer: str, sku: str, method: str = "tok_approve") -> dict[str, Any]:
    """The body of an order of one piece."""
    return {
        "customer_id": customer,
        "lines": [{"sku": sku, "quantity": 1}],
        "payment_method": method,
    }
