"""Does what the clients saw agree with the books? (pure)

The books must agree with each other (`prove.verify.audit`), and with every answer that a client
got: what was confirmed exists once, what was refused left nothing, and an answer that never came
left one order or none. Two sums follow from that, and are checked all the same: the money, and
stock = stock at the start - goods of confirmed orders. The latter is checked as stock = start -
goods that reservations keep, for each confirmed order has been found to keep its own and no other
to keep any; so a wrong order is told once, not once more for each of its products.
"""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from prove.errors import UserError
from prove.units import money
from prove.verify import audit
from prove.verify.audit import Index, Kind
from prove.verify.books import Books, Order
from prove.verify.history import Event
from prove.verify.plan import Product

STORY_LINES = 25
STORY_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise, about one order, purchase or product.

    `op` is None where no purchase is concerned; `subject` is the id of what it is about (order,
    payment, key of the ledger, sku). `also` names lesser violations of the same order.
    """

    kind: Kind
    op: int | None
    order_id: str
    trace_id: str
    subject: str
    at_unix_us: int
    expected: str
    found: str
    also: tuple[Kind, ...] = ()


@dataclass(slots=True)
class _Purchase:
    """What the history tells of one purchase."""

    op: int
    key: str
    customer: str
    lines: Counter[str]
    ends: list[Event] = field(default_factory=list)
    cancels: int = 0
    orders: dict[str, Order] = field(default_factory=dict)

    def answers(self, kind: str, *types: str) -> list[Event]:
        return [end for end in self.ends if end.kind == kind and end.type in types]


def check(books: Books, products: Sequence[Product], events: Sequence[Event]) -> list[Violation]:
    """All violations, the gravest kind first, then by time.

    `books` are those after the drain, `products` the catalogue with the stock of the start.
    Raises UserError when the history is not whole (an end without its beginning).
    """
    checker = _Checker(books, products, events)
    violations = _told_once(checker.violations())
    if not violations:
        violations = list(checker.sums())
    return sorted(violations, key=lambda v: (audit.gravity(v.kind), v.at_unix_us))


def _told_once(violations: Iterable[Violation]) -> list[Violation]:
    """One violation an order: its gravest, which names the others."""
    by_subject: dict[str, list[Violation]] = defaultdict(list)
    for violation in violations:
        by_subject[violation.order_id or violation.subject].append(violation)
    told = []
    for same in by_subject.values():
        same.sort(key=lambda v: (audit.gravity(v.kind), v.at_unix_us))
        others = dict.fromkeys(v.kind for v in same if v.kind is not same[0].kind)
        told.append(replace(same[0], also=tuple(others)))
    return told


class _Checker:
    def __init__(self, books: Books, products: Sequence[Product], events: Sequence[Event]) -> None:
        self.books = books
        self.products = products
        self.prices = {product.sku: product.price_minor for product in products}
        self.index = Index(books)
        self.purchases = _purchases(events)
        self.customers = {purchase.customer for purchase in self.purchases.values()}
        self.op_of = _assign(self.purchases, books)

    def violations(self) -> Iterator[Violation]:
        for difference in audit.audit(self.books):
            yield Violation(
                kind=difference.kind,
                op=self.op_of.get(difference.order_id),
                order_id=difference.order_id,
                trace_id=difference.trace_id,
                subject=difference.subject,
                at_unix_us=difference.at_unix_us,
                expected=difference.expected,
                found=difference.found,
            )
        for purchase in self.purchases.values():
            yield from self._purchase(purchase)
        for order in self.books.orders:
            if order.id not in self.op_of:
                yield from self._unasked(order)
        yield from self._stock()

    # -- one purchase

    def _purchase(self, purchase: _Purchase) -> Iterator[Violation]:
        for order in purchase.orders.values():
            yield from self._as_asked(purchase, order)
        kept = sorted(
            order.id for order in purchase.orders.values() if not _gave_its_key_back(order)
        )
        if len(kept) > 1:
            yield self._violation(
                Kind.DUPLICATE_ORDER,
                purchase,
                kept[-1],
                f"one order of {purchase.customer} under key {purchase.key}",
                f"{len(kept)} orders: {audit.listed(kept)}",
            )
        else:
            yield from self._one_order(purchase)
        yield from self._named(purchase)
        yield from self._answers(purchase)
        for ok in purchase.answers("order", "ok"):
            yield from self._ok(purchase, ok)
        for fail in purchase.answers("order", "fail"):
            for order in purchase.orders.values():
                if order.status == "confirmed":
                    yield self._violation(
                        Kind.FAIL_NOT_KEPT,
                        purchase,
                        order.id,
                        f"nothing left of a purchase that was answered {fail.status}",
                        "its order is confirmed",
                        fail,
                    )
        yield from self._cancels(purchase)

    def _as_asked(self, purchase: _Purchase, order: Order) -> Iterator[Violation]:
        ordered = audit.quantities((sku, quantity) for sku, quantity, _ in order.lines)
        if (order.customer, ordered) != (purchase.customer, purchase.lines):
            yield self._violation(
                Kind.WRONG_ORDER,
                purchase,
                order.id,
                f"as {purchase.customer} asked: {audit.goods(purchase.lines)}",
                f"an order of {order.customer}: {audit.goods(ordered)}",
            )
        wrong = next(
            (
                (sku, price)
                for sku, _, price in order.lines
                if order.status == "confirmed" and price != self.prices.get(sku)
            ),
            None,
        )
        if wrong:
            yield self._violation(
                Kind.WRONG_AMOUNT,
                purchase,
                order.id,
                f"the catalogue's price of {wrong[0]}: {self.prices.get(wrong[0])} minor units",
                f"{wrong[1]}",
            )
        refused = len(purchase.answers("cancel", "fail"))
        if order.status == "cancelled" and purchase.cancels == refused:
            yield self._violation(
                Kind.WRONG_ORDER,
                purchase,
                order.id,
                "no cancellation, as " + ("it was refused" if refused else "nobody asked for one"),
                "the order is cancelled",
            )

    def _answers(self, purchase: _Purchase) -> Iterator[Violation]:
        """Every final answer to one key is the first one again."""
        finals = [end for end in purchase.answers("order", "ok", "fail") if end.body_sha256]
        for other in finals[1:]:
            first = finals[0]
            if (other.status, other.body_sha256) != (first.status, first.body_sha256):
                yield self._violation(
                    Kind.ANSWERS_DIFFER,
                    purchase,
                    other.order_id or first.order_id,
                    f"the first answer to key {purchase.key} again: {_answer(first)}",
                    _answer(other),
                    other,
                )

    def _one_order(self, purchase: _Purchase) -> Iterator[Violation]:
        """An order that an answer left open is the one of the final answer.

        Unless it gave the key back: a state whose recording failed was recorded after all, say.
        """
        final = next((end for end in purchase.answers("order", "ok", "fail") if end.order_id), None)
        for left_open in purchase.answers("order", "info"):
            order = purchase.orders.get(left_open.order_id)
            if final is None or order is None or order.id == final.order_id:
                continue
            if not _gave_its_key_back(order):
                yield self._violation(
                    Kind.ANSWERS_DIFFER,
                    purchase,
                    final.order_id,
                    f"a final answer about order {order.id}, which was answered {left_open.status}",
                    _answer(final),
                    final,
                )
                return

    def _named(self, purchase: _Purchase) -> Iterator[Violation]:
        """Whatever an answer named is in the books, however it ended."""
        first = {
            end.order_id: end
            for end in reversed(purchase.answers("order", "ok", "fail", "info"))
            if end.order_id or end.type == "ok"
        }
        for end in first.values():
            if end.order_id not in purchase.orders:
                yield self._violation(
                    Kind.LOST_ORDER,
                    purchase,
                    end.order_id,
                    f"order {end.order_id or 'without an id'}, which was answered {end.status}",
                    "no such order in the books",
                    end,
                )

    def _ok(self, purchase: _Purchase, ok: Event) -> Iterator[Violation]:
        order = purchase.orders.get(ok.order_id)
        if order is None:
            return  # told as lost
        if order.status not in ("confirmed", "cancelled"):
            why = f" ({order.failure})" if order.failure else ""
            yield self._violation(
                Kind.OK_NOT_KEPT,
                purchase,
                order.id,
                f"a confirmed order, as was answered ({ok.status})",
                f"it is {order.status}{why}",
                ok,
            )
        if ok.total_minor is not None and ok.total_minor != order.total_minor:
            yield self._violation(
                Kind.WRONG_AMOUNT,
                purchase,
                order.id,
                f"a total of {money(ok.total_minor, order.currency)}, as was answered",
                f"{money(order.total_minor, order.currency)}",
                ok,
            )

    def _cancels(self, purchase: _Purchase) -> Iterator[Violation]:
        for ok in purchase.answers("cancel", "ok"):
            order = purchase.orders.get(ok.order_id)
            if order is None:
                yield self._violation(
                    Kind.LOST_ORDER,
                    purchase,
                    ok.order_id,
                    f"order {ok.order_id}, the cancellation of which was answered {ok.status}",
                    "no such order in the books",
                    ok,
                )
            elif order.status != "cancelled":
                yield self._violation(
                    Kind.CANCEL_NOT_KEPT,
                    purchase,
                    order.id,
                    f"a cancelled order, as was answered ({ok.status})",
                    f"it is {order.status}",
                    ok,
                )

    def _unasked(self, order: Order) -> Iterator[Violation]:
        if _gave_its_key_back(order) and order.customer in self.customers:
            return  # whether or not the client saw its 503
        yield Violation(
            kind=Kind.UNKNOWN_ORDER,
            op=None,
            order_id=order.id,
            trace_id=order.trace_id,
            subject=order.id,
            at_unix_us=order.created_at_us,
            expected=f"a client that asked for it ({order.customer}, key {order.key or 'none'})",
            found=f"nobody did; it is {order.status}",
        )

    # -- sums

    def _stock(self) -> Iterator[Violation]:
        kept = audit.quantities(
            line
            for reservation in self.books.reservations
            if reservation.status in ("held", "committed")
            for line in reservation.lines
        )
        free = {stock.sku: stock.quantity for stock in self.books.stock}
        for product in self.products:
            expected, found = product.stock - kept[product.sku], free.get(product.sku)
            if found is not None and found < 0:
                continue  # told by the audit
            if found != expected:
                kind = Kind.OVERSOLD if found is not None and found > expected else Kind.STOCK_LEAK
                yield self._of_shop(
                    kind,
                    product.sku,
                    f"stock of {product.sku}: {product.stock} - {kept[product.sku]} = {expected}",
                    "no such product" if found is None else f"{found}",
                )

    def sums(self) -> Iterator[Violation]:
        """What no order explains."""
        for currency, sums in audit.money_by_currency(self.books).items():
            if sums.net != sums.confirmed:
                yield self._of_shop(
                    Kind.SUMS_DIFFER,
                    currency,
                    f"{money(sums.confirmed, currency)} kept, the sum of confirmed orders",
                    f"{money(sums.captured, currency)} charged,"
                    f" {money(sums.refunded, currency)} refunded",
                )

    def _of_shop(self, kind: Kind, subject: str, expected: str, found: str) -> Violation:
        at_us = self.books.read_at_us
        return Violation(kind, None, "", "", subject, at_us, expected, found)

    def _violation(
        self,
        kind: Kind,
        purchase: _Purchase,
        order_id: str,
        expected: str,
        found: str,
        event: Event | None = None,
    ) -> Violation:
        order = self.index.orders.get(order_id)
        at_us = event.at_unix_us if event else order.updated_at_us if order else 0
        return Violation(
            kind=kind,
            op=purchase.op,
            order_id=order_id,
            trace_id=order.trace_id if order else "",
            subject=order_id or purchase.key,
            at_unix_us=at_us,
            expected=expected,
            found=found,
        )


def _purchases(events: Iterable[Event]) -> dict[int, _Purchase]:
    """Raises UserError when an attempt ends that didn't begin, or twice."""
    purchases: dict[int, _Purchase] = {}
    open_attempts: set[tuple[int, str, int]] = set()
    for event in events:
        attempt = (event.op, event.kind, event.attempt)
        purchase = purchases.get(event.op)
        if event.type == "invoke":
            if purchase is None:
                lines = audit.quantities(event.lines)
                purchase = _Purchase(event.op, event.key, event.customer, lines)
                purchases[event.op] = purchase
            purchase.cancels += event.kind == "cancel"
            open_attempts.add(attempt)
        elif purchase is None or attempt not in open_attempts:
            raise UserError(
                f"the history is not whole: {event.kind} {event.op}, attempt {event.attempt}, "
                "ends without a beginning"
            )
        else:
            open_attempts.remove(attempt)
            purchase.ends.append(event)
    return purchases


