"""The rules of payments: one charge per idempotency key, one refund per payment."""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from service_kit import shed
from service_kit.shed import Gate

from payment_service.metrics import Metrics
from payment_service.model import UNSETTLED, Charge, Payment, Status
from payment_service.repository import Repository
from payment_service.worker import Worker

T = TypeVar("T")

_propagator = TraceContextTextMapPropagator()


class NotFoundError(Exception):
    """There is no such payment."""


class KeyReusedError(Exception):
    """The idempotency key was used before, for another request."""


class PaymentCancelledError(Exception):
    """The charge was cancelled before it had an answer; nothing is charged, or will not stay so."""

    def __init__(self, payment: Payment) -> None:
        super().__init__("The payment was cancelled; a new one needs a new key.")
        self.payment = payment


class OverloadedError(Exception):
    """Too many payments wait for the acquirer; nothing was begun."""


class NotRefundableError(Exception):
    """Only a captured payment can be refunded."""

    def __init__(self, payment: Payment) -> None:
        super().__init__(f"The payment is {payment.status}; only a captured one can be refunded.")
        self.payment = payment


class PaymentService:
    """What the HTTP interface offers; a returned payment may still be unsettled."""

    def __init__(
        self, repository: Repository, worker: Worker, gate: Gate, metrics: Metrics
    ) -> None:
        self._repository = repository
        self._worker = worker
        self._gate = gate
        self._metrics = metrics

    async def pay(self, charge: Charge, wait_s: float) -> tuple[Payment, bool]:
        """Charge once, waiting `wait_s` at most; also returns whether the key was known before.

        Raises:
            KeyReusedError: the key stands for another request.
            PaymentCancelledError: it was cancelled before it had an answer.
            OverloadedError: the acquirer is too slow for what comes in.
        """
        if self._worker.busy:
            raise OverloadedError
        payment, new = await self._in_time(
            lambda: self._repository.open(charge, self._worker.lease_ms(), _traceparent())
        )
        _describe(payment)
        if not payment.answers(charge):
            raise KeyReusedError
        if new:
            self._worker.submit(payment)
        payment = await self._settled(payment, wait_s, {Status.PENDING})
        if payment.cancelled:
            raise PaymentCancelledError(payment)
        return payment.as_charged(), not new

    async def cancel(self, charge: Charge, wait_s: float) -> Payment:
        """Make this charge not be, whatever became of it, waiting `wait_s` at most.

        Final and safe to repeat: a charge that comes later under this key is never asked for.

        Raises:
            KeyReusedError: the key stands for another request.
            NotRefundableError: it is captured, and the acquirer refused to give it back.
        """
        payment, changed = await self._in_time(
            lambda: self._repository.cancel(charge, self._worker.lease_ms(), _traceparent())
        )
        _describe(payment)
        if not payment.answers(charge):
            raise KeyReusedError
        if changed:
            self._worker.tell(payment)
            if payment.status == Status.REFUND_PENDING:
                self._worker.submit(payment)
            elif payment.status == Status.CANCELLED:
                self._metrics.cancelled(payment)
        payment = await self._settled(payment, wait_s)
        if payment.status == Status.CAPTURED:
            raise NotRefundableError(payment)
        return payment

    async def _in_time(self, begin: Callable[[], T]) -> T:
        """Begin in a thread, unless the queue for it has taken too long."""
        queued_at = time.monotonic()

        def checked() -> T:
            shed.check(queued_at)
            return begin()

        return await asyncio.to_thread(checked)

    async def _settled(
        self, payment: Payment, wait_s: float, while_in: Collection[str] = UNSETTLED
    ) -> Payment:
        if payment.status in while_in:
            await self._worker.hasten(payment)
            with self._gate.waiting():
                payment = await self._worker.wait(payment, wait_s, while_in)
            _describe(payment)
        return payment

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
        _describe(payment)
        payment = await self._settled(payment, wait_s)
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
