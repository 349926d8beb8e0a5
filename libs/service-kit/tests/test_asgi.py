"""What a FastAPI service gets from the kit, seen by the server that runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from service_kit import asgi
from service_kit.faults import LeaseStore
from service_kit.health import Health
from service_kit.spans import TracerProvider
from starlette.types import Message


class Ended(SpanProcessor):
    """The names of the spans that have ended."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.names.append(span.name)


@asynccontextmanager
async def no_lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


def new_app(directory: Path) -> FastAPI:
    """One route for each way to answer."""
    app = asgi.new_app(
        title="x",
        version="1",
        summary="x",
        lifespan=no_lifespan,
        health=Health({}),
        leases=LeaseStore(directory / "faults.json"),
        translate=lambda _: None,
        max_body_bytes=1000,
    )

    @app.get("/whole")
    async def whole() -> Response:
        return asgi.json_response({"a": 1})

    @app.get("/empty")
    async def empty() -> Response:
        return Response(status_code=204)

    @app.get("/pieces")
    async def pieces() -> Response:
        return StreamingResponse(iter([b"first", b"second"]))

    @app.get("/broken")
    async def broken() -> Response:
        raise RuntimeError

    return app


@pytest.mark.parametrize(
    ("path", "status", "span", "before_the_end"),
    [
        ("/whole", 200, "GET /whole", []),
        ("/empty", 204, "GET /empty", []),
        ("/nothing", 404, "GET", []),
        ("/broken", 500, "GET /broken", []),
        ("/pieces", 200, "GET /pieces", [b"", b"first", b"second"]),
    ],
)
def test_the_span_and_the_duration_end_before_the_caller_has_the_answer(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    path: str,
    status: int,
    span: str,
    before_the_end: list[bytes],
) -> None:
    ended, reader = Ended(), InMemoryMetricReader()
    tracers, meters = TracerProvider(Resource({}), ended), MeterProvider([reader])
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    sent: list[tuple[Message, bool]] = []

    body_read = False

    async def receive() -> Message:
        nonlocal body_read
        if body_read:
            await asyncio.Event().wait()  # the caller stays
        body_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append((message, bool(ended.names) and reader.get_metrics_data() is not None))

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"x")],
    }
    asyncio.run(asyncio.wait_for(new_app(tmp_path)(scope, receive, send), 60))
    assert sent[0][0]["status"] == status
    assert [message.get("body", b"") for message, is_over in sent if not is_over] == before_the_end
    last, is_over = sent[-1]
    assert (last["type"], last.get("more_body", False)) == ("http.response.body", False)
    assert is_over
    assert ended.names == [span]
