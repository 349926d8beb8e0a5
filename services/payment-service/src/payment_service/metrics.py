"""The names of the metrics this service records itself."""

from opentelemetry import metrics

from payment_service.model import Payment, Status


class Metrics:
    """Business metrics, on the global meter provider."""

    def __init__(self) -> None:
        meter = metrics.get_meter("payment_service")
        self._payments = meter.create_counter(
            "prove.payments", description="Payments that reached an outcome, each counted once."
        )

    def settled(self, before: Payment, after: Payment) -> None:
        """Count an outcome: captured, declined, failed or refunded."""
        if before.status == Status.REFUND_PENDING and after.status == Status.CAPTURED:
            return  # a refused refund: the payment was counted when it was captured
        self._count(after)

    def cancelled(self, payment: Payment) -> None:
        """Count a payment that was cancelled before anything was asked of the acquirer."""
        self._count(payment)

    def _count(self, payment: Payment) -> None:
        self._payments.add(1, {"prove.outcome": str(payment.status)})
