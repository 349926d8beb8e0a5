"""The shop as a client sees it: products, bulk import, orders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from prove.clients.server import Server
from prove.errors import UserError
from prove.stack.hints import command
from prove.stack.settings import StackSettings

PAGE = 100
IMPORT_TIMEOUT_S = 60.0
IMPORT_TIMEOUT_S = 120.0


class Product(BaseModel):
    """As listed."""

    sku: str
    name: str
    category: str
    price_minor: int
    currency: str
    stock: int


class _Page(BaseModel):
    items: list[Product]
    next_cursor: str | None


class OrderLine(BaseModel):
    """One position of an order."""

    sku: str
    name: str
    quantity: int
    price_minor: int


class Failure(BaseModel):
    """Why an order was rejected."""

    code: str


class Order(BaseModel):
    """An order as the order service tells it; times are RFC 3339 in UTC."""

    id: str
    status: str
    customer_id: str
    lines: list[OrderLine]
    total_minor: int
    currency: str
    payment_id: str | None = None
    failure: Failure | None = None
    trace_id: str
    created_at: str


class Imported(BaseModel):
    """What a bulk import did."""

    created: int
    updated: int
    unchanged: int


@dataclass(frozen=True)
class OrderAnswer:
    """The answer to an order: the order, or the problem (RFC 9457) that took its place."""

    status_code: int
    order: Order | None
    problem: Mapping[str, Any]
    replayed: bool


class Shop:
    """The services of a stack that customers and its operator use."""

    def __init__(
        self, settings: StackSettings, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._token_file = settings.admin_token_file
        self._products = Server(
            "product service",
            settings.url(settings.product_port),
            IMPORT_TIMEOUT_S,
            transport,
        )
        self._orders = Server(
            "order service", settings.url(settings.order_port), transport=transport
        )

    @property
    def urls(self) -> dict[str, str]:
        """Base URLs of `products` and `orders`."""
        return {"products": self._products.url, "orders": self._orders.url}

    def check(self) -> None:
        """Raises UserError unless the product service answers."""
        next(self.products(limit=1), None)

    def products(self, limit: int | None = None) -> Iterator[Product]:
        """The catalogue by sku, page by page; `limit` products at most. Raises UserError."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            params = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            page = self._products.read(
                _Page.model_validate, "GET", "/api/v1/products", params=params
            )
            items = page.items[:left]
            yield from items
            cursor = page.next_cursor
            if cursor is None:
                return
            left = None if left is None else left - len(items)

    def product(self, sku: str) -> Product | None:
        """One product; None when there is none of that sku. Raises UserError."""
        answer = self._products.ask("GET", f"/api/v1/products/{quote(sku, safe='')}")
        if answer.status_code == 404:
            return None
        return self._products.content(Product.model_validate, answer)

    def import_products(self, items: Sequence[Mapping[str, Any]]) -> Imported:
        """Create or update products, all or none; raises UserError."""
        return self._products.read(
            Imported.model_validate,
            "POST",
            "/api/v1/products/import",
            json={"items": items},
            headers={"Authorization": f"Bearer {_token(self._token_file)}"},
            timeout=IMPORT_TIMEOUT_S,
        )

    def place_order(
        self, body: Mapping[str, Any], key: str, traceparent: str, timeout_s: float
    ) -> OrderAnswer:
        """Place an order under an idempotency key.

        Raises UserError when the order service isn't there, and NoAnswerInTimeError when it
        didn't answer within `timeout_s`, which it is told (`x-envoy-expected-rq-timeout-ms`).
        """
        answer = self._orders.ask(
            "POST",
            "/api/v1/orders",
            json=body,
            headers={
                "Idempotency-Key": key,
                "traceparent": traceparent,
                "x-envoy-expected-rq-timeout-ms": str(max(1, round(timeout_s * 1000))),
            },
            timeout=timeout_s,
        )
        content = _object(answer)
        try:
            order = Order.model_validate(content) if answer.is_success else None
        except ValidationError:
            order = None
        return OrderAnswer(
            status_code=answer.status_code,
            order=order,
            problem=content if order is None else {},
            replayed=answer.headers.get("Idempotency-Replayed") == "true",
        )

    def orders_url(self, customer_id: str) -> str:
        """Where a customer's orders are listed, newest first."""
        query = httpx.QueryParams({"customer_id": customer_id})
        return f"{self._orders.url}/api/v1/orders?{query}"

    def order(self, order_id: str) -> Order:
        """An order by its id; raises UserError."""
        return self._orders.read(Order.model_validate, "GET", f"/api/v1/orders/{order_id}")


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}


def _token(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        raise UserError(f"{file} is missing; {command('up')} makes it") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
