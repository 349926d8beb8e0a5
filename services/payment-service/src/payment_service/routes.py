"""The payments API, and the one table from errors to HTTP."""

import re
from datetime import datetime
from typing import Annotated, Any

from fastapi import FastAPI, Header, Path, Query, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from service_kit import asgi, deadline
from service_kit.problem import Problem
from service_kit.types import WholeNumber, rfc3339
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.convertors import StringConvertor, register_url_convertor

from payment_service.model import Charge, MethodToken, Payment, Status
from payment_service.service import (
    KeyReusedError,
    NotFoundError,
    NotRefundableError,
    OverloadedError,
    PaymentCancelledError,
    PaymentService,
)

DEFAULT_WAIT_S = 10.0
LONGEST_WAIT_S = 30.0
_ANSWER_MARGIN_S = 0.05  # kept of the caller's remaining time, for the answer to arrive in

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,4})\"?\s*(?=$|[,;])", re.IGNORECASE)
_BASE = "/api/v1/payments"


class _IdConvertor(StringConvertor):
    # So that /api/v1/payments/cancel is the cancel and nothing else, whatever the method.
    regex = "(?!cancel$)[^/]+"


class PaymentRequest(BaseModel):
    """A charge to be made."""

    model_config = ConfigDict(extra="forbid")

    order_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    amount_minor: Annotated[
        int, Field(strict=True, ge=1, le=999_999_999_999, description="minor units"), WholeNumber
    ]
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")
    method_token: MethodToken


class PaymentBody(BaseModel):
    """A payment as it stands."""

    model_config = ConfigDict(title="Payment")

    id: str
    order_id: str
    amount_minor: int
    currency: str
    status: Status
    decline_reason: str | None
    acquirer_reference: str | None
    created_at: datetime
    updated_at: datetime


class PaymentList(BaseModel):
    """The payments of one order, oldest first."""

    items: list[PaymentBody]


PaymentId = Annotated[str, Path(pattern=r"^pay_[0-9a-f]{32}$")]
IdempotencyKey = Annotated[
    str,
    Header(
        pattern=r"^[!-~]([ -~]{0,253}[!-~])?$",
        description="draft-ietf-httpapi-idempotency-key-header: printable, 1 to 255 characters",
    ),
]
Prefer = Annotated[
    str | None,
    Header(description="RFC 7240: wait=<seconds> for the acquirer's answer, 10 unless told"),
]

_CANCEL = "cancelPayment"
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "the payment"}}
_REPLAYED = {
    "Idempotency-Replayed": {
        "schema": {"type": "string", "enum": ["true"]},
        "description": "on the first answer, given again",
    }
}


