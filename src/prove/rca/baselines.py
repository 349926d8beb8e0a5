"""Simple methods, to know what is owed to ours: each ranks services by one figure."""

from collections import defaultdict
from collections.abc import Callable, Mapping

import polars as pl

from prove.rca.analysis import Findings


def self_time(found: Findings) -> list[str]:
    """The greatest rise of self time in ms; what lies between client and server is the callee's."""
    rise: dict[str, float] = defaultdict(float)
    for row in found.items.iter_rows(named=True):
        rise[row["callee"] or row["service"]] += row["loss_ms"]
    return _falling(rise)


def metric(found: Findings) -> list[str]:
    """The metric that is the most spreads away from its usual value (as BARO scores)."""
    away: dict[str, float] = defaultdict(float)
    for row in found.changes.iter_rows(named=True):
        away[row["service"]] = max(away[row["service"]], abs(row["shift"]))
    return _falling(away)


def error_depth(found: Findings) -> list[str]:
    """Where failures rose with none below: failed spans, and lines logged as errors."""
    services = found.trees.ops["service"].to_list()
    rise: dict[str, float] = defaultdict(float)
    for events in found.events.values():
        failing = events.filter(
            (pl.col("kind") == "failure")
            | ((pl.col("kind") == "log") & pl.col("event").is_in(list(found.severe)))
        )
        for row in failing.iter_rows(named=True):
            rise[services[row["op"]]] += max(0.0, row["rate"] - row["healthy"])
    return _falling(rise)


def fusion(found: Findings) -> list[str]:
    """The sum of reciprocal ranks of the three."""
    total: dict[str, float] = defaultdict(float)
    for method in (self_time, metric, error_depth):
        for place, service in enumerate(method(found), 1):
            total[service] += 1 / place
    return _falling(total)


METHODS: Mapping[str, Callable[[Findings], list[str]]] = {
    "self time": self_time,
    "metric z-score": metric,
    "error depth": error_depth,
    "rank fusion": fusion,
}


def _falling(scores: Mapping[str, float]) -> list[str]:
    return sorted(
        (name for name in scores if scores[name] > 0), key=lambda name: (-scores[name], name)
    )
