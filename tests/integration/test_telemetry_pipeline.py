"""The real Collector, Prometheus, Jaeger and VictoriaLogs as `provectl up` starts them."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from prove.stack import observability
from prove.stack.settings import StackSettings, on_free_ports
from prove.tools import ensure

# One set of servers, so one worker.
pytestmark = pytest.mark.xdist_group("telemetry-pipeline")

DEADLINE_S = 240
CARD = "4111111111111111"
GROUPED_CARD = "5500 0000 0000 0004"
T = TypeVar("T")


def eventually(what: str, ask: Callable[[], T | None]) -> T:
    """The first answer of `ask` that holds; a server that doesn't answer yet is asked again."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    pytest.fail(f"not within {DEADLINE_S} s: {what}")


@dataclass(frozen=True)
class Pipeline:
    """The running servers: what is sent in and what is asked out."""

    settings: StackSettings
    processes: dict[str, subprocess.Popen[bytes]]
    http: httpx.Client

    def send(self, signal: str, scope_key: str, payload: dict[str, Any]) -> None:
        """POST one resource's telemetry as OTLP JSON."""
        resource = {"attributes": attributes({"service.name": "probe-service"})}
        body = {f"resource{signal[0].upper()}{signal[1:]}": [{"resource": resource, **payload}]}
        assert scope_key in payload
        path = {"spans": "traces", "metrics": "metrics", "logs": "logs"}[signal]
        answer = self.http.post(
            f"{self.settings.url(self.settings.otlp_http_port)}/v1/{path}", json=body
        )
        assert answer.status_code == 200, answer.text
        assert not answer.json().get("partialSuccess")

    def send_span(self, **fields: Any) -> str:
        """Send one span; returns its trace id."""
        trace_id = secrets.token_hex(16)
        now = time.time_ns()
        span = {
            "traceId": trace_id,
            "spanId": secrets.token_hex(8),
            "name": "POST /api/v1/orders",
            "kind": 2,
            "startTimeUnixNano": str(now - 5_000_000),
            "endTimeUnixNano": str(now),
            **fields,
        }
        self.send("spans", "scopeSpans", {"scopeSpans": [{"spans": [span]}]})
        return trace_id

    def send_log(self, body: dict[str, Any], **fields: Any) -> str:
        """Send one log record; returns its trace id."""
        trace_id = secrets.token_hex(16)
        record = {
            "timeUnixNano": str(time.time_ns()),
            "severityText": "INFO",
            "body": body,
            "traceId": trace_id,
            "spanId": secrets.token_hex(8),
            **fields,
        }
        self.send("logs", "scopeLogs", {"scopeLogs": [{"logRecords": [record]}]})
        return trace_id

    def send_metric(self, metric: dict[str, Any]) -> None:
        """Send one metric."""
        self.send("metrics", "scopeMetrics", {"scopeMetrics": [{"metrics": [metric]}]})

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """The trace as Jaeger has it."""
        url = self.settings.url(self.settings.jaeger_port)
        answer = self.http.get(f"{url}/api/traces/{trace_id}").json()
        found: list[dict[str, Any]] = answer.get("data") or []
        return found[0] if found else None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query of Prometheus."""
        url = self.settings.url(self.settings.prometheus_port)
        answer = self.http.get(f"{url}/api/v1/query", params={"query": expression}).json()
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def logs(self, query: str) -> list[dict[str, Any]]:
        """A LogsQL query of VictoriaLogs."""
        url = self.settings.url(self.settings.victorialogs_port)
        answer = self.http.get(f"{url}/select/logsql/query", params={"query": query})
        return [json.loads(line) for line in answer.text.splitlines()]


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    """OTLP JSON key values of strings and integers."""
    return [
        {"key": key, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}}
        for key, v in values.items()
    ]


def tags(span: dict[str, Any]) -> dict[str, Any]:
    """A Jaeger span's tags by key."""
    return {tag["key"]: tag["value"] for tag in span["tags"]}


@contextmanager
def running(home: Path) -> Iterator[Pipeline]:
    """The four servers, ready; they are ended and must have ended well."""
    settings = on_free_ports(home)
    binaries = ensure(*observability.TOOLS)
    observability.configure(settings, binaries)
    servers = ("prometheus", "jaeger", "victorialogs", "collector")
    specs = [spec for spec in observability.processes(settings, binaries) if spec.name in servers]
    settings.data_dir.mkdir(parents=True)
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(timeout=60))
        processes = {}
        for spec in specs:
            log = stack.enter_context((home / f"{spec.name}.log").open("wb"))
            process = subprocess.Popen(
                spec.argv, env=os.environ | spec.env, stdout=log, stderr=subprocess.STDOUT
            )
            processes[spec.name] = process
            stack.callback(process.wait)
            stack.callback(process.terminate)
        for spec in specs:
            eventually(f"{spec.name} ready", partial(answers, http, spec.ready_url))
        yield Pipeline(settings, processes, http)


