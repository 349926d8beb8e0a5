"""The own spans and exporters send what the official SDK and exporters would send."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import flask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from service_kit import export, spans
from service_kit.testing import PATIENT_S, free_port

# Slow machines are not a failure.
relaxed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

RESOURCES = [
    Resource({"service.name": "product-service", "process.pid": 7}, "https://schema/1"),
    Resource({}),
]
SCOPES = [
    InstrumentationScope("flask", "0.66b1", "https://schema/2", {"a": 1}),
    InstrumentationScope("sqlalchemy", ""),
]

# Lone surrogates and integers beyond 64 bits cannot be encoded: they must cost one attribute only.
texts = st.text(st.characters(), max_size=200) | st.just("\ud800")
plain = texts | st.booleans() | st.integers(-(2**64), 2**64) | st.floats(width=64)
values = st.recursive(
    plain | st.none() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=5,
)
attributes = st.dictionaries(st.text(min_size=1, max_size=20), plain, max_size=8) | (
    st.dictionaries(st.text(min_size=1, max_size=20), values, max_size=8)
)
nanoseconds = st.integers(0, 2**64 - 1)
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
    st.none() | st.just(TraceState([("vendor", "x"), ("b", "y")])),
)
statuses = st.sampled_from(
    [Status(), Status(StatusCode.OK), Status(StatusCode.ERROR), Status(StatusCode.ERROR, "täng")]
)
readable_spans = st.builds(
    ReadableSpan,
    st.text(max_size=40),
    contexts,
    st.none() | contexts,
    st.sampled_from(RESOURCES),
    attributes,
    st.just(()) | st.lists(st.builds(Event, st.text(), attributes, nanoseconds), max_size=2),
    st.just(()) | st.lists(st.builds(Link, contexts, attributes), max_size=2),
    st.sampled_from(list(SpanKind)),
    st.none(),
    statuses,
    nanoseconds,
    nanoseconds,
    st.sampled_from([*SCOPES, None]),
)


@st.composite
def log_records(draw: st.DrawFn) -> ReadableLogRecord:
    context = trace.set_span_in_context(NonRecordingSpan(draw(contexts)))
    record = LogRecord(
        timestamp=draw(st.none() | nanoseconds),
        observed_timestamp=draw(nanoseconds),
        context=context if draw(st.booleans()) else None,
        severity_text=draw(st.none() | st.text(max_size=8)),
        severity_number=draw(st.none() | st.sampled_from(list(SeverityNumber))),
        body=draw(values),
        attributes=draw(attributes),
        event_name=draw(st.none() | st.text(max_size=8)),
    )
    return ReadableLogRecord(
        record, draw(st.sampled_from(RESOURCES)), draw(st.sampled_from([*SCOPES, None]))
    )


def normal(request: Any) -> bytes:
    """NaN is not equal to itself, bytes are."""
    return bytes(request.SerializeToString(deterministic=True))


@relaxed
@given(st.lists(readable_spans, max_size=6))
def test_spans_are_encoded_as_by_the_official_encoder(batch: list[ReadableSpan]) -> None:
    ours = ExportTraceServiceRequest.FromString(export.encode_trace_request(batch))
    assert normal(ours) == normal(encode_spans(batch))


def encodable(record: ReadableLogRecord) -> bool:
    try:
        encode_logs([record])
    except Exception:
        return False
    return True


@relaxed
@given(st.lists(log_records().filter(encodable), max_size=6))
def test_log_records_are_encoded_as_by_the_official_encoder(
    batch: list[ReadableLogRecord],
) -> None:
    ours = ExportLogsServiceRequest.FromString(export.encode_logs_request(batch))
    assert normal(ours) == normal(encode_logs(batch))


def test_a_record_that_cannot_be_encoded_takes_no_other_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = SpanContext(1, 2, False)
    good, bad = (ReadableSpan(name, context, start_time=1, end_time=2) for name in ("a", "\ud800"))
    request = ExportTraceServiceRequest.FromString(export.encode_trace_request([bad, good]))
    assert [s.name for s in request.resource_spans[0].scope_spans[0].spans] == ["a"]
    assert "cannot be encoded" in caplog.text


LONG_AGO = 1_000_000_000_000_000_000  # 2001, in ns: what is later was the clock


class Collected(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    def encoded(self) -> list[bytes]:
        """As the official encoder sees them; without the order of attributes and the clock."""
        result = []
        for sdk_span in self.spans:
            message = encode_spans([sdk_span]).resource_spans[0].scope_spans[0]
            span = message.spans[0]
            span.attributes.sort(key=lambda attribute: attribute.key)
            for event in span.events:
                event.time_unix_nano = min(event.time_unix_nano, LONG_AGO)
                for attribute in event.attributes:
                    if attribute.key == "exception.stacktrace":  # goes through the tracer's file
                        attribute.value.Clear()
            span.start_time_unix_nano = min(span.start_time_unix_nano, LONG_AGO)
            span.end_time_unix_nano = min(span.end_time_unix_nano, LONG_AGO)
            result.append(normal(message))
        return result


def tracer_provider(own: bool, processor: SpanProcessor) -> trace.TracerProvider:
    if own:
        return spans.TracerProvider(RESOURCES[0], processor)
    provider = SdkTracerProvider(
        resource=RESOURCES[0], shutdown_on_exit=False, meter_provider=NoOpMeterProvider()
    )
    provider.add_span_processor(processor)
    return provider


Step = Callable[[trace.Span], object]
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        lambda k, v: lambda s: s.set_attribute(k, v), st.sampled_from(["", "k", "l"]), values
    ),
    st.builds(lambda a: lambda s: s.set_attributes(a), attributes),
    st.builds(lambda n, a: lambda s: s.add_event(n, a, 5), st.text(), attributes),
    st.builds(lambda c, a: lambda s: s.add_link(c, a), contexts, attributes),
    st.builds(lambda n: lambda s: s.update_name(n), st.text(max_size=5)),
    st.builds(lambda c: lambda s: s.set_status(c), st.sampled_from(list(StatusCode))),
    st.builds(lambda x: lambda s: s.set_status(x), statuses),
    st.builds(lambda m: lambda s: s.record_exception(ValueError(m), {"x": 1}, 7), st.text()),
    st.builds(lambda t: lambda s: s.end(t), nanoseconds),
)


@relaxed
@given(
    st.none() | contexts,
    st.sampled_from(list(SpanKind)),
    st.none() | attributes,
    st.lists(st.builds(Link, contexts, attributes), max_size=2),
    st.lists(steps, max_size=8),
    st.booleans(),
)
def test_own_spans_record_what_sdk_spans_record(
    caller: SpanContext | None,
    kind: SpanKind,
    initial: dict[str, Any] | None,
    links: list[Link],
    program: list[Step],
    fails: bool,
) -> None:
    context = trace.set_span_in_context(NonRecordingSpan(caller)) if caller else None
    recorded = []
    for own in (True, False):
        collected = Collected()
        provider = tracer_provider(own, collected)
        random.seed(4)  # both draw their ids from it
        span = provider.get_tracer("t", "1").start_span("n", context, kind, initial, links, 3)
        for step in program:
            step(span)
        try:
            with span:
                if fails:
                    raise LookupError("no")
        except LookupError:
            pass
        recorded.append((collected.encoded(), span.get_span_context(), span.is_recording()))
    assert recorded[0] == recorded[1]


@pytest.mark.parametrize(
    ("path", "status"), [("/items/a?limit=1", 200), ("/items/none", 404), ("/fails", 500)]
)
def test_flask_is_traced_as_with_the_sdk(path: str, status: int) -> None:
    recorded = []
    for own in (True, False):
        collected = Collected()
        provider = tracer_provider(own, collected)
        app = flask.Flask("shop")
        tracer = provider.get_tracer("business")

        @app.get("/items/<sku>")
        def item(sku: str, tracer: trace.Tracer = tracer) -> str:
            with tracer.start_as_current_span("look up", attributes={"sku": sku}) as span:
                span.add_event("looked", {"n": 1}, 5)
                if sku == "none":
                    flask.abort(404)
            return sku

        @app.get("/fails")
        def fails(tracer: trace.Tracer = tracer) -> str:
            with tracer.start_as_current_span("fail"):
                raise LookupError("no")

        FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
            app, tracer_provider=provider, meter_provider=NoOpMeterProvider()
        )
        random.seed(4)
        headers = {"traceparent": f"00-{5:032x}-{6:016x}-01", "User-Agent": "test"}
        assert app.test_client().get(path, headers=headers).status_code == status
        recorded.append(collected.encoded())
    assert len(recorded[0]) == 2
    assert recorded[0] == recorded[1]


class Collector:
    """An OTLP receiver that answers what it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[tuple[str, bytes]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append((self.path, body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> InMemoryMetricReader:
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    return InMemoryMetricReader()


def points(reader: InMemoryMetricReader, name: str) -> dict[object, float]:
    """Value by error.type."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        (point.attributes or {}).get("error.type"): getattr(point, "value", 0)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    }


def test_traces_and_logs_reach_a_collector(
    collector: Collector, reader: InMemoryMetricReader
) -> None:
    meters = MeterProvider([reader], shutdown_on_exit=False)
    exporter = export.SpanExporter(f"{collector.url}/v1/traces", meter_provider=meters)
    tracers = spans.TracerProvider(RESOURCES[0], BatchSpanProcessor(exporter))
    logs_exporter = export.LogExporter(f"{collector.url}/v1/logs", meter_provider=meters)
    loggers = LoggerProvider(
        RESOURCES[0], shutdown_on_exit=False, meter_provider=NoOpMeterProvider()
    )
    loggers.add_log_record_processor(BatchLogRecordProcessor(logs_exporter))
    with tracers.get_tracer("t").start_as_current_span("work") as span:
        loggers.get_logger("l").emit(
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body="hi",
            attributes={"a": 1},
        )
    tracers.shutdown()  # flushes
    loggers.shutdown()
    sent = dict(collector.bodies)
    traced = ExportTraceServiceRequest.FromString(sent["/v1/traces"]).resource_spans[0]
    logged = ExportLogsServiceRequest.FromString(sent["/v1/logs"]).resource_logs[0]
    trace_id = span.get_span_context().trace_id.to_bytes(16, "big")
    assert traced.resource == logged.resource
    assert traced.scope_spans[0].spans[0].trace_id == trace_id
    record = logged.scope_logs[0].log_records[0]
    assert (record.trace_id, record.body.string_value, record.severity_text) == (
        trace_id,
        "hi",
        "INFO",
    )
    assert points(reader, "otel.sdk.exporter.span.exported") == {None: 1}
    assert points(reader, "otel.sdk.exporter.log.exported") == {None: 1}


def test_a_refused_batch_is_a_failure(collector: Collector, reader: InMemoryMetricReader) -> None:
    meters = MeterProvider([reader], shutdown_on_exit=False)
    collector.status = 400
    exporter = export.SpanExporter(f"{collector.url}/v1/traces", meter_provider=meters)
    assert exporter.export([]) is SpanExportResult.FAILURE
    logs_exporter = export.LogExporter(f"{collector.url}/v1/logs", meter_provider=meters)
    assert logs_exporter.export([]) is LogRecordExportResult.FAILURE


def test_a_collector_that_is_not_there_is_counted(reader: InMemoryMetricReader) -> None:
    meters = MeterProvider([reader], shutdown_on_exit=False)
    exporter = export.SpanExporter(
        f"http://127.0.0.1:{free_port()}/v1/traces", timeout=0.1, meter_provider=meters
    )
    span = ReadableSpan("a", SpanContext(1, 2, False), start_time=1, end_time=2)
    assert exporter.export([span, span]) is SpanExportResult.FAILURE
    assert points(reader, "otel.sdk.exporter.span.exported") == {"ConnectionError": 2}


class Stuck(SpanExporter):
    """An exporter whose Collector never answers, until it is released."""

    def __init__(self) -> None:
        self.busy = threading.Event()
        self.release = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.busy.set()
        self.release.wait()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def test_a_full_queue_drops_counts_and_blocks_nobody(
    reader: InMemoryMetricReader, caplog: pytest.LogCaptureFixture
) -> None:
    meters = MeterProvider([reader], shutdown_on_exit=False)
    exporter = Stuck()
    processor = BatchSpanProcessor(
        exporter, max_queue_size=4, max_export_batch_size=1, meter_provider=meters
    )
    provider = spans.TracerProvider(RESOURCES[0], processor)
    tracer = provider.get_tracer("t")
    tracer.start_span("first").end()
    assert exporter.busy.wait(PATIENT_S)
    for _ in range(6):
        tracer.start_span("later").end()
    assert points(reader, "otel.sdk.processor.span.processed")["queue_full"] == 2
    assert "Queue full" in caplog.text
    exporter.release.set()
    provider.shutdown()
