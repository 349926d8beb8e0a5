"""The rules of payments: one charge per idempotency key, one refund per payment."""

import asyncio

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from payment_service.model import Charge, Payment, Status
from payment_service.repository import Repository
from payment_service.worker import Worker

_propagator = TraceContextTextMapPropagator()


class NotFoundError(Exception):
    """There is no such payment."""


class KeyReusedError(Exception):
    """The idempotency key was used before, for another request."""


class NotRefundableError(Exception):
    """Only a captured payment can be refunded."""

    def __init__(self, payment: Payment) -> None:
        super().__init__(f"The payment is {payment.status}; only a captured one can be refunded.")
        self.payment = payment


class PaymentService:
    """What the HTTP interface offers; a returned payment may still be unsettled."""

    def __init__(self, repository: Repository, worker: Worker) -> None:
        self._repository = repository
        self._worker = worker

    async def pay(self, charge: Charge, wait_s: float) -> tuple[Payment, bool]:
        """Charge once, waiting `wait_s` at most; also returns whether the key was known before.

        Raises:
            KeyReusedError: the key stands for another request.
        """
        payment, new = await asyncio.to_thread(
            self._repository.open, charge, self._worker.lease_ms(), _traceparent()
        )
        _describe(payment)
        if not payment.answers(charge):
            raise KeyReusedError
        if new:
            self._worker.submit(payment)
        if payment.status == Status.PENDING:
            payment = await self._worker.wait(payment, wait_s)
            _describe(payment)
        return payment.as_charged(), not new

    async def refund(self, payment_id: str, wait_s: float) -> Payment:
        """Give the whole amount back, waiting `wait_s` at most; safe to repeat.

        Raises:
            NotFoundError: there is no such payment.
            NotRefundableError: it is not captured, or the acquirer refused.
        """
        payment = await asyncio.to_thread(
            self._repository.begin_refund, payment_id, self._worker.lease_ms(), _traceparent()
        )
        if payment is not None:
            self._worker.submit(payment)
        else:
            payment = await self.get(payment_id)
        if payment.status == Status.REFUND_PENDING:
            payment = await self._worker.wait(payment, wait_s)
        _describe(payment)
        if payment.status not in (Status.REFUND_PENDING, Status.REFUNDED):
            raise NotRefundableError(payment)
        return payment

    async def get(self, payment_id: str) -> Payment:
        """Find a payment.

        Raises:
            NotFoundError: there is no such payment.
        """
        payment = await asyncio.to_thread(self._repository.get, payment_id)
        if payment is None:
            raise NotFoundError
        return payment

    async def by_order(self, order_id: str, limit: int) -> list[Payment]:
        """The payments of an order, oldest first."""
        return await asyncio.to_thread(self._repository.by_order, order_id, limit)


def _traceparent() -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


def _describe(payment: Payment) -> None:
    trace.get_current_span().set_attributes(
        {
            "prove.payment.id": payment.id,
            "prove.order.id": payment.order_id,
            "prove.payment.status": str(payment.status),
        }
    )
