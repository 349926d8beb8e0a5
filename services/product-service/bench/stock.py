"""The product service with stock auto-instrumentation, to compare the shipped telemetry with.

`python bench/stock.py` serves the same app in the same gunicorn, with the same environment, but
sets OpenTelemetry up as `opentelemetry-instrument` would: SDK providers, batch processors and
official exporters with their defaults, SQLAlchemyInstrumentor and LoggingHandler; FlaskInstrumentor
(`service_kit.wsgi`) with all its metrics.
"""

import logging
import os

os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
os.environ.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from product_service import app
from service_kit import logs, telemetry
from sqlalchemy import Engine

_RECORD_FIELDS = {"event", "level", "logger", "ts", "service", "trace_id", "span_id"}


class _Stock(telemetry.Telemetry):
    def instrument(self, engine: Engine) -> None:
        # skip_dep_check: it refuses SQLAlchemy 2.1 for its version number, but works with it.
        SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)


def _setup(service: str, version: str) -> telemetry.Telemetry:
    resource = Resource.create({"service.name": service, "service.version": version})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource)
    metrics.set_meter_provider(meters)
    loggers = LoggerProvider(resource)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    # The service's lines don't pass the standard library's logging: hand them to the stock handler.
    access = logging.getLogger("stock")
    access.propagate = False
    access.setLevel(logging.INFO)
    access.addHandler(LoggingHandler(logger_provider=loggers))

    def to_handler(event: logs.Event) -> None:
        fields = {k: v for k, v in event.items() if k not in _RECORD_FIELDS and v is not None}
        level = logging.getLevelNamesMapping()[event["level"].upper()]
        access.log(level, event["event"], extra=fields)

    logs.add_sink(to_handler)
    stops = (tracers.shutdown, meters.shutdown, loggers.shutdown)
    return _Stock(enabled=True, http_meters=meters, _stops=stops)


if __name__ == "__main__":
    telemetry.setup = _setup
    app.main()
