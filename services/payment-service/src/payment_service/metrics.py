"""The names of the metrics this service records itself."""

from opentelemetry import metrics

from payment_service.model import Payment, Status

OUTCOME = "prove.outcome"
DECLINE_REASON = "prove.decline.reason"

_REASONS = ("card_declined", "insufficient_funds", "other")


class Metrics:
    """Business metrics, on the global meter provider."""

    def __init__(self) -> None:
        meter = metrics.get_meter("payment_service")
        self._payments = meter.create_counter(
            "prove.payments", description="Payments that reached an outcome, each counted once."
        )
        # A counter that appears with its first event loses that event in every rate.
        for status in (Status.CAPTURED, Status.FAILED, Status.REFUNDED, Status.CANCELLED):
            self._payments.add(0, {OUTCOME: str(status)})
        for reason in _REASONS:
            self._payments.add(0, {OUTCOME: str(Status.DECLINED), DECLINE_REASON: reason})

    def settled(self, before: Payment, after: Payment) -> None:
        """Count an outcome: captured, declined, failed or refunded."""
        if before.status == Status.REFUND_PENDING and after.status == Status.CAPTURED:
            return  # a refused refund: the payment was counted when it was captured
        self._count(after)

    def cancelled(self, payment: Payment) -> None:
        """Count a payment that was cancelled before anything was asked of the acquirer."""
        self._count(payment)

    def _count(self, payment: Payment) -> None:
        attributes = {OUTCOME: str(payment.status)}
        if payment.status == Status.DECLINED:
            # The words are the acquirer's; those we don't know must not make series without end.
            reason = payment.decline_reason or ""
            attributes[DECLINE_REASON] = reason if reason in _REASONS else "other"
        self._payments.add(1, attributes)
