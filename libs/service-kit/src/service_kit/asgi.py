"""What every request to a FastAPI service gets: ids, limits, faults, deadline, log, problems.

Order, outside in: the server span (FastAPI's own instrumentation), then request id and error
rendering → limits → the router → faults → deadline → the handler. When the last piece of the answer
is there, the span ends, then the piece is sent, then the access log line is written. All of it is
pure ASGI: Starlette's BaseHTTPMiddleware costs a task and two streams a request.
"""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from types import FrameType
from typing import Any, Literal, NoReturn

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from opentelemetry import trace
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service_kit import deadline, faultanswers, faults, logs, problem
from service_kit.faults import Effect, Facts, InjectedError, LeaseStore
from service_kit.health import PATHS, Health
from service_kit.problem import Problem
from service_kit.settings import ServiceSettings

MAX_HEAD_BYTES = 32_768
# Longer than any client keeps an idle connection: the client closes it, never a request in flight.
KEEP_ALIVE_S = 120
RESERVE_S = 4.0  # of the grace period, after the last request: background work and telemetry

Translate = Callable[[Exception], Problem | None]

_REQUEST_ID = logs.REQUEST_ID_HEADER.lower().encode()
_DEADLINE = deadline.HEADER.encode()
_RELEASE = "service_kit.release"
_log = logs.get_logger("access")


class ProblemBody(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str = Field(description="relative URI of the kind of problem: /problems/<slug>")
    title: str
    status: int
    detail: str
    instance: str
    trace_id: str | None
    request_id: str | None


def new_app(
    *,
    title: str,
    version: str,
    summary: str,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    health: Health,
    leases: LeaseStore,
    translate: Translate,
    max_body_bytes: int,
) -> FastAPI:
    """An app to add routes to. `translate` is the service's one table from errors to problems."""
    app = _App(
        title=title,
        version=version,
        summary=summary,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(_Edge, translate=translate),
            Middleware(_Limits, max_body_bytes=max_body_bytes),
        ],
        exception_handlers={
            StarletteHTTPException: _leave_to_edge,
            RequestValidationError: _leave_to_edge,
        },
        # FastAPI's own instrumentation, on the global providers when there are any.
        telemetry={
            "logs": False,  # it would log what _Edge logs
            "operation_spans": False,
            "exclude": lambda scope: scope["path"] in PATHS,
        },
    )
    app.router.route_class = _fault_route(leases)
    app.state.health = health
    _add_health(app, health)
    _add_problem_schema(app)
    return app


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a FastAPI route for problems with these statuses."""
    reference = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {
            "description": problem.from_status(status).title,
            "content": {problem.CONTENT_TYPE: reference},
        }
        for status in sorted(statuses)
    }


def json_response(
    body: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON answer from plain Python values."""
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, status, headers, media_type="application/json")


