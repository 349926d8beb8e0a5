"""Do the books agree with each other? (pure) Orders, payments, ledger, reservations, stock."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TypeVar

from prove.units import money
from prove.verify.books import Books, Entry, Order, Payment, Reservation, Step

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

TRANSITIONS: dict[str, frozenset[str]] = {
    "pending": frozenset({"reserved", "rejected", "cancelled"}),
    "reserved": frozenset({"paid", "rejected", "cancelled"}),
    "paid": frozenset({"confirmed", "rejected", "cancelled"}),
    "confirmed": frozenset({"cancelled"}),
    "rejected": frozenset(),
    "cancelled": frozenset(),
}
"""From each status of an order to those that may follow it."""

FINAL = frozenset({"confirmed", "rejected", "cancelled"})
_UNSETTLED = frozenset({"pending", "cancelling", "refund_pending"})


class Kind(StrEnum):
    """What can be wrong, the gravest first.

    Those of the clients' history are the checker's; those of the run as a whole are the conduct's.
    """

    LOST_ORDER = "lost-order"
    DOUBLE_CHARGE = "double-charge"
    DUPLICATE_ORDER = "duplicate-order"
    UNREFUNDED_CHARGE = "unrefunded-charge"
    OVER_REFUND = "over-refund"
    UNCHARGED_ORDER = "uncharged-order"
    REFUNDED_ORDER = "refunded-order"
    WRONG_AMOUNT = "wrong-amount"
    SUMS_DIFFER = "sums-differ"
    OK_NOT_KEPT = "ok-not-kept"
    FAIL_NOT_KEPT = "fail-not-kept"
    CANCEL_NOT_KEPT = "cancel-not-kept"
    WRONG_ORDER = "wrong-order"
    UNKNOWN_ORDER = "unknown-order"
    NEGATIVE_STOCK = "negative-stock"
    OVERSOLD = "oversold"
    STOCK_LEAK = "stock-leak"
    UNCOMMITTED_STOCK = "uncommitted-stock"
    STOCK_HELD = "stock-held"
    ANSWERS_DIFFER = "answers-differ"
    WRONG_REFUSAL = "wrong-refusal"
    DUPLICATE_ID = "duplicate-id"
    STUCK_ORDER = "stuck-order"
    STUCK_PAYMENT = "stuck-payment"
    UNKNOWN_PAYMENT = "unknown-payment"
    UNKNOWN_ENTRY = "unknown-entry"
    UNKNOWN_RESERVATION = "unknown-reservation"
    PAYMENT_DIFFERS = "payment-differs"
    IMPOSSIBLE_HISTORY = "impossible-history"
    UNANSWERED = "unanswered"
    TOO_FEW_KILLS = "too-few-kills"


OF_THE_RUN = frozenset({Kind.UNANSWERED, Kind.TOO_FEW_KILLS})
"""These say that a run proves less than it should, not that a promise was broken."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Books that don't agree; `subject` is the id of what it is about (order, payment, sku …)."""

    kind: Kind
    subject: str
    order_id: str
    trace_id: str
    at_unix_us: int
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Money:
    """Sums of one currency, in minor units: by the acquirer's ledger, and of confirmed orders."""

    captured: int = 0
    refunded: int = 0
    confirmed: int = 0

    @property
    def net(self) -> int:
        """What the shop has got."""
        return self.captured - self.refunded


