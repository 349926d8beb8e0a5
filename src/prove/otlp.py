"""Spans out of OTLP JSON, as Jaeger answers it, the Collector keeps it and OTLP/HTTP sends it.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: ids are hex, 64-bit numbers are
strings, an enum is its number (some write its name).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prove.errors import UserError
from prove.tracetree import Event, Link, Span

NOT_OTLP = (AttributeError, LookupError, TypeError, ValueError)
"""What comes of reading something else as OTLP."""
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_OK, _ERROR = (1, "STATUS_CODE_OK"), (2, "STATUS_CODE_ERROR")
_STATUS_CODE = "http.response.status_code"
_ADDED_BY_JAEGER = "internal.span.format"


def spans(document: Mapping[str, Any]) -> list[Span]:
    """The spans of a `TracesData` document, in its order.

    Raises one of NOT_OTLP when it is something else.
    """
    return [
        _span(span, resource)
        for resource in document["resourceSpans"]
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ]


def read(file: Path) -> list[Span]:
    """The spans of a file with one document; raises UserError."""
    try:
        return spans(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from None
    except NOT_OTLP:
        raise UserError(
            f"{file} holds no trace: it must be one document of OTLP JSON, resourceSpans …"
        ) from None


def search(file: Path, trace_id: str) -> list[Span]:
    """The spans of one trace in the Collector's span file and in those rotated away from it."""
    found = {
        span.span_id: span
        for document in _documents(file, [trace_id])
        for span in spans(document)
        if span.trace_id == trace_id
    }
    return list(found.values())


def extract(file: Path, trace_ids: Sequence[str]) -> dict[str, Any]:
    """One `TracesData` document of these traces from the Collector's span files.

    Resources are in the order of their services' names, spans in that of their begin.
    """
    wanted = set(trace_ids)
    resources: dict[str, Any] = {}
    seen = set()
    for document in _documents(file, trace_ids):
        for resource in document["resourceSpans"]:
            for scope in resource.get("scopeSpans", ()):
                for span in scope.get("spans", ()):
                    if span["traceId"] not in wanted or span["spanId"] in seen:
                        continue
                    seen.add(span["spanId"])
                    kept = resources.setdefault(
                        json.dumps(resource["resource"], sort_keys=True),
                        {**resource, "scopeSpans": {}},
                    )
                    kept["scopeSpans"].setdefault(
                        json.dumps(scope.get("scope", {}), sort_keys=True), {**scope, "spans": []}
                    )["spans"].append(span)
    for resource in resources.values():
        resource["scopeSpans"] = [scope for _, scope in sorted(resource["scopeSpans"].items())]
        for scope in resource["scopeSpans"]:
            scope["spans"].sort(key=lambda span: int(span["startTimeUnixNano"]))
    by_service = sorted(
        resources.values(),
        key=lambda each: json.dumps(
            attributes_of(each["resource"].get("attributes")), sort_keys=True
        ),
    )
    return {"resourceSpans": by_service}


def between(
    file: Path, start_unix_nano: int, end_unix_nano: int
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """What began in that time, out of the Collector's span files: attributes of the resource, span.

    In the order in which it was written; what was sent twice comes twice.
    """
    for document in _documents(file, None, written_since_s=start_unix_nano / 1e9):
        for resource, span in with_resources(document):
            if start_unix_nano <= int(span["startTimeUnixNano"]) < end_unix_nano:
                yield resource, span


def with_resources(
    document: Mapping[str, Any],
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    """The attributes of its resource, and the span, for each of a document as OTLP has it.

    Raises one of NOT_OTLP when it is something else.
    """
    for of in document["resourceSpans"]:
        resource = attributes_of(of.get("resource", {}).get("attributes"))
        for scope in of.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield resource, span


def status(span: Mapping[str, Any]) -> str:
    """`unset`, `ok` or `error`, out of a span as OTLP has it."""
    code = (span.get("status") or {}).get("code", 0)
    if code in _ERROR:
        return "error"
    return "ok" if code in _OK else "unset"


def _documents(
    file: Path, trace_ids: Sequence[str] | None, written_since_s: float = 0
) -> Iterator[dict[str, Any]]:
    """Those that mention one of the traces; None: all. A line that is being written is left out.

    Files that were last written before that Unix time are not looked at.
    """
    wanted = None if trace_ids is None else [trace_id.encode() for trace_id in trace_ids]
    for path in sorted(file.parent.glob(f"{file.stem}*{file.suffix}")):
        if _written_s(path) < written_since_s:
            continue
        for line in _lines(path):
            if wanted is None or any(trace_id in line for trace_id in wanted):
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def _written_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # rotated away this moment
        return 0


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            yield from stream
    except OSError:  # rotated away this moment
        return


def _span(span: Mapping[str, Any], of: Mapping[str, Any]) -> Span:
    resource = attributes_of(of.get("resource", {}).get("attributes"))
    attributes = attributes_of(span.get("attributes"))
    attributes.pop(_ADDED_BY_JAEGER, None)
    status = span.get("status") or {}
    start, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
    return Span(
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId") or None,
        service=str(resource.get("service.name", "")),
        name=span["name"],
        start_us=start // 1000,
        duration_us=max(0, end - start) // 1000,
        kind=_kind(span.get("kind", 1)),
        failed=status.get("code") in _ERROR,
        answered=_STATUS_CODE in attributes,
        trace_id=span["traceId"],
        message=status.get("message", ""),
        attributes=attributes,
        events=tuple(
            Event(
                int(event["timeUnixNano"]) // 1000,
                event["name"],
                attributes_of(event.get("attributes")),
            )
            for event in span.get("events", ())
        ),
        links=tuple(Link(link["traceId"], link["spanId"]) for link in span.get("links", ())),
    )


def _kind(kind: int | str) -> str:
    if isinstance(kind, int):
        return _KINDS[kind]
    return kind.removeprefix("SPAN_KIND_").lower()


def attributes_of(pairs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """A resource's or span's, by name; raises one of NOT_OTLP."""
    return {pair["key"]: _value(pair["value"]) for pair in pairs or ()}


def _value(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    if kind == "intValue":
        return int(content)
    if kind == "arrayValue":
        return [_value(each) for each in content.get("values", ())]
    if kind == "kvlistValue":
        return attributes_of(content.get("values"))
    return content
