"""A shop that makes no mistakes, simulated: the books and the history that a plan leaves behind."""

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from prove.verify import plan as planning
from prove.verify.books import Books, Entry, Order, Payment, Reservation, Step, Stock
from prove.verify.history import Event, Kind, Type
from prove.verify.plan import CURRENCY, Plan, Product, Purchase

T = TypeVar("T", Order, Payment, Reservation, Event, Entry, Step)
START_US = 1_800_000_000_000_000


def changed(item: T, **values: Any) -> T:
    """The same but for some values."""
    return replace(item, **values)


@dataclass
class World:
    """Everything may be changed: that is what corruptions do."""

    products: tuple[Product, ...]
    orders: dict[str, Order] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    payments: dict[str, Payment] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    stock: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)
    now_us: int = START_US

    def books(self) -> Books:
        return Books(
            orders=tuple(self.orders.values()),
            steps=tuple(self.steps),
            payments=tuple(self.payments.values()),
            entries=tuple(self.entries),
            reservations=tuple(self.reservations.values()),
            stock=tuple(Stock(*item) for item in self.stock.items()),
            read_at_us=self.now_us + 1_000_000,
        )

    def give_back(self, order_id: str) -> None:
        """The goods of a reservation become free stock."""
        for sku, quantity in self.reservations[order_id].lines:
            self.stock[sku] += quantity

    def take(self, order_id: str) -> None:
        """A reservation takes goods that lay in stock from the start besides the others."""
        taken = dict(self.reservations[order_id].lines)
        self.products = tuple(
            replace(product, stock=product.stock + taken.get(product.sku, 0))
            for product in self.products
        )


def simulate(seed: int, orders: int = 120) -> World:
    """The end of a run in which everything that may happen did, and every promise was kept."""
    plan = planning.make(orders, 0, seed, products=12)
    return _Simulation(plan, random.Random(seed)).run()


