"""What a load test sends and what came of it (pure; `prove.k6` sends it)."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any
from urllib.parse import urlencode

MAX_QUANTITY = 10_000
MAX_ORDER_LINES = 500
MAX_REQUESTS = 5_000
"""Different requests of a test at a constant rate; after the last comes the first again."""
CUSTOMERS = 10_000
PAGE = 20
DECLINING = ("tok_decline", "tok_decline_funds")


class Operation(StrEnum):
    """What is measured by itself."""

    LIST = "list"
    SEARCH = "search"
    ITEM = "item"
    CHECKOUT = "checkout"


class Mix(StrEnum):
    """What a constant rate is made of."""

    CHECKOUT = "checkout"
    BROWSE = "browse"
    MIXED = "mixed"


WEIGHTS: Mapping[Mix, Mapping[Operation, int]] = {
    Mix.CHECKOUT: {Operation.CHECKOUT: 100},
    Mix.BROWSE: {Operation.LIST: 30, Operation.SEARCH: 10, Operation.ITEM: 60},
    Mix.MIXED: {
        Operation.LIST: 25,
        Operation.SEARCH: 10,
        Operation.ITEM: 55,
        Operation.CHECKOUT: 10,
    },
}
"""Percent of the arrivals."""


@dataclass(frozen=True, slots=True)
class Request:
    """One arrival; `at_ms` after the start, or when the rate has it. Only checkouts have a body."""

    operation: Operation
    path: str = "/api/v1/orders"
    body: str | None = None
    at_ms: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For the k6 script."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Offer:
    """What the plan needs to know of a product."""

    sku: str
    name: str
    category: str


def payment_methods(seed: int, decline: float) -> Iterator[str]:
    """Method tokens without end, of which the share `decline` is refused; the same for a seed."""
    draw = random.Random(f"payment {seed}")  # noqa: S311 - a load, not a secret
    while True:
        yield draw.choice(DECLINING) if draw.random() < decline else "tok_approve"


def order_body(customer_id: str, lines: Mapping[str, int], payment_method: str) -> str:
    """The JSON text of an order; `lines` is the quantity of each sku."""
    return json.dumps(
        {
            "customer_id": customer_id,
            "lines": [{"sku": sku, "quantity": quantity} for sku, quantity in lines.items()],
            "payment_method": payment_method,
        },
        separators=(",", ":"),
    )


def requests(
    offers: Sequence[Offer], mix: Mix, count: int, seed: int, decline: float
) -> list[Request]:
    """`count` requests (MAX_REQUESTS at most) over products drawn evenly; the same for a seed.

    A basket has one to five products, one to three of each.
    """
    draw = random.Random(f"load {seed}")  # noqa: S311 - a load, not a secret
    methods = payment_methods(seed, decline)
    operations = list(WEIGHTS[mix])
    weights = list(WEIGHTS[mix].values())

    def one(operation: Operation) -> Request:
        offer = draw.choice(offers)
        if operation is Operation.CHECKOUT:
            basket = draw.sample(offers, min(draw.randint(1, 5), len(offers)))
            customer = f"load-{draw.randrange(CUSTOMERS)}"
            lines = {offer.sku: draw.randint(1, 3) for offer in basket}
            return Request(operation, body=order_body(customer, lines, next(methods)))
        if operation is Operation.ITEM:
            return Request(operation, f"/api/v1/products/{offer.sku}")
        words = [word for word in offer.name.split() if word.isalpha() and len(word) > 2]
        query = {
            Operation.LIST: {"category": offer.category},
            Operation.SEARCH: {"q": draw.choice(words) if words else offer.sku},
        }[operation]
        return Request(operation, f"/api/v1/products?{urlencode({'limit': PAGE, **query})}")

    kinds = draw.choices(operations, weights, k=max(1, min(count, MAX_REQUESTS)))
    return [one(operation) for operation in kinds]


def split(lines: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """A basket in parts of MAX_ORDER_LINES lines, the most an order may have."""
    rest = iter(lines.items())
    while part := dict(islice(rest, MAX_ORDER_LINES)):
        yield part


@dataclass(frozen=True)
class Figures:
    """Of one operation; times in ms, of requests that were answered at all."""

    requests: int
    failures: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


@dataclass(frozen=True)
class Result:
    """What came of a load test.

    `dropped`: arrivals k6 could not send when they were due (in a replay: sent over a second late,
    or not at all). `failures`: no answer, or one that is no business outcome. `outcomes`: of the
    checkouts that were answered; declined and short of stock are none of the shop's failures.
    """

    requests: int
    failures: int
    dropped: int
    duration_s: float
    rate_per_s: float
    operations: dict[str, Figures]
    outcomes: dict[str, int]
    failed_by: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the load was sent as asked and nothing failed."""
        return self.requests > 0 and self.failures == 0 and self.dropped == 0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"holds": self.holds, **asdict(self)}


OUTCOMES = ("confirmed", "unsettled", "declined", "short")
FAILURES = ("no answer", "4xx", "5xx", "other")


def result(summary: Mapping[str, Any], planned: int | None = None) -> Result:
    """Read the summary of load/play.js; `planned` is the number of requests of a whole replay."""
    metrics = summary["metrics"]

    def value(metric: str, name: str = "count") -> float:
        return float(metrics.get(metric, {}).get("values", {}).get(name, 0))

    def figures(operation: Operation) -> Figures:
        timed = value(f"{operation}_ms") > 0

        def time(name: str) -> float | None:
            return round(value(f"{operation}_ms", name), 2) if timed else None

        return Figures(
            requests=int(value(f"{operation}_requests")),
            failures=int(value(f"{operation}_failures")),
            p50_ms=time("med"),
            p95_ms=time("p(95)"),
            p99_ms=time("p(99)"),
            max_ms=time("max"),
        )

    operations = {str(operation): figures(operation) for operation in Operation}
    sent = sum(each.requests for each in operations.values())
    duration_s = float(summary["duration_ms"]) / 1000
    unsent = 0 if planned is None else max(0, planned - sent)
    return Result(
        requests=sent,
        failures=sum(each.failures for each in operations.values()),
        dropped=int(value("dropped_iterations") + value("late")) + unsent,
        duration_s=round(duration_s, 2),
        rate_per_s=round(sent / duration_s, 2) if duration_s else 0.0,
        operations={name: each for name, each in operations.items() if each.requests},
        outcomes={name: int(value(f"outcome_{name}")) for name in OUTCOMES},
        failed_by={
            name: count
            for name in FAILURES
            if (count := int(value(f"failed_{name.replace(' ', '_')}")))
        },
    )
