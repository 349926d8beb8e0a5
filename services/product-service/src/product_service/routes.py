"""HTTP: requests to service calls, results to answers."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import Response, request
from flask_smorest import Blueprint
from opentelemetry import trace
from service_kit.auth import require_admin
from service_kit.faultmodel import NAME_PATTERN, product_fault
from service_kit.faults import LeaseStore
from service_kit.problem import Problem
from service_kit.wsgi import json_response, parse_body, parse_query

from product_service import openapi
from product_service.model import (
    ORDER_ID_PATTERN,
    SKU_PATTERN,
    ExtendRequest,
    ImportRequest,
    Product,
    ProductCreate,
    ProductPatch,
    ProductQuery,
    ProductReplace,
    Reservation,
    ReservationRequest,
)
from product_service.openapi import link, operation
from product_service.service import Catalogue, Reservations

Handler = TypeVar("Handler", bound=Callable[..., Response])

_PRODUCTS = "/api/v1/products"
_RESERVATIONS = "/api/v1/reservations"
_SKU = [openapi.path_parameter("sku", SKU_PATTERN)]
_ID = [openapi.path_parameter("reservation_id", ORDER_ID_PATTERN)]
_NAME = [openapi.path_parameter("name", NAME_PATTERN)]


def products(catalogue: Catalogue, token: str | None, max_import_bytes: int) -> Blueprint:
    """/api/v1/products"""
    blueprint = Blueprint("products", __name__, description="The catalogue")
    of_created = {
        name: link(name, sku="$request.body#/sku")
        for name in ("get_product", "put_product", "patch_product", "delete_product")
    }

    @_route(
        blueprint,
        "GET",
        _PRODUCTS,
        operation(
            "List and search products",
            success={200: "ProductPage", 304: None},
            problems=[422],
            parameters=openapi.query_parameters(ProductQuery),
            headers=["ETag"],
        ),
    )
    def list_products() -> Response:
        found, cursor = catalogue.page(parse_query(ProductQuery.model_validate))
        digest = hashlib.blake2b("".join(item.etag for item in found).encode(), digest_size=12)
        return _tagged(
            f"{digest.hexdigest()}-{len(found)}{'+' if cursor else ''}",
            lambda: {"items": [item.as_dict() for item in found], "next_cursor": cursor},
        )

    @_route(
        blueprint,
        "POST",
        _PRODUCTS,
        operation(
            "Add a product",
            success={201: "Product"},
            problems=[409],
            body="ProductCreate",
            headers=["ETag", "Location"],
            links=of_created,
            admin=True,
        ),
    )
    def create_product() -> Response:
        require_admin(request.headers.get("Authorization"), token)
        return _created(catalogue.create(parse_body(ProductCreate.model_validate_json)))

    @_route(
        blueprint,
        "POST",
        f"{_PRODUCTS}/import",
        operation(
            "Create or update many products, all or none",
            success={200: "ImportResult"},
            body="ImportRequest",
            admin=True,
        ),
    )
    def import_products() -> Response:
        require_admin(request.headers.get("Authorization"), token)
        body = parse_body(ImportRequest.model_validate_json, max_import_bytes)
        return json_response(catalogue.import_items(body.items))

    @_route(
        blueprint,
        "GET",
        f"{_PRODUCTS}/<sku:sku>",
        operation(
            "Read a product",
            success={200: "Product", 304: None},
            problems=[404],
            headers=["ETag"],
        ),
        path_parameters=_SKU,
    )
    def get_product(sku: str) -> Response:
        if not re.fullmatch(SKU_PATTERN, sku):
            raise Problem(404, "not-found", "There is no product of that name.")
        product = catalogue.product(sku)
        return _tagged(product.etag, product.as_dict)

    @_route(
        blueprint,
        "PUT",
        f"{_PRODUCTS}/<sku:sku>",
        operation(
            "Create or replace a product",
            success={200: "Product", 201: "Product"},
            problems=[409],
            body="ProductReplace",
            headers=["ETag"],
            admin=True,
        ),
        path_parameters=_SKU,
    )
    def put_product(sku: str) -> Response:
        require_admin(request.headers.get("Authorization"), token)
        _check_sku(sku)
        product, new = catalogue.put(sku, parse_body(ProductReplace.model_validate_json))
        return _created(product) if new else _tagged(product.etag, product.as_dict)

    @_route(
        blueprint,
        "PATCH",
        f"{_PRODUCTS}/<sku:sku>",
        operation(
            "Change some fields of a product",
            success={200: "Product"},
            body="ProductPatch",
            headers=["ETag"],
            admin=True,
        ),
        path_parameters=_SKU,
    )
    def patch_product(sku: str) -> Response:
        require_admin(request.headers.get("Authorization"), token)
        _check_sku(sku)
        product = catalogue.patch(sku, parse_body(ProductPatch.model_validate_json))
        return _tagged(product.etag, product.as_dict)

    @_route(
        blueprint,
        "DELETE",
        f"{_PRODUCTS}/<sku:sku>",
        operation("Remove a product", success={204: None}, problems=[422], admin=True),
        path_parameters=_SKU,
    )
    def delete_product(sku: str) -> Response:
        require_admin(request.headers.get("Authorization"), token)
        _check_sku(sku)
        catalogue.delete(sku)
        return Response(status=204)

    return blueprint


def reservations(service: Reservations) -> Blueprint:
    """/api/v1/reservations"""
    blueprint = Blueprint("reservations", __name__, description="Goods held for orders")
    links = {
        name: link(name, reservation_id="$response.body#/id")
        for name in (
            "get_reservation",
            "extend_reservation",
            "commit_reservation",
            "release_reservation",
        )
    }

    @_route(
        blueprint,
        "POST",
        _RESERVATIONS,
        operation(
            "Hold goods for an order",
            success={201: "Reservation", 200: "Reservation"},
            problems=[409],
            body="ReservationRequest",
            headers=["Location"],
            links=links,
        ),
    )
    def create_reservation() -> Response:
        body = parse_body(ReservationRequest.model_validate_json)
        _annotate(body.order_id)
        held, new = service.reserve(body.order_id, body.lines, body.ttl_s)
        response = json_response(held.as_dict(), 201 if new else 200)
        response.headers["Location"] = f"{_RESERVATIONS}/{held.id}"
        return response

    @_route(
        blueprint,
        "GET",
        f"{_RESERVATIONS}/<reservation_id>",
        operation("Read a reservation", success={200: "Reservation"}, problems=[404]),
        path_parameters=_ID,
    )
    def get_reservation(reservation_id: str) -> Response:
        return _settled(service.get, reservation_id)

    @_route(
        blueprint,
        "POST",
        f"{_RESERVATIONS}/<reservation_id>/extend",
        operation(
            "Hold it longer; what has expired is taken again",
            success={200: "Reservation"},
            problems=[404, 409],
            body="ExtendRequest",
        ),
        path_parameters=_ID,
    )
    def extend_reservation(reservation_id: str) -> Response:
        body = parse_body(ExtendRequest.model_validate_json)
        return _settled(lambda which: service.extend(which, body.ttl_s), reservation_id)

    @_route(
        blueprint,
        "POST",
        f"{_RESERVATIONS}/<reservation_id>/commit",
        operation(
            "Make it final; what has expired is taken again",
            success={200: "Reservation"},
            problems=[404, 409],
        ),
        path_parameters=_ID,
    )
    def commit_reservation(reservation_id: str) -> Response:
        return _settled(service.commit, reservation_id)

    @_route(
        blueprint,
        "POST",
        f"{_RESERVATIONS}/<reservation_id>/release",
        operation(
            "Give the goods back, for good; what was never held can't be any more",
            success={200: "Reservation"},
            problems=[404],
        ),
        path_parameters=_ID,
    )
    def release_reservation(reservation_id: str) -> Response:
        return _settled(service.release, reservation_id)

    return blueprint


def fault_leases(leases: LeaseStore, token: str | None) -> Blueprint:
    """/faults"""
    blueprint = Blueprint("faults", __name__, description="Injected faults")

    @_route(
        blueprint,
        "GET",
        "/faults",
        operation("List the active faults", success={200: "Leases"}, admin=True),
    )
    def list_faults() -> Response:
        require_admin(request.headers.get("Authorization"), token)
        return json_response({"items": [lease.as_dict() for lease in leases.items()]})

    @_route(
        blueprint,
        "PUT",
        "/faults/<name>",
        operation("Set or replace a fault", success={200: "Lease"}, body="Fault", admin=True),
        path_parameters=_NAME,
    )
    def put_fault(name: str) -> Response:
        require_admin(request.headers.get("Authorization"), token)
        _check_path("name", name, NAME_PATTERN)
        fault = parse_body(product_fault.validate_json)
        return json_response(leases.put(name, fault).as_dict())

    @_route(
        blueprint,
        "DELETE",
        "/faults/<name>",
        operation("Revoke a fault", success={204: None}, problems=[422], admin=True),
        path_parameters=_NAME,
    )
    def delete_fault(name: str) -> Response:
        require_admin(request.headers.get("Authorization"), token)
        _check_path("name", name, NAME_PATTERN)
        leases.delete(name)
        return Response(status=204)

    return blueprint


def _route(
    blueprint: Blueprint,
    method: str,
    path: str,
    documented: dict[str, Any],
    path_parameters: Sequence[dict[str, Any]] = (),
) -> Callable[[Handler], Handler]:
    """Register a handler, and document it under its name as the operation's id."""

    def register(handler: Handler) -> Handler:
        name = handler.__name__
        view = blueprint.doc(**documented, operationId=name)(handler)
        blueprint.add_url_rule(path, name, view, methods=[method], parameters=list(path_parameters))
        return handler

    return register