def answers(http: httpx.Client, url: str) -> bool:
    return http.get(url).is_success


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with running(tmp_path_factory.mktemp("pipeline")) as pipeline:
        yield pipeline


def test_a_span_is_in_jaeger_and_in_the_span_file(pipeline: Pipeline) -> None:
    trace_id = pipeline.send_span(attributes=attributes({"prove.request_id": "abc"}))

    trace = eventually("trace in Jaeger", lambda: pipeline.trace(trace_id))

    assert trace["processes"]["p1"]["serviceName"] == "probe-service"
    process_tags = {tag["key"]: tag["value"] for tag in trace["processes"]["p1"]["tags"]}
    assert process_tags["deployment.environment.name"] == "local"
    assert tags(trace["spans"][0])["prove.request_id"] == "abc"
    line = eventually("trace in the span file", lambda: span_file_line(pipeline, trace_id))
    assert json.loads(line)["resourceSpans"]


def span_file_line(pipeline: Pipeline, trace_id: str) -> str | None:
    # Rotated ones lie beside it, and for a moment there is no other.
    files = observability.span_file(pipeline.settings).parent.glob("*.jsonl")
    lines = (line for file in files for line in file.read_text().splitlines())
    return next((line for line in lines if trace_id in line), None)


def test_a_histogram_is_in_prometheus_and_its_exemplar_names_the_trace(pipeline: Pipeline) -> None:
    trace_id = secrets.token_hex(16)
    now = time.time_ns()
    pipeline.send_metric(
        {
            "name": "http.server.request.duration",
            "unit": "s",
            "histogram": {
                "aggregationTemporality": 2,
                "dataPoints": [
                    {
                        "startTimeUnixNano": str(now - 10**9),
                        "timeUnixNano": str(now),
                        "attributes": attributes({"http.route": "/api/v1/orders"}),
                        "count": "3",
                        "sum": 1.1,
                        "explicitBounds": [0.25, 0.5],
                        "bucketCounts": ["1", "2", "0"],
                        "exemplars": [
                            {
                                "timeUnixNano": str(now),
                                "asDouble": 0.4,
                                "traceId": trace_id,
                                "spanId": secrets.token_hex(8),
                            }
                        ],
                    }
                ],
            },
        }
    )

    name = "http_server_request_duration_seconds_bucket"
    below = eventually("series", lambda: pipeline.query(f'{name}{{le="0.5"}}'))

    assert below[0]["value"][1] == "3"
    assert below[0]["metric"]["service_name"] == "probe-service"
    assert below[0]["metric"]["deployment_environment_name"] == "local"
    assert below[0]["metric"]["http_route"] == "/api/v1/orders"
    url = pipeline.settings.url(pipeline.settings.prometheus_port)
    window: dict[str, str | float] = {
        "query": name,
        "start": time.time() - 600,
        "end": time.time() + 600,
    }

    def exemplars() -> list[dict[str, Any]]:
        answer = pipeline.http.get(f"{url}/api/v1/query_exemplars", params=window).json()
        return [one for series in answer["data"] for one in series["exemplars"]]

    assert eventually("exemplar", exemplars)[0]["labels"]["trace_id"] == trace_id


def test_a_log_record_is_found_by_its_trace_id(pipeline: Pipeline) -> None:
    trace_id = pipeline.send_log(
        {"stringValue": "order confirmed"}, attributes=attributes({"prove.order_id": "o-1"})
    )

    (record,) = eventually("log record", lambda: pipeline.logs(f'trace_id:="{trace_id}"'))

    assert record["_msg"] == "order confirmed"
    assert record["prove.order_id"] == "o-1"
    assert record["service.name"] == "probe-service"


