"""The real processes: start, stop, limits before Flask, telemetry, and what goes wrong at start."""

import contextlib
import gzip
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from product_harness import done, request
from service_kit.testing import PATIENT_S, free_port, script, status_of, wait_until

Product = Callable[..., dict[str, Any]]

PRODUCTS = "/api/v1/products"


def set_fault(url: str, kind: str, **params: Any) -> None:
    match = {"route": PRODUCTS}
    fault = {"type": kind, "params": params, "match": match, "ttl_s": 900}
    assert request(url, "/faults/slow", "PUT", fault)[0] == 200


@contextlib.contextmanager
def in_flight(url: str, bytes_per_s: float) -> Iterator[list[bytes]]:
    """A request whose answer has begun to come, slowly; the whole of it is in the list at the end.

    Nothing is, if it was cut off.
    """
    set_fault(url, "drip", bytes_per_s=bytes_per_s)
    bodies: list[bytes] = []
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENT_S)

    def begun() -> http.client.HTTPResponse | None:
        connection.request("GET", PRODUCTS)
        response = connection.getresponse()
        if response.status == 200:
            return response
        response.read()
        return None

    def finish() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            bodies.append(response.read())

    response = wait_until(begun, what="an answer that begins")
    thread = threading.Thread(target=finish)
    thread.start()
    yield bodies
    thread.join()
    connection.close()


def test_sigterm_finishes_what_is_in_flight(start: Any) -> None:
    service = start(SHUTDOWN_GRACE_S="100")
    with in_flight(service.url, bytes_per_s=20) as bodies:
        service.process.send_signal(signal.SIGTERM)
    assert [json.loads(body) for body in bodies] == [{"items": [], "next_cursor": None}]
    assert service.process.wait(PATIENT_S) == 0
    assert status_of(f"{service.url}/livez") == 0


def test_readiness_goes_first_while_requests_are_still_taken(start: Any) -> None:
    # The delay is the time there is for seeing both.
    service = start(SHUTDOWN_DELAY_S="8", SHUTDOWN_GRACE_S="100")
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: status_of(f"{service.url}/readyz") == 503)
    assert done(service.url, PRODUCTS)[0] == 200
    assert service.process.wait(PATIENT_S) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(
    start: Any, product: Product, second: signal.Signals
) -> None:
    service = start(SHUTDOWN_GRACE_S="600")
    items = {"items": [product(f"P{n}") for n in range(20)]}
    assert done(service.url, f"{PRODUCTS}/import", "POST", items)[0] == 200
    with in_flight(service.url, bytes_per_s=1) as bodies:  # for an hour
        service.process.send_signal(signal.SIGINT)
        wait_until(lambda: status_of(f"{service.url}/readyz") != 200)
        service.process.send_signal(second)
        assert service.process.wait(PATIENT_S) == 1
    assert bodies == []


def test_what_has_queued_too_long_is_refused_and_health_is_not(start: Any) -> None:
    service = start(WEB_CONCURRENCY="1", THREADS="1")
    set_fault(service.url, "latency", distribution="constant", delay_ms=1500)
    answers: list[tuple[int, Any]] = []

    def some_are_served() -> bool:
        """On a busy machine even the first ones may have queued too long."""
        with ThreadPoolExecutor(6) as pool:
            calls = [pool.submit(request, service.url, PRODUCTS) for _ in range(6)]
            answers.extend(call.result() for call in calls)
        return 200 in {status for status, _ in answers}

    wait_until(some_are_served, what="the first ones to be served")
    refused = [body for status, body in answers if status == 503]
    assert refused
    assert {body["type"] for body in refused} == {"/problems/unavailable"}
    assert request(service.url, "/livez")[0] == 200
    wait_until(lambda: service.logs().count('"status":503') == len(refused), what="each logged")


def test_a_killed_worker_is_replaced(start: Any) -> None:
    service = start(WEB_CONCURRENCY="1")
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    worker = int(children.read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: children.read_text().split() not in ([], [str(worker)]))
    wait_until(lambda: status_of(f"{service.url}/readyz") == 200)


@pytest.mark.parametrize(
    ("sent", "status", "slug"),
    [
        (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 9000), 414, "uri-too-long"),
        (b"GET / HTTP/1.1\r\nA: %s\r\n\r\n" % (b"x" * 9000), 431, "headers-too-large"),
        (b"GET / HTTP/1.1\r\n%s\r\n" % (b"A: b\r\n" * 200), 431, "headers-too-large"),
        (b"GET / HTTP/1.1\r\nA b\r\n\r\n", 400, "malformed"),
        (b"nonsense\r\n\r\n", 400, "malformed"),
    ],
)
def test_what_never_reaches_flask_is_a_problem_too(
    start: Any, sent: bytes, status: int, slug: str
) -> None:
    service = start(WEB_CONCURRENCY="1")
    with socket.create_connection(("127.0.0.1", urlsplit(service.url).port)) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"application/problem+json" in head
    assert json.loads(body)["type"] == f"/problems/{slug}"


