"""OTLP exporters that spend a sixth of the official ones' CPU to make the same requests.

The official exporters build a protobuf object per attribute, in the process that serves requests.
Here the usual span or log record (plain attributes, no events, no links) is written as bytes right
away (https://protobuf.dev/programming-guides/encoding/), and attributes that come again and again
are kept encoded. Whatever is not usual goes through the official encoder, one record at a time, so
a record that cannot be encoded takes no other with it. Sending, retries, headers, TLS, time-outs,
metrics and the OTEL_EXPORTER_OTLP_* variables remain those of the official exporters.
"""

import logging
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT

_log = logging.getLogger(__name__)

Record = TypeVar("Record", ReadableSpan, ReadableLogRecord)

_FLAGS_LOCAL, _FLAGS_REMOTE = 0x100, 0x300  # SpanFlags: is_remote of the parent is known (and set)
_span_times = struct.Struct("<BQBQ").pack
_log_times = struct.Struct("<BQBQBI").pack
_double = struct.Struct("<Bd").pack
_flags = struct.Struct("<BBI").pack


class SpanExporter(OTLPSpanExporter):
    """OTLPSpanExporter with a cheaper encoder."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch, with the official retries."""
        sent = _send(self, len(spans), encode_trace_request(spans))
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE


class LogExporter(OTLPLogExporter):
    """OTLPLogExporter with a cheaper encoder."""

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Send one batch, with the official retries."""
        sent = _send(self, len(batch), encode_logs_request(batch))
        return LogRecordExportResult.SUCCESS if sent else LogRecordExportResult.FAILURE


def encode_trace_request(spans: Sequence[ReadableSpan]) -> bytes:
    """The ExportTraceServiceRequest of these spans."""
    return _request(spans, _usual_span, _any_span)


def encode_logs_request(records: Sequence[ReadableLogRecord]) -> bytes:
    """The ExportLogsServiceRequest of these log records."""
    return _request(records, _usual_log, _any_log)


class _UnusualError(Exception):
    """Not worth own code: the official encoder takes it."""


def _send(exporter: OTLPSpanExporter | OTLPLogExporter, count: int, request: bytes) -> bool:
    with exporter._metrics.export_operation(count) as operation:
        result = exporter._client.export(request)
        operation.error = result.error
        if not result.success and result.status_code is not None:
            operation.error_attrs = {"http.response.status_code": result.status_code}
    return result.success


def _request(
    records: Sequence[Record], usual: Callable[[Record], bytes], any_: Callable[[Record], bytes]
) -> bytes:
    # Traces and logs have the same envelope: resource > scope > records, each in the same field.
    # A batch has one resource and a few scopes, each of them one object: no need to hash them.
    resources: dict[int, dict[int, tuple[Record, list[bytes]]]] = {}
    for record in records:
        try:
            encoded = usual(record)
        except Exception:
            try:
                encoded = any_(record)
            except Exception:
                _log.exception("a record cannot be encoded and is lost")
                continue
        scopes = resources.setdefault(id(record.resource), {})
        group = scopes.setdefault(id(record.instrumentation_scope), (record, []))
        group[1].append(_field(b"\x12", encoded))
    request = b""
    for scopes in resources.values():
        resource = b""
        for record, encoded_records in scopes.values():
            outer, inner = _envelope(record.resource, record.instrumentation_scope)
            resource = (resource or outer) + _field(b"\x12", inner + b"".join(encoded_records))
        request += _field(b"\x0a", resource)
    return request


@lru_cache(maxsize=64)
def _envelope(resource: Resource, scope: InstrumentationScope | None) -> tuple[bytes, bytes]:
    """ResourceSpans without its scopes and ScopeSpans without its spans (or the same of logs)."""
    empty = ReadableSpan("", INVALID_SPAN_CONTEXT, resource=resource, instrumentation_scope=scope)
    outer = encode_spans([empty]).resource_spans[0]
    inner = outer.scope_spans.pop()
    inner.ClearField("spans")
    return outer.SerializeToString(), inner.SerializeToString()


def _any_span(span: ReadableSpan) -> bytes:
    request = encode_spans([span])
    return bytes(request.resource_spans[0].scope_spans[0].spans[0].SerializeToString())


def _any_log(record: ReadableLogRecord) -> bytes:
    request = encode_logs([record])
    return bytes(request.resource_logs[0].scope_logs[0].log_records[0].SerializeToString())


def _usual_span(span: ReadableSpan) -> bytes:
    context, parent, status = span.context, span.parent, span.status
    if (
        span.events
        or span.links
        or context.trace_state
        or span.dropped_attributes
        or span.dropped_events
        or span.dropped_links
    ):
        raise _UnusualError
    parts = [
        b"\x0a\x10",
        context.trace_id.to_bytes(16, "big"),
        b"\x12\x08",
        context.span_id.to_bytes(8, "big"),
        b"\x2a",
        _text(span.name),
        b"\x30",
        _varint(span.kind.value + 1),
        _span_times(0x39, span.start_time, 0x41, span.end_time),
    ]
    if parent:
        parts += (b"\x22\x08", parent.span_id.to_bytes(8, "big"))
    parts.append(_flags(0x85, 0x01, _FLAGS_REMOTE if parent and parent.is_remote else _FLAGS_LOCAL))
    description = b"\x12" + _text(status.description) if status.description else b""
    parts.append(_field(b"\x7a", description + b"\x18" + _varint(status.status_code.value)))
    parts += _attributes(b"\x4a", span.attributes)
    return b"".join(parts)


def _usual_log(record: ReadableLogRecord) -> bytes:
    log = record.log_record
    if (
        record.dropped_attributes
        or log.event_name is not None
        or log.severity_number is None
        or log.severity_text is None
        or type(log.body) is not str
    ):
        raise _UnusualError
    parts = [
        _log_times(0x09, log.timestamp, 0x59, log.observed_timestamp, 0x45, log.trace_flags or 0),
        b"\x10",
        _varint(log.severity_number.value),
        b"\x1a",
        _text(log.severity_text),
        _field(b"\x2a", b"\x0a" + _text(log.body)),
    ]
    if log.trace_id:
        parts += (b"\x4a\x10", log.trace_id.to_bytes(16, "big"))
    if log.span_id:
        parts += (b"\x52\x08", log.span_id.to_bytes(8, "big"))
    parts += _attributes(b"\x32", log.attributes)
    return b"".join(parts)


def _attributes(tag: bytes, attributes: Any) -> Iterable[bytes]:
    # copy(): iterating the SDK's mapping itself takes a lock per attribute.
    for key, value in attributes.copy().items():
        # 0.0 and -0.0 are one key to a cache; other types it tells apart (typed=True).
        yield (_key_value if type(value) is float else _cached_key_value)(tag, key, value)


def _key_value(tag: bytes, key: str, value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        encoded = b"\x0a" + _text(value)
    elif kind is bool:
        encoded = b"\x10\x01" if value else b"\x10\x00"
    elif kind is int:
        encoded = b"\x18" + _varint(value)
    elif kind is float:
        encoded = _double(0x21, value)
    else:
        raise _UnusualError
    return _field(tag, b"\x0a" + _text(key) + _field(b"\x12", encoded))


_cached_key_value = lru_cache(maxsize=2048, typed=True)(_key_value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _varint(len(encoded)) + encoded


def _field(tag: bytes, body: bytes) -> bytes:
    return tag + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    if 0 <= number < 0x80:
        return _ONE_BYTE[number]
    if not -(1 << 63) <= number < 1 << 63:
        raise _UnusualError
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_ONE_BYTE = [bytes([number]) for number in range(0x80)]
