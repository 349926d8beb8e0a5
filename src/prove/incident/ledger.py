"""The customers of an incident and their ledger: what each asked, when, and what came of it.

They arrive at a constant rate, whatever becomes of those before them: a shop that gets slow doesn't
get fewer customers by it. The ledger is theirs alone; no server has a say in it.
"""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import aiohttp

from prove.errors import UserError
from prove.incident.record import Entry, Result
from prove.incident.schema import Load

CHECKOUT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 3.0
LATE_S = 0.1
CUSTOMERS = 1_000
DECLINES = 0.02
"""Of the customers have a card that is declined, as there always are."""
LISTS = 0.2
"""Of the reads are of a category; the others of one product."""
LOOKS_S = 1.0
"""Between two looks of a customer at an order that was taken but isn't settled."""
ASKS_AT_ONCE = 10
CURRENCY = "GBP"
STOCK = 10_000_000
CATEGORIES = ("lamps", "mugs", "clocks")

ORDERS = "/api/v1/orders"
ORDER = "/api/v1/orders/{id}"
PRODUCTS = "/api/v1/products"
PRODUCT = "/api/v1/products/{sku}"
NOT_SENT = frozenset({"ClientConnectorError"})
"""What failed so never reached the shop: there is nothing to ask after."""


@dataclass(frozen=True)
class Goods:
    """A product that the customers buy."""

    sku: str
    category: str
    price_minor: int

    def item(self) -> dict[str, Any]:
        """For the bulk import."""
        return {
            "sku": self.sku,
            "name": f"{self.category.removesuffix('s').capitalize()} {self.sku[-2:]}",
            "description": "Sold in drills only.",
            "category": self.category,
            "price_minor": self.price_minor,
            "currency": CURRENCY,
            "stock": STOCK,
        }


def goods() -> list[Goods]:
    """Eight of each category, at prices of their own."""
    return [
        Goods(f"INC-{category[:-1].upper()}-{number:02}", category, 799 + 250 * number)
        for category in CATEGORIES
        for number in range(1, 9)
    ]


def outcome(status: int) -> Result:
    """What an answer is to a customer."""
    if not status:
        return "no-answer"
    if status == 202:
        return "unsettled"
    if status < 400:
        return "ok"
    return "refused" if status < 500 else "failed"


@dataclass(frozen=True)
class _Purchase:
    """What is asked for: the same again when it is asked again."""

    key: str
    body: Mapping[str, Any]

    @property
    def asked_minor(self) -> int:
        """What the customer was shown."""
        return int(self.body["expected_total_minor"])


@dataclass(frozen=True)
class _Answer:
    status: int
    body: Mapping[str, Any]
    detail: str
    latency_ms: float
    at_unix_us: int
    done_unix_us: int
    trace_id: str


