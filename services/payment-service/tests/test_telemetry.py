"""What leaves the service by OTLP: one trace per payment, its metrics, its logs."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from payment_harness import pay, run_payment, settled
from service_kit.testing import PATIENT_S, Running

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-Id": "seen-everywhere"}


class Collector:
    """Takes OTLP over HTTP and keeps it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.logs: list[Any] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    content = gzip.decompress(content)
                collector.take(self.path, content)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, path: str, content: bytes) -> None:
        if path == "/v1/traces":
            for batch in ExportTraceServiceRequest.FromString(content).resource_spans:
                self.resources.append(attributes(batch.resource))
                self.spans += [span for scope in batch.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for metric_batch in ExportMetricsServiceRequest.FromString(content).resource_metrics:
                for scope in metric_batch.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}
        elif path == "/v1/logs":
            for log_batch in ExportLogsServiceRequest.FromString(content).resource_logs:
                self.logs += [log for scope in log_batch.scope_logs for log in scope.log_records]


def attributes(holder: Any) -> dict[str, str]:
    values = {a.key: a.value for a in holder.attributes}
    return {k: str(getattr(v, v.WhichOneof("value"))) for k, v in values.items()}


@pytest.fixture(scope="module")
def collected(
    acquirer_binary: str, launched: tuple[Running, Running], tmp_path_factory: Any
) -> tuple[Collector, str]:
    """Everything one service sent between its start and its end."""
    collector = Collector()
    threading.Thread(target=collector.server.serve_forever, daemon=True).start()
    directory: Path = tmp_path_factory.mktemp("telemetry")
    env = {"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    with run_payment(directory, launched[1], **env) as service:
        with httpx.Client(base_url=service.url, timeout=PATIENT_S) as client:
            assert pay(client, "t1", headers=PARENT).status_code == 201
            assert settled(pay, client, "t2", method="tok_unknown").status_code == 201
            assert pay(client, "t3", method="tok_decline").status_code == 402
        service.process.terminate()
        assert service.process.wait(PATIENT_S) == 0
        log = service.logs()
    collector.server.shutdown()
    collector.server.server_close()
    return collector, log


def test_a_payment_is_one_trace(collected: tuple[Collector, str]) -> None:
    spans = [span for span in collected[0].spans if span.trace_id.hex() == TRACE]
    by_kind = {span.kind: span for span in spans}
    server, client = by_kind[2], by_kind[3]
    seen = attributes(server)
    assert server.name == "POST /api/v1/payments"
    assert server.parent_span_id.hex() == "b7ad6b7169203331"
    assert seen["http.route"] == "/api/v1/payments"
    assert seen["http.response.status_code"] == "201"
    assert seen["prove.request_id"] == "seen-everywhere"
    assert seen["prove.payment.status"] == "captured"
    asked = [span for span in spans if "server.port" in attributes(span) and span.kind == 3]
    assert attributes(asked[0])["peer.service"] == "acquirer"
    assert asked[0].name == "POST /v1/charges"
    statements = [
        span for span in spans if "db.system" in str(span) or "db.system.name" in str(span)
    ]
    assert len(statements) >= 2, "one transaction before the acquirer is asked, one after"
    assert client.trace_id == server.trace_id


def test_what_the_worker_resolves_is_linked_to_its_payment(
    collected: tuple[Collector, str],
) -> None:
    resolves = [span for span in collected[0].spans if span.name == "payment resolve"]
    assert len(resolves) == 1
    began = {span.trace_id for span in collected[0].spans if span.kind == 2}
    assert resolves[0].links[0].trace_id in began
    assert resolves[0].links[0].trace_id != resolves[0].trace_id


def test_there_are_no_spans_but_those_of_requests_and_resolving(
    collected: tuple[Collector, str],
) -> None:
    roots = {span.name for span in collected[0].spans if not span.parent_span_id}
    assert roots <= {"POST /api/v1/payments", "payment resolve"}


def test_metrics_have_their_names_and_boundaries(collected: tuple[Collector, str]) -> None:
    metrics = collected[0].metrics
    duration = metrics["http.server.request.duration"].histogram.data_points
    assert all(0.5 in point.explicit_bounds for point in duration)
    assert {attributes(point)["http.route"] for point in duration} == {"/api/v1/payments"}
    assert any(point.exemplars for point in duration)
    assert "http.client.request.duration" in metrics
    outcomes = {
        tuple(attributes(point).values()): point.as_int
        for point in metrics["prove.payments"].sum.data_points
    }
    assert outcomes == {
        ("captured",): 2,
        ("declined", "card_declined"): 1,
        ("declined", "insufficient_funds"): 0,
        ("declined", "other"): 0,
        ("failed",): 0,
        ("refunded",): 0,
        ("cancelled",): 0,
    }


def test_logs_carry_the_trace(collected: tuple[Collector, str]) -> None:
    collector, stdout = collected
    events = [log.body.string_value for log in collector.logs if log.trace_id.hex() == TRACE]
    assert sorted(events) == ["payment settled", "request"]
    assert all(
        attributes(log)["request_id"] == "seen-everywhere"
        for log in collector.logs
        if log.trace_id.hex() == TRACE
    )
    assert stdout.count(TRACE) == 2


def test_the_resource_names_the_process(collected: tuple[Collector, str]) -> None:
    resource = collected[0].resources[0]
    assert resource["service.name"] == "payment-service"
    assert resource["service.namespace"] == "prove"
    assert resource["service.instance.id"].startswith("payment-service-")
    assert not any("tok_" in str(span) for span in collected[0].spans)
