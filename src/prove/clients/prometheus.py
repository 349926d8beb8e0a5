"""Prometheus over HTTP: queries of a moment, of a range, exemplars, and the rules it has."""

from dataclasses import dataclass

import httpx

from prove.clients.server import Server

MAX_POINTS = 10_000
"""Of a series in one answer; Prometheus refuses 11,000."""


@dataclass(frozen=True)
class Sample:
    """The value of one series at the time of the query."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Series:
    """One series at several times, each a Unix time and the value then."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Exemplar:
    """One observation that a histogram points to; `time_s` is Unix time."""

    series: dict[str, str]
    labels: dict[str, str]
    value: float
    time_s: float


@dataclass(frozen=True)
class RecordingRule:
    """What is asked at every evaluation, and the series its answer becomes."""

    name: str
    labels: dict[str, str]
    query: str


class Prometheus:
    """The Prometheus at `url`; every method raises UserError when it doesn't answer or refuses."""

    def __init__(
        self, url: str, transport: httpx.BaseTransport | None = None, timeout_s: float = 10
    ) -> None:
        self._server = Server("metrics store (Prometheus)", url, timeout_s, transport)

    def query(self, promql: str, at_s: float | None = None) -> list[Sample]:
        """An instant vector, now or at a Unix time."""
        return self._server.read(
            lambda answer: [
                Sample(dict(each["metric"]), float(each["value"][1]))
                for each in answer["data"]["result"]
            ],
            "GET",
            "/api/v1/query",
            params={"query": promql} | ({} if at_s is None else {"time": str(at_s)}),
        )

    def range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """A matrix from one Unix time to another, asked for in parts when it is long."""
        found: dict[tuple[tuple[str, str], ...], Series] = {}
        while start_s <= end_s:
            until_s = min(end_s, start_s + (MAX_POINTS - 1) * step_s)
            for series in self._range(promql, start_s, until_s, step_s):
                key = tuple(sorted(series.labels.items()))
                found.setdefault(key, Series(series.labels, [])).points.extend(series.points)
            start_s += MAX_POINTS * step_s
        return list(found.values())

    def _range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        return self._server.read(
            lambda answer: [
                Series(
                    dict(each["metric"]),
                    [(float(at_s), float(value)) for at_s, value in each["values"]],
                )
                for each in answer["data"]["result"]
            ],
            "POST",
            "/api/v1/query_range",
            data={"query": promql, "start": str(start_s), "end": str(end_s), "step": str(step_s)},
        )

    def exemplars(self, promql: str, start_s: float, end_s: float) -> list[Exemplar]:
        """Exemplars of the selected series between two Unix times."""
        return self._server.read(
            lambda answer: [
                Exemplar(
                    series=dict(series["seriesLabels"]),
                    labels=dict(each["labels"]),
                    value=float(each["value"]),
                    time_s=float(each["timestamp"]),
                )
                for series in answer["data"]
                for each in series["exemplars"]
            ],
            "GET",
            "/api/v1/query_exemplars",
            params={"query": promql, "start": str(start_s), "end": str(end_s)},
        )

    def recording_rules(self) -> list[RecordingRule]:
        """Those that are loaded."""
        return self._server.read(
            lambda answer: [
                RecordingRule(each["name"], dict(each.get("labels") or {}), each["query"])
                for group in answer["data"]["groups"]
                for each in group["rules"]
            ],
            "GET",
            "/api/v1/rules",
            params={"type": "record"},
        )
