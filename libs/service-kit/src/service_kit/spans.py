"""A TracerProvider for the OpenTelemetry API whose spans cost less than the SDK's.

The SDK pays, per span, for what these services don't use: four locks, limits, fan-out to several
processors, a sampler chain and a copy at the end. These spans are recorded on the request's own
thread, all of them when the caller samples (the SDK's default, parentbased_always_on), and handed
to one processor. Names, ids, flags, times, attributes, events, links and status are as the SDK
would record them; the SDK's limits (OTEL_SPAN_*_LIMIT) and OTEL_TRACES_SAMPLER are not read.
"""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from time import time_ns
from types import TracebackType
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util._decorator import _agnosticcontextmanager
from opentelemetry.util.types import AnyValue, Attributes

_log = logging.getLogger(__name__)

_UNSET = Status(StatusCode.UNSET)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SAMPLED_RANDOM = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_PLAIN = (str, int, bool, float)


class TracerProvider(trace.TracerProvider):
    """Makes spans with `resource` and hands them, ended, to `processor`."""

    def __init__(self, resource: Resource, processor: SpanProcessor) -> None:
        self.resource = resource
        self._processor = processor

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> trace.Tracer:
        """A tracer of this instrumentation scope."""
        scope = InstrumentationScope(
            instrumenting_module_name, instrumenting_library_version or "", schema_url, attributes
        )
        return _Tracer(self.resource, scope, self._processor)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what has ended."""
        return self._processor.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Export what has ended and stop the processor."""
        self._processor.shutdown()


class _Tracer(trace.Tracer):
    def __init__(
        self, resource: Resource, scope: InstrumentationScope, processor: SpanProcessor
    ) -> None:
        self.resource = resource
        self.scope = scope
        self.on_end: Any = processor.on_end  # takes what reads like a ReadableSpan

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        caller = trace.get_current_span(context).get_span_context()
        if not caller.is_valid:
            parent, trace_id, trace_state = None, random.getrandbits(128), None
            flags = _SAMPLED_RANDOM
        else:
            parent, trace_id, trace_state = caller, caller.trace_id, caller.trace_state
            flags = _SAMPLED_RANDOM if caller.trace_flags.random_trace_id else _SAMPLED
            if not caller.trace_flags.sampled:
                flags = TraceFlags(flags & ~TraceFlags.SAMPLED)
        own = SpanContext(trace_id, random.getrandbits(64), False, flags, trace_state)
        if not flags.sampled:
            return NonRecordingSpan(own)
        span = _Span(name, own, parent, kind, start_time or time_ns(), self)
        span.records_exception = record_exception
        span.exception_sets_status = set_status_on_exception
        if attributes:
            span.set_attributes(attributes)
        for link in links or ():
            span.add_link(link.context, link.attributes)
        return span

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[trace.Span]:
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception):
            yield span


class _Span(trace.Span):
    """Reads like the SDK's ReadableSpan, which is all that processors and exporters look at."""

    dropped_attributes = dropped_events = dropped_links = 0
    end_time: int | None = None
    status = _UNSET
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    records_exception = exception_sets_status = True

    def __init__(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        start_time: int,
        tracer: _Tracer,
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.start_time = start_time
        self.attributes: dict[str, AnyValue] = {}
        self.resource = tracer.resource
        self.instrumentation_scope = tracer.scope
        self._on_end = tracer.on_end

    def get_span_context(self) -> SpanContext:
        return self.context

    def is_recording(self) -> bool:
        return self.end_time is None

    def end(self, end_time: int | None = None) -> None:
        if self._is_open():
            self.end_time = time_ns() if end_time is None else end_time
            self._on_end(self)

    def set_attribute(self, key: str, value: AnyValue) -> None:
        if self._is_open():
            if key and type(value) in _PLAIN:
                self.attributes[key] = value
            else:  # copied, converted or refused as the SDK does it
                checked = BoundedAttributes(attributes={key: value})
                self.attributes.update(checked.copy())
                self.dropped_attributes += checked.dropped

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        if self._is_open():
            event = Event(name, BoundedAttributes(attributes=attributes), timestamp)
            self.events = (*self.events, event)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        if self._is_open() and (context.is_valid or attributes or context.trace_state):
            self.links = (*self.links, Link(context, BoundedAttributes(attributes=attributes)))

    def update_name(self, name: str) -> None:
        if self._is_open():
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if isinstance(status, StatusCode):
            status = Status(status, description)
        # The specification: OK is final, UNSET is ignored.
        final = self.status.status_code is StatusCode.OK or status.status_code is StatusCode.UNSET
        if self._is_open() and not final:
            self.status = status

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        # The SDK's own: it needs nothing of a span but add_event.
        SdkSpan.record_exception(cast(SdkSpan, self), exception, attributes, timestamp, escaped)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_val is not None and self.is_recording():
            if self.records_exception:
                self.record_exception(exc_val, escaped=True)
            if self.exception_sets_status:
                self.set_status(StatusCode.ERROR, f"{type(exc_val).__name__}: {exc_val}")
        super().__exit__(exc_type, exc_val, exc_tb)

    def _is_open(self) -> bool:
        if self.end_time is None:
            return True
        _log.warning("span %r has ended: the call is ignored", self.name)
        return False
