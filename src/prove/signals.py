"""What the stores know of one order: its trace, its logs, its metrics, once they have arrived."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from prove.clients.jaeger import Jaeger
from prove.clients.prometheus import Exemplar, Prometheus
from prove.tracetree import Span

ORDER_SERVICE = "order-service"
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
