"""What the stores know of an order or a trace: its spans, its logs, its metrics."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from prove import otlp
from prove.clients.jaeger import Jaeger
from prove.clients.logs import SHORT_ID, LogStore
from prove.clients.prometheus import Exemplar, Prometheus
from prove.errors import UserError
from prove.tracetree import Span

ORDER_SERVICE = "order-service"
ORDER_ID = "prove.order.id"
"""The attribute of spans that are about one order."""
ACCESS_LOG = "request"
"""What the services call the log record of a request they answered."""

ORDERS = "prove_orders_total"
OUTCOME = "prove_outcome"
LATENCY = "http_server_request_duration_seconds_bucket"
POLL_S = 0.1
CLOCK_SLACK_S = 5.0

T = TypeVar("T")


def latest(ask: Callable[[], T], complete: Callable[[T], bool], deadline: float) -> T:
    """The first complete answer, or the last one before `deadline` (of `time.monotonic`)."""
    while True:
        answer = ask()
        if complete(answer) or time.monotonic() >= deadline:
            return answer
        time.sleep(POLL_S)


def trace(jaeger: Jaeger, trace_id: str, root_parent_id: str | None, deadline: float) -> list[Span]:
    """The spans of a trace of the order service.

    Waits until no more come and they are all there: the root, whose parent is a span that nobody
    recorded (None: any root), the parents of all others, and what answered the order service where
    it had an answer. (The acquirer, which the payment service calls, records nothing.) Raises
    UserError when Jaeger doesn't answer.
    """

    seen: set[str] = set()

    def complete(spans: Sequence[Span]) -> bool:
        nonlocal seen
        before, seen = seen, {span.span_id for span in spans}
        roots = [span for span in spans if span.parent_id not in seen]
        parents = {span.parent_id for span in spans}
        return (
            seen == before  # Jaeger shows a batch bit by bit
            and len(roots) == 1
            and root_parent_id in (None, roots[0].parent_id)
            and all(
                span.span_id in parents
                for span in spans
                if span.service == ORDER_SERVICE and span.kind == "client" and span.answered
            )
        )

    return latest(lambda: jaeger.trace(trace_id), complete, deadline)


def full_trace_id(store: LogStore, beginning: str, option: str) -> str:
    """The id that begins so; raises UserError when there is none or more than one."""
    if not re.fullmatch(f"[0-9a-f]{{{SHORT_ID},32}}", beginning):
        raise UserError(
            f"{option} wants a trace id, {SHORT_ID} to 32 hex digits (got {beginning!r})"
        )
    if len(beginning) == 32:
        return beginning
    found = store.trace_ids(beginning)
    if not found:
        raise UserError(
            f"the log store has no record of trace {beginning}…, and only there an id can be "
            "found by its beginning; give all 32 digits"
        )
    return _only(found, "trace", beginning)


def order_and_traces(store: LogStore, jaeger: Jaeger, beginning: str) -> tuple[str, list[str]]:
    """The order whose id begins so and its traces: those of its requests and of its recovery.

    Raises UserError when there is no such order, or more than one.
    """
    if not re.fullmatch(r"[0-9a-f-]{8,36}", beginning):
        raise UserError(
            f"--order wants an order's id, or at least its first 8 characters (got {beginning!r})"
        )
    orders = store.orders(beginning)
    if not orders and len(beginning) < 36:
        raise UserError(
            f"the log store has no record of an order {beginning}…; a record gets there about a "
            "second after it is written, and stays for two days"
        )
    order_id = _only(orders, "order", beginning) if orders else beginning
    # The log store forgets by age, Jaeger by number; not every trace of an order logs its id.
    spanned = jaeger.trace_ids(ORDER_SERVICE, ORDER_ID, order_id)
    traces = list(dict.fromkeys([*orders.get(order_id, []), *spanned]))
    if not traces:
        raise UserError(f"neither the log store nor Jaeger knows order {order_id}")
    return order_id, traces


def kept_trace(jaeger: Jaeger, span_file: Path, trace_id: str) -> list[Span]:
    """A trace's spans from Jaeger, which forgets, else from the Collector's file.

    Raises UserError when Jaeger doesn't answer and the file doesn't have the trace either.
    """
    try:
        return jaeger.trace(trace_id) or otlp.search(span_file, trace_id)
    except UserError:
        if spans := otlp.search(span_file, trace_id):
            return spans
        raise


def _only(found: Iterable[str], what: str, beginning: str) -> str:
    ids = list(found)
    if len(ids) > 1:
        several = ", ".join(ids[:5]) + (" …" if len(ids) > 5 else "")
        raise UserError(f"{len(ids)} {what}s begin with {beginning}; give more of it: {several}")
    return ids[0]


class TraceLogs(Protocol):
    """Where a trace's log records are: the log store."""

    def by_trace(self, trace_id: str) -> list[dict[str, str]]:
        """Raises UserError when it doesn't answer."""
        ...


def records(
    store: TraceLogs, trace_id: str, spans: Sequence[Span], deadline: float
) -> list[dict[str, str]]:
    """The log records of a trace, once there is one of each request in its spans.

    Raises UserError when the log store doesn't answer.
    """
    requests = Counter(span.service for span in spans if span.kind == "server")

    def complete(found: Sequence[Mapping[str, str]]) -> bool:
        logged = Counter(
            record.get("service.name", "") for record in found if record.get("_msg") == ACCESS_LOG
        )
        return bool(found) and requests <= logged

    return latest(lambda: store.by_trace(trace_id), complete, deadline)


def orders(prometheus: Prometheus) -> dict[str, int]:
    """Orders since the services' start, by outcome; raises UserError."""
    found = prometheus.query(f"sum by ({OUTCOME}) ({ORDERS})")
    return {sample.labels.get(OUTCOME, ""): round(sample.value) for sample in found}


def orders_after(
    prometheus: Prometheus, before: Mapping[str, int], outcome: str, deadline: float
) -> dict[str, int]:
    """As `orders`, once those with `outcome` are more than `before`; raises UserError."""
    return latest(
        lambda: orders(prometheus),
        lambda now: now.get(outcome, 0) > before.get(outcome, 0),
        deadline,
    )


def exemplars(
    prometheus: Prometheus, trace_id: str, since_s: float, deadline: float
) -> list[Exemplar]:
    """Exemplars of request durations that point to the trace; `since_s` is Unix time.

    A histogram keeps few of many requests, so in a busy shop there may be none. Raises UserError.
    """

    def ask() -> list[Exemplar]:
        found = prometheus.exemplars(LATENCY, since_s - CLOCK_SLACK_S, time.time() + CLOCK_SLACK_S)
        return [each for each in found if each.labels.get("trace_id") == trace_id]

    return latest(ask, bool, deadline)
