"""What the servers measured of an incident: answers of Prometheus, kept with their queries."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from prove.clients import prometheus
from prove.errors import UserError
from prove.incident import record
from prove.incident.objectives import Objectives

SLI = "sli.jsonl"
"""Of an incident's directory: a line a query."""

ANSWERS = "answers"
"""How many requests each instance answered, by route and status."""
CHECKOUT_P95, READ_P95 = "checkout-p95", "read-p95"
COUNT = "http_server_request_duration_seconds_count"
_BUCKET = "http_server_request_duration_seconds_bucket"
_BY = (
    "service_name, service_instance_id, http_request_method, http_route, http_response_status_code"
)
_ROUTES = {
    CHECKOUT_P95: (
        'service_name="order-service", http_request_method="POST", http_route="/api/v1/orders"'
    ),
    READ_P95: (
        'service_name="product-service", http_request_method="GET",'
        ' http_route=~"/api/v1/products.*"'
    ),
}


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(_Form):
    """One series; a point is a Unix time in seconds and the value then."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


class Measured(_Form):
    """A line of `sli.jsonl`: a query, and what it answered over the time of the incident."""

    name: str
    query: str
    start_unix_s: float
    end_unix_s: float
    step_s: float
    series: list[Series]

    @property
    def points(self) -> list[tuple[float, float]]:
        """Of a query that has one series; none when it was silent."""
        return self.series[0].points if self.series else []


class Metrics(Protocol):
    """A Prometheus."""

    def range(
        self, promql: str, start_s: float, end_s: float, step_s: float
    ) -> list[prometheus.Series]:
        """Raises UserError when it doesn't answer."""
        ...


def queries(objectives: Objectives) -> dict[str, str]:
    """What is asked, by name: each SLO's bad share is named as the SLO."""
    window = f"{objectives.shortest_s}s"
    latency = {
        name: f"histogram_quantile(0.95, sum by (le) (rate({_BUCKET}{{{route}}}[{window}])))"
        for name, route in _ROUTES.items()
    }
    return {
        **{slo.id: slo.recorded for slo in objectives.slos},
        **latency,
        ANSWERS: f"sum by ({_BY}) ({COUNT})",
        "orders": "sum by (prove_outcome) (prove_orders_total)",
        "orders-unfinished": "max by (prove_status) (prove_orders_unfinished)",
        "checkouts-shed": "sum by (prove_reason) (prove_checkouts_shed_total)",
        "peer-retries": "sum by (prove_peer) (prove_peer_retries_total)",
        "peer-breaker": "max by (prove_peer) (prove_peer_breaker_state)",
        "probes": "max by (probe) (probe_success)",
        "alerts": 'ALERTS{alertstate="firing"}',
    }


def capture(
    metrics: Metrics, objectives: Objectives, between: tuple[float, float]
) -> list[Measured]:
    """Every query over that time; raises UserError when Prometheus doesn't answer."""
    start_s, end_s = between
    step_s = float(objectives.interval_s)
    return [
        Measured(
            name=name,
            query=query,
            start_unix_s=start_s,
            end_unix_s=end_s,
            step_s=step_s,
            series=[
                Series(labels=_told(each.labels), points=_numbers(each.points))
                for each in metrics.range(query, start_s, end_s, step_s)
            ],
        )
        for name, query in queries(objectives).items()
    ]


class Kept:
    """`sli.jsonl`, read; a query that was not asked, or not answered, has no points."""

    def __init__(self, lines: Iterable[Measured]) -> None:
        self._lines = list(lines)

    @classmethod
    def of(cls, directory: Path) -> "Kept":
        """That of an incident; empty when there is none. Raises UserError for another form."""
        return cls(record.lines(directory / SLI, Measured))

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __iter__(self) -> Iterator[Measured]:
        return iter(self._lines)

    def find(self, name: str) -> Measured | None:
        """The query of that name."""
        return next((line for line in self._lines if line.name == name), None)

    def points(self, name: str) -> list[tuple[float, float]]:
        """Of a query with one series."""
        found = self.find(name)
        return found.points if found else []

    def line(self, name: str) -> int:
        """Its line in the file, from 1; raises UserError when it isn't there."""
        for number, line in enumerate(self._lines, start=1):
            if line.name == name:
                return number
        raise UserError(f"{SLI} has no query {name}")


def increase(points: Sequence[tuple[float, float]], start_s: float, end_s: float) -> float:
    """By how much a counter rose in that time: resets and a birth in it are counted whole.

    Prometheus' own `increase` extrapolates, and misses the first event of a series.
    """
    before = [value for at_s, value in points if at_s <= start_s]
    inside = [value for at_s, value in points if start_s < at_s <= end_s]
    values = [before[-1] if before else 0.0, *inside]
    return sum(new - old if new >= old else new for old, new in pairwise(values))


def _told(labels: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if not name.startswith("__")}


def _numbers(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without NaN, which JSON doesn't have: a quantile of nothing."""
    return [(at_s, value) for at_s, value in points if math.isfinite(value)]


def went_bad(
    points: Iterable[tuple[float, float]], promised: Objectives, slo_id: str, fired_s: float
) -> float:
    """When an SLI became worse than its objective, without a break until its page fired.

    A gap of one shortest window is no break. Where its course isn't known, as long before the page
    as the shortest of its windows.
    """
    otherwise = fired_s - promised.pairs("page")[0].short_s
    slo = promised.find(slo_id)
    bad = [at_s for at_s, value in points if slo and at_s <= fired_s and value > slo.budget]
    begun_s = None
    for at_s in sorted(bad, reverse=True):
        if begun_s is not None and begun_s - at_s > promised.shortest_s + promised.interval_s:
            break
        begun_s = at_s
    return otherwise if begun_s is None else min(begun_s, otherwise)
