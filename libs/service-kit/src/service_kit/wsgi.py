"""What every request to a Flask service gets: ids, faults, deadline, access log, problems, health.

Order, outside in: health endpoints (answered before anything else sees them), OpenTelemetry's
server span, then request id → faults → deadline → the handler; the access log line is written last.
"""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from http import HTTPMethod
from typing import TYPE_CHECKING, TypeVar

from flask import Flask, Response, request
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from pydantic import ValidationError
from pydantic_core import to_json
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from service_kit import deadline, faultanswers, faults, logs, problem
from service_kit.faults import Effect, Facts, InjectedError, LeaseStore
from service_kit.health import PATHS, Health
from service_kit.problem import Problem
from service_kit.telemetry import Telemetry

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

T = TypeVar("T")

_log = logs.get_logger("access")

_STARTED = "prove.started"
_REQUEST_ID = "prove.request_id"
_ANSWER = "prove.answer"
_DEADLINE = "HTTP_" + deadline.HEADER.upper().replace("-", "_")


def install(
    app: Flask,
    *,
    telemetry: Telemetry,
    health: Health,
    leases: LeaseStore,
    translate: Callable[[Exception], Problem | None],
    facts: Callable[[], Facts],
) -> None:
    """Wire an app. `translate` is the service's one table from its own errors to problems.

    `facts` tells a fault lease that asks what Flask's current request is about.
    """
    if telemetry.enabled:
        # First, so that its server span is around everything below. No URL is excluded here:
        # matching them costs each request, and health never gets this far.
        FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
            app,
            excluded_urls="",
            enable_commenter=False,
            meter_provider=telemetry.http_meters,
        )
    app.before_request(_begin(leases, facts))
    app.after_request(_finish(leases))
    app.teardown_request(_forget)
    handler = _error_handler(translate)
    app.register_error_handler(Exception, handler)
    app.register_error_handler(HTTPException, handler)
    app.wsgi_app = _HealthGate(app.wsgi_app, health)  # type: ignore[method-assign]


def json_response(body: object, status: int = 200) -> Response:
    """A JSON answer from plain Python values."""
    return Response(to_json(body), status, content_type="application/json")


def problem_response(error: Problem, path: str) -> Response:
    """The answer for a problem of the request to `path`."""
    if isinstance(error, InjectedError) and error.text is not None:
        return Response(error.text, error.status, content_type=faults.TEXT)
    body = to_json(error.as_dict(path))
    response = Response(body, error.status, content_type=problem.CONTENT_TYPE)
    response.headers.update(error.headers)
    return response


def parse_body(validate: Callable[[bytes], T], max_bytes: int | None = None) -> T:
    """The request's JSON body, by pydantic's `model_validate_json` or `validate_json`.

    Raises:
        Problem: 415 for another content type, 413 above `max_bytes` (default: the app's limit),
            400 when it is not JSON, 422 when it is not what `validate` wants.
    """
    if max_bytes is not None:
        request.max_content_length = max_bytes
    if not request.is_json:
        raise Problem(415, "unsupported-media-type", "Send Content-Type: application/json.")
    try:
        return validate(request.get_data(cache=False))
    except RequestEntityTooLarge:
        limit = request.max_content_length
        raise Problem(413, "body-too-large", f"The body is over {limit} bytes.") from None
    except ValidationError as error:
        raise problem.from_validation(error, "body") from None


def parse_query(validate: Callable[[dict[str, str]], T]) -> T:
    """The request's query, by pydantic's `model_validate`.

    Raises:
        Problem: 422 when it is not what `validate` wants, or a parameter comes twice.
    """
    try:
        for name, values in request.args.lists():
            if len(values) > 1:
                errors = [{"loc": ["query", name], "msg": "comes more than once"}]
                raise Problem(422, "validation", f"query.{name} comes twice.", errors=errors)
        return validate(request.args.to_dict())
    except ValidationError as error:
        raise problem.from_validation(error, "query") from None


def _begin(leases: LeaseStore, facts: Callable[[], Facts]) -> Callable[[], None]:
    """The one hook before every handler; it reads the WSGI environ, which costs least."""
    inject = _injector(leases, facts)

    def begin() -> None:
        environ = request.environ
        environ[_STARTED] = time.perf_counter()
        request_id = logs.accept_request_id(environ.get("HTTP_X_REQUEST_ID"))
        environ[_REQUEST_ID] = request_id
        logs.request_id.set(request_id)
        span = trace.get_current_span()
        span.set_attribute("prove.request_id", request_id)
        if request.url_rule is None:  # else it is named after the path, whatever that holds
            method = environ["REQUEST_METHOD"]
            span.update_name(method if method in HTTPMethod.__members__ else "HTTP")
        deadline.start(environ.get(_DEADLINE))
        inject(environ)
        deadline.check()

    return begin


