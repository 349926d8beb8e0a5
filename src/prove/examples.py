"""Worked examples of traces: orders that take a known course, and what their traces then show."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from prove import otlp, signals
from prove.clients.jaeger import Jaeger
from prove.clients.logs import LogStore
from prove.clients.server import Server
from prove.clients.shop import Order, Shop
from prove.errors import UserError
from prove.stack import observability
from prove.stack.hints import command
from prove.stack.settings import StackSettings
from prove.tracetree import Span

CUSTOMER = "traces"
FINAL = frozenset({"confirmed", "rejected", "cancelled"})
TIMEOUT_S = 10.0
SETTLE_S = 30.0
ARRIVAL_S = 15.0
ATTEMPTS = 20
"""A retry needs a fault between two requests that go well: not every order meets one."""
REFUSED_S = 1.0
"""An order refused at once says that the shop rests from failures (a breaker is open)."""

Traces = Sequence[Sequence[Span]]


@dataclass(frozen=True)
class Example:
    """An order and the traces it must have made, the checkout's first, to be what it is called."""

    name: str
    title: str
    shows: Callable[[Traces], bool]
    method: str = "tok_approve"
    timeout_s: float = TIMEOUT_S
    fault: Mapping[str, Any] | None = None
    """A lease at the Product Service while the order is placed."""


def record(settings: StackSettings, example: Example) -> dict[str, Any]:
    """Place orders until one takes the example's course; its traces as one OTLP document.

    Raises UserError when the shop is down, has nothing to sell, or none of `ATTEMPTS` orders does.
    """
    shop = Shop(settings)
    sku = _in_stock(shop)
    with _fault(settings, example.fault) if example.fault else nullcontext():
        for _ in range(ATTEMPTS):
            order_id = _place(shop, example, sku)
            if not order_id:
                time.sleep(REFUSED_S)
                continue
            document = _traces(settings, order_id)
            if document and example.shows(by_trace(otlp.spans(document))):
                return document
    raise UserError(
        f"none of {ATTEMPTS} orders became {example.name} ({example.title}); "
        f"{command('status')} shows how the shop is"
    )


def by_trace(spans: Sequence[Span]) -> list[list[Span]]:
    """The spans of each trace, the trace that began first first."""
    traces: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.start_us):
        traces.setdefault(span.trace_id, []).append(span)
    return list(traces.values())


def _in_stock(shop: Shop) -> str:
    for product in shop.products():
        if product.stock >= ATTEMPTS:
            return product.sku
    raise UserError(f"no product has {ATTEMPTS} in stock; {command('data import')} fills the shop")


@contextmanager
def _fault(settings: StackSettings, lease: Mapping[str, Any]) -> Iterator[None]:
    service = Server("product service", settings.url(settings.product_port))
    try:
        token = settings.admin_token_file.read_text().strip()
    except OSError as error:
        raise UserError(
            f"{settings.admin_token_file} can't be read: {error.strerror}; {command('up')} makes it"
        ) from None
    headers = {"Authorization": f"Bearer {token}"}
    path = "/faults/worked-example"
    service.read(lambda answer: answer, "PUT", path, json=lease, headers=headers)
    try:
        yield
    finally:
        service.ask("DELETE", path, headers=headers)


def _place(shop: Shop, example: Example, sku: str) -> str | None:
    """The id of an order, once it is settled; None for one that was refused unrecorded."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    answer = shop.place_order(
        {
            "customer_id": CUSTOMER,
            "lines": [{"sku": sku, "quantity": 1}],
            "payment_method": example.method,
        },
        f"traces-{secrets.token_hex(8)}",
        f"00-{trace_id}-{span_id}-01",
        example.timeout_s,
    )
    order_id = answer.order.id if answer.order else answer.problem.get("order_id")
    if order_id is None:
        return None
    deadline = time.monotonic() + SETTLE_S
    signals.latest(lambda: shop.order(order_id), _settled, deadline)
    return str(order_id)


def _settled(order: Order) -> bool:
    return order.status in FINAL


def _traces(settings: StackSettings, order_id: str) -> dict[str, Any] | None:
    """All of an order's traces from the Collector's file, once everything is there."""
    jaeger = Jaeger(settings.url(settings.jaeger_port))
    store = LogStore(settings.url(settings.victorialogs_port))
    deadline = time.monotonic() + ARRIVAL_S

    def known() -> list[str]:
        return signals.order_and_traces(store, jaeger, order_id)[1]

    def awaited() -> dict[str, Any] | None:
        try:
            trace_ids = known()
        except UserError:  # nothing has arrived yet
            return None
        spans = [
            span
            for trace_id in trace_ids
            for span in signals.trace(jaeger, trace_id, None, deadline)
        ]
        document = otlp.extract(observability.span_file(settings), trace_ids)
        kept = {span.span_id for span in otlp.spans(document)}
        whole = (
            spans and kept == {span.span_id for span in spans} and set(known()) == set(trace_ids)
        )
        return document if whole else None

    return signals.latest(awaited, bool, deadline)


def _named(spans: Sequence[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def _status(traces: Traces) -> str:
    """How the order ended: what the last trace says of it."""
    told = [
        str(span.attributes["prove.order.status"])
        for spans in traces
        for span in spans
        if "prove.order.status" in span.attributes
    ]
    return told[-1] if told else ""


def _healthy(traces: Traces) -> bool:
    return (
        len(traces) == 1
        and not any(span.failed for span in traces[0])
        and _status(traces) == "confirmed"
        and all(_named(traces[0], name) for name in ("reserve stock", "charge payment"))
    )


def _retried(traces: Traces) -> bool:
    if len(traces) != 1 or _status(traces) != "confirmed":
        return False
    steps = _named(traces[0], "reserve stock")
    attempts = [span.failed for span in traces[0] if steps and span.parent_id == steps[0].span_id]
    return attempts == [True, False]


def _declined(traces: Traces) -> bool:
    events = {event.name for spans in traces for span in spans for event in span.events}
    return (
        len(traces) == 1
        and "payment declined" in events
        and bool(_named(traces[0], "compensate: release stock"))
        and _status(traces) == "rejected"
    )


def _resumed(traces: Traces) -> bool:
    if len(traces) != 2 or _status(traces) != "confirmed":
        return False
    first, second = traces
    resumed = _named(second, "resume order")
    goes_back_to = [(link.trace_id, link.span_id) for span in resumed for link in span.links]
    return any(
        goes_back_to == [(span.trace_id, span.span_id)]
        and any(event.name == "order put off" for event in span.events)
        for span in _named(first, "checkout")
    )


EXAMPLES = {
    example.name: example
    for example in (
        Example("healthy-checkout", "an order that is confirmed at once", _healthy),
        Example(
            "retry",
            "an attempt that fails, and a second one that doesn't",
            _retried,
            fault={
                "type": "error",
                "params": {"rate": 0.5, "select": "count", "status": 503},
                "match": {"method": "POST", "route": "/api/v1/reservations"},
                "ttl_s": 120,
            },
        ),
        Example("decline", "a card that is declined", _declined, method="tok_decline"),
        Example(
            "time-out-resumed",
            "a customer's time ends before the acquirer answers, and recovery confirms the order",
            _resumed,
            method="tok_slow",
            timeout_s=1.0,
        ),
    )
}
