"""More customers, for as long as a lease lasts: `python -m prove.injector.load`.

Requests are begun when they are due, whatever became of those before them. It ends by the wall
clock, and when its standard input does: with the injector, however that ends.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import secrets
import sys
import time

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from prove.injector.faults import Load

CUSTOMERS = 1000
MAX_IN_FLIGHT = 5000
LOOK_AGAIN_S = 1.0
NOT_AN_ANSWER = (ClientError, TimeoutError, LookupError, TypeError, ValueError)


class Crowd:
    """Customers of the shop at two base URLs."""

    def __init__(self, http: ClientSession, load: Load, products: str, orders: str) -> None:
        self._http = http
        self._load = load
        self._products = f"{products}/api/v1/products"
        self._orders = f"{orders}/api/v1/orders"
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For ever; raises nothing for what fails."""
        skus = await self._catalogue()
        size = max(1, round(self._load.per_s * self._load.burst_s)) if self._load.burst_s else 1
        began = time.monotonic()
        for number in itertools.count():
            due = began + number * size / self._load.per_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for _ in range(size):
                if len(self._in_flight) < MAX_IN_FLIGHT:
                    self._begin(random.choice(skus))  # noqa: S311 - not a secret

    def _begin(self, sku: str) -> None:
        task = asyncio.create_task(self._insist(sku))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _insist(self, sku: str) -> None:
        customer = f"surge-{secrets.randbelow(CUSTOMERS):03}"
        key = secrets.token_hex(16)
        for _ in range(1 + self._load.retries):
            with contextlib.suppress(*NOT_AN_ANSWER):
                if await self._ask(sku, customer, key):
                    return

    async def _ask(self, sku: str, customer: str, key: str) -> bool:
        """Whether the answer was one that a customer leaves with."""
        if self._load.kind == "reads":
            request = self._http.get(f"{self._products}/{sku}")
        else:
            body = {
                "customer_id": customer,
                "lines": [{"sku": sku, "quantity": 1}],
                "payment_method": "tok_approve",
            }
            request = self._http.post(self._orders, json=body, headers={"Idempotency-Key": key})
        async with request as answer:
            await answer.read()
            return answer.status < 500 and answer.status != 429

    async def _catalogue(self) -> list[str]:
        """Something to buy, as soon as there is."""
        while True:
            with contextlib.suppress(*NOT_AN_ANSWER):
                async with self._http.get(self._products, params={"limit": "100"}) as answer:
                    items = (await answer.json())["items"]
                if skus := [str(item["sku"]) for item in items if item["stock"] > 0]:
                    return skus
            await asyncio.sleep(LOOK_AGAIN_S)


async def main(arguments: argparse.Namespace) -> None:
    """Until the time is up or standard input ends."""
    load = Load.model_validate_json(arguments.load)
    left_s = arguments.until_unix_ms / 1000 - time.time()
    timeout = ClientTimeout(total=load.timeout_ms / 1000)
    async with ClientSession(timeout=timeout, connector=TCPConnector(limit=0)) as http:
        crowd = Crowd(http, load, arguments.products, arguments.orders)
        working = asyncio.create_task(crowd.run())
        alone = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
        await asyncio.wait(
            [working, alone], timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED
        )
        # Nothing is tidied up: a thread still reads, and those in flight are let down anyway.
        os._exit(0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m prove.injector.load", description=__doc__)
    parser.add_argument("--products", required=True, help="base URL of the Product Service")
    parser.add_argument("--orders", required=True, help="base URL of the Order Service")
    parser.add_argument("--load", required=True, help="the parameters of the lease, as JSON")
    parser.add_argument("--until-unix-ms", type=int, required=True, help="when it ends")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(_arguments()))
