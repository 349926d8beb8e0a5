"""What a run will do, all of it decided by the seed (pure).

The same numbers and seed make the same plan, not the same interleaving: which request meets which
fault is up to the machine. Faults are placed by purchase number, never by the clock, so a slow
machine runs the same plan.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from prove.errors import UserError

Service = Literal["order", "payment", "product", "acquirer"]
Link = Literal["order-product", "order-payment", "payment-acquirer"]


CURRENCY = "GBP"
CRASH_POINTS: dict[Service, tuple[str, ...]] = {
    "order": (
        *(
            f"{place}.{side}"
            for place in (
                "create",
                "reserve",
                "save-reserved",
                "charge",
                "save-paid",
                "commit",
                "save-confirmed",
                "cancel-payment",
                "release",
                "save-other",
            )
            for side in ("before", "after")
        ),
        "claim.after",
        "answer.before",
    ),
    "payment": (
        *(f"{place}.{side}" for place in ("open", "ask", "settle") for side in ("before", "after")),
        "cancel.before",
        "answer.before",
    ),
    "product": tuple(
        f"{place}.{side}"
        for place in ("reserve", "commit", "release", "extend")
        for side in ("before", "after")
    ),
}
"""The places at which test builds can be made to kill themselves, by service."""

_CRASH_POINT_SHARE = 2 / 3
_KILLS: tuple[tuple[tuple[Service, bool], int], ...] = (
    (("order", False), 5),
    (("payment", False), 2),
    (("product", True), 2),
    (("product", False), 1),
    (("acquirer", False), 1),
)
_METHODS = {
    "tok_approve": 88,
    "tok_decline": 4,
    "tok_decline_funds": 3,
    "tok_unknown": 4,
    "tok_slow": 1,
}
_LINKS: tuple[Link, ...] = ("order-product", "order-payment", "payment-acquirer")
PATIENT_S = 10.0
_DOUBLE_SHARE = 0.05
_CANCEL_SHARE = 0.04
_TINY_TIMEOUT_SHARE = 0.1
_SCARCE_EVERY = 10
_SCARCE_SHARE = 0.6
_CUTS_PER_KILL = 1 / 3
_MIN_CUTS = 4
# name → toxic of Toxiproxy 2.5, direction, attributes between bounds
_TOXICS: dict[str, tuple[str, Literal["upstream", "downstream"], dict[str, tuple[int, int]]]] = {
    "latency": ("latency", "downstream", {"latency": (100, 3000), "jitter": (0, 100)}),
    "reset": ("reset_peer", "downstream", {"timeout": (0, 20)}),
    # Nothing arrives; with a time-out of 0 the connection stays open until the toxic is removed.
    "black-hole": ("timeout", "upstream", {"timeout": (0, 0)}),
    # What is asked arrives and is done; its answer never comes.
    "half-open": ("timeout", "downstream", {"timeout": (0, 0)}),
    "torn-answer": ("limit_data", "downstream", {"bytes": (1, 200)}),
}


@dataclass(frozen=True, slots=True)
class Product:
    """A product of the run's catalogue and its stock at the start; the price in minor units."""

    sku: str
    name: str
    price_minor: int
    stock: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """One thing a customer wants: all attempts share `key` and `customer`.

    `timeout_s` is that of the first attempt; a client that retries has learnt patience.
    `double`: sent twice at the same time. `cancel_after_s`: from the first answer that names the
    order on, None when it is kept.
    """

    op: int
    offset_s: float
    customer: str
    key: str
    lines: tuple[tuple[str, int], ...]
    method: str
    timeout_s: float
    double: bool
    cancel_after_s: float | None


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to all processes of a service, or to one worker process of it."""

    after_op: int
    service: Service
    worker: bool = False
    kind: Literal["kill"] = "kill"


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """The next process of the service that passes the point kills itself there."""

    after_op: int
    service: Service
    point: str
    kind: Literal["crash-point"] = "crash-point"

    @property
    def file_name(self) -> str:
        """What arms it, in PROVE_CRASH_DIR."""
        return f"{self.service}.{self.point}"


@dataclass(frozen=True, slots=True)
class Cut:
    """A link is disturbed for `duration_s` by one toxic, in Toxiproxy's own terms."""

    after_op: int
    link: Link
    name: str
    toxic: str
    stream: Literal["upstream", "downstream"]
    attributes: dict[str, int]
    duration_s: float
    kind: Literal["cut"] = "cut"


Fault = Kill | CrashPoint | Cut


@dataclass(frozen=True, slots=True)
class Plan:
    """Purchases in the order of their `offset_s`, faults in the order of their `after_op`.

    A fault is due once the purchase `after_op` was sent. `rate_per_s` is that of the purchases.
    """

    seed: int
    rate_per_s: float
    partitions: bool
    products: tuple[Product, ...]
    purchases: tuple[Purchase, ...]
    faults: tuple[Fault, ...]

    def to_json(self) -> bytes:
        """One JSON object."""
        return _JSON.dump_json(self)

    @classmethod
    def from_json(cls, text: bytes) -> "Plan":
        """What `to_json` wrote; raises UserError."""
        try:
            return _JSON.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"that is no plan of a run: {where}: {first['msg']}") from None


_JSON = TypeAdapter(Plan)