@dataclass
class Ledger:
    """The entries of one run, in memory and, line by line, in its file."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    sent: int = 0
    late: int = 0
    _file: TextIO | None = None

    def add(self, entry: Entry) -> None:
        """Write it down; raises UserError when that fails."""
        self.entries.append(entry)
        try:
            if self._file is None:
                self._file = self.path.open("a", encoding="utf-8", buffering=1)
            self._file.write(entry.model_dump_json() + "\n")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """No entry comes any more."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Customers:
    """Send reads and checkouts until cancelled; whose ledger it is, changes from run to run."""

    def __init__(self, urls: Mapping[str, str], wares: Sequence[Goods], seed: int) -> None:
        self._urls, self._goods = urls, wares
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._numbers = count()
        self._begun_at_ns = time.time_ns()
        self._prices = {each.sku: each.price_minor for each in wares}
        self._open: dict[str, _Purchase] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._load = Load()
        self._changed = asyncio.Event()
        self.ledger: Ledger | None = None

    @property
    def load(self) -> Load:
        """How many arrive."""
        return self._load

    @load.setter
    def load(self, load: Load) -> None:
        if load != self._load:
            self._load = load
            self._changed.set()

    @property
    def unsettled(self) -> int:
        """Orders that were taken and whose customers don't know yet what becomes of them."""
        return len(self._looking)

    async def run(self) -> None:
        """Until cancelled; what is under way then is let go."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, trust_env=False) as http:
            self._http = http
            try:
                while True:
                    self._changed.clear()
                    arriving = [
                        asyncio.create_task(self._arrive(self._load.reads_per_s, self._read)),
                        asyncio.create_task(self._arrive(self._load.checkouts_per_s, self._buy)),
                    ]
                    waiting = asyncio.create_task(self._changed.wait())
                    try:
                        done, _ = await asyncio.wait(
                            [*arriving, waiting], return_when=asyncio.FIRST_COMPLETED
                        )
                        for each in done:
                            each.result()
                    finally:
                        await _end([*arriving, waiting])
            finally:
                await _end(list(self._looking))

    async def settle(self, until: float) -> None:
        """Ask again for what had no answer, and wait for what isn't settled; at most `until`.

        `until` is monotonic. To be called once the shop is well again.
        """
        turns = asyncio.Semaphore(ASKS_AT_ONCE)

        async def ask(purchase: _Purchase) -> None:
            attempt = 2
            while time.monotonic() < until:
                async with turns:
                    answer = await self._purchase(purchase, attempt)
                if answer.status and answer.status < 500:
                    return
                attempt += 1
                await asyncio.sleep(LOOKS_S)

        await asyncio.gather(*map(ask, list(self._open.values())))
        while self._looking and time.monotonic() < until:
            await asyncio.wait(self._looking, timeout=max(0.0, until - time.monotonic()))

    async def _arrive(self, per_s: float, send: Any) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as under_way:
            for number in count():
                due = began + number / per_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self.ledger:
                    self.ledger.sent += 1
                    self.ledger.late += time.monotonic() - due > LATE_S
                under_way.create_task(send())

    async def _read(self) -> None:
        ware = self._random.choice(self._goods)
        if self._random.random() < LISTS:
            route = PRODUCTS
            answer = await self._ask(
                "GET", f"{self._urls['product']}{PRODUCTS}", READ_TIMEOUT_S,
                params={"category": ware.category, "limit": "20"},
            )  # fmt: skip
            items = answer.body.get("items") or ()
        else:
            route = PRODUCT
            url = f"{self._urls['product']}{PRODUCTS}/{ware.sku}"
            answer = await self._ask("GET", url, READ_TIMEOUT_S)
            items = (answer.body,)
        if answer.status == 200:
            for item in items:
                if item.get("sku") in self._prices:
                    self._prices[item["sku"]] = item["price_minor"]
        self._note("read", "GET", route, answer)

    async def _buy(self) -> None:
        ware = self._random.choice(self._goods)
        quantity = self._random.choice((1, 1, 1, 2))
        declined = self._random.random() < DECLINES
        number = next(self._numbers)
        purchase = _Purchase(
            key=str(UUID(int=(self._begun_at_ns << 64) + number)),
            body={
                "customer_id": f"incident-{number % CUSTOMERS}",
                "lines": [{"sku": ware.sku, "quantity": quantity}],
                "payment_method": "tok_decline" if declined else "tok_approve",
                # What the page that the customer looks at says.
                "expected_total_minor": quantity * self._prices[ware.sku],
            },
        )
        await self._purchase(purchase, attempt=1)

    async def _purchase(self, purchase: _Purchase, attempt: int) -> _Answer:
        answer = await self._ask(
            "POST",
            f"{self._urls['order']}{ORDERS}",
            CHECKOUT_TIMEOUT_S,
            json=purchase.body,
            headers={
                "Idempotency-Key": purchase.key,
                "x-envoy-expected-rq-timeout-ms": str(round(1000 * CHECKOUT_TIMEOUT_S)),
            },
        )
        unknown = not answer.status and answer.detail not in NOT_SENT
        if unknown or (attempt > 1 and answer.status >= 500):
            self._open[purchase.key] = purchase
        else:
            self._open.pop(purchase.key, None)
        unsettled = answer.status == 202
        self._note(
            "checkout", "POST", ORDERS, answer, purchase.key, attempt,
            asked_minor=purchase.asked_minor, final=not (unknown or unsettled),
        )  # fmt: skip
        if unsettled and (order_id := str(answer.body.get("id", ""))):
            task = asyncio.create_task(self._look(order_id, purchase, attempt + 1))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
        return answer

    async def _look(self, order_id: str, purchase: _Purchase, attempt: int) -> None:
        """Until the order has come to an end; the last look is noted."""
        url = f"{self._urls['order']}{ORDERS}/{order_id}"
        while True:
            await asyncio.sleep(LOOKS_S)
            answer = await self._ask("GET", url, CHECKOUT_TIMEOUT_S)
            status = str(answer.body.get("status", ""))
            if answer.status == 200 and status in ("confirmed", "rejected", "cancelled"):
                result: Result = "ok" if status == "confirmed" else "refused"
                self._note(
                    "checkout",
                    "GET",
                    ORDER,
                    answer,
                    purchase.key,
                    attempt,
                    asked_minor=purchase.asked_minor,
                    result=result,
                )
                return
            attempt += 1

    async def _ask(self, method: str, url: str, timeout_s: float, **options: Any) -> _Answer:
        trace_id = secrets.token_hex(16)
        headers = {
            **options.pop("headers", {}),
            "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01",
        }
        at_us, began = time.time_ns() // 1000, time.monotonic()
        status, text, detail = 0, b"", ""
        try:
            async with self._http.request(
                method,
                url,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                **options,
            ) as response:
                text = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = type(error).__name__
        latency_ms = round((time.monotonic() - began) * 1000, 3)
        body = _object(text)
        if status >= 400:
            detail = str(body.get("type", "")).rpartition("/")[2]
        done_us = time.time_ns() // 1000
        return _Answer(status, body, detail, latency_ms, at_us, done_us, trace_id)

    def _note(
        self,
        kind: Any,
        method: str,
        route: str,
        answer: _Answer,
        key: str = "",
        attempt: int = 1,
        *,
        asked_minor: int | None = None,
        final: bool = True,
        result: Result | None = None,
    ) -> None:
        if self.ledger is None:
            return
        total = answer.body.get("total_minor")
        self.ledger.add(
            Entry(
                at_unix_us=answer.at_unix_us,
                done_unix_us=answer.done_unix_us,
                kind=kind,
                method=method,
                route=route,
                status=answer.status,
                outcome=result or outcome(answer.status),
                latency_ms=answer.latency_ms,
                trace_id=answer.trace_id,
                key=key,
                order_id=_order_id(answer) if key else "",
                asked_minor=asked_minor,
                amount_minor=total if key and isinstance(total, int) else None,
                attempt=attempt,
                final=final,
                detail=answer.detail,
            )
        )


def _order_id(answer: _Answer) -> str:
    return str(answer.body.get("id" if answer.status < 300 else "order_id") or "")


def _object(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text) if text else None
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}


async def _end(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
