"""What the shop sells, and what it fails to sell."""

from prove.dashboards.parts import Board, Query, Row, graph, increase, number, rate, share

_ORDERS = "prove_orders_total"
_ENDED = 'prove_outcome!~"unsettled|cancelled"'
_CONFIRMED = 'prove_outcome="confirmed"'
_REQUESTS = "http_server_request_duration_seconds_count"
_VIEWS = (
    'service_name="product-service", http_request_method="GET", http_route=~"/api/v1/products.*"'
)
_CHECKOUTS = 'service_name="order-service", http_request_method="POST", http_route="/api/v1/orders"'


def board() -> Board:
    """The dashboard `business`."""
    return Board(
        uid="business",
        title="Business",
        description="Orders, revenue, conversion, declined payments and shortages.",
        logs="service.name:=%22order-service%22",
        rows=(
            Row(
                "In the time shown",
                (
                    number(
                        "Orders confirmed",
                        "Orders that were paid and committed.",
                        "short",
                        Query(increase(_ORDERS, where=_CONFIRMED)),
                        span=6,
                    ),
                    number(
                        "Revenue",
                        "Totals of confirmed orders by currency, in hundreds of its minor unit "
                        "(pounds of pence). Orders cancelled later are not taken off.",
                        "short",
                        Query(
                            f"{increase('prove_order_value_sum', 'currency')} / 100", "{{currency}}"
                        ),
                        span=6,
                    ),
                    number(
                        "Average order",
                        "Revenue by confirmed orders, in hundreds of the currency's minor unit.",
                        "short",
                        Query(
                            f"{increase('prove_order_value_sum', 'currency')} / "
                            f"({increase('prove_order_value_count', 'currency')} > 0) / 100",
                            "{{currency}}",
                        ),
                        span=6,
                    ),
                    number(
                        "Conversion",
                        "Confirmed orders by checkouts that came to an end. The rest was declined, "
                        "short of stock, refused or failed.",
                        "percentunit",
                        Query(
                            f"{increase(_ORDERS, where=_CONFIRMED)} / "
                            f"({increase(_ORDERS, where=_ENDED)} > 0)"
                        ),
                        span=6,
                        steps=((None, "red"), (0.8, "orange"), (0.95, "green")),
                    ),
                ),
            ),
            Row(
                "Orders",
                (
                    graph(
                        "Orders by outcome",
                        "Orders per minute by how they ended. Unsettled ones are counted again "
                        "when they end.",
                        "cpm",
                        Query(f"{rate(_ORDERS, 'prove_outcome')} * 60", "{{prove_outcome}}"),
                        stacked=True,
                    ),
                    graph(
                        "Revenue per hour",
                        "At the present pace, by currency, in hundreds of its minor unit.",
                        "short",
                        Query(f"{rate('prove_order_value_sum', 'currency')} * 36", "{{currency}}"),
                    ),
                    graph(
                        "From looking to buying",
                        "Per second: requests for products, checkouts, orders confirmed.",
                        "cps",
                        Query(rate(_REQUESTS, where=_VIEWS), "products looked at"),
                        Query(rate(_REQUESTS, where=_CHECKOUTS), "checkouts"),
                        Query(rate(_ORDERS, where=_CONFIRMED), "orders confirmed"),
                    ),
                    graph(
                        "Conversion over time",
                        "Confirmed orders by checkouts that came to an end.",
                        "percentunit",
                        Query(
                            share(rate(_ORDERS, where=_CONFIRMED), rate(_ORDERS, where=_ENDED)),
                            "conversion",
                        ),
                        most=1,
                    ),
                ),
            ),
            Row(
                "Payments",
                (
                    graph(
                        "Payments by outcome",
                        "Payments per minute, each counted once an outcome.",
                        "cpm",
                        Query(
                            f"{rate('prove_payments_total', 'prove_outcome')} * 60",
                            "{{prove_outcome}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Why payments are declined",
                        "Declined payments per minute by the acquirer's reason.",
                        "cpm",
                        Query(
                            rate(
                                "prove_payments_total",
                                "prove_decline_reason",
                                'prove_outcome="declined"',
                            )
                            + " * 60",
                            "{{prove_decline_reason}}",
                        ),
                        stacked=True,
                    ),
                ),
            ),
            Row(
                "Stock",
                (
                    graph(
                        "Products out of stock by category",
                        "Products of which no free item is left.",
                        "short",
                        Query("max by (prove_category) (prove_stock_out)", "{{prove_category}}"),
                        span=8,
                        stacked=True,
                    ),
                    graph(
                        "Free stock by category",
                        "Items that can be sold: neither sold nor held for an order.",
                        "short",
                        Query("max by (prove_category) (prove_stock_level)", "{{prove_category}}"),
                        span=8,
                    ),
                    graph(
                        "Reservations by outcome",
                        'Per minute. "short" is a customer who wanted more than there was.',
                        "cpm",
                        Query(
                            f"{rate('prove_reservations_total', 'prove_outcome')} * 60",
                            "{{prove_outcome}}",
                        ),
                        span=8,
                    ),
                ),
            ),
        ),
    )
