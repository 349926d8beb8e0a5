"""More comes in than can be done: say so at once (503 + Retry-After), while the caller still waits.

Both ways bound the time a request spends in a queue. What is refused was not begun, and health,
faults and incidents are never refused: they are how one looks at a service in trouble.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pydantic_core import to_json
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.wrappers import Response

from service_kit import deadline, faults, logs
from service_kit.problem import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LONGEST_WAIT_S = 1.0
"""A request that has queued for this long is refused: its caller has time left to hear of it."""

RETRY_AFTER_S = 1

_log = logs.get_logger("access")
_DEADLINE = "HTTP_" + deadline.HEADER.upper().replace("-", "_")
_waited_s: ContextVar[float] = ContextVar("waited_s", default=0.0)


def overloaded() -> Problem:
    """The answer to a request that is one too many."""
    detail = "More is asked of the service than it can do; nothing was begun. Try again."
    return Problem(503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})


class Gate:
    """How many requests one event loop works on; all of them queue for the same few threads.

    By Little's law the queue is then `limit` times as long as one request takes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.busy = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        """One request.

        Raises:
            Problem: 503 when there are too many.
        """
        if self.busy >= self.limit:
            raise overloaded()
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within a request: it only waits for someone else now, and others may work."""
        self.busy -= 1
        try:
            yield
        finally:
            self.busy += 1


class AsgiShed:
    """ASGI middleware: at most so many requests at once as the gate lets in."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"].startswith(faults.EXEMPT):
            await self._app(scope, receive, send)
            return
        with self._gate.working():
            await self._app(scope, receive, send)


def check(queued_at_monotonic_s: float) -> None:
    """Called where a queue ends, before work begins.

    Raises:
        Problem: 503 when the request has queued too long, or its caller has no time left.
    """
    deadline.check()
    if time.monotonic() - queued_at_monotonic_s > LONGEST_WAIT_S:
        raise overloaded()


def queued_since(at_monotonic_s: float) -> None:
    """Said by the server in the thread that will serve a request: since when it has queued."""
    _waited_s.set(time.monotonic() - at_monotonic_s)


class WsgiShed:
    """WSGI middleware: refuses what has queued too long, and counts the queue as caller's time.

    Outermost: a request that is refused has to cost next to nothing. It makes no span.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """WSGI (PEP 3333)."""
        if environ["PATH_INFO"].startswith(faults.EXEMPT):
            return self._app(environ, start_response)
        waited_s = _waited_s.get()
        if waited_s > LONGEST_WAIT_S:
            return _refused(environ, waited_s)(environ, start_response)
        left = environ.get(_DEADLINE, "")
        if left.isascii() and left.isdigit():
            environ[_DEADLINE] = str(max(0, int(left[:9]) - int(waited_s * 1000)))
        return self._app(environ, start_response)


def _refused(environ: "WSGIEnvironment", waited_s: float) -> "WSGIApplication":
    request_id = logs.accept_request_id(environ.get("HTTP_X_REQUEST_ID"))
    logs.request_id.set(request_id)
    problem = overloaded()
    body = to_json(problem.as_dict(environ["PATH_INFO"]))
    response = Response(body, problem.status, problem.headers, content_type=CONTENT_TYPE)
    response.headers[logs.REQUEST_ID_HEADER] = request_id
    _log.info(
        "request",
        method=environ["REQUEST_METHOD"],
        route="",
        status=problem.status,
        duration_ms=round(waited_s * 1000, 3),
    )
    logs.request_id.set(None)
    return response