def _assign(purchases: dict[int, _Purchase], books: Books) -> dict[str, int]:
    """Gives each purchase its orders: those under its key, and those its answers named."""
    by_key = {(purchase.customer, purchase.key): purchase for purchase in purchases.values()}
    named = {
        end.order_id: purchase
        for purchase in purchases.values()
        for end in purchase.ends
        if end.order_id
    }
    ops = {order_id: purchase.op for order_id, purchase in named.items()}
    for order in books.orders:
        purchase = by_key.get((order.customer, order.key or "")) or named.get(order.id)
        if purchase is not None:
            purchase.orders[order.id] = order
            ops[order.id] = purchase.op
    return ops


def _gave_its_key_back(order: Order) -> bool:
    """Whether it ended in 503: the next attempt makes another order."""
    return order.key is None and order.status == "rejected"


def _answer(end: Event) -> str:
    return f"{end.status} {end.body_sha256[:12]} {end.order_id}".strip()


# -- the story


def story(violation: Violation, books: Books, events: Sequence[Event]) -> str:
    """What happened around one violation, in order of time: at most 25 lines of 100 columns."""
    told = [event for event in events if violation.op is not None and event.op == violation.op]
    order_ids = {event.order_id for event in told} | {violation.order_id}
    key = (told[0].customer, told[0].key) if told else None
    order_ids |= {order.id for order in books.orders if (order.customer, order.key) == key}
    order_ids.discard("")
    moments = [(event.at_unix_us, "client", _told_by_client(event)) for event in told]
    moments += _told_by_books(books, order_ids, violation.subject)
    moments.sort(key=lambda moment: moment[0])
    about = f"order {violation.order_id}" if violation.order_id else violation.subject
    also = f" (also {', '.join(violation.also)})" if violation.also else ""
    head = [
        f"{violation.kind}: {about}{also}",
        *_wrapped("  expected: ", violation.expected),
        *_wrapped("  found:    ", violation.found),
    ]
    if violation.trace_id:
        head.append(f"  trace:    {violation.trace_id}")
    if moments:
        begun = datetime.fromtimestamp(moments[0][0] / 1e6, UTC)
        head.append(f"  seconds since {begun:%Y-%m-%dT%H:%M:%S.%fZ}:")
    body = [
        f"  {(at_us - moments[0][0]) / 1e6:9.3f}  {who:<11}  {what}" for at_us, who, what in moments
    ]
    tail = [
        f"  at the end  product      reservation {reservation.id} is {reservation.status}"
        for reservation in books.reservations
        if reservation.id in order_ids
    ]
    room = STORY_LINES - len(head) - min(len(tail), 3)
    lines = [*head, *_shortened(body, room), *tail[:3]]
    return "\n".join(_cut(line) for line in lines)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        STORY_COLUMNS,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        max_lines=3,
        placeholder=" …",
    )