def _tagged(etag: str, body: Callable[[], dict[str, Any]]) -> Response:
    """200 with an ETag, or 304 when the client has this version (RFC 9110 section 13.1.2)."""
    conditional = request.method in ("GET", "HEAD") and "If-None-Match" in request.headers
    if conditional and request.if_none_match.contains_weak(etag):
        return Response(status=304, headers={"ETag": f'"{etag}"'})
    response = json_response(body())
    response.headers["ETag"] = f'"{etag}"'
    return response


def _created(product: Product) -> Response:
    response = json_response(product.as_dict(), 201)
    response.headers["ETag"] = f'"{product.etag}"'
    response.headers["Location"] = f"{_PRODUCTS}/{product.sku}"
    return response


def _settled(step: Callable[[str], Reservation], reservation_id: str) -> Response:
    if not re.fullmatch(ORDER_ID_PATTERN, reservation_id):
        raise Problem(404, "not-found", "There is no reservation of that name.")
    _annotate(reservation_id)
    return json_response(step(reservation_id).as_dict())


def _annotate(order_id: str) -> None:
    trace.get_current_span().set_attribute("prove.order.id", order_id)


def _check_sku(sku: str) -> None:
    _check_path("sku", sku, SKU_PATTERN)


def _check_path(name: str, value: str, pattern: str) -> None:
    if not re.fullmatch(pattern, value):
        errors = [{"loc": ["path", name], "msg": f"String should match pattern '{pattern}'"}]
        raise Problem(422, "validation", f"path.{name} is not one.", errors=errors)
