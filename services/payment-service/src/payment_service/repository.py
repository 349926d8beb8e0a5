"""Payments in the database. Every change is one conditional statement, safe between processes."""

import time
from typing import Any, cast

from service_kit.database import Database
from sqlalchemy import BindParameter, Row, bindparam, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from payment_service.model import Charge, Payment, Status, payments

_c = payments.c
_NOW: BindParameter[int] = bindparam("now_ms")
_LEASE: BindParameter[int] = bindparam("lease_ms")

_get = select(payments).where(_c.id == bindparam("payment_id"))
_by_order = (
    select(payments)
    .where(_c.order_id == bindparam("wanted_order"))
    .order_by(_c.created_at_ms, _c.id)
    .limit(bindparam("at_most"))
)
_settle = (
    update(payments)
    .where(_c.id == bindparam("payment_id"), _c.status == bindparam("was"))
    .values(
        status=bindparam("becomes"),
        decline_reason=func.coalesce(bindparam("reason"), _c.decline_reason),
        acquirer_reference=func.coalesce(bindparam("reference"), _c.acquirer_reference),
        charged_at_ms=func.coalesce(_c.charged_at_ms, _NOW),
        updated_at_ms=_NOW,
        lease_until_ms=None,
        attempts=0,
    )
    .returning(*_c)
)
_begin_refund = (
    update(payments)
    .where(_c.id == bindparam("payment_id"), _c.status == Status.CAPTURED)
    .values(
        status=Status.REFUND_PENDING,
        updated_at_ms=_NOW,
        lease_until_ms=_LEASE,
        attempts=1,
        traceparent=bindparam("trace"),
    )
    .returning(*_c)
)
_postpone = (
    update(payments)
    .where(_c.id == bindparam("payment_id"), _c.lease_until_ms.is_not(None))
    .values(lease_until_ms=_LEASE)
)
_any_due = select(_c.id).where(_c.lease_until_ms <= _NOW).limit(1)
_due = (
    select(_c.id)
    .where(_c.lease_until_ms <= _NOW)
    .order_by(_c.lease_until_ms)
    .limit(bindparam("at_most"))
    # PostgreSQL: several workers take different rows. SQLite has one writer and ignores it.
    .with_for_update(skip_locked=True)
)
_claim = (
    update(payments)
    .where(_c.id.in_(_due.scalar_subquery()))
    .values(lease_until_ms=_LEASE, attempts=_c.attempts + 1)
    .returning(*_c)
)


class Repository:
    """All methods block; call them in a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        dialect = sqlite if database.is_sqlite else postgresql
        insert = dialect.insert(payments).on_conflict_do_nothing(index_elements=["id"])
        self._insert = insert.returning(_c.id)

    def open(self, charge: Charge, lease_ms: int, traceparent: str | None) -> tuple[Payment, bool]:
        """Write a pending payment leased until `lease_ms`, or find the one this key stands for.

        Returns the payment and whether it is new.
        """
        now_ms = unix_ms()
        new = Payment(
            id=charge.payment_id,
            idempotency_key=charge.idempotency_key,
            order_id=charge.order_id,
            amount_minor=charge.amount_minor,
            currency=charge.currency,
            method_token=charge.method_token,
            status=Status.PENDING,
            decline_reason=None,
            acquirer_reference=None,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            charged_at_ms=None,
            lease_until_ms=lease_ms,
            attempts=1,
            traceparent=traceparent,
        )
        values = {name: getattr(new, name) for name in Payment.__slots__}
        with self._database.write() as connection:
            if connection.execute(self._insert, values).first() is not None:
                return new, True
            row = connection.execute(_get, {"payment_id": new.id}).one()
        return _payment(row), False

    def get(self, payment_id: str) -> Payment | None:
        """Find a payment by its id."""
        with self._database.read() as connection:
            row = connection.execute(_get, {"payment_id": payment_id}).one_or_none()
        return None if row is None else _payment(row)

    def by_order(self, order_id: str, limit: int) -> list[Payment]:
        """The payments of an order, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(_by_order, {"wanted_order": order_id, "at_most": limit})
            return [_payment(row) for row in rows]

    def settle(
        self,
        payment: Payment,
        status: Status,
        *,
        reason: str | None = None,
        reference: str | None = None,
    ) -> Payment | None:
        """Write the outcome of what was asked; None when someone else already has."""
        values = {
            "payment_id": payment.id,
            "was": payment.status,
            "becomes": status,
            "reason": reason,
            "reference": reference,
            "now_ms": unix_ms(),
        }
        with self._database.write() as connection:
            row = connection.execute(_settle, values).one_or_none()
        return None if row is None else _payment(row)

    def begin_refund(
        self, payment_id: str, lease_ms: int, traceparent: str | None
    ) -> Payment | None:
        """Turn a captured payment into one being refunded; None when it is not captured."""
        values = {
            "payment_id": payment_id,
            "lease_ms": lease_ms,
            "trace": traceparent,
            "now_ms": unix_ms(),
        }
        with self._database.write() as connection:
            row = connection.execute(_begin_refund, values).one_or_none()
        return None if row is None else _payment(row)

    def postpone(self, payment: Payment, until_ms: int) -> None:
        """Let the acquirer be asked again at `until_ms`, unless it is settled by now."""
        with self._database.write() as connection:
            connection.execute(_postpone, {"payment_id": payment.id, "lease_ms": until_ms})

    def claim(self, lease_ms: int, limit: int) -> list[Payment]:
        """Take over payments whose lease has run out, each by one process only."""
        now_ms = unix_ms()
        with self._database.read() as connection:
            # Almost always there are none: find that out without the write lock.
            if connection.execute(_any_due, {"now_ms": now_ms}).first() is None:
                return []
        with self._database.write() as connection:
            values = {"now_ms": now_ms, "lease_ms": lease_ms, "at_most": limit}
            return [_payment(row) for row in connection.execute(_claim, values)]


def unix_ms() -> int:
    """The wall clock, in milliseconds."""
    return time.time_ns() // 1_000_000


def _payment(row: Row[Any]) -> Payment:
    return Payment(*cast(tuple[Any, ...], row))