def make(
    orders: int,
    kills: int,
    seed: int,
    *,
    partitions: bool = False,
    rate_per_s: float = 100.0,
    products: int = 120,
) -> Plan:
    """The plan of a run: `orders` purchases at a constant rate, `kills` kills and crash points.

    Each concern draws from a stream of its own: more kills don't change what is bought.
    """
    catalogue, weights = _products(seed, products)
    purchases = tuple(_purchases(seed, orders, rate_per_s, catalogue, weights))
    return Plan(
        seed=seed,
        rate_per_s=rate_per_s,
        partitions=partitions,
        products=_stocked(catalogue, purchases),
        purchases=purchases,
        faults=tuple(_faults(seed, orders, kills, partitions)),
    )


def _stream(seed: int, concern: str) -> random.Random:
    return random.Random(f"{concern} {seed}")  # noqa: S311 - an experiment, not a secret


def _products(seed: int, count: int) -> tuple[list[Product], list[float]]:
    draw = _stream(seed, "products")
    products = [
        Product(f"SKU-{number:04}", f"Product {number}", draw.randint(99, 9999), 0)
        for number in range(1, count + 1)
    ]
    # A few sell much better than the rest: their rows are contended.
    return products, [1 / (rank + 3) for rank in range(count)]


def _purchases(
    seed: int, orders: int, rate_per_s: float, products: list[Product], weights: list[float]
) -> Iterator[Purchase]:
    times, baskets, payment, clients = (
        _stream(seed, concern) for concern in ("times", "baskets", "payment", "clients")
    )
    methods, shares = list(_METHODS), list(_METHODS.values())
    limits = list(accumulate(weights))
    customers = max(1, orders // 4)
    for op in range(orders):
        chosen = baskets.choices(products, cum_weights=limits, k=baskets.randint(1, 4))
        # Not in the order of the skus: two baskets take the same rows in opposite order.
        lines = tuple((sku, baskets.randint(1, 3)) for sku in {p.sku: None for p in chosen})
        # Every chance is drawn whether or not it is used, so that one does not move the next.
        tiny, double, cancel, tiny_s, cancel_s = (clients.random() for _ in range(5))
        yield Purchase(
            op=op,
            offset_s=round((op + times.random()) / rate_per_s, 6),
            customer=f"customer-{clients.randrange(customers):06}",
            key=f"run-{seed}-purchase-{op:06}",
            lines=lines,
            method=payment.choices(methods, shares)[0],
            timeout_s=round(0.001 + 0.049 * tiny_s, 3) if tiny < _TINY_TIMEOUT_SHARE else PATIENT_S,
            double=double < _DOUBLE_SHARE,
            cancel_after_s=round(2 * cancel_s, 3) if cancel < _CANCEL_SHARE else None,
        )


def _stocked(products: list[Product], purchases: tuple[Purchase, ...]) -> tuple[Product, ...]:
    """Enough for everyone, but for every tenth product, which runs short on the way."""
    wanted = {product.sku: 0 for product in products}
    for purchase in purchases:
        for sku, quantity in purchase.lines:
            wanted[sku] += quantity
    return tuple(
        Product(
            product.sku,
            product.name,
            product.price_minor,
            int(wanted[product.sku] * _SCARCE_SHARE)
            if position % _SCARCE_EVERY == _SCARCE_EVERY - 1
            else 10 * wanted[product.sku] + 100,
        )
        for position, product in enumerate(products)
    )


def _faults(seed: int, orders: int, kills: int, partitions: bool) -> list[Fault]:
    faults: list[Fault] = [*_crashes(seed, orders, kills)]
    if partitions:
        faults += _cuts(seed, orders, kills)
    return sorted(faults, key=lambda fault: fault.after_op)


def _spread(draw: random.Random, orders: int, count: int) -> Iterator[int]:
    """Purchase numbers, one in each of `count` equal stretches of the run."""
    for number in range(count):
        yield int((number + draw.random()) * orders / count)


def _crashes(seed: int, orders: int, kills: int) -> Iterator[Kill | CrashPoint]:
    draw = _stream(seed, "kills")
    points = [(service, point) for service in CRASH_POINTS for point in CRASH_POINTS[service]]
    draw.shuffle(points)
    targets, weights = [target for target, _ in _KILLS], [weight for _, weight in _KILLS]
    by_point = round(kills * _CRASH_POINT_SHARE)
    at_point = [True] * by_point + [False] * (kills - by_point)
    draw.shuffle(at_point)
    visited = 0
    for after_op, crash in zip(_spread(draw, orders, kills), at_point, strict=True):
        if crash:
            service, point = points[visited % len(points)]
            visited += 1
            yield CrashPoint(after_op, service, point)
        else:
            (service, worker) = draw.choices(targets, weights)[0]
            yield Kill(after_op, service, worker)


def _cuts(seed: int, orders: int, kills: int) -> Iterator[Cut]:
    draw = _stream(seed, "cuts")
    count = max(_MIN_CUTS, round(kills * _CUTS_PER_KILL))
    kinds = [(link, name) for link in _LINKS for name in _TOXICS]
    draw.shuffle(kinds)
    for number, after_op in enumerate(_spread(draw, orders, count)):
        link, name = kinds[number % len(kinds)]
        toxic, stream, attributes = _TOXICS[name]
        yield Cut(
            after_op=after_op,
            link=link,
            name=name,
            toxic=toxic,
            stream=stream,
            attributes={
                attribute: draw.randint(low, high) for attribute, (low, high) in attributes.items()
            },
            duration_s=round(draw.uniform(0.5, 4), 3),
        )