class _Simulation:
    def __init__(self, plan: Plan, draw: random.Random) -> None:
        self.plan = plan
        self.draw = draw
        self.prices = {product.sku: product.price_minor for product in plan.products}
        self.recorded = Counter[str]()
        self.world = World(plan.products)
        self.world.stock.update({product.sku: product.stock for product in plan.products})

    def run(self) -> World:
        for purchase in self.plan.purchases:
            self._purchase(purchase)
        return self.world

    def _purchase(self, purchase: Purchase) -> None:
        attempt = 1
        if self.draw.random() < 0.05:  # 503: nothing done, the key is free again
            self._event(purchase, attempt, "invoke")
            order_id = self._new(purchase)
            self._reject(order_id, "unavailable", free=True)
            self._event(purchase, attempt, "info", order_id="", status=503)
            attempt += 1
        self._event(purchase, attempt, "invoke")
        if self.draw.random() < 0.02:  # sent, and never arrived
            return
        order_id, status = self._checkout(purchase)
        self._answers(purchase, attempt, order_id, status)
        if purchase.cancel_after_s is not None and status == 201:
            self._cancel(purchase, order_id)

    def _answers(self, purchase: Purchase, attempt: int, order_id: str, status: int) -> None:
        chance = self.draw.random()
        if chance < 0.05:  # told nobody: no end at all, or a time-out
            return
        if chance < 0.1:
            self._event(purchase, attempt, "info", detail="timeout")
            return
        if chance < 0.2:  # told at the second try
            self._event(purchase, attempt, "info", order_id=order_id, status=202)
            attempt += 1
            self._event(purchase, attempt, "invoke")
        if purchase.double:
            self._event(purchase, attempt + 1, "invoke")
        ok = status == 201
        for number in range(attempt, attempt + 1 + purchase.double):
            self._event(
                purchase,
                number,
                "ok" if ok else "fail",
                order_id=order_id if ok else "",
                status=status,
                replayed=number > attempt,
                body_sha256=hashlib.sha256(order_id.encode()).hexdigest(),
                total_minor=self.world.orders[order_id].total_minor if ok else None,
            )

    def _checkout(self, purchase: Purchase) -> tuple[str, int]:
        """The order's id, and what its client is answered in the end."""
        world = self.world
        order_id = self._new(purchase)
        lines = purchase.lines
        if any(world.stock[sku] < quantity for sku, quantity in lines):
            self._reject(order_id, "stock-short")
            return order_id, 409
        for sku, quantity in lines:
            world.stock[sku] -= quantity
        expires_at_ms = self._tick() // 1000 + 300_000
        world.reservations[order_id] = Reservation(order_id, "held", lines, expires_at_ms)
        priced = tuple((sku, quantity, self.prices[sku]) for sku, quantity in lines)
        total = sum(quantity * price for _, quantity, price in priced)
        self._record(order_id, "reserved", "charge", lines=priced, total_minor=total)
        if purchase.method.startswith("tok_decline"):
            self._charge(order_id, "declined")
            self._reject(order_id, "declined", undo=True)
            return order_id, 402
        payment = self._charge(order_id, "captured")
        self._record(order_id, "paid", "commit", payment_id=payment)
        if self.draw.random() < 0.03:  # the goods expired and were sold meanwhile
            world.give_back(order_id)
            self._reservation(order_id, "expired")
            self._reject(order_id, "reservation-gone", undo=True)
            return order_id, 409
        self._reservation(order_id, "committed")
        self._record(order_id, "confirmed", "")
        return order_id, 201

    def _cancel(self, purchase: Purchase, order_id: str) -> None:
        self._event(purchase, 1, "invoke", kind="cancel")
        unknown, arrives = self.draw.random() < 0.3, self.draw.random() < 0.7
        if arrives or not unknown:
            self._record(order_id, "cancelled", "cancel-payment")
            self._undo(order_id)
            self._record(order_id, "cancelled", "")
        end: Type = "info" if unknown else "ok"
        status = 0 if unknown else 200
        self._event(purchase, 1, end, kind="cancel", order_id=order_id, status=status)

    def _reject(self, order_id: str, why: str, *, free: bool = False, undo: bool = False) -> None:
        self._record(order_id, "rejected", "release", failure=why)
        if undo:
            self._undo(order_id)
        key = None if free else self.world.orders[order_id].key
        self._record(order_id, "rejected", "", key=key)

    def _undo(self, order_id: str) -> None:
        world = self.world
        payment = world.payments[f"pay_{order_id}"]
        if payment.status == "captured":
            self._enter("refund", f"{payment.id}-refund", payment.id, payment.amount_minor)
            self._change_payment(payment.id, "refunded")
        if world.reservations[order_id].status in ("held", "committed"):
            world.give_back(order_id)
            self._reservation(order_id, "released")

    def _charge(self, order_id: str, status: str) -> str:
        world = self.world
        order = world.orders[order_id]
        payment_id = f"pay_{order_id}"
        now_us = self._tick()
        world.payments[payment_id] = Payment(
            id=payment_id,
            key=order_id,
            order_id=order_id,
            amount_minor=order.total_minor,
            currency=CURRENCY,
            status=status,
            trace_id=order.trace_id,
            created_at_us=now_us,
            updated_at_us=now_us,
        )
        outcome = "approved" if status == "captured" else "declined"
        self._enter("charge", payment_id, payment_id, order.total_minor, order_id, outcome)
        return payment_id

    def _enter(
        self,
        kind: str,
        key: str,
        charge_key: str,
        amount_minor: int,
        reference: str = "",
        status: str = "approved",
    ) -> None:
        self.world.entries.append(
            Entry(
                seq=len(self.world.entries) + 1,
                kind=kind,
                key=key,
                charge_key=charge_key,
                status=status,
                amount_minor=amount_minor,
                currency=CURRENCY,
                reference=reference or self.world.payments[charge_key].order_id,
                created_at_us=self._tick(),
            )
        )

    def _change_payment(self, payment_id: str, status: str) -> None:
        self.world.payments[payment_id] = changed(
            self.world.payments[payment_id], status=status, updated_at_us=self._tick()
        )

    def _reservation(self, order_id: str, status: str) -> None:
        self.world.reservations[order_id] = changed(
            self.world.reservations[order_id], status=status
        )

    def _new(self, purchase: Purchase) -> str:
        world = self.world
        now_us = self._tick()
        order_id = f"order-{purchase.op:04}-{self.draw.getrandbits(32):08x}"
        world.orders[order_id] = Order(
            id=order_id,
            customer=purchase.customer,
            key=purchase.key,
            status="pending",
            step="reserve",
            lines=tuple((sku, quantity, 0) for sku, quantity in purchase.lines),
            total_minor=0,
            currency=CURRENCY,
            payment_id="",
            failure=None,
            trace_id=f"{self.draw.getrandbits(128):032x}",
            created_at_us=now_us,
            updated_at_us=now_us,
            attempts=0,
        )
        self._record(order_id, "pending", "reserve")
        return order_id

    def _record(self, order_id: str, status: str, step: str, **changes: object) -> None:
        world = self.world
        now_us = self._tick()
        self.recorded[order_id] += 1
        world.steps.append(Step(order_id, self.recorded[order_id], now_us, status, step, 0))
        world.orders[order_id] = changed(
            world.orders[order_id], status=status, step=step, updated_at_us=now_us, **changes
        )

    def _event(
        self,
        purchase: Purchase,
        attempt: int,
        type_: Type,
        kind: Kind = "order",
        **values: object,
    ) -> None:
        asked = type_ == "invoke" and kind == "order"
        event = Event(
            at_unix_us=self._tick(),
            op=purchase.op,
            attempt=attempt,
            kind=kind,
            type=type_,
            key=purchase.key,
            customer=purchase.customer,
            lines=purchase.lines if asked else (),
            method=purchase.method if asked else "",
        )
        self.world.events.append(changed(event, **values))

    def _tick(self) -> int:
        self.world.now_us += self.draw.randint(100, 5000)
        return self.world.now_us
