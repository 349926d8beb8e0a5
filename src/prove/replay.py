"""From sales lines to orders that are placed again, as they were and when they were (pure).

An invoice is an order of its customer (`guest-<invoice>` where none is named). Lines of one product
are added up, to 10,000 at most; a basket of more than 500 products becomes several orders at the
same time. The files tell minutes only, so invoices of one minute are spread evenly over it.
"""

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from prove.loadtest import MAX_QUANTITY, Operation, Request, order_body, payment_methods, split
from prove.retail import Sale

MINUTE_S = 60.0
_CUSTOMER = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Invoice:
    """One real basket."""

    number: str
    customer: str
    sold_at: datetime
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def customer_id(self) -> str:
        """As the shop takes it; spreadsheets write 17850 as 17850.0."""
        customer = self.customer.removesuffix(".0")
        return customer if _CUSTOMER.fullmatch(customer) else f"guest-{self.number}"


@dataclass
class Invoices:
    """Collects the sales of products that are `known`, and counts the lines of others."""

    known: Container[str]
    unknown_lines: int = 0
    _by_number: dict[str, Invoice] = field(default_factory=dict)

    def add(self, sale: Sale) -> None:
        """Put a line into its basket."""
        if sale.sku not in self.known:
            self.unknown_lines += 1
            return
        invoice = self._by_number.get(sale.invoice)
        if invoice is None:
            invoice = Invoice(sale.invoice, sale.customer, sale.sold_at)
            self._by_number[sale.invoice] = invoice
        quantity = invoice.lines.get(sale.sku, 0) + sale.quantity
        invoice.lines[sale.sku] = min(quantity, MAX_QUANTITY)

    def __len__(self) -> int:
        return len(self._by_number)

    def timed(self) -> Iterator[tuple[float, Invoice]]:
        """Invoices with their seconds since the first, in that order."""
        minutes: dict[datetime, list[Invoice]] = defaultdict(list)
        for invoice in self._by_number.values():
            minutes[invoice.sold_at].append(invoice)
        for minute in (times := sorted(minutes)):
            since_s = (minute - times[0]).total_seconds()
            for position, invoice in enumerate(minutes[minute]):
                yield since_s + MINUTE_S * position / len(minutes[minute]), invoice


def requests(
    timed: Iterable[tuple[float, Invoice]], speed: float, seed: int, decline: float
) -> list[Request]:
    """The orders, `speed` times as fast as they came."""
    methods = payment_methods(seed, decline)
    return [
        Request(
            Operation.CHECKOUT,
            body=order_body(invoice.customer_id, lines, next(methods)),
            at_ms=round(1000 * at_s / speed),
        )
        for at_s, invoice in timed
        for lines in split(invoice.lines)
    ]
