"""The shop's books: what its three databases and the acquirer's ledger say, read-only."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from prove.errors import UserError
from prove.stack import databases
from prove.stack.hints import command
from prove.stack.settings import StackSettings

_SQLITE = "sqlite:///"
_CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Order:
    """A row of the Order Service; `key` is None once it is free again, `step` '' when finished.

    `lines` are (sku, quantity, price in minor units; 0 before the goods were reserved).
    """

    id: str
    customer: str
    key: str | None
    status: str
    step: str
    lines: tuple[tuple[str, int, int], ...]
    total_minor: int
    currency: str
    payment_id: str
    failure: str | None
    trace_id: str
    created_at_us: int
    updated_at_us: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Step:
    """One state that an order was recorded in."""

    order_id: str
    seq: int
    at_us: int
    status: str
    step: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Payment:
    """A row of the Payment Service."""

    id: str
    key: str
    order_id: str
    amount_minor: int
    currency: str
    status: str
    trace_id: str
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the acquirer's ledger; the `reference` of a charge is the order's id."""

    seq: int
    kind: str
    key: str
    charge_key: str
    status: str
    amount_minor: int
    currency: str
    reference: str
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation of the Product Service; its id is the order's."""

    id: str
    status: str
    lines: tuple[tuple[str, int], ...]
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Stock:
    """What is free of a product."""

    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Books:
    """All of it, read from each database in one transaction, the orders last.

    `read_at_us` is when reading began: what happened since may be in one book and not in another.
    """

    orders: tuple[Order, ...]
    steps: tuple[Step, ...]
    payments: tuple[Payment, ...]
    entries: tuple[Entry, ...]
    reservations: tuple[Reservation, ...]
    stock: tuple[Stock, ...]
    read_at_us: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the books are: `sqlite:///relative`, `sqlite:////absolute` or `postgresql://…`."""

    order: str
    payment: str
    product: str
    acquirer: str

    @classmethod
    def of(cls, settings: StackSettings) -> "Sources":
        """Those of a stack, running or stopped."""

        def url(name: str) -> str:
            given = databases.url(settings, name)
            if not given.startswith(_SQLITE):
                return given
            # Relative to the home: services run there.
            return f"{_SQLITE}{settings.home / given.removeprefix(_SQLITE)}"

        return cls(
            order=url("order"),
            payment=url("payment"),
            product=url("product"),
            acquirer=url("acquirer"),
        )


def read(sources: Sources, progress: Callable[[str], None] = lambda name: None) -> Books:
    """All books; 100,000 orders take a few seconds. `progress` is told which database is next.

    Each database is read in one transaction, those that are written last first: so whatever a book
    refers to has been written when that is read. Raises UserError naming a database that is not
    there or can't be read.
    """
    read_at_us = time.time_ns() // 1000
    progress("acquirer")
    with _snapshot("acquirer", sources.acquirer) as query:
        entries = query(_ENTRIES, lambda row: Entry(*row))
    progress("product")
    with _snapshot("product", sources.product) as query:
        stock = query(_STOCK, lambda row: Stock(*row))
        reservations = query(_RESERVATIONS, _reservation)
    progress("payment")
    with _snapshot("payment", sources.payment) as query:
        payments = query(_PAYMENTS, _payment)
    progress("order")
    with _snapshot("order", sources.order) as query:
        steps = query(_STEPS, lambda row: Step(*row))
        orders = query(_ORDERS, _order)
    return Books(orders, steps, payments, entries, reservations, stock, read_at_us)


_ORDERS = """SELECT id, customer_id, idempotency_key, status, step, CAST(lines AS TEXT),
    total_minor, currency, payment_id, CAST(failure AS TEXT), traceparent, created_at_us,
    updated_at_us, attempts FROM orders ORDER BY id"""
_STEPS = (
    "SELECT order_id, seq, at_us, status, step, attempts FROM order_steps ORDER BY order_id, seq"
)
_PAYMENTS = """SELECT id, idempotency_key, order_id, amount_minor, currency, status, traceparent,
    created_at_ms, updated_at_ms FROM payments ORDER BY created_at_ms, id"""
_ENTRIES = """SELECT seq, kind, key, charge_key, status, amount_minor, currency, reference,
    created_at FROM entries ORDER BY seq"""
_RESERVATIONS = "SELECT id, status, lines, expires_at_ms FROM reservations ORDER BY id"
_STOCK = "SELECT sku, stock FROM products ORDER BY sku"

T = TypeVar("T")
Row = Sequence[Any]
Execute = Callable[[str], Iterable[Row]]


class _Query:
    """Rows of a statement, each made into what `make` makes of it."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def __call__(self, statement: str, make: Callable[[Row], T]) -> tuple[T, ...]:
        return tuple(make(row) for row in self._execute(statement))


@contextmanager
def _snapshot(name: str, url: str) -> Iterator[_Query]:
    """One read-only transaction; raises UserError."""
    try:
        with (_sqlite if url.startswith(_SQLITE) else _postgresql)(name, url) as query:
            yield query
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the {name} database has a row that no service wrote: {error}") from None


@contextmanager
def _sqlite(name: str, url: str) -> Iterator[_Query]:
    file = Path(url.removeprefix(_SQLITE))
    if not file.exists():
        raise UserError(
            f"there is no {name} database at {file}; {command('up')} makes it, and PROVE_HOME says "
            "which stack is meant"
        )
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN")
            yield _Query(connection.execute)
    except sqlite3.Error as error:
        raise UserError(f"the {name} database {file} cannot be read: {error}") from None


@contextmanager
def _postgresql(name: str, url: str) -> Iterator[_Query]:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            # The statements are this module's own; psycopg's type wants them literal.
            yield _Query(cast(Execute, connection.execute))
    except psycopg.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the {name} database cannot be read: {reason}") from None


def _order(row: Row) -> Order:
    (
        order_id, customer, key, status, step, lines, total, currency, payment_id, failure,
        traceparent, created, updated, attempts,
    ) = row  # fmt: skip
    return Order(
        id=order_id,
        customer=customer,
        key=key,
        status=status,
        step=step,
        lines=tuple(
            (line["sku"], line["quantity"], line["price_minor"]) for line in json.loads(lines)
        ),
        total_minor=total,
        currency=currency,
        payment_id=payment_id,
        failure=json.loads(failure)["code"] if failure else None,
        trace_id=_trace_id(traceparent),
        created_at_us=created,
        updated_at_us=updated,
        attempts=attempts,
    )


def _payment(row: Row) -> Payment:
    *columns, traceparent, created_ms, updated_ms = row
    payment_id, key, order_id, amount_minor, currency, status = columns
    return Payment(
        id=payment_id,
        key=key,
        order_id=order_id,
        amount_minor=amount_minor,
        currency=currency,
        status=status,
        trace_id=_trace_id(traceparent),
        created_at_us=created_ms * 1000,
        updated_at_us=updated_ms * 1000,
    )


def _reservation(row: Row) -> Reservation:
    reservation_id, status, lines, expires_at_ms = row
    return Reservation(
        reservation_id,
        status,
        tuple((line["sku"], line["quantity"]) for line in json.loads(lines)),
        expires_at_ms,
    )


def _trace_id(traceparent: str | None) -> str:
    """Of a W3C traceparent: version-trace-parent-flags."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else ""