def _injector(
    leases: LeaseStore, facts: Callable[[], Facts]
) -> Callable[["WSGIEnvironment"], None]:
    """What the faults in force do to a request before its handler."""

    def inject(environ: "WSGIEnvironment") -> None:
        active = leases.current()
        if not active or environ["PATH_INFO"].startswith(faults.EXEMPT):
            return
        for effect in leases.decide(environ["REQUEST_METHOD"], _route(), facts):
            trace.get_current_span().set_attributes(effect.attributes)
            match effect.type:
                case "latency":
                    leases.hold(effect.lease, effect.delay_s)
                case "hang":
                    leases.hold(effect.lease)
                case "crash":
                    faults.crash(effect.lease)
                case "error":
                    raise InjectedError(effect)
                case _:
                    environ.setdefault(_ANSWER, []).append(effect)

    return inject


def _route() -> str:
    """The matched route as an OpenAPI template: /api/v1/products/{sku}."""
    rule = request.url_rule
    return _template(rule.rule) if rule is not None else ""


@lru_cache
def _template(rule: str) -> str:
    return re.sub(r"<(?:[^:>]+:)?([^>]+)>", r"{\1}", rule)


def _finish(leases: LeaseStore) -> Callable[[Response], Response]:
    def finish(response: Response) -> Response:
        environ = request.environ
        if effects := environ.get(_ANSWER):
            _alter(response, effects, leases)
        response.headers[logs.REQUEST_ID_HEADER] = environ[_REQUEST_ID]
        _log.info(
            "request",
            method=environ["REQUEST_METHOD"],
            route=_route(),
            status=response.status_code,
            duration_ms=round((time.perf_counter() - environ[_STARTED]) * 1000, 3),
        )
        return response

    return finish


def _alter(response: Response, effects: list[Effect], leases: LeaseStore) -> None:
    """What faults do to an answer that is made: first its data, then how it is sent."""
    for effect in effects:
        if effect.type != "wrong-data":
            continue
        wrong = faultanswers.with_wrong_prices(response.get_data(), effect)
        if wrong is not None:
            response.set_data(wrong)
            # Nobody is to keep this as the version of the product that the tag stands for.
            response.headers.pop("ETag", None)
    slow = next((effect for effect in effects if effect.type == "drip"), None)
    if slow is not None:
        body = response.get_data()
        response.headers["Content-Length"] = str(len(body))
        response.response = _dripping(body, slow, leases)


def _dripping(body: bytes, effect: Effect, leases: LeaseStore) -> Iterator[bytes]:
    for drop, pause_s in faultanswers.drops(body, effect, leases):
        yield drop
        time.sleep(pause_s)


def _forget(_error: BaseException | None) -> None:
    # The thread serves another request next, or something that is not a request.
    logs.request_id.set(None)


def _error_handler(
    translate: Callable[[Exception], Problem | None],
) -> Callable[[Exception], Response]:
    def handle(error: Exception) -> Response:
        known = error if isinstance(error, Problem) else translate(error)
        if known is None and isinstance(error, HTTPException) and error.code is not None:
            headers = {k: v for k, v in error.get_headers() if k in ("Allow", "Location")}
            known = problem.from_status(error.code, error.description, headers)
        if known is None:
            _log.error("unhandled exception", exc_info=sys.exc_info())
            trace.get_current_span().record_exception(error)
            known = problem.from_status(500, "The service failed; its log has the trace id.")
        return problem_response(known, request.path)

    return handle


class _HealthGate:
    """Answers the health endpoints before Flask: no span, no metric, no log line, no fault."""

    def __init__(self, app: "WSGIApplication", health: Health) -> None:
        self._app = app
        self._health = health

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in PATHS:
            return self._app(environ, start_response)
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            status, body = self._health.answer(path)
            response = Response(to_json(body), status, content_type="application/json")
        else:
            refused = problem.from_status(405, headers={"Allow": "GET, HEAD"})
            response = problem_response(refused, path)
        return response(environ, start_response)
