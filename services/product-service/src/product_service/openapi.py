"""What /openapi.json says that code cannot say by itself: statuses, headers, links, security."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask_smorest import Api
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from service_kit.faultmodel import product_fault

from product_service import model

REF = "#/components/schemas/{model}"
ADMIN: list[dict[str, list[str]]] = [{"admin": []}]

_MODELS: list[type[BaseModel]] = [
    model.ProductCreate,
    model.ProductReplace,
    model.ProductPatch,
    model.ImportRequest,
    model.ReservationRequest,
    model.ExtendRequest,
]

_PROBLEMS = {
    400: "The request is malformed.",
    401: "The admin token is missing or wrong.",
    404: "There is no such thing (or no admin token is configured).",
    409: "It does not fit what is there; `type` and `detail` say why.",
    413: "The body is too large.",
    414: "The request line is over 8190 bytes.",
    415: "The body is not application/json.",
    422: "The request is well-formed and wrong; `errors` says where.",
    431: "The header fields are too large or too many.",
    500: "The service failed; its log has the trace id.",
    503: "The service cannot do it now.",
}

_string = {"type": "string"}
_integer = {"type": "integer"}


def _object(properties: Mapping[str, Any], optional: Sequence[str] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(model=name)}


_SCHEMAS: dict[str, dict[str, Any]] = {
    "Problem": _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": _string,
            "status": _integer,
            "detail": _string,
            "instance": _string,
            "trace_id": {"type": ["string", "null"]},
            "request_id": {"type": ["string", "null"]},
            "sku": _string,
            "available": _integer,
            "errors": {
                "type": "array",
                "items": _object({"loc": {"type": "array"}, "msg": _string}),
            },
        },
        optional=["sku", "available", "errors"],
    ),
    "Product": _object(
        {
            "sku": _string,
            "name": _string,
            "description": _string,
            "category": _string,
            "price_minor": _integer,
            "currency": _string,
            "stock": {"type": "integer", "minimum": 0},
        }
    ),
    "ProductPage": _object(
        {
            "items": {"type": "array", "items": _ref("Product")},
            "next_cursor": {"type": ["string", "null"]},
        }
    ),
    "ImportResult": _object({"created": _integer, "updated": _integer, "unchanged": _integer}),
    "Reservation": _object(
        {
            "id": _string,
            "order_id": _string,
            "status": {"enum": ["held", "committed", "released", "expired"]},
            "expires_at": {"type": "string", "format": "date-time"},
            "currency": _string,
            "total_minor": _integer,
            "lines": {
                "type": "array",
                "items": _object(
                    {
                        "sku": _string,
                        "name": _string,
                        "quantity": _integer,
                        "price_minor": _integer,
                        "line_total_minor": _integer,
                    }
                ),
            },
        }
    ),
    "Lease": _object(
        {
            "name": _string,
            "type": _string,
            "params": {"type": "object"},
            "match": {"type": "object"},
            "ttl_s": _integer,
            "created_at": {"type": "string", "format": "date-time"},
            "expires_at": {"type": "string", "format": "date-time"},
        },
        optional=["match"],
    ),
    "Leases": _object({"items": {"type": "array", "items": _ref("Lease")}}),
    "Health": _object(
        {
            "status": {"enum": ["ok", "unavailable"]},
            "checks": {"type": "object", "additionalProperties": _string},
            "peers": {"type": "object", "additionalProperties": _string},
        }
    ),
}

_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {"schema": _string, "description": "Finds this request in the logs."},
    "ETag": {"schema": _string, "description": "Send it back as If-None-Match."},
    "Location": {"schema": {"type": "string", "format": "uri-reference"}},
    "WWW-Authenticate": {"schema": _string},
}


def path_parameter(name: str, pattern: str) -> dict[str, Any]:
    """A parameter of the path."""
    schema = {"type": "string", "pattern": pattern}
    return {"in": "path", "name": name, "required": True, "schema": schema}


def query_parameters(query: type[BaseModel]) -> list[dict[str, Any]]:
    """The parameters of a query model."""
    parameters = []
    for name, schema in query.model_json_schema()["properties"].items():
        # A query parameter is absent, never null.
        kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
        schema = kinds[0] if kinds else schema
        schema = {key: value for key, value in schema.items() if key != "title"}
        parameters.append({"in": "query", "name": name, "schema": schema})
    return parameters


def operation(
    summary: str,
    *,
    success: Mapping[int, str | None],
    problems: Sequence[int] = (),
    body: str | None = None,
    parameters: Sequence[Mapping[str, Any]] = (),
    headers: Sequence[str] = (),
    links: Mapping[str, Any] | None = None,
    admin: bool = False,
) -> dict[str, Any]:
    """The documentation of one operation, as keyword arguments of `Blueprint.doc`.

    `success` maps a status to the name of its schema (None: no body); 400, 414, 431, 500 and
    503 can always happen, 401 and 404 with `admin`, and 413, 415 and 422 with a `body`.
    """
    statuses = {400, 414, 431, 500, 503, *problems}
    statuses |= {401, 404} if admin else set()
    statuses |= {413, 415, 422} if body else set()
    responses: dict[str, Any] = {}
    for status, schema in success.items():
        response: dict[str, Any] = {
            "description": "Success" if status != 304 else "Not modified",
            "headers": {name: _HEADERS[name] for name in ("X-Request-Id", *headers)},
        }
        if schema is not None:
            response["content"] = {"application/json": {"schema": _ref(schema)}}
        if links and status in (200, 201):
            response["links"] = dict(links)
        responses[str(status)] = response
    for status in sorted(statuses):
        names = ["X-Request-Id"] + (["WWW-Authenticate"] if status == 401 else [])
        responses[str(status)] = {
            "description": _PROBLEMS[status],
            "headers": {name: _HEADERS[name] for name in names},
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }
    documented: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        content = {"application/json": {"schema": _ref(body)}}
        documented["requestBody"] = {"required": True, "content": content}
    if parameters:
        documented["parameters"] = list(parameters)
    if admin:
        documented["security"] = ADMIN
    return documented


def link(operation_id: str, **parameters: str) -> dict[str, Any]:
    """An OpenAPI link to another operation, by runtime expressions."""
    return {"operationId": operation_id, "parameters": parameters}


def register(api: Api) -> None:
    """Put the schemas, the security scheme and the health endpoints into the document."""
    _, definitions = models_json_schema(
        [(item, "validation") for item in _MODELS], ref_template=REF
    )
    fault = product_fault.json_schema(ref_template=REF)
    schemas = {**_SCHEMAS, **definitions["$defs"], **fault.pop("$defs"), "Fault": fault}
    for name, schema in schemas.items():
        api.spec.components.schema(name, schema)
    api.spec.components.security_scheme("admin", {"type": "http", "scheme": "bearer"})
    # Flask has no route for these: they are answered before it. Options are merged in.
    api.spec.options["paths"] = {
        "/livez": {"get": _health("Is the process alive?")},
        "/readyz": {"get": _health("Should it get traffic? Own database and migrations only.")},
        "/startupz": {"get": _health("Has it started?")},
    }


def _health(summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Health")}}
    responses = {
        "200": {"description": "Yes", "content": content},
        "503": {"description": "No", "content": content},
    }
    return {"summary": summary, "tags": ["health"], "responses": responses}
