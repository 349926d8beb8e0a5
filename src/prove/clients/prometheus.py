"""Prometheus over HTTP: instant queries and exemplars."""

from dataclasses import dataclass

import httpx

from prove.clients.server import Server


@dataclass(frozen=True)
class Sample:
    """The value of one series at the time of the query."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Exemplar:
    """One observation that a histogram points to; `time_s` is Unix time."""

    series: dict[str, str]
    labels: dict[str, str]
    value: float
    time_s: float


class Prometheus:
    """The Prometheus at `url`; every method raises UserError when it doesn't answer or refuses."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._server = Server("metrics store (Prometheus)", url, transport=transport)

    def query(self, promql: str) -> list[Sample]:
        """An instant vector, now."""
        return self._server.read(
            lambda answer: [
                Sample(dict(each["metric"]), float(each["value"][1]))
                for each in answer["data"]["result"]
            ],
            "GET",
            "/api/v1/query",
            params={"query": promql},
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