def add_routes(app: FastAPI, service: PaymentService, longest_wait_s: float) -> None:
    """Add the payments API to the app."""
    register_url_convertor("payment", _IdConvertor())

    def wait_s(prefer: str | None) -> float:
        asked = _WAIT.search(prefer or "")
        seconds = float(asked.group(1)) if asked else DEFAULT_WAIT_S
        seconds = min(seconds, longest_wait_s)
        return max(0.0, min(seconds, deadline.remaining_s(seconds) - _ANSWER_MARGIN_S))

    @app.post(
        _BASE,
        tags=["payments"],
        summary="Charge once",
        operation_id="createPayment",
        status_code=201,
        responses={
            201: {
                "model": PaymentBody,
                "description": "Captured",
                "headers": {**_LOCATION, **_REPLAYED},
            },
            202: {
                "model": PaymentBody,
                "description": "The acquirer has not answered yet; look at Location",
                "headers": _LOCATION,
            },
            **asgi.problems(400, 402, 409, 413, 415, 422, 431, 500, 503),
        },
        openapi_extra=_links("getPayment", "refundPayment", _CANCEL, statuses=("201", "202")),
    )
    async def create(
        body: PaymentRequest, idempotency_key: IdempotencyKey, prefer: Prefer = None
    ) -> Response:
        payment, known = await service.pay(_charge(idempotency_key, body), wait_s(prefer))
        replayed = {"Idempotency-Replayed": "true"} if known and payment.settled else {}
        if payment.status in (Status.DECLINED, Status.FAILED):
            raise Problem(
                402,
                "declined",
                "The acquirer declined the charge; nothing was paid.",
                headers=replayed,
                reason=payment.decline_reason or "refused",
                payment_id=payment.id,
            )
        headers = {"Location": f"{_BASE}/{payment.id}", **replayed}
        return asgi.json_response(_body(payment), 201 if payment.settled else 202, headers)

    @app.post(
        _BASE + "/cancel",
        tags=["payments"],
        summary="Make a charge not be, whatever became of it",
        description="With the key and the body of the charge, which need not have come yet. "
        "Final: what was charged is refunded, what comes later under this key is never charged.",
        operation_id=_CANCEL,
        responses={
            200: {"model": PaymentBody, "description": "Nothing is charged, or it is refunded"},
            202: {
                "model": PaymentBody,
                "description": "It will be; the acquirer has not answered yet",
                "headers": _LOCATION,
            },
            **asgi.problems(400, 409, 413, 415, 422, 431, 500, 503),
        },
        openapi_extra=_links("getPayment", "refundPayment", _CANCEL, statuses=("200", "202")),
    )
    async def cancel(
        body: PaymentRequest, idempotency_key: IdempotencyKey, prefer: Prefer = None
    ) -> Response:
        return _standing(await service.cancel(_charge(idempotency_key, body), wait_s(prefer)))

    @app.get(
        _BASE + "/{payment_id:payment}",
        tags=["payments"],
        summary="One payment",
        operation_id="getPayment",
        responses={200: {"model": PaymentBody}, **asgi.problems(404, 431, 500, 503)},
    )
    async def get(payment_id: PaymentId) -> Response:
        return asgi.json_response(_body(await service.get(payment_id)))

    @app.get(
        _BASE,
        tags=["payments"],
        summary="The payments of an order",
        operation_id="listPayments",
        responses={200: {"model": PaymentList}, **asgi.problems(422, 431, 500, 503)},
    )
    async def by_order(
        order_id: Annotated[str, Query(pattern=r"^[A-Za-z0-9._-]{1,64}$")],
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Response:
        payments = await service.by_order(order_id, limit)
        return asgi.json_response({"items": [_body(payment) for payment in payments]})

    @app.post(
        _BASE + "/{payment_id:payment}/refund",
        tags=["payments"],
        summary="Give the whole amount back",
        operation_id="refundPayment",
        responses={
            200: {"model": PaymentBody, "description": "Refunded"},
            202: {
                "model": PaymentBody,
                "description": "The acquirer has not answered yet; look at Location",
                "headers": _LOCATION,
            },
            **asgi.problems(404, 409, 413, 415, 422, 431, 500, 503),
        },
    )
    async def refund(payment_id: PaymentId, prefer: Prefer = None) -> Response:
        return _standing(await service.refund(payment_id, wait_s(prefer)))


def translate(error: Exception) -> Problem | None:
    """The problem for an error of this service, or None when it is not one of its own."""
    match error:
        case NotFoundError():
            return Problem(404, "not-found", "There is no such payment.")
        case KeyReusedError():
            return Problem(422, "key-reused", "This Idempotency-Key stands for another request.")
        case NotRefundableError():
            status = str(error.payment.status)
            return Problem(409, "not-refundable", str(error), payment_status=status)
        case PaymentCancelledError():
            return Problem(409, "cancelled", str(error), payment_id=error.payment.id)
        case OverloadedError():
            detail = "Too many payments wait for the acquirer; nothing was charged."
            return Problem(503, "unavailable", detail, headers={"Retry-After": "1"})
        case RequestValidationError() if _key_is_missing(error):
            return Problem(400, "key-missing", "Send an Idempotency-Key header.")
        case DBAPIError() | PoolTimeoutError():
            # Busy, full, gone, no connection free: the caller may come again, under the same key.
            headers = {"Retry-After": "1"}
            return Problem(503, "unavailable", "The database cannot be used now.", headers=headers)
    return None


def _key_is_missing(error: RequestValidationError) -> bool:
    missing = [item["loc"] for item in error.errors() if item["type"] == "missing"]
    return ("header", "idempotency-key") in missing


def _charge(idempotency_key: str, body: PaymentRequest) -> Charge:
    return Charge(
        idempotency_key, body.order_id, body.amount_minor, body.currency, body.method_token
    )


def _standing(payment: Payment) -> Response:
    """The payment: 200 once it is settled, 202 and where to look until then."""
    if payment.settled:
        return asgi.json_response(_body(payment))
    return asgi.json_response(_body(payment), 202, {"Location": f"{_BASE}/{payment.id}"})


def _body(payment: Payment) -> dict[str, object]:
    return {
        "id": payment.id,
        "order_id": payment.order_id,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "status": payment.status,
        "decline_reason": payment.decline_reason,
        "acquirer_reference": payment.acquirer_reference,
        "created_at": rfc3339(payment.created_at_ms),
        "updated_at": rfc3339(payment.updated_at_ms),
    }


def _links(*operations: str, statuses: tuple[str, ...]) -> dict[str, Any]:
    """OpenAPI links: the id in these answers is the parameter of those operations.

    A cancel is the same request again, so it takes the request's own key and body.
    """
    by_id = {"parameters": {"payment_id": "$response.body#/id"}}
    by_key = {
        "parameters": {"header.idempotency-key": "$request.header.idempotency-key"},
        "requestBody": "$request.body",
    }
    links = {
        operation: {"operationId": operation, **(by_key if operation == _CANCEL else by_id)}
        for operation in operations
    }
    return {"responses": {status: {"links": links} for status in statuses}}
