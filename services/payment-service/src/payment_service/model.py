"""What a payment is, and the table it is kept in."""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, text


class Status(StrEnum):
    """Where a payment stands.

    Money is held by us in CAPTURED and REFUND_PENDING; in PENDING and CANCELLING it may be.
    """

    PENDING = "pending"
    CAPTURED = "captured"
    DECLINED = "declined"
    FAILED = "failed"
    """The acquirer refused the request itself: nothing was charged."""
    REFUND_PENDING = "refund_pending"
    REFUNDED = "refunded"
    CANCELLING = "cancelling"
    """Cancelled before the outcome of the charge was known: what was charged will be refunded."""
    CANCELLED = "cancelled"
    """Cancelled before it was begun: the acquirer was never asked and never will be."""


ASKS_FOR_CHARGE = frozenset({Status.PENDING, Status.CANCELLING})
UNSETTLED = ASKS_FOR_CHARGE | {Status.REFUND_PENDING}


class MethodToken(StrEnum):
    """The well-known test tokens; the acquirer decides what each of them does."""

    APPROVE = "tok_approve"
    DECLINE = "tok_decline"
    DECLINE_FUNDS = "tok_decline_funds"
    SLOW = "tok_slow"
    UNKNOWN = "tok_unknown"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a caller asks for, under an idempotency key."""

    idempotency_key: str
    order_id: str
    amount_minor: int
    currency: str
    method_token: str

    @property
    def payment_id(self) -> str:
        """The payment's id, and the acquirer's key for it.

        It follows from the idempotency key alone: even if this service lost its database, asking
        again under the same key could not charge twice.
        """
        return "pay_" + hashlib.sha256(self.idempotency_key.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Payment:
    """One row; the fields are the table's columns, in order. Times are Unix milliseconds, UTC."""

    id: str
    idempotency_key: str
    order_id: str
    amount_minor: int
    currency: str
    method_token: str
    status: str
    decline_reason: str | None
    acquirer_reference: str | None
    created_at_ms: int
    updated_at_ms: int
    charged_at_ms: int | None
    """When the charge got its final answer; None if it was cancelled before that."""
    lease_until_ms: int | None
    """While unsettled: until then nobody else asks the acquirer. None once settled."""
    attempts: int
    """How often the acquirer was asked since the status last changed."""
    traceparent: str | None
    """The W3C trace context of the request that began it."""

    @property
    def settled(self) -> bool:
        """Whether nothing is being asked of the acquirer."""
        return self.status not in UNSETTLED

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled before the charge could be answered: it never will be."""
        refunded = self.status in (Status.REFUND_PENDING, Status.REFUNDED)
        return self.status in (Status.CANCELLING, Status.CANCELLED) or (
            refunded and self.charged_at_ms is None
        )

    def answers(self, charge: Charge) -> bool:
        """Whether it was made by this very request."""
        return charge == Charge(
            self.idempotency_key,
            self.order_id,
            self.amount_minor,
            self.currency,
            self.method_token,
        )

    def as_charged(self) -> Self:
        """As it was when the charge got its final answer, whatever was refunded since."""
        if self.status not in (Status.REFUND_PENDING, Status.REFUNDED):
            return self
        charged_at_ms = self.charged_at_ms or self.updated_at_ms
        return replace(self, status=Status.CAPTURED, updated_at_ms=charged_at_ms)


metadata = MetaData()

payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("idempotency_key", Text, nullable=False),
    Column("order_id", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("method_token", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("decline_reason", Text),
    Column("acquirer_reference", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("charged_at_ms", BigInteger),
    Column("lease_until_ms", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("traceparent", Text),
)
Index("payments_by_order", payments.c.order_id, payments.c.created_at_ms)
# Only what is unsettled has a lease: the worker's poll reads nothing else.
Index(
    "payments_unsettled",
    payments.c.lease_until_ms,
    sqlite_where=text("lease_until_ms IS NOT NULL"),
    postgresql_where=text("lease_until_ms IS NOT NULL"),
)
