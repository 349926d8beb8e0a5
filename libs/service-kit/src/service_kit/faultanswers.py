"""What faults do to an answer that is made already: let it drip, or falsify its prices."""

import json
from collections.abc import Iterator

from pydantic_core import to_json

from service_kit.faultmodel import WrongDataFault
from service_kit.faults import Effect, LeaseStore

_DROPS_PER_S = 10


def drops(body: bytes, effect: Effect, leases: LeaseStore) -> Iterator[tuple[bytes, float]]:
    """Parts of the body, and how long to wait after each; the rest once the lease is over."""
    per_s = effect.params.bytes_per_s
    size = max(1, int(per_s / _DROPS_PER_S))
    sent = 0
    while sent < len(body):
        if not leases.in_force(effect.lease):
            yield body[sent:], 0.0
            return
        yield body[sent : sent + size], size / per_s
        sent += size


def with_wrong_prices(body: bytes, effect: Effect) -> bytes | None:
    """The products' JSON with the prices of one category multiplied; None: it has none of them."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    fault = effect.lease.fault
    assert isinstance(fault, WrongDataFault)  # noqa: S101
    match, hit = fault.match, False
    for product in document.get("items", [document]):
        if product.get("category") != match.category or match.sku not in (None, product["sku"]):
            continue
        product["price_minor"] = max(1, round(product["price_minor"] * fault.params.factor))
        hit = True
    return to_json(document) if hit else None
