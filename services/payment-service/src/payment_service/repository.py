"""Payments in the database. Every change is one conditional statement, safe between processes."""

import time
from dataclasses import replace
from typing import Any, cast

from service_kit.database import Database
from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    Row,
    bindparam,
    case,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from payment_service.model import ASKS_FOR_CHARGE, UNSETTLED, Charge, Payment, Status, payments

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
        charged_at_ms=func.coalesce(_c.charged_at_ms, bindparam("charged_ms", type_=BigInteger)),
        updated_at_ms=_NOW,
        lease_until_ms=bindparam("lease_ms", type_=BigInteger),
        attempts=bindparam("asks"),
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
_was_captured = _c.status == Status.CAPTURED
_cancel = (
    update(payments)
    # The values of the row as it was: only the very request that charged can be cancelled.
    .where(
        _c.id == bindparam("payment_id"),
        _c.status.in_((Status.PENDING, Status.CAPTURED)),
        *(
            _c[name] == bindparam(f"same_{name}")
            for name in ("idempotency_key", "order_id", "amount_minor", "currency", "method_token")
        ),
    )
    .values(
        status=case((_was_captured, Status.REFUND_PENDING), else_=Status.CANCELLING),
        updated_at_ms=_NOW,
        # Whoever is asking for the charge goes on; its answer settles what is being cancelled.
        lease_until_ms=case((_was_captured, _LEASE), else_=_c.lease_until_ms),
        attempts=case((_was_captured, 1), else_=_c.attempts),
        traceparent=bindparam("trace"),
    )
    .returning(*_c)
)
# The lease tells whose it is: one who comes late changes nothing.
_mine = (
    _c.id == bindparam("payment_id"),
    _c.status.in_(UNSETTLED),
    _c.lease_until_ms == bindparam("held_ms"),
)
_postpone = update(payments).where(*_mine).values(lease_until_ms=_LEASE)
_take_over = (
    update(payments)
    .where(*_mine)
    .values(lease_until_ms=_LEASE, attempts=_c.attempts + 1)
    .returning(*_c)
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
        new = _new(charge, Status.PENDING, traceparent)
        new = replace(new, lease_until_ms=lease_ms, attempts=1)
        with self._database.write() as connection:
            if self._insert_new(connection, new):
                return new, True
            row = connection.execute(_get, {"payment_id": new.id}).one()
        return _payment(row), False

    def cancel(
        self, charge: Charge, lease_ms: int, traceparent: str | None
    ) -> tuple[Payment, bool]:
        """Make sure that this charge never is, or is undone; other requests' are left alone.

        A key that is new gets a row that says cancelled, so that a charge which comes late finds
        it. Returns the payment as it stands then and whether this changed it.
        """
        new = _new(charge, Status.CANCELLED, traceparent)
        values = {
            "payment_id": new.id,
            "now_ms": new.created_at_ms,
            "lease_ms": lease_ms,
            "trace": traceparent,
            "same_idempotency_key": charge.idempotency_key,
            "same_order_id": charge.order_id,
            "same_amount_minor": charge.amount_minor,
            "same_currency": charge.currency,
            "same_method_token": charge.method_token,
        }
        with self._database.write() as connection:
            if self._insert_new(connection, new):
                return new, True
            row = connection.execute(_cancel, values).one_or_none()
            if row is not None:
                return _payment(row), True
            row = connection.execute(_get, {"payment_id": new.id}).one()
        return _payment(row), False

    def _insert_new(self, connection: Connection, new: Payment) -> bool:
        values = {name: getattr(new, name) for name in Payment.__slots__}
        return connection.execute(self._insert, values).first() is not None

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
        lease_ms: int,
        *,
        reason: str | None = None,
        reference: str | None = None,
    ) -> Payment | None:
        """Write the outcome of what was asked; None when someone else already has.

        A charge that was cancelled meanwhile is not captured but to be refunded, and leased until
        `lease_ms` for that.
        """
        now_ms = unix_ms()
        values: dict[str, object] = {
            "payment_id": payment.id,
            "was": payment.status,
            "becomes": status,
            "reason": reason,
            "reference": reference,
            "now_ms": now_ms,
            "charged_ms": now_ms if payment.status in ASKS_FOR_CHARGE else None,
            "lease_ms": None,
            "asks": 0,
        }
        cancelling = {**values, "was": Status.CANCELLING}
        if status == Status.CAPTURED:
            refund = {"charged_ms": None, "lease_ms": lease_ms, "asks": 1}
            cancelling |= {"becomes": Status.REFUND_PENDING, **refund}
        with self._database.write() as connection:
            row = None
            if payment.status != Status.CANCELLING:
                row = connection.execute(_settle, values).one_or_none()
            if row is None and payment.status in ASKS_FOR_CHARGE:
                row = connection.execute(_settle, cancelling).one_or_none()
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
        """Let the acquirer be asked again at `until_ms`, unless the payment is in other hands."""
        with self._database.write() as connection:
            connection.execute(_postpone, {**_held(payment), "lease_ms": until_ms})

    def take_over(self, payment: Payment, lease_ms: int) -> Payment | None:
        """Take an unsettled payment before its time; None when someone else has been faster."""
        with self._database.write() as connection:
            values = {**_held(payment), "lease_ms": lease_ms}
            row = connection.execute(_take_over, values).one_or_none()
        return None if row is None else _payment(row)

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


def _new(charge: Charge, status: Status, traceparent: str | None) -> Payment:
    now_ms = unix_ms()
    return Payment(
        id=charge.payment_id,
        idempotency_key=charge.idempotency_key,
        order_id=charge.order_id,
        amount_minor=charge.amount_minor,
        currency=charge.currency,
        method_token=charge.method_token,
        status=status,
        decline_reason=None,
        acquirer_reference=None,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        charged_at_ms=None,
        lease_until_ms=None,
        attempts=0,
        traceparent=traceparent,
    )


def _held(payment: Payment) -> dict[str, object]:
    return {"payment_id": payment.id, "held_ms": payment.lease_until_ms}


def _payment(row: Row[Any]) -> Payment:
    return Payment(*cast(tuple[Any, ...], row))