def test_every_line_of_the_log_is_json_with_the_same_fields(start: Any) -> None:
    service = start()
    request(service.url, f"{PRODUCTS}/nope", **{"X-Request-Id": "find-me"})
    service.process.terminate()
    service.process.wait(PATIENT_S)
    lines = [json.loads(line) for line in service.logs().splitlines()]
    for line in lines:
        assert {"ts", "level", "event", "logger", "service", "trace_id", "request_id"} <= set(line)
    access = [line for line in lines if line["event"] == "request"]
    assert [line["request_id"] for line in access] == ["find-me"]
    assert access[0]["route"] == "/api/v1/products/{sku}"
    assert access[0]["status"] == 404


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP and keeps it."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.traces = ExportTraceServiceRequest()
        self.metrics = ExportMetricsServiceRequest()
        self.logs = ExportLogsServiceRequest()
        super().__init__(("127.0.0.1", port), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            getattr(self.server, self.path.rpartition("/")[2]).MergeFromString(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: object) -> None: ...

    def points(self, name: str) -> list[Any]:
        """The data points of a sum that have come in."""
        return [
            point
            for resource in self.metrics.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.sum.data_points
        ]


@contextlib.contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    with Collector(port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as server:
        yield server


def test_one_request_is_seen_in_all_three_signals(
    start: Any, collector: Collector, product: Product
) -> None:
    service = start(
        OTEL_SDK_DISABLED="false",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        SHUTDOWN_GRACE_S="100",
    )
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    assert done(service.url, f"{PRODUCTS}/import", "POST", {"items": [product("A")]})[0] == 200
    headers = {"traceparent": f"00-{trace_id}-{parent}-01", "X-Request-Id": "r-1"}
    order = {"order_id": "o-1", "lines": [{"sku": "A", "quantity": 1}]}
    assert done(service.url, "/api/v1/reservations", "POST", order, **headers)[0] == 201
    status, problem = done(service.url, f"{PRODUCTS}/nope", **headers)
    assert (status, problem["trace_id"]) == (404, trace_id)
    service.process.terminate()
    assert service.process.wait(PATIENT_S) == 0

    spans = [
        span
        for resource in collector.traces.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert not [span.name for span in spans if "/livez" in span.name or "/readyz" in span.name]
    ours = [span for span in spans if span.trace_id.hex() == trace_id]
    server = next(span for span in ours if span.name == "POST /api/v1/reservations")
    assert server.parent_span_id.hex() == parent
    attributes = {item.key: item.value for item in server.attributes}
    assert attributes["prove.request_id"].string_value == "r-1"
    assert attributes["http.response.status_code"].int_value == 201
    children = [span.name for span in ours if span.parent_span_id == server.span_id]
    assert sorted(name.split()[0] for name in children) == ["INSERT", "UPDATE", "UPDATE"]

    instances = {
        item.value.string_value
        for resource in collector.traces.resource_spans
        for item in resource.resource.attributes
        if item.key == "service.instance.id"
    }
    assert all(name.startswith("product-service-") for name in instances)

    metrics = {
        metric.name: metric
        for resource in collector.metrics.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"http.server.request.duration", "prove.reservations", "process.cpu.time"} <= set(
        metrics
    )
    point = metrics["http.server.request.duration"].histogram.data_points[0]
    assert 0.5 in point.explicit_bounds
    assert {item.key for item in point.attributes} <= {
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
    }
    assert any(
        exemplar.trace_id.hex() == trace_id
        for resource in collector.metrics.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.histogram.data_points
        for exemplar in point.exemplars
    )
    logs = [
        record
        for resource in collector.logs.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if record.trace_id.hex() == trace_id
    ]
    assert {record.body.string_value for record in logs} == {"request"}
    assert {record.span_id for record in logs} <= {span.span_id for span in ours}


def test_the_shop_sells_without_a_collector_and_counts_what_is_lost(
    start: Any, product: Product
) -> None:
    port = free_port()
    service = start(
        OTEL_SDK_DISABLED="false",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_BLRP_SCHEDULE_DELAY="100",
        OTEL_METRIC_EXPORT_INTERVAL="200",
        OTEL_BSP_MAX_QUEUE_SIZE="64",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="32",
    )
    items = {"items": [product("A", stock=1000)]}
    assert done(service.url, f"{PRODUCTS}/import", "POST", items)[0] == 200
    for number in range(100):
        order = {"order_id": f"o-{number}", "lines": [{"sku": "A", "quantity": 1}]}
        assert done(service.url, "/api/v1/reservations", "POST", order)[0] == 201
    wait_until(lambda: "Failed to export spans batch" in service.logs())
    wait_until(lambda: "Failed to export logs batch" in service.logs())
    with collecting(port) as collector:

        def lost() -> set[str]:
            return {
                name
                for name in ("otel.sdk.exporter.span.exported", "otel.sdk.exporter.log.exported")
                for point in collector.points(name)
                for item in point.attributes
                if item.key == "error.type" and point.as_int > 0
            }

        wait_until(lambda: len(lost()) == 2, what="lost spans and log records are counted")
        service.process.terminate()
        assert service.process.wait(PATIENT_S) == 0


def refused(tmp_path: Path, command: str = "serve", **env: str) -> str:
    """Run a command that must fail with exit code 2 and one line; the line."""
    environment = {
        **os.environ,
        "OTEL_SDK_DISABLED": "true",
        "PORT": str(free_port()),
        "DATABASE_URL": f"sqlite:///{tmp_path}/product.db",
        **env,
    }
    ended = subprocess.run(
        [script("product-service"), command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENT_S,
    )
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("product-service: ")
    return ended.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "99999", "PORT: Input should be less than or equal to 65535 (got '99999')"),
        ("WEB_CONCURRENCY", "many", "WEB_CONCURRENCY: Input should be a valid integer"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL: "),
        ("DATABASE_URL", "mysql://root:secret@x/y", "DATABASE_URL: use sqlite:///FILE"),
        ("ADMIN_TOKEN_FILE", "/nowhere/token", "ADMIN_TOKEN_FILE: cannot be read: No such file"),
        ("SHUTDOWN_DELAY_S", "20", "SHUTDOWN_DELAY_S must be less than SHUTDOWN_GRACE_S"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, variable: str, value: str, said: str) -> None:
    line = refused(tmp_path, **{variable: value})
    assert said in line
    assert "secret" not in line


def test_a_busy_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, PORT=str(port))
    assert f"127.0.0.1:{port} is already in use; set PORT or stop the other process" in line


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"x" * 900])
@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_corrupt_file(tmp_path: Path, command: str, content: bytes) -> None:
    file = tmp_path / "product.db"
    file.write_bytes(content)
    line = refused(tmp_path, command)
    assert str(file) in line
    assert "move it away or restore a backup" in line
    line = refused(tmp_path, MIGRATE_ON_START="false")
    assert str(file) in line


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    line = refused(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/no/product.db")
    assert f"the directory {tmp_path}/no does not exist; make it" in line


def test_a_postgresql_that_is_not_there(tmp_path: Path) -> None:
    line = refused(tmp_path, DATABASE_URL=f"postgresql://u:secret@127.0.0.1:{free_port()}/x")
    assert "check DATABASE_URL and that PostgreSQL runs" in line
    assert "secret" not in line


@contextlib.contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    mount = subprocess.run(command, capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"mount is not permitted here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_read_only_directory(tmp_path: Path) -> None:
    directory = tmp_path / "ro"
    with mounted(directory, "size=1m,ro"):
        line = refused(tmp_path, DATABASE_URL=f"sqlite:///{directory}/product.db")
    assert f"cannot write {directory}/product.db; the file and its directory must be" in line


def test_a_full_disk(tmp_path: Path) -> None:
    directory = tmp_path / "full"
    with mounted(directory, "size=256k"):
        with contextlib.suppress(OSError), (directory / "ballast").open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        line = refused(tmp_path, DATABASE_URL=f"sqlite:///{directory}/product.db")
    assert f"no space left for {directory}/product.db" in line


def test_a_disk_that_fills_up_while_serving(start: Any, tmp_path: Path, product: Product) -> None:
    directory = tmp_path / "small"
    with mounted(directory, "size=2m"):
        service = start(DATABASE_URL=f"sqlite:///{directory}/product.db")
        items = {"items": [product(f"P{i}", description="x" * 1900) for i in range(1500)]}
        statuses = {request(service.url, f"{PRODUCTS}/import", "POST", items)[0] for _ in range(3)}
        assert statuses == {503}
        assert done(service.url, PRODUCTS) == (200, {"items": [], "next_cursor": None})
        service.process.terminate()
        service.process.wait(PATIENT_S)


def test_the_openapi_command_needs_no_database(tmp_path: Path) -> None:
    document = subprocess.run(
        [script("product-service"), "openapi"], cwd=tmp_path, capture_output=True, check=True
    )
    assert json.loads(document.stdout)["info"]["title"] == "Product Service"
    assert list(tmp_path.iterdir()) == []


def test_the_document_is_served(start: Any) -> None:
    service = start()
    with urllib.request.urlopen(f"{service.url}/openapi.json") as response:  # noqa: S310
        assert json.load(response)["openapi"] == "3.1.0"