class _App(FastAPI):
    """Sends the head and the last piece of an answer when the server span has ended, not before.

    FastAPI's instrumentation ends the span after the sending, which is a system call: it wakes the
    caller, and on a busy machine this process goes on milliseconds later. The caller's span would
    be over before its child's, and the request would be told to have taken longer than it did.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        held: deque[Message] = deque()

        async def release() -> None:
            while held:
                await send(held.popleft())

        async def hold(message: Message) -> None:
            held.append(message)
            if message.get("more_body", False):
                await release()

        scope[_RELEASE] = release
        try:
            await super().__call__(scope, receive, hold)
        finally:
            await release()  # what did not come by way of _Edge


class _Edge:
    """Request id in and out, the access log line, and the one place that renders errors."""

    def __init__(self, app: ASGIApp, translate: Translate) -> None:
        self._app = app
        self._translate = translate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = logs.accept_request_id(headers.get(_REQUEST_ID, b"").decode("latin-1"))
        logs.request_id.set(request_id)
        trace.get_current_span().set_attribute("prove.request_id", request_id)
        deadline.start(headers.get(_DEADLINE, b"").decode("latin-1"))
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (_REQUEST_ID, request_id.encode())]
            await send(message)
            if message["type"] == "http.response.body":
                await scope[_RELEASE]()  # the instrumentation is done with it

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # whatever it is, the caller gets a problem
            if status:
                raise
            await _render(self._known(error, scope), scope, send_with_id)
        finally:
            if scope["path"] not in PATHS:
                _log.info(
                    "request",
                    method=scope["method"],
                    route=getattr(scope.get("route"), "path_format", ""),
                    status=status,
                    duration_ms=round((time.perf_counter() - started) * 1000, 3),
                )

    def _known(self, error: Exception, scope: Scope) -> Problem:
        known = error if isinstance(error, Problem) else self._translate(error)
        if known is None and isinstance(error, StarletteHTTPException):
            known = _of_http(error, scope)
        if known is None and isinstance(error, RequestValidationError):
            known = _of_validation(error)
        if known is None:
            _log.error("unhandled exception", exc_info=error)
            trace.get_current_span().record_exception(error)
            known = problem.from_status(500, "The service failed; its log has the trace id.")
        return known


async def _render(error: Problem, scope: Scope, send: Send) -> None:
    if isinstance(error, InjectedError) and error.text is not None:
        kind, body = faults.TEXT, error.text.encode()
    else:
        kind = problem.CONTENT_TYPE
        body = json.dumps(error.as_dict(scope["path"]), separators=(",", ":")).encode()
    headers = {"content-type": kind, "content-length": str(len(body))}
    raw = [(k.lower().encode(), v.encode()) for k, v in {**headers, **error.headers}.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


class _Limits:
    """Limits on the head and the body of a request; bodies are JSON."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = len(scope["query_string"]) + len(scope["raw_path"])
        if head + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            raise Problem(431, "headers-too-large", f"The head is over {MAX_HEAD_BYTES} bytes.")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        chunked = b"transfer-encoding" in headers
        if length == b"0" and not chunked:
            await self._app(scope, receive, send)
            return
        if length.isdigit() and int(length) > self._max:
            raise self._too_large()
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json" and not kind.endswith(b"+json"):
            raise problem.from_status(415, "Send Content-Type: application/json.")
        # The server holds a request to its content-length; a chunked one has to be counted.
        await self._app(scope, self._counted(receive) if chunked else receive, send)

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max:
                # FastAPI, which reads the body, lets no other exception through.
                raise HTTPException(413, self._too_large().detail)
            return message

        return counted

    def _too_large(self) -> Problem:
        return Problem(413, "body-too-large", f"The body is over {self._max} bytes.")


def _fault_route(leases: LeaseStore) -> type[APIRoute]:
    """Routes that fault leases can hit, once the router has named the route."""

    class FaultRoute(APIRoute):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if not self.path_format.startswith(faults.EXEMPT):
                if leases.current():
                    send = await _inject(leases, self.path_format, scope, send)
                # The caller may have given up meanwhile: no work for nobody.
                deadline.check()
            await super().handle(scope, receive, send)

    return FaultRoute


async def _inject(leases: LeaseStore, route: str, scope: Scope, send: Send) -> Send:
    """What the faults in force do to a request before its handler; how to send the answer."""
    plain = send
    for effect in leases.decide(scope["method"], route, lambda: _facts(scope)):
        trace.get_current_span().set_attributes(effect.attributes)
        match effect.type:
            case "latency":
                await leases.hold_async(effect.lease, effect.delay_s)
            case "hang":
                await leases.hold_async(effect.lease)
            case "crash":
                faults.crash(effect.lease)
            case "error":
                raise InjectedError(effect)
            case "drip" if plain is send:
                send = _dripping(leases, effect, plain)
    return send


def _facts(scope: Scope) -> Facts:
    """No service of this kind knows customers: a request's key is all that tells it apart."""
    key = dict(scope["headers"]).get(b"idempotency-key")
    url: bytes = scope["raw_path"] + b"?" + scope["query_string"]
    return Facts(key=(key or url).decode("latin-1"))


def _dripping(leases: LeaseStore, effect: Effect, send: Send) -> Send:
    async def drip(message: Message) -> None:
        if message["type"] == "http.response.body":
            for drop, pause_s in faultanswers.drops(message.get("body", b""), effect, leases):
                await send({"type": message["type"], "body": drop, "more_body": True})
                await asyncio.sleep(pause_s)
            message = {**message, "body": b""}
        await send(message)

    return drip


def _leave_to_edge(_request: Request, error: Exception) -> NoReturn:
    raise error


def _of_http(error: StarletteHTTPException, scope: Scope) -> Problem:
    headers = error.headers
    if error.status_code == 405:
        # Starlette names the methods of one route only; RFC 9110 wants those of the resource.
        at_path = (r for r in scope["app"].routes if r.matches(scope)[0] is Match.PARTIAL)
        headers = {"Allow": ", ".join(sorted({m for r in at_path for m in r.methods}))}
    return problem.from_status(error.status_code, error.detail, headers)


def _of_validation(error: RequestValidationError) -> Problem:
    errors = error.errors()
    if any(item["type"] == "json_invalid" for item in errors):
        return problem.from_status(400, "The body is not valid JSON.")
    if any(item["loc"][0] == "path" for item in errors):
        return problem.from_status(404, "There is nothing at this path.")
    # Without the values: they are the caller's secrets.
    shown = [{"loc": list(item["loc"]), "msg": item["msg"]} for item in errors]
    detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in shown[:3])
    return Problem(422, "validation", detail, errors=shown)


