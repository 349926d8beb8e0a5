"""Spans of OTLP and of Jaeger as rows of a bundle (docs/reference/incident-bundle.md)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prove import otlp

Row = dict[str, Any]
_EMBEDDED = ("sqlite",)
"""Databases that are part of their service, and no process of their own."""


def of_otlp(resource: Mapping[str, Any], span: Mapping[str, Any]) -> Row:
    """A row of an OTLP span, of the attributes of its resource; raises one of otlp.NOT_OTLP."""
    attributes = otlp.attributes_of(span.get("attributes"))
    return {
        "trace_id": span["traceId"],
        "span_id": span["spanId"],
        "parent_span_id": span.get("parentSpanId") or None,
        "service": str(resource.get("service.name") or "unknown"),
        "instance": resource.get("service.instance.id"),
        "name": span["name"],
        "start_unix_nano": int(span["startTimeUnixNano"]),
        "end_unix_nano": int(span["endTimeUnixNano"]),
        "status": otlp.status(span),
        "peer": peer(attributes, is_client=span.get("kind") in (3, "SPAN_KIND_CLIENT")),
    }


def of_jaeger(trace: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of a trace in Jaeger's own JSON; raises one of otlp.NOT_OTLP."""
    processes = {
        key: (str(each["serviceName"]), _tags(each.get("tags")).get("service.instance.id"))
        for key, each in trace["processes"].items()
    }
    for span in trace["spans"]:
        tags = _tags(span.get("tags"))
        service, instance = processes[span["processID"]]
        parents = [
            each["spanID"]
            for each in span.get("references") or ()
            if each.get("refType") == "CHILD_OF" and each.get("traceID") == span["traceID"]
        ]
        failed = tags.get("error") in (True, "true") or tags.get("otel.status_code") == "ERROR"
        start_ns = int(span["startTime"]) * 1000
        yield {
            "trace_id": span["traceID"],
            "span_id": span["spanID"],
            "parent_span_id": parents[0] if parents else span.get("parentSpanID") or None,
            "service": service,
            "instance": None if instance is None else str(instance),
            "name": span["operationName"],
            "start_unix_nano": start_ns,
            "end_unix_nano": start_ns + int(span["duration"]) * 1000,
            "status": "error" if failed else "unset",
            "peer": peer(tags, is_client=tags.get("span.kind") == "client"),
        }


def peer(attributes: Mapping[str, Any], *, is_client: bool) -> str | None:
    """Whom a client span asks who sends no spans, as far as it says so by name."""
    if not is_client:
        return None
    told = attributes.get("peer.service")
    system = attributes.get("db.system.name") or attributes.get("db.system")
    return str(told or "") or (str(system) if system and system not in _EMBEDDED else None)


def _tags(pairs: Iterable[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {each["key"]: each["value"] for each in pairs or ()}