def _told_by_client(event: Event) -> str:
    what = f"{event.kind}, attempt {event.attempt}"
    if event.type == "invoke":
        goods = f" {audit.goods(audit.quantities(event.lines))}" if event.lines else ""
        return f"asks: {what}, key {event.key}{goods} {event.method}".rstrip()
    answer = str(event.status) if event.status else "no answer"
    replayed = ", replayed" if event.replayed else ""
    order = f" order {event.order_id}" if event.order_id else ""
    return f"{event.type}: {what}: {answer}{replayed}{order} {event.detail}".rstrip()


def _told_by_books(
    books: Books, order_ids: set[str], subject: str
) -> Iterator[tuple[int, str, str]]:
    several = len(order_ids) > 1
    for step in books.steps:
        if step.order_id in order_ids:
            of = f" (order …{step.order_id[-6:]})" if several else ""
            todo = f", to do: {step.step}" if step.step else ""
            yield step.at_us, "order", f"{step.status}{todo}, attempt {step.attempts}{of}"
    keys = {subject}
    for payment in books.payments:
        if payment.order_id in order_ids or payment.id == subject:
            keys.add(payment.id)
            amount = money(payment.amount_minor, payment.currency)
            yield payment.created_at_us, "payment", f"{payment.id} opened, {amount}"
            yield payment.updated_at_us, "payment", f"{payment.id} is {payment.status} since"
    for entry in books.entries:
        if entry.reference in order_ids or entry.key in keys or entry.charge_key in keys:
            amount = money(entry.amount_minor, entry.currency)
            yield entry.created_at_us, "acquirer", f"{entry.kind} {entry.status}, {amount}"


def _shortened(lines: list[str], room: int) -> list[str]:
    """The beginning and the end, where a story is told."""
    if len(lines) <= room:
        return lines
    first = room // 2
    last = room - first - 1
    left_out = f"  … {len(lines) - first - last} more …"
    return [*lines[:first], left_out, *lines[-last:]]


def _cut(line: str) -> str:
    return line if len(line) <= STORY_COLUMNS else f"{line[: STORY_COLUMNS - 1]}…"
