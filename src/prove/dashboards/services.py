"""Rate, errors and duration (RED) of every service and route."""

from prove.dashboards.parts import (
    Board,
    Query,
    Row,
    choice,
    graph,
    heatmap,
    quantile,
    rate,
    rows,
    share,
)

SERVER = "http_server_request_duration_seconds"
CLIENT = "http_client_request_duration_seconds"
OBJECTIVE_S = 0.5
"""The latency objective of all three services (docs/explanation/slos.md)."""

_OF = 'service_name=~"$service", http_route=~"$route"'
_FAILED = 'http_response_status_code=~"5.."'
_LOGS = "service.name:=%22${__field.labels.service_name}%22"
_PEER = "service_name, server_address, server_port"
_CALLS = 'service_name=~"$service"'


def board() -> Board:
    """The dashboard `services`."""
    answered = rate(f"{SERVER}_count", "service_name", _OF)
    by_route = "service_name, http_request_method, http_route"
    of_route = rate(f"{SERVER}_count", by_route, _OF)
    calls = rate(f"{CLIENT}_count", _PEER, _CALLS)
    return Board(
        uid="services",
        title="Services: rate, errors, duration",
        description="Requests each service and route gets, how many fail, and how long they take.",
        logs="service.name:~%22${service:regex}%22",
        variables=(
            choice(
                "service",
                "Services that answer requests.",
                f"label_values({SERVER}_count, service_name)",
                several=True,
            ),
            choice(
                "route",
                "Routes of those services.",
                f'label_values({SERVER}_count{{service_name=~"$service"}}, http_route)',
                several=True,
            ),
        ),
        rows=(
            Row(
                "Services",
                (
                    graph(
                        "Requests",
                        "Requests answered per second, whatever the answer.",
                        "reqps",
                        Query(answered, "{{service_name}}"),
                        span=8,
                        logs=_LOGS,
                    ),
                    graph(
                        "Errors",
                        "Share of requests answered with 5xx. Declined payments (402), shortages "
                        "(409) and malformed requests (422) are answers. At most 1% by objective.",
                        "percentunit",
                        Query(
                            share(
                                rate(f"{SERVER}_count", "service_name", f"{_OF}, {_FAILED}"),
                                answered,
                            ),
                            "{{service_name}}",
                        ),
                        span=8,
                        limit=0.01,
                        logs=_LOGS,
                    ),
                    graph(
                        "Duration, P95",
                        "95% of requests took less than this. Points are single requests: one "
                        "click opens the trace. The objective is the dashed line.",
                        "s",
                        Query(
                            quantile(0.95, SERVER, "service_name", _OF),
                            "{{service_name}}",
                            exemplars=True,
                        ),
                        span=8,
                        limit=OBJECTIVE_S,
                        logs=_LOGS,
                    ),
                ),
            ),
            Row(
                "Routes",
                (
                    graph(
                        "Requests by route",
                        "Requests answered per second, of each method and route.",
                        "reqps",
                        Query(of_route, "{{http_request_method}} {{http_route}}"),
                        logs=_LOGS,
                    ),
                    graph(
                        "Answers by status",
                        "Requests per second by status code, of the chosen services and routes.",
                        "reqps",
                        Query(
                            rate(f"{SERVER}_count", "http_response_status_code", _OF),
                            "{{http_response_status_code}}",
                        ),
                        stacked=True,
                    ),
                    graph(
                        "Duration of the chosen routes",
                        "Quantiles over all chosen services and routes. Points are single "
                        "requests: one click opens the trace.",
                        "s",
                        *(
                            Query(quantile(q, SERVER, "", _OF), name, exemplars=q == 0.99)
                            for q, name in ((0.5, "P50"), (0.95, "P95"), (0.99, "P99"))
                        ),
                        limit=OBJECTIVE_S,
                    ),
                    heatmap(
                        "Where durations lie",
                        "Requests per second in each bucket of the histogram: two bands are two "
                        "kinds of requests. Points are single requests with their traces.",
                        "s",
                        Query(rate(f"{SERVER}_bucket", "le", _OF), "{{le}}", exemplars=True),
                    ),
                    rows(
                        "Every route",
                        "Rate, share of 5xx and P95 of each method and route now.",
                        ("service_name", "http_request_method", "http_route"),
                        ("requests", "reqps", of_route),
                        (
                            "errors",
                            "percentunit",
                            share(rate(f"{SERVER}_count", by_route, f"{_OF}, {_FAILED}"), of_route),
                        ),
                        ("P95", "s", quantile(0.95, SERVER, by_route, _OF)),
                    ),
                ),
            ),
            Row(
                "Calls to others",
                (
                    graph(
                        "Calls",
                        "Requests per second to each peer, every attempt counted.",
                        "reqps",
                        Query(calls, _TO),
                        span=8,
                        logs=_LOGS,
                    ),
                    graph(
                        "Failed calls",
                        "Share of attempts that ended in 5xx or without an answer.",
                        "percentunit",
                        Query(
                            share(
                                rate(
                                    f"{CLIENT}_count",
                                    _PEER,
                                    f'{_CALLS}, http_response_status_code!~"[1-4].."',
                                ),
                                calls,
                            ),
                            _TO,
                        ),
                        span=8,
                        logs=_LOGS,
                    ),
                    graph(
                        "Duration of calls, P95",
                        "95% of attempts took less than this. Points are single calls: one click "
                        "opens the trace.",
                        "s",
                        Query(quantile(0.95, CLIENT, _PEER, _CALLS), _TO, exemplars=True),
                        span=8,
                        logs=_LOGS,
                    ),
                ),
            ),
        ),
    )


_TO = "{{service_name}} to {{server_address}}:{{server_port}}"