def money_by_currency(books: Books) -> dict[str, Money]:
    """The sums of all books, by ISO 4217 code."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in books.entries:
        if entry.status == "approved":
            column = "captured" if entry.kind == "charge" else "refunded"
            sums[entry.currency][column] += entry.amount_minor
    for order in books.orders:
        if order.status == "confirmed":
            sums[order.currency]["confirmed"] += order.total_minor
    return {currency: Money(**columns) for currency, columns in sorted(sums.items())}


def quantities(lines: Iterable[tuple[str, int]]) -> Counter[str]:
    """Pieces by sku."""
    pieces: Counter[str] = Counter()
    for sku, quantity in lines:
        pieces[sku] += quantity
    return pieces


class Index:
    """The books by order."""

    def __init__(self, books: Books) -> None:
        self.orders = {order.id: order for order in books.orders}
        self.steps = _grouped(books.steps, lambda step: step.order_id)
        self.payments = _grouped(books.payments, lambda payment: payment.order_id)
        self.payment_by_id = {payment.id: payment for payment in books.payments}
        self.reservations = {reservation.id: reservation for reservation in books.reservations}
        self.charges = _grouped(
            (entry for entry in books.entries if entry.kind == "charge"),
            lambda entry: entry.reference,
        )
        self.charge_by_key = {entry.key: entry for entry in books.entries if entry.kind == "charge"}
        self.refunds = _grouped(
            (entry for entry in books.entries if entry.kind == "refund"),
            lambda entry: entry.charge_key,
        )

    def captured(self, order_id: str) -> list[Entry]:
        """The approved charges of an order."""
        return [entry for entry in self.charges.get(order_id, ()) if entry.status == "approved"]

    def refunded(self, charges: Iterable[Entry]) -> int:
        """What was given back of some charges, in minor units."""
        return sum(
            refund.amount_minor
            for charge in charges
            for refund in self.refunds.get(charge.key, ())
            if refund.status == "approved"
        )


def audit(books: Books, grace_s: float | None = None) -> list[Difference]:
    """All differences, the gravest kind first.

    On a running shop, what changed less than `grace_s` before the books were read is in progress
    and not judged, except by what no later step can put right. None: nothing moves any more.
    """
    return sorted(_Audit(books, grace_s).differences(), key=lambda found: _GRAVITY[found.kind])


_GRAVITY = {kind: number for number, kind in enumerate(Kind)}


def gravity(kind: Kind) -> int:
    """0 is the gravest."""
    return _GRAVITY[kind]


class _Audit:
    def __init__(self, books: Books, grace_s: float | None) -> None:
        self.books = books
        self.index = Index(books)
        self._settled_us = None if grace_s is None else books.read_at_us - int(grace_s * 1e6)

    def differences(self) -> Iterator[Difference]:
        yield from self._duplicates()
        for order in self.books.orders:
            yield from self._order(order)
        for payment in self.books.payments:
            if payment.order_id not in self.index.orders:
                yield self._unknown_payment(payment)
            elif self._settled(payment.updated_at_us):
                yield from self._payment(payment)
        for entry in self.books.entries:
            yield from self._entry(entry)
        for reservation in self.books.reservations:
            yield from self._reservation(reservation)
        for stock in self.books.stock:
            if stock.quantity < 0:
                yield Difference(
                    Kind.NEGATIVE_STOCK,
                    stock.sku,
                    "",
                    "",
                    self.books.read_at_us,
                    f"stock of {stock.sku} of 0 at least",
                    f"{stock.quantity}",
                )

    def _settled(self, changed_at_us: int) -> bool:
        return self._settled_us is None or changed_at_us <= self._settled_us

    # -- ids

    def _duplicates(self) -> Iterator[Difference]:
        books = self.books
        ids: tuple[tuple[str, Iterable[str]], ...] = (
            ("order", (order.id for order in books.orders)),
            ("payment", (payment.id for payment in books.payments)),
            ("reservation", (reservation.id for reservation in books.reservations)),
            ("ledger entry", (f"{entry.kind} {entry.key}" for entry in books.entries)),
        )
        for what, all_ids in ids:
            for one, count in Counter(all_ids).items():
                if count > 1:
                    order_id = one if one in self.index.orders else ""
                    yield self._difference(
                        Kind.DUPLICATE_ID,
                        order_id,
                        f"one {what} of id {one}",
                        f"{count} of them",
                        subject=one,
                    )
        keys = _grouped(
            (order for order in books.orders if order.key is not None),
            lambda order: (order.customer, order.key),
        )
        for (customer, key), orders in keys.items():
            distinct = {order.id for order in orders}
            if len(distinct) > 1:
                yield self._difference(
                    Kind.DUPLICATE_ORDER,
                    max(distinct),
                    f"one order of {customer} under key {key}",
                    f"{len(distinct)} orders: {listed(sorted(distinct))}",
                )

    # -- orders

    def _order(self, order: Order) -> Iterator[Difference]:
        charges = self.index.captured(order.id)
        captured = sum(charge.amount_minor for charge in charges)
        refunded = self.index.refunded(self.index.charges.get(order.id, ()))
        if len(charges) > 1:
            yield self._difference(
                Kind.DOUBLE_CHARGE,
                order.id,
                "one charge at most",
                f"{len(charges)} approved charges, {money(captured, order.currency)} in all"
                f" (keys {listed([charge.key for charge in charges])})",
            )
        if refunded > captured:
            yield self._difference(
                Kind.OVER_REFUND,
                order.id,
                f"refunds of {money(captured, order.currency)} at most, as was charged",
                f"refunds of {money(refunded, order.currency)}",
            )
        steps = self.index.steps.get(order.id, [])
        if not self._settled(_since_us(order, steps)):
            return
        yield from self._steps(order, steps)
        if order.step or order.status not in FINAL:
            yield self._difference(
                Kind.STUCK_ORDER,
                order.id,
                "an order that is finished",
                f"status {order.status}, step {order.step or 'none'} not done,"
                f" attempt {order.attempts}",
            )
            return
        if len(charges) <= 1 and refunded <= captured:
            yield from self._money(order, charges, captured, refunded)
        yield from self._goods(order)

    def _steps(self, order: Order, steps: list[Step]) -> Iterator[Difference]:
        expected = found = ""
        statuses = [step.status for step in steps]
        wrong = next(
            (
                (before, after)
                for before, after in pairwise(statuses)
                if before != after and after not in TRANSITIONS.get(before, ())
            ),
            None,
        )
        if not steps:
            expected, found = "a record of its steps", "none"
        elif statuses[0] != "pending":
            expected, found = "a history that begins as pending", f"it begins as {statuses[0]}"
        elif len({step.seq for step in steps}) < len(steps):
            expected, found = "one step of a number", "two steps of the same number"
        elif wrong:
            allowed = listed(sorted(TRANSITIONS.get(wrong[0], ()))) or "nothing"
            expected, found = f"after {wrong[0]}: {allowed}", f"{wrong[0]} → {wrong[1]}"
        elif (statuses[-1], steps[-1].step) != (order.status, order.step):
            expected = f"a last step as the order is: {_state(order.status, order.step)}"
            found = _state(statuses[-1], steps[-1].step)
        if found:
            yield self._difference(Kind.IMPOSSIBLE_HISTORY, order.id, expected, found)

    def _money(
        self, order: Order, charges: list[Entry], captured: int, refunded: int
    ) -> Iterator[Difference]:
        total = money(order.total_minor, order.currency)
        if order.status != "confirmed":
            if captured != refunded:
                yield self._difference(
                    Kind.UNREFUNDED_CHARGE,
                    order.id,
                    f"nothing kept of a {order.status} order",
                    f"{money(captured, order.currency)} charged,"
                    f" {money(refunded, order.currency)} refunded",
                )
            return
        of_lines = sum(quantity * price for _, quantity, price in order.lines)
        if not charges and order.total_minor:
            yield self._difference(
                Kind.UNCHARGED_ORDER,
                order.id,
                f"a charge of {total} for a confirmed order",
                "no approved charge in the acquirer's ledger",
            )
        elif refunded:
            yield self._difference(
                Kind.REFUNDED_ORDER,
                order.id,
                f"{total} kept for a confirmed order",
                f"{money(refunded, order.currency)} of it refunded",
            )
        elif charges and (captured, charges[0].currency) != (order.total_minor, order.currency):
            yield self._difference(
                Kind.WRONG_AMOUNT,
                order.id,
                f"a charge of {total}, the order's total",
                f"a charge of {money(captured, charges[0].currency)}",
            )
        elif of_lines != order.total_minor:
            yield self._difference(
                Kind.WRONG_AMOUNT,
                order.id,
                f"a total of {money(of_lines, order.currency)}, as its lines sum up to",
                f"a total of {total}",
            )
        paid = [p for p in self.index.payments.get(order.id, ()) if p.status == "captured"]
        if charges and order.payment_id not in {payment.id for payment in paid}:
            yield self._difference(
                Kind.PAYMENT_DIFFERS,
                order.id,
                f"the captured payment that a confirmed order names ({order.payment_id or 'none'})",
                listed([payment.id for payment in paid]) or "no captured payment",
            )

    def _goods(self, order: Order) -> Iterator[Difference]:
        reservation = self.index.reservations.get(order.id)
        status = reservation.status if reservation else "missing"
        if order.status != "confirmed":
            if status in ("held", "committed"):
                yield self._difference(
                    Kind.STOCK_HELD,
                    order.id,
                    f"no goods kept for a {order.status} order",
                    f"its reservation is {status}",
                )
        elif status != "committed":
            yield self._difference(
                Kind.UNCOMMITTED_STOCK,
                order.id,
                "a committed reservation for a confirmed order",
                f"its reservation is {status}",
            )
        elif reservation and (
            ours := quantities((sku, count) for sku, count, _ in order.lines)
        ) != (theirs := quantities(reservation.lines)):
            yield self._difference(
                Kind.UNCOMMITTED_STOCK,
                order.id,
                f"goods taken as ordered: {goods(ours)}",
                f"taken: {goods(theirs)}",
            )

    # -- the others' books

    def _payment(self, payment: Payment) -> Iterator[Difference]:
        order = self.index.orders[payment.order_id]
        if not self._settled(order.updated_at_us):
            return
        about = payment.order_id
        if payment.status in _UNSETTLED:
            if not order.step:
                yield self._difference(
                    Kind.STUCK_PAYMENT,
                    about,
                    "a settled payment of a finished order",
                    f"payment {payment.id} is {payment.status}",
                    subject=payment.id,
                )
            return
        charge = self.index.charge_by_key.get(payment.id)
        found = "the acquirer's ledger has no such charge"
        if charge is None:
            agrees = payment.status in ("cancelled", "failed")
        else:
            refunded = self.index.refunded([charge])
            fits = {
                "captured": charge.status == "approved" and not refunded,
                "refunded": charge.status == "approved" and refunded > 0,
                "declined": charge.status == "declined",
            }
            agrees = fits.get(payment.status, False) and charge.reference == about
            found = (
                f"the acquirer's ledger: {charge.status} for order {charge.reference},"
                f" {money(refunded, charge.currency)} refunded"
            )
        if not agrees:
            expected = f"in the ledger what payment {payment.id} says: {payment.status}"
            yield self._difference(Kind.PAYMENT_DIFFERS, about, expected, found, subject=payment.id)
        elif charge and (charge.amount_minor, charge.currency) != (
            payment.amount_minor,
            payment.currency,
        ):
            yield self._difference(
                Kind.WRONG_AMOUNT,
                about,
                f"a charge of {money(payment.amount_minor, payment.currency)},"
                f" as payment {payment.id} says",
                f"{money(charge.amount_minor, charge.currency)} in the acquirer's ledger",
                subject=payment.id,
            )

    def _unknown_payment(self, payment: Payment) -> Difference:
        return Difference(
            Kind.UNKNOWN_PAYMENT,
            payment.id,
            payment.order_id,
            payment.trace_id,
            payment.created_at_us,
            f"an order {payment.order_id} that this payment is for",
            f"none; the payment is {payment.status},"
            f" {money(payment.amount_minor, payment.currency)}",
        )

    def _entry(self, entry: Entry) -> Iterator[Difference]:
        what = f"{entry.status} {entry.kind} of {money(entry.amount_minor, entry.currency)}"
        if entry.kind == "charge" and entry.key not in self.index.payment_by_id:
            yield self._difference(
                Kind.UNKNOWN_ENTRY,
                entry.reference,
                f"a payment {entry.key} that this charge is for",
                f"none; the acquirer's ledger has a {what}",
                subject=entry.key,
                at_unix_us=entry.created_at_us,
            )
        if entry.kind == "refund" and entry.charge_key not in self.index.charge_by_key:
            yield self._difference(
                Kind.UNKNOWN_ENTRY,
                entry.reference,
                f"a charge {entry.charge_key} that this refund is of",
                f"none; the acquirer's ledger has a {what}",
                subject=entry.key,
                at_unix_us=entry.created_at_us,
            )

    def _reservation(self, reservation: Reservation) -> Iterator[Difference]:
        if reservation.status not in ("held", "committed"):
            return
        order = self.index.orders.get(reservation.id)
        if order is None:
            yield self._difference(
                Kind.UNKNOWN_RESERVATION,
                reservation.id,
                f"an order {reservation.id} that these goods are kept for",
                f"none; the reservation is {reservation.status}",
            )
        elif (
            reservation.status == "held"
            and order.status not in FINAL
            and self._settled(reservation.expires_at_ms * 1000)
            and reservation.expires_at_ms * 1000 < self.books.read_at_us
        ):
            yield self._difference(
                Kind.STOCK_HELD,
                reservation.id,
                "an expired reservation's goods given back",
                "it is held beyond its time",
            )

    def _difference(
        self,
        kind: Kind,
        order_id: str,
        expected: str,
        found: str,
        *,
        subject: str = "",
        at_unix_us: int | None = None,
    ) -> Difference:
        order = self.index.orders.get(order_id)
        if at_unix_us is None:
            at_unix_us = order.updated_at_us if order else self.books.read_at_us
        trace_id = order.trace_id if order else ""
        if not order and (payments := self.index.payments.get(order_id)):
            trace_id = payments[0].trace_id
        return Difference(
            kind, subject or order_id, order_id, trace_id, at_unix_us, expected, found
        )


def _since_us(order: Order, steps: list[Step]) -> int:
    """Since when an unfinished order has its status; when a finished one was finished.

    An order that is tried again and again changes all the time, and is stuck all the same.
    """
    if not order.step and order.status in FINAL:
        return order.updated_at_us
    since_us = order.updated_at_us
    for step in reversed(steps):
        if step.status != order.status:
            break
        since_us = step.at_us
    return since_us


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _state(status: str, step: str) -> str:
    return f"{status}, {step} to be done" if step else f"{status}, nothing to be done"


def goods(pieces: Counter[str]) -> str:
    """For people: `2 x MUG, 1 x PEN`."""
    return listed([f"{count} x {sku}" for sku, count in sorted(pieces.items())])


def listed(words: list[str], at_most: int = 4) -> str:
    """For people: the first few, and how many more."""
    more = f" and {len(words) - at_most} more" if len(words) > at_most else ""
    return ", ".join(words[:at_most]) + more
