"""The injector's HTTP: leases, the inbox of pages, health."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import ValidationError
from service_kit import auth, logs, problem
from service_kit.problem import Problem

from prove.injector.faults import fault_adapter, name_adapter
from prove.injector.leases import Leases
from prove.injector.pages import Inbox

MAX_BODY_BYTES = 1024 * 1024
OPEN = ("/livez", "/readyz")
"""Paths without the token."""

_log = logs.get_logger("prove.injector.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(leases: Leases, inbox: Inbox, token: str | None) -> web.Application:
    """What the server serves; without a token only health."""

    async def put_fault(request: web.Request) -> web.Response:
        name = _name(request)
        _must_be_json(request)
        try:
            fault = fault_adapter.validate_json(await request.read())
        except ValidationError as error:
            raise problem.from_validation(error, "body") from None
        return web.json_response((await leases.put(name, fault)).as_dict())

    async def list_faults(_: web.Request) -> web.Response:
        return web.json_response({"items": [lease.as_dict() for lease in leases.items()]})

    async def delete_fault(request: web.Request) -> web.Response:
        await leases.delete(_name(request))
        return web.Response(status=204)

    async def take_pages(request: web.Request) -> web.Response:
        try:
            inbox.take(await request.read())
        except ValidationError as error:
            raise problem.from_validation(error, "body") from None
        except OSError as error:  # Alertmanager tries again
            raise Problem(503, "unavailable", f"Not kept: {error.strerror}.") from None
        return web.Response(status=204)

    async def list_pages(request: web.Request) -> web.Response:
        given = request.query.get("since_unix_us", "0")
        if not (given.isascii() and given.isdigit() and len(given) < 20):
            why = "must be a whole number of microseconds, not below 0"
            loc = ["query", "since_unix_us"]
            errors = [{"loc": loc, "msg": why}]
            raise Problem(422, "validation", f"{'.'.join(loc)}: {why}.", errors=errors)
        return web.json_response({"items": [page.model_dump() for page in inbox.since(int(given))]})

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        if not leases.recovered:
            detail = "Faults of an earlier injector are being taken back."
            raise Problem(503, "unavailable", detail)
        return web.json_response({"status": "ok"})

    @web.middleware
    async def answers(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(logs.REQUEST_ID_HEADER)
        logs.request_id.set(logs.accept_request_id(given))
        try:
            if request.path not in OPEN:
                auth.require_admin(request.headers.get("Authorization"), token)
            answer = await handler(request)
        except Problem as found:
            answer = _told(found, request)
        except web.HTTPException as error:
            answer = _told(problem.from_status(error.status), request)
            if allowed := error.headers.get("Allow"):
                answer.headers["Allow"] = allowed
        except Exception:
            _log.exception("request failed", path=request.path)
            answer = _told(problem.from_status(500, "See the injector's log."), request)
        answer.headers[logs.REQUEST_ID_HEADER] = logs.request_id.get() or ""
        return answer

    app = web.Application(middlewares=[answers], client_max_size=MAX_BODY_BYTES)
    app.add_routes(
        [
            web.get("/faults", list_faults),
            web.put("/faults/{name}", put_fault),
            web.delete("/faults/{name}", delete_fault),
            web.post("/pages", take_pages),
            web.get("/pages", list_pages),
            web.get("/livez", live),
            web.get("/readyz", ready),
        ]
    )
    return app


def _name(request: web.Request) -> str:
    try:
        return name_adapter.validate_python(request.match_info["name"])
    except ValidationError as error:
        raise problem.from_validation(error, "path") from None


def _must_be_json(request: web.Request) -> None:
    if request.content_type != "application/json":
        raise problem.from_status(415, "The body must be application/json.")


def _told(found: Problem, request: web.Request) -> web.Response:
    return web.json_response(
        found.as_dict(request.path),
        status=found.status,
        headers=found.headers,
        content_type=problem.CONTENT_TYPE,
    )