def _add_health(app: FastAPI, health: Health) -> None:
    # Its checks may block, and must not queue behind what the requests do in threads.
    readiness = ThreadPoolExecutor(1, "readiness")

    async def answer(request: Request) -> Response:
        path = request.url.path
        if path == "/readyz":
            loop = asyncio.get_running_loop()
            status, body = await loop.run_in_executor(readiness, health.readyz)
        else:
            status, body = health.answer(path)
        return json_response(body, status)

    for path in PATHS:
        app.add_api_route(
            path,
            answer,
            tags=["health"],
            summary=path[1:],
            operation_id=path[1:],
            response_model=dict[str, Any],
            responses={503: {"description": "Unavailable", "content": {"application/json": {}}}},
        )


def _add_problem_schema(app: FastAPI) -> None:
    generate = app.openapi

    def with_problem() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = generate().setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = ProblemBody.model_json_schema()
        assert app.openapi_schema is not None  # noqa: S101 - generate() has set it
        return app.openapi_schema

    app.openapi = with_problem  # type: ignore[method-assign]


class _Http(HttpToolsProtocol):
    """uvicorn's parser has no limit for the head of a request; this gives it one."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        # Counted since the last complete head or piece of a body. The middleware answers for heads
        # that did arrive whole; this is for those that never end.
        if self._head_bytes > 2 * MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"connection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)


class _Server(uvicorn.Server):
    """uvicorn with our signals: the first one drains, the second one exits at once."""

    def __init__(
        self, config: uvicorn.Config, health: Health, delay_s: float, parent: int | None
    ) -> None:
        super().__init__(config)
        self._health = health
        self._delay_s = delay_s
        self._parent = parent
        self._exit_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._health.draining:
            os._exit(128 + sig)
        self._drain()

    async def on_tick(self, counter: int) -> bool:
        if self._parent not in (None, os.getppid()) and not self._health.draining:
            self._drain()  # the process that would stop this one is gone
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        return await super().on_tick(counter)

    def _drain(self) -> None:
        self._health.draining = True
        self._exit_at = time.monotonic() + self._delay_s


def serve(app: FastAPI, settings: ServiceSettings, sock: socket.socket) -> None:
    """Serve an installed `app` in this process on a listening socket until a signal ends it."""
    drain_s = settings.shutdown_grace_s - settings.shutdown_delay_s - RESERVE_S
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Http,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody here asks for the caller's address
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, int(drain_s)),
    )
    # The event loop holds the interpreter up to 5 ms at a time, and a database thread wants it back
    # after each call: at 200 payments a second that made 3 s of 14 ms.
    sys.setswitchinterval(0.0005)
    # What was loaded stays: without it in its generations the garbage collector has little to do.
    gc.collect()
    gc.freeze()
    parent = os.getppid() if settings.web_concurrency > 1 else None
    _Server(config, app.state.health, settings.shutdown_delay_s, parent).run(sockets=[sock])


def prefork(workers: int, work: Callable[[], None]) -> None:
    """Run `work` in this process, or in `workers` children that are replaced when they die.

    The first SIGTERM or SIGINT is handed on and waits for them, the second kills them.
    """
    if workers == 1:
        work()
        return
    children: set[int] = set()
    stopping = False

    def stop(sig: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        first, stopping = not stopping, True
        for child in children:
            with suppress(ProcessLookupError):  # waited for, and not yet struck off
                os.kill(child, sig if first else signal.SIGKILL)
        if not first:
            os._exit(128 + sig)

    handled: tuple[Literal[signal.Signals.SIGTERM], Literal[signal.Signals.SIGINT]]
    handled = (signal.SIGTERM, signal.SIGINT)
    for sig in handled:
        signal.signal(sig, stop)
    while not stopping:
        while len(children) < workers:
            # Blocked, so that no signal falls between the fork and its being known here.
            signal.pthread_sigmask(signal.SIG_BLOCK, handled)
            if stopping:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
                break
            child = os.fork()
            if child == 0:
                for sig in handled:
                    signal.signal(sig, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
                _exit_with(work)
            children.add(child)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
        if stopping:
            break
        dead, status = os.wait()
        children.discard(dead)
        if not stopping:
            logs.get_logger("service_kit.asgi").error("worker died", pid=dead, status=status)
            time.sleep(1)
    while children:
        children.discard(os.wait()[0])


def _exit_with(work: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)
