"""Orders under way: what is unfinished, what is tried again, what was refused."""

from prove.dashboards.parts import Board, Query, Row, graph, increase, number, quantile, rate

_LAG = "prove_order_recovery_duration_seconds"
_BREAKER = ((0, "closed"), (1, "open"), (2, "half-open"))
FRESH_S = 60
"""The freshness objective: no order waits longer for its next step."""
RECOVERED_S = 10
"""Orders that a crash left are to be settled within this, at P99."""


def board() -> Board:
    """The dashboard `saga`."""
    return Board(
        uid="saga",
        title="Saga: orders under way",
        description="Whether every order comes to its end, and what that takes.",
        logs="service.name:=%22order-service%22",
        rows=(
            Row(
                "Now",
                (
                    number(
                        "Unfinished orders",
                        "Orders that have a step left to take.",
                        "short",
                        Query("sum(max by (prove_status) (prove_orders_unfinished))"),
                    ),
                    number(
                        "Oldest unfinished order",
                        "Its age. Nobody waits longer than a minute, by objective.",
                        "s",
                        Query("max(prove_orders_unfinished_oldest_seconds)"),
                        steps=((None, "green"), (RECOVERED_S, "orange"), (FRESH_S, "red")),
                    ),
                    number(
                        "Steps put off",
                        "In the time shown: steps to be tried again in the background.",
                        "short",
                        Query(increase("prove_order_retries_total")),
                    ),
                    number(
                        "Checkouts shed",
                        "In the time shown: refused before anything was done.",
                        "short",
                        Query(increase("prove_checkouts_shed_total")),
                        steps=((None, "green"), (1, "orange")),
                    ),
                    number(
                        "Circuit breakers",
                        "Towards each peer: closed lets requests through, open refuses them, "
                        "half-open lets a few try.",
                        "none",
                        Query("max by (prove_peer) (prove_peer_breaker_state)", "{{prove_peer}}"),
                        span=8,
                        steps=((None, "green"), (1, "red"), (2, "orange")),
                        words=_BREAKER,
                    ),
                ),
            ),
            Row(
                "Unfinished orders",
                (
                    graph(
                        "Unfinished orders by status",
                        "Orders that have a step left to take. Every instance reports those of the "
                        "shared database, so the largest is shown.",
                        "short",
                        Query(
                            "max by (prove_status) (prove_orders_unfinished)", "{{prove_status}}"
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Age of the oldest",
                        "By status. The dashed line is the freshness objective.",
                        "s",
                        Query(
                            "max by (prove_status) (prove_orders_unfinished_oldest_seconds)",
                            "{{prove_status}}",
                        ),
                        limit=FRESH_S,
                    ),
                ),
            ),
            Row(
                "Recovery",
                (
                    graph(
                        "Recovery lag",
                        "From when an order was first put off, or left by its process, until no "
                        "step was left. Empty while nothing had to be recovered. Points are single "
                        "orders: one click opens the trace.",
                        "s",
                        *(
                            Query(quantile(q, _LAG), name, exemplars=q == 0.99)
                            for q, name in ((0.5, "P50"), (0.99, "P99"))
                        ),
                        span=8,
                        limit=RECOVERED_S,
                    ),
                    graph(
                        "Steps put off",
                        "Steps per minute to be tried again in the background.",
                        "cpm",
                        Query(
                            f"{rate('prove_order_retries_total', 'prove_step')} * 60",
                            "{{prove_step}}",
                        ),
                        span=8,
                        stacked=True,
                    ),
                    graph(
                        "Orders undone or unsettled",
                        "Per minute: compensated after a failure, cancelled, or left open by their "
                        "answer.",
                        "cpm",
                        Query(
                            rate(
                                "prove_orders_total",
                                "prove_outcome",
                                'prove_outcome=~"failed|cancelled|unsettled"',
                            )
                            + " * 60",
                            "{{prove_outcome}}",
                        ),
                        span=8,
                        stacked=True,
                    ),
                ),
            ),
            Row(
                "Peers",
                (
                    graph(
                        "Breaker state",
                        "0 closed, 1 open, 2 half-open, towards each peer.",
                        "none",
                        Query("max by (prove_peer) (prove_peer_breaker_state)", "{{prove_peer}}"),
                        span=8,
                        most=2,
                    ),
                    graph(
                        "Retries of requests",
                        "Per second, by peer; denied ones exceeded the budget of retries.",
                        "cps",
                        Query(
                            rate("prove_peer_retries_total", "prove_peer, prove_retry_denied"),
                            "{{prove_peer}}, denied: {{prove_retry_denied}}",
                        ),
                        span=8,
                    ),
                    graph(
                        "Checkouts shed",
                        "Refused per second before anything was done: too many at once (busy), "
                        "too little time left (deadline), a peer rests (peer).",
                        "cps",
                        Query(
                            rate("prove_checkouts_shed_total", "prove_reason"), "{{prove_reason}}"
                        ),
                        span=8,
                        stacked=True,
                    ),
                ),
            ),
        ),
    )
