"""Overload: what is too much is refused at once, and what stays is served."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from service_kit import shed
from service_kit.problem import Problem
from service_kit.shed import AsgiShed, Gate, WsgiShed
from starlette.types import Receive, Scope, Send
from werkzeug.test import Client
from werkzeug.wrappers import Request, Response


def test_a_gate_lets_in_as_many_as_may_work() -> None:
    gate = Gate(2)
    with gate.working(), gate.working():
        with pytest.raises(Problem) as refused, gate.working():
            pass
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        with gate.waiting(), gate.working():
            assert gate.busy == 2
    assert gate.busy == 0


@pytest.mark.parametrize(("path", "refused"), [("/api/v1/x", True), ("/livez", False)])
def test_health_passes_a_gate_that_is_shut(path: str, refused: bool) -> None:
    served = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        served.append(scope["path"])

    async def ask() -> None:
        scope = {"type": "http", "path": path}
        await AsgiShed(app, Gate(0))(scope, None, None)  # type: ignore[arg-type]

    if refused:
        with pytest.raises(Problem, match="nothing was begun"):
            asyncio.run(ask())
    else:
        asyncio.run(ask())
    assert bool(served) is not refused


@pytest.fixture
def client() -> Iterator[Client]:
    def app(environ: Any, start_response: Any) -> Any:
        left = Request(environ).headers.get("x-envoy-expected-rq-timeout-ms", "none")
        return Response(left)(environ, start_response)

    yield Client(WsgiShed(app))
    shed.queued_since(time.monotonic())


@pytest.mark.parametrize(
    ("queued_s", "sent", "status", "left"),
    [
        (0, "500", 200, "500"),
        (0.4, "5000", 200, "4600"),
        (0.4, "300", 200, "0"),
        (0.4, "soon", 200, "soon"),
        (60, "90000", 503, ""),
    ],
)
def test_the_queue_counts_as_the_callers_time(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    queued_s: float,
    sent: str,
    status: int,
    left: str,
) -> None:
    shed._waited_s.set(queued_s)
    headers = {"x-envoy-expected-rq-timeout-ms": sent, "X-Request-Id": "mine"}
    answer = client.get("/api/v1/x", headers=headers)
    assert answer.status_code == status
    if status == 200:
        assert answer.text == left
    else:
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["X-Request-Id"] == "mine"
        assert answer.content_type == "application/problem+json"
        assert answer.get_json()["request_id"] == "mine"
        assert client.get("/readyz").status_code == 200
