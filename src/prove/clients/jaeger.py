"""Jaeger over HTTP: one trace by its id, and which traces there are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from prove import otlp, spanrows
from prove.clients.server import Server
from prove.spanrows import Row
from prove.tracetree import Span

MAX_FOUND = 100
SLICE_S, MAX_IN_SLICE = 30.0, 1500
"""Of traces that are all asked for; as many as a stack's Jaeger keeps at the most."""


@dataclass(frozen=True)
class Found:
    """A trace in short; Unix microseconds. `name` is that of its first span."""

    trace_id: str
    name: str
    start_us: int
    duration_us: int
    spans: int
    failed: int


class Jaeger:
    """The Jaeger at `url`."""

    def __init__(
        self, url: str, transport: httpx.BaseTransport | None = None, timeout_s: float = 10
    ) -> None:
        self._server = Server("trace store (Jaeger)", url, timeout_s, transport)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that have arrived, none when it isn't known; raises UserError."""
        answer = self._server.ask("GET", f"/api/v3/traces/{trace_id}")
        if answer.status_code == 404:
            return []
        return self._server.content(lambda body: otlp.spans(body["result"]), answer)

    def services(self) -> list[str]:
        """Those that have spans, by name; raises UserError."""
        return self._server.read(
            lambda answer: sorted(str(each) for each in answer["data"] or ()),
            "GET",
            "/api/services",
        )

    def rows(self, service: str, start_s: float, end_s: float) -> list[Row]:
        """All spans of the traces in which a service has one that began between two Unix times.

        As rows of a bundle. Asked for in slices, for an answer has a limit. Raises UserError.
        """
        found: list[Row] = []
        while start_s < end_s:
            until_s = min(end_s, start_s + SLICE_S)
            found += self._server.read(
                lambda answer: [
                    row for trace in answer["data"] for row in spanrows.of_jaeger(trace)
                ],
                "GET",
                "/api/traces",
                params={
                    "service": service,
                    "start": str(round(start_s * 1e6)),
                    "end": str(round(until_s * 1e6)),
                    "limit": str(MAX_IN_SLICE),
                },
            )
            start_s = until_s
        return found

    def trace_ids(self, service: str, attribute: str, value: str) -> list[str]:
        """The traces in which a span of `service` has the attribute; raises UserError."""
        found = self.search(service, {attribute: value})
        return [trace.trace_id for trace in found]

    def search(
        self,
        service: str,
        attributes: Mapping[str, str],
        min_duration_ms: float = 0,
        limit: int = MAX_FOUND,
    ) -> list[Found]:
        """The latest traces in which one span of `service` is as said, the latest first.

        Raises UserError.
        """
        params = {"service": service, "limit": str(limit)}
        if attributes:
            params["tags"] = json.dumps(dict(attributes))
        if min_duration_ms:
            params["minDuration"] = f"{round(min_duration_ms * 1000)}us"
        found = self._server.read(
            lambda answer: [_found(trace) for trace in answer["data"]],
            "GET",
            "/api/traces",
            params=params,
        )
        return sorted(found, key=lambda trace: trace.start_us, reverse=True)


def _found(trace: Mapping[str, Any]) -> Found:
    """Out of Jaeger's own JSON: only its search answers with traces in short."""
    spans = trace["spans"]
    first = min(spans, key=lambda span: span["startTime"])
    end = max(span["startTime"] + span["duration"] for span in spans)
    failed = [
        span
        for span in spans
        if any(tag["key"] == "error" and tag["value"] is True for tag in span["tags"])
    ]
    return Found(
        trace_id=trace["traceID"],
        name=first["operationName"],
        start_us=first["startTime"],
        duration_us=end - first["startTime"],
        spans=len(spans),
        failed=len(failed),
    )
