"""Traces of an SLO's bad events: exemplars of the histograms that its rules count them by."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prove.slo.buckets import END

if TYPE_CHECKING:
    from prove.clients.prometheus import Exemplar, Prometheus

MOST = 3
"""Traces of an SLO: one is read, the others are there to compare."""

_BAD_EVENTS = "slo:sli_error:events"
_HISTOGRAM = re.compile(r"([a-zA-Z_:][\w:]*)_(?:count|bucket)\s*\{([^}]*)\}")


@dataclass(frozen=True)
class Histogram:
    """The buckets of a histogram; what was measured `above` a value is bad."""

    buckets: str
    above: float


def histograms(query: str) -> Iterator[Histogram]:
    """Those by which a query of bad events counts, each once.

    A query that takes off a bucket, all minus those that were fast enough, counts what is above it.
    """
    ends: dict[str, float] = {}
    for name, matchers in _HISTOGRAM.findall(query):
        end = END.search(matchers)
        others = END.sub("", matchers).strip().strip(",").strip()
        buckets = f"{name}_bucket{{{others}}}"
        above = float(end[1]) if end and end[1] != "+Inf" else 0.0
        ends[buckets] = max(above, ends.get(buckets, 0.0))
    for buckets, above in ends.items():
        yield Histogram(buckets, above)


def queries(prometheus: "Prometheus") -> dict[str, str]:
    """How the bad events of each SLO are counted, by the rules that are loaded; by `sloth_id`.

    SLIs that are ratios already have no such rule, nor have their probes exemplars.
    """
    return {
        rule.labels["sloth_id"]: rule.query
        for rule in prometheus.recording_rules()
        if rule.name.startswith(_BAD_EVENTS) and "sloth_id" in rule.labels
    }


def of_bad_events(
    prometheus: "Prometheus", query: str, start_s: float, end_s: float
) -> "list[Exemplar]":
    """The newest between two Unix times, each of a trace of its own."""
    found = [
        exemplar
        for histogram in histograms(query)
        for exemplar in prometheus.exemplars(histogram.buckets, start_s, end_s)
        if exemplar.value > histogram.above and exemplar.labels.get("trace_id")
    ]
    found.sort(key=lambda exemplar: exemplar.time_s, reverse=True)
    newest: dict[str, Exemplar] = {}
    for exemplar in found:
        newest.setdefault(exemplar.labels["trace_id"], exemplar)
    return list(newest.values())[:MOST]