def test_card_numbers_and_credentials_arrive_masked_in_a_span(pipeline: Pipeline) -> None:
    trace_id = pipeline.send_span(
        status={"code": 2, "message": f"bad card {CARD}"},
        attributes=attributes(
            {
                "note": f"paid with {CARD}, thanks",
                "grouped": GROUPED_CARD,
                "number": int(CARD),
                "http.request.header.authorization": "Basic YTpi",
                "header": "Authorization: Bearer abcdefghijkl",
                "db": "postgresql://shop:hunter2@localhost/shop",
                "order.id": "4d5e6f70-1234-4111-8111-111111111111",
                "started_ns": 1764000000000000000,
                "amount_minor": 41111111,
            }
        ),
        events=[
            {
                "name": "exception",
                "timeUnixNano": str(time.time_ns()),
                "attributes": attributes({"exception.message": f"ValueError: {CARD}"}),
            }
        ],
    )

    trace = eventually("trace in Jaeger", lambda: pipeline.trace(trace_id))
    line = eventually("trace in the span file", lambda: span_file_line(pipeline, trace_id))

    for text in (json.dumps(trace), line):
        for secret in (CARD, GROUPED_CARD, "YTpi", "abcdefghijkl", "hunter2"):
            assert secret not in text
    arrived = tags(trace["spans"][0])
    assert arrived["note"] == "paid with ****, thanks"
    assert arrived["otel.status_description"] == "bad card ****"
    assert arrived["order.id"] == "4d5e6f70-1234-4111-8111-111111111111"
    assert int(arrived["started_ns"]) == 1764000000000000000
    assert arrived["amount_minor"] == 41111111
    assert "status.message" not in arrived


@pytest.mark.parametrize(
    "body",
    [
        {"stringValue": f"declined {CARD}"},
        {"kvlistValue": {"values": attributes({"event": f"declined {CARD}"})}},
    ],
    ids=["text", "structured"],
)
def test_card_numbers_and_credentials_arrive_masked_in_a_log(
    pipeline: Pipeline, body: dict[str, Any]
) -> None:
    trace_id = pipeline.send_log(
        body, attributes=attributes({"card": CARD, "admin_token": "s3cr3t-t0ken"})
    )

    records = eventually("log record", lambda: pipeline.logs(f'trace_id:="{trace_id}"'))

    text = json.dumps(records)
    assert "declined ****" in text
    assert CARD not in text
    assert "s3cr3t-t0ken" not in text


def test_health_probes_leave_no_span(pipeline: Pipeline) -> None:
    probe = pipeline.send_span(attributes=attributes({"url.path": "/readyz"}))
    order = pipeline.send_span(attributes=attributes({"url.path": "/api/v1/orders"}))

    eventually("the span sent after it", lambda: pipeline.trace(order))

    assert pipeline.trace(probe) is None


def test_the_collector_counts_what_it_takes_and_sends(pipeline: Pipeline) -> None:
    pipeline.send_span()

    for name in ("receiver_accepted_spans", "exporter_sent_spans", "exporter_queue_capacity"):
        series = f'{{__name__=~"otelcol_{name}.*"}} > 0'
        eventually(name, partial(pipeline.query, series))


def test_what_prometheus_refuses_is_counted_as_not_sent(pipeline: Pipeline) -> None:
    delta = 1
    pipeline.send_metric(
        {
            "name": "prove.refused",
            "sum": {
                "aggregationTemporality": delta,
                "isMonotonic": True,
                "dataPoints": [{"timeUnixNano": str(time.time_ns()), "asInt": "1"}],
            },
        }
    )

    lost = 'otelcol_exporter_send_failed_metric_points_total{exporter="otlp_http/prometheus"} > 0'
    eventually("the metric that was not sent", lambda: pipeline.query(lost))


def test_without_jaeger_the_other_signals_go_on_and_the_loss_is_counted(tmp_path: Path) -> None:
    with running(tmp_path) as pipeline:
        jaeger = pipeline.processes["jaeger"]
        jaeger.terminate()
        jaeger.wait()

        span = pipeline.send_span()
        log = pipeline.send_log({"stringValue": "still here"})
        pipeline.send_metric(
            {
                "name": "prove.orders",
                "sum": {
                    "aggregationTemporality": 2,
                    "isMonotonic": True,
                    "dataPoints": [{"timeUnixNano": str(time.time_ns()), "asInt": "1"}],
                },
            }
        )

        eventually("metric", lambda: pipeline.query("prove_orders_total"))
        eventually("log record", lambda: pipeline.logs(f'trace_id:="{log}"'))
        eventually("span in the file", lambda: span_file_line(pipeline, span))
        waiting = 'otelcol_exporter_queue_size{exporter="otlp_grpc/jaeger"} > 0'
        eventually("the spans waiting for Jaeger", lambda: pipeline.query(waiting))

        for _ in range(12):  # more than the queue holds, under a key that nothing is masked in
            pipeline.send_span(attributes=attributes({"http.route": "x" * 2**20}))
        lost = 'otelcol_exporter_enqueue_failed_spans_total{exporter="otlp_grpc/jaeger"} > 0'
        eventually("the spans there was no room for", lambda: pipeline.query(lost))
