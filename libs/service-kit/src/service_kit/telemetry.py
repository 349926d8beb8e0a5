"""OpenTelemetry for one worker process: traces, metrics and logs by OTLP (http/protobuf).

Call `setup` after the process has forked: exporters run threads, and threads do not survive a fork.
An exporter that cannot reach its Collector drops what it cannot keep and counts it
(`otel.sdk.processor.*.processed` and `otel.sdk.exporter.*.exported` with `error.type`); nothing
here ever waits for it, except `Telemetry.shutdown`, which has a limit.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# Read by the instrumentations when they are imported, by the SDK when it is built.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
os.environ.setdefault("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
os.environ.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")

from opentelemetry import metrics, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.metrics import Histogram, Meter, MeterProvider, NoOpMeter, NoOpMeterProvider
from opentelemetry.sdk import metrics as sdk_metrics
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util.types import Attributes
from sqlalchemy import Engine

from service_kit import logs
from service_kit.export import LogExporter, SpanExporter
from service_kit.spans import TracerProvider

__all__ = ["Telemetry", "setup"]

# What a dashboard or an alert asks for; the rest would only multiply series.
_HTTP_ATTRIBUTES = {
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "server.address",
    "server.port",
}
_VIEWS = [
    View(
        instrument_name="http.server.request.duration",
        attribute_keys=_HTTP_ATTRIBUTES - {"server.address", "server.port"},
    ),
    View(instrument_name="http.client.request.duration", attribute_keys=_HTTP_ATTRIBUTES),
]

_PROCESS_METRICS: dict[str, list[str] | None] = {
    "process.cpu.time": ["user", "system"],
    "process.memory.usage": None,
    "process.open_file_descriptor.count": None,
    "process.thread.count": None,
    "cpython.gc.collections": None,
}

_SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_LOG_FIELDS = frozenset(
    {"ts", "level", "event", "logger", "service", "trace_id", "span_id"}
)  # part of the record or of its resource already


class _DurationsOnly(NoOpMeter):
    """Keeps an instrumentation's duration histograms; its other instruments do nothing.

    A view with a drop aggregation would still pay for every measurement.
    """

    def __init__(self, meter: Meter) -> None:
        super().__init__(meter.name)
        self._meter = meter

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> Histogram:
        create = self._meter.create_histogram
        if not name.endswith(".duration"):
            create = super().create_histogram
        return create(
            name,
            unit,
            description,
            explicit_bucket_boundaries_advisory=explicit_bucket_boundaries_advisory,
        )


class _DurationsOnlyProvider(NoOpMeterProvider):
    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Meter:
        return _DurationsOnly(metrics.get_meter(name, version or "", schema_url=schema_url))


@dataclass(frozen=True)
class Telemetry:
    """The signals of this process; `enabled` is False with OTEL_SDK_DISABLED=true.

    `http_meters` is the meter provider for HTTP instrumentations: durations, nothing else.
    """

    enabled: bool
    http_meters: MeterProvider = field(default_factory=NoOpMeterProvider)
    _stops: tuple[Callable[[], object], ...] = ()

    def instrument(self, engine: Engine) -> None:
        """Make a span of every statement that `engine` executes."""
        if not self.enabled:
            return
        # The instrumentation's own listeners, on this engine only. Its `instrument()` would also
        # make a span of every check-out from the pool, where nothing happens, and import
        # SQLAlchemy's asyncio part, which needs greenlet.
        tracer = trace.get_tracer("opentelemetry.instrumentation.sqlalchemy")
        usage = NoOpMeter("").create_up_down_counter("db.client.connections.usage")
        EngineTracer(tracer, engine, usage)  # type: ignore[no-untyped-call]

    def shutdown(self, timeout_s: float) -> None:
        """Flush and stop all signals at once, waiting `timeout_s` at most."""
        threads = [threading.Thread(target=stop, daemon=True) for stop in self._stops]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def setup(service: str, version: str) -> Telemetry:
    """Start the three signals and make them the global providers; honours OTEL_SDK_DISABLED."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Telemetry(enabled=False)
    resource = Resource.create(
        {
            "service.name": service,
            "service.namespace": "prove",
            "service.version": version,
            "service.instance.id": f"{service}-{socket.gethostname()}-{os.getpid()}",
        }
    )
    # The exporters have no patience worth an alarm each time; what is lost is counted.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
    # shutdown_on_exit=False: they would wait for a Collector that is not there; `shutdown` has a
    # limit. NoOpMeterProvider: counting every log record costs more than it tells.
    meters = sdk_metrics.MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter())],
        resource,
        views=_VIEWS,
        shutdown_on_exit=False,
    )
    metrics.set_meter_provider(meters)
    tracers = TracerProvider(
        resource, BatchSpanProcessor(SpanExporter(meter_provider=meters), meter_provider=meters)
    )
    trace.set_tracer_provider(tracers)
    loggers = LoggerProvider(resource, shutdown_on_exit=False, meter_provider=NoOpMeterProvider())
    loggers.add_log_record_processor(
        BatchLogRecordProcessor(LogExporter(meter_provider=meters), meter_provider=meters)
    )
    logs.add_sink(_log_sink(loggers))
    SystemMetricsInstrumentor(config=_PROCESS_METRICS).instrument()
    return Telemetry(
        enabled=True,
        http_meters=_DurationsOnlyProvider(),
        _stops=(tracers.shutdown, meters.shutdown, loggers.shutdown),
    )


def _log_sink(loggers: LoggerProvider) -> logs.Sink:
    logger = loggers.get_logger("service_kit")

    def emit(event: logs.Event) -> None:
        # The exporters' own troubles go to stdout only: sent along, they would breed.
        if event["logger"].startswith(("opentelemetry", "urllib3")):
            return
        logger.emit(
            timestamp=time.time_ns(),
            severity_number=_SEVERITY[event["level"]],
            severity_text=event["level"].upper(),
            body=event["event"],
            attributes={k: v for k, v in event.items() if k not in _LOG_FIELDS and v is not None},
        )

    return emit
