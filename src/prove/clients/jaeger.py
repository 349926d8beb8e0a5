"""Jaeger over HTTP: one trace by its id."""

from collections.abc import Mapping
from typing import Any

import httpx

from prove.clients.server import Server
from prove.tracetree import Span


class Jaeger:
    """The Jaeger at `url`."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._server = Server("trace store (Jaeger)", url, transport=transport)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that have arrived, none when it isn't known; raises UserError."""
        answer = self._server.ask("GET", f"/api/traces/{trace_id}")
        if answer.status_code == 404:
            return []
        return self._server.content(_spans, answer)


def _spans(answer: Mapping[str, Any]) -> list[Span]:
    return [_span(span, trace["processes"]) for trace in answer["data"] for span in trace["spans"]]


def _span(span: Mapping[str, Any], processes: Mapping[str, Any]) -> Span:
    tags = {tag["key"]: tag["value"] for tag in span.get("tags") or ()}
    parent = next(
        (
            reference["spanID"]
            for reference in span.get("references") or ()
            if reference["refType"] == "CHILD_OF" and reference["traceID"] == span["traceID"]
        ),
        None,
    )
    return Span(
        span_id=span["spanID"],
        parent_id=parent,
        service=processes[span["processID"]]["serviceName"],
        name=span["operationName"],
        start_us=span["startTime"],
        duration_us=span["duration"],
        kind=tags.get("span.kind", "internal"),
        failed=tags.get("otel.status_code") == "ERROR",
        answered="http.response.status_code" in tags,
    )
