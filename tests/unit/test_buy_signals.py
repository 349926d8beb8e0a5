"""When an order's trace, logs and metrics are complete, and what the stores' answers become."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from prove import signals
from prove.clients.jaeger import Jaeger
from prove.clients.prometheus import Exemplar, Prometheus
from prove.clients.server import NoAnswerInTimeError, Server
from prove.clients.shop import Shop
from prove.errors import UserError
from prove.stack.settings import StackSettings
from prove.tracetree import Span

TRACE = "0af7651916cd43dd8448eb211c80319c"
Handler = Callable[[httpx.Request], httpx.Response]


def answering(*bodies: object) -> httpx.MockTransport:
    """Answers with one after the other, then with the last."""
    left = list(bodies)

    def answer(_: httpx.Request) -> httpx.Response:
        body = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(404 if body is None else 200, json=body)

    return httpx.MockTransport(answer)


def jaeger_span(span_id: str, parent_id: str | None, process: str, **tags: Any) -> dict[str, Any]:
    status = {"code": 2} if tags.pop("failed", False) else {}
    return {
        "traceId": TRACE,
        "spanId": span_id,
        "parentSpanId": parent_id or "",
        "name": f"op {span_id}",
        "kind": {"server": 2, "client": 3}[tags.pop("kind")],
        "startTimeUnixNano": "1000000",
        "endTimeUnixNano": "1010000",
        "attributes": [
            {"key": key.replace("__", "."), "value": {"intValue": str(value)}}
            for key, value in tags.items()
        ],
        "status": status,
        "process": process,
    }


def trace(*spans: dict[str, Any]) -> dict[str, Any]:
    """As Jaeger answers: OTLP, here with a resource for each span."""
    services = {"p1": "order-service", "p2": "product-service"}
    return {
        "result": {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [
                            {
                                "key": "service.name",
                                "value": {"stringValue": services[span["process"]]},
                            }
                        ]
                    },
                    "scopeSpans": [{"spans": [span]}],
                }
                for span in spans
            ]
        }
    }


ROOT = jaeger_span("root", "client", "p1", kind="server")
CALL = jaeger_span("call", "root", "p1", kind="client", http__response__status_code=201)
CALLED = jaeger_span("called", "call", "p2", kind="server", failed=True)
UNANSWERED = jaeger_span("lost", "root", "p1", kind="client", failed=True)


def ask(*answers: object, root_parent_id: str | None = "client") -> list[str]:
    """The spans taken for the whole trace; at once, if the answers never are."""
    jaeger = Jaeger("http://jaeger", answering(*answers))
    deadline = time.monotonic() + (0 if len(answers) == 1 else 60)
    return [span.span_id for span in signals.trace(jaeger, TRACE, root_parent_id, deadline)]


def test_a_trace_is_awaited_until_the_answered_calls_are_recorded() -> None:
    parts = [None, trace(CALL), trace(ROOT), trace(ROOT, CALL), trace(CALL, CALLED)]
    assert ask(*parts, trace(ROOT, CALL, CALLED)) == ["root", "call", "called"]


def test_a_call_without_an_answer_has_no_span_to_wait_for() -> None:
    assert ask(None, trace(ROOT, UNANSWERED)) == ["root", "lost"]


def test_of_an_order_answered_before_any_root_will_do() -> None:
    assert ask(None, trace(ROOT), root_parent_id=None) == ["root"]


def test_at_the_deadline_what_there_is_has_to_do() -> None:
    assert ask(trace(ROOT, CALL)) == ["root", "call"]
    assert ask(None) == []


def test_a_span_of_jaeger() -> None:
    jaeger = Jaeger("http://jaeger", answering(trace(CALLED)))
    assert jaeger.trace(TRACE) == [
        Span(
            span_id="called",
            parent_id="call",
            service="product-service",
            name="op called",
            start_us=1_000,
            duration_us=10,
            kind="server",
            failed=True,
            trace_id=TRACE,
        )
    ]


class Records:
    """A log store that has one record more each time."""

    def __init__(self, *records: dict[str, str]) -> None:
        self.records = records
        self.asked = 0

    def by_trace(self, trace_id: str) -> list[dict[str, str]]:
        assert trace_id == TRACE
        self.asked += 1
        return list(self.records[: self.asked - 1])


def test_logs_are_awaited_until_every_request_is_logged() -> None:
    spans = [
        Span("1", None, "order-service", "POST", 0, 1, kind="server"),
        Span("2", "1", "product-service", "POST", 0, 1, kind="server"),
        Span("3", "1", "product-service", "POST", 0, 1, kind="server"),
    ]
    records = [
        {"service.name": service, "_msg": message}
        for service, message in [
            ("product-service", "request"),
            ("order-service", "order confirmed"),
            ("order-service", "request"),
            ("product-service", "request"),
            ("product-service", "too late"),
        ]
    ]
    found = signals.records(Records(*records), TRACE, spans, time.monotonic() + 60)
    assert found == records[:-1]


def vector(**values: int) -> dict[str, Any]:
    result = [
        {"metric": {"prove_outcome": name}, "value": [1.5, str(value)]}
        for name, value in values.items()
    ]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_orders_are_awaited_until_there_is_one_more() -> None:
    before = {"confirmed": 3}
    answers = [vector(confirmed=3), vector(confirmed=3, declined=9), vector(confirmed=4)]
    prometheus = Prometheus("http://prometheus", answering(*answers))
    deadline = time.monotonic() + 60
    assert signals.orders_after(prometheus, before, "confirmed", deadline) == {"confirmed": 4}


def test_exemplars_are_those_of_the_trace() -> None:
    def exemplar(trace_id: str) -> dict[str, Any]:
        return {"labels": {"trace_id": trace_id}, "value": "0.02", "timestamp": 1_700_000_000.5}

    series = {"service_name": "order-service", "le": "0.025"}
    body = {"data": [{"seriesLabels": series, "exemplars": [exemplar("other"), exemplar(TRACE)]}]}
    prometheus = Prometheus("http://prometheus", answering({"data": []}, body))
    found = signals.exemplars(prometheus, TRACE, time.time(), time.monotonic() + 60)
    assert found == [Exemplar(series, {"trace_id": TRACE}, 0.02, 1_700_000_000.5)]


def shop(handler: Handler, tmp_path: Path) -> Shop:
    return Shop(StackSettings(home=tmp_path), httpx.MockTransport(handler))


def test_an_order_carries_its_key_its_trace_and_its_time(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Idempotency-Key"] == "k"
        assert request.headers["traceparent"] == "00-t-s-01"
        assert request.headers["x-envoy-expected-rq-timeout-ms"] == "1500"
        return httpx.Response(402, json={"title": "declined", "detail": "no funds"})

    answer = shop(handler, tmp_path).place_order({"lines": []}, "k", "00-t-s-01", 1.5)
    assert (answer.status_code, answer.order, answer.replayed) == (402, None, False)
    assert answer.problem["detail"] == "no funds"


@pytest.mark.parametrize("content", [b"", b"not json", b"[1]", b'{"id": 1}'])
def test_any_answer_to_an_order_is_read(tmp_path: Path, content: bytes) -> None:
    for status in (201, 500):
        buyer = shop(lambda _, s=status: httpx.Response(s, content=content), tmp_path)  # type: ignore[misc]
        assert buyer.place_order({}, "k", "t", 1).order is None


def test_no_answer_in_time_is_told_apart_from_no_server(tmp_path: Path) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    def absent(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("absent")

    with pytest.raises(NoAnswerInTimeError, match="did not answer in time"):
        shop(slow, tmp_path).place_order({}, "k", "t", 1)
    with pytest.raises(UserError, match=r"does not answer at http://127.0.0.1:8002; `provectl up`"):
        shop(absent, tmp_path).place_order({}, "k", "t", 1)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": 1}', b'{"data": [{"spans": 3}]}'])
def test_what_is_no_jaeger_is_told(body: bytes) -> None:
    other = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    with pytest.raises(UserError, match=r"is not the trace store \(Jaeger\)"):
        Jaeger("http://jaeger", other).trace(TRACE)


def test_a_refusal_is_told_with_its_reason() -> None:
    answer = httpx.Response(400, content=json.dumps({"error": "parse error"}))
    prometheus = Prometheus("http://prometheus", httpx.MockTransport(lambda _: answer))
    with pytest.raises(UserError, match="answered 400: parse error"):
        prometheus.query("sum(")


def test_a_server_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    with pytest.raises(UserError, match=r"the thing does not answer at http://127.0.0.1:1;"):
        Server("thing", "http://127.0.0.1:1").ask("GET", "/")
