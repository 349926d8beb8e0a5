"""The rules: what the catalogue and its reservations may do."""

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from service_kit.database import Database
from service_kit.problem import Problem
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from product_service import repository
from product_service.metrics import Metrics
from product_service.model import (
    ImportItem,
    Line,
    Product,
    ProductCreate,
    ProductPatch,
    ProductQuery,
    ProductReplace,
    Reservation,
)

_SWEEP_BATCH = 200
_CACHE_MIB, _IMPORT_CACHE_MIB = 2, 64

T = TypeVar("T")


class Catalogue:
    """Products: read by everybody, changed by the admin."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: ProductQuery) -> tuple[list[Product], str | None]:
        """One page and the cursor of the next one, or None on the last.

        Raises:
            Problem: 422 when the cursor is not one of ours for this sort.
        """
        searched = query.q is not None and query.q.strip()
        # Lower case, so that none of them is an operator (AND, OR, NOT, NEAR) to FTS5.
        words = re.findall(r"[^\W_]+", (query.q or "").lower()) if searched else None
        if words == []:
            return [], None  # a search for nothing that could be a word finds nothing
        sort = query.sort or ("sku" if words is None else "catalogue")
        descending = sort.startswith("-")
        key = sort.lstrip("-")
        wanted = repository.Page(
            limit=query.limit + 1,
            sort=key,
            descending=descending,
            after=_decode_cursor(query.cursor, sort) if query.cursor is not None else None,
            words=words,
            category=query.category,
            min_price=query.min_price,
            max_price=query.max_price,
        )
        with self._database.read() as connection:
            products = repository.page(connection, wanted)
        if len(products) <= query.limit:
            return products, None
        products.pop()
        return products, _encode_cursor(products[-1], sort)

    def product(self, sku: str) -> Product:
        """One product.

        Raises:
            Problem: 404.
        """
        with self._database.read() as connection:
            product = repository.product(connection, sku)
        if product is None:
            raise _no_product(sku)
        return product

    def create(self, new: ProductCreate) -> Product:
        """Add a product.

        Raises:
            Problem: 409 when the sku exists.
        """
        try:
            with self._database.write() as connection:
                return repository.insert(connection, new.model_dump())
        except IntegrityError:
            detail = f"There is a product {new.sku!r} already; PUT replaces it."
            raise Problem(409, "exists", detail, sku=new.sku) from None

    def put(self, sku: str, body: ProductReplace) -> tuple[Product, bool]:
        """Create or replace a product; True when it is new.

        Raises:
            Problem: 422 when the body names another sku than the path.
        """
        if body.sku not in (None, sku):
            errors = [{"loc": ["body", "sku"], "msg": "is not the sku of the path"}]
            raise Problem(422, "validation", "The body names another sku.", errors=errors)
        values = {**body.model_dump(), "sku": sku}
        for _ in range(2):  # a concurrent PUT may create it between the two statements
            try:
                with self._database.write() as connection:
                    product = repository.update(connection, sku, values)
                    if product is not None:
                        return product, False
                    return repository.insert(connection, values), True
            except IntegrityError:
                continue
        raise Problem(409, "exists", f"Product {sku!r} is being changed by others.", sku=sku)

    def patch(self, sku: str, body: ProductPatch) -> Product:
        """Change some fields of a product.

        Raises:
            Problem: 404.
        """
        with self._database.write() as connection:
            product = repository.update(connection, sku, body.model_dump(exclude_unset=True))
        if product is None:
            raise _no_product(sku)
        return product

    def delete(self, sku: str) -> None:
        """Remove a product.

        Raises:
            Problem: 404.
        """
        with self._database.write() as connection:
            if not repository.delete(connection, sku):
                raise _no_product(sku)

    def import_items(self, items: Sequence[ImportItem]) -> dict[str, int]:
        """Create or update all of the items, or none.

        Raises:
            Problem: 422 when an sku comes twice, or a new product has no stock.
        """
        skus = [item.sku for item in items]
        seen = set(skus)
        if len(seen) < len(skus):
            twice = Counter(skus).most_common(1)[0][0]
            raise Problem(422, "validation", f"The sku {twice!r} comes twice.", sku=twice)
        with self._database.write() as connection:
            repository.cache_size(connection, _IMPORT_CACHE_MIB)
            known = repository.lock_existing(connection, skus)
            for item in items:
                if item.stock is None and item.sku not in known:
                    detail = f"The new product {item.sku!r} needs a stock."
                    raise Problem(422, "validation", detail, sku=item.sku)
            written = repository.upsert(connection, items)
            repository.cache_size(connection, _CACHE_MIB)
        created = len(seen) - len(known)
        return {
            "created": created,
            "updated": written - created,
            "unchanged": len(seen) - written,
        }


class Reservations:
    """Goods held for orders.

    Stock is free stock: a held or committed reservation has taken its goods out of it. A held one
    whose time is over counts as expired; its goods go back when the sweeper, or a reservation
    that would otherwise come up short, finds it. Until then the goods are still there to be
    committed or extended, as if given back and taken again.

    A release is final, even of a reservation that was never made: nothing that was sent before
    it and arrives after it takes goods for that order again.

    Locks are taken in one order, reservations before products, products by sku: no deadlocks.
    """

    def __init__(
        self,
        database: Database,
        metrics: Metrics,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock_ms = clock_ms

    def reserve(self, order_id: str, lines: Sequence[Line], ttl_s: int) -> tuple[Reservation, bool]:
        """Hold goods for an order; True when the reservation is new.

        Asking again gives the first answer; what has expired meanwhile is taken again, at the
        prices of the first answer.

        Raises:
            Problem: 409 short of stock or released, 422 unknown sku, mixed currencies, or an
                order id that was used for other lines.
        """
        quantities: dict[str, int] = {}
        for line in lines:
            quantities[line.sku] = quantities.get(line.sku, 0) + line.quantity

        def hold() -> Reservation:
            expires = self._clock_ms() + ttl_s * 1000
            with self._database.write() as connection:
                # First the id, then the goods, then their prices: see the order of locks above.
                claim = Reservation(order_id, "held", expires, "", 0, [])
                if not repository.insert_reservation(connection, claim):
                    raise Problem(409, "exists", f"There is a reservation {order_id!r} already.")
                held = _priced(order_id, quantities, _take(connection, quantities), expires)
                repository.price_reservation(connection, held)
                return held

        try:
            held = self._unless_expired_goods_help(hold)
        except Problem as error:
            # Asked before? Then that answer holds, whatever the stock is by now.
            with self._database.read() as connection:
                earlier = repository.reservation(connection, order_id)
            if earlier is not None:
                return self._again(earlier, quantities, ttl_s), False
            if error.slug == "stock-short":
                self._metrics.reservation("short")
            raise
        self._metrics.reservation("held")
        return held, True

    def _again(
        self, earlier: Reservation, quantities: Mapping[str, int], ttl_s: int
    ) -> Reservation:
        if earlier.status == "released":
            raise _released(earlier)
        if _quantities(earlier) != quantities:
            detail = f"The order id {earlier.id!r} was used for other lines."
            raise Problem(422, "key-reused", detail)
        if self._as_of_now(earlier).status != "expired":
            return earlier
        try:
            return self.extend(earlier.id, ttl_s)
        except Problem as error:
            if "sku" not in error.extras:
                raise
            self._metrics.reservation("short")
            short = Problem(409, "stock-short", error.args[0])
            short.extras.update(error.extras)
            raise short from None

    def get(self, reservation_id: str) -> Reservation:
        """One reservation.

        Raises:
            Problem: 404.
        """
        with self._database.read() as connection:
            found = repository.reservation(connection, reservation_id)
        if found is None:
            raise _no_reservation(reservation_id)
        return self._as_of_now(found)

    def commit(self, reservation_id: str) -> Reservation:
        """Make it final. What has expired is taken again.

        Raises:
            Problem: 404, or 409 when it is released, or expired and its goods are gone.
        """

        def settle() -> tuple[Reservation, bool]:
            with self._database.write() as connection:
                committed = repository.commit_held(connection, reservation_id)
                if committed is not None:
                    return committed, True
                old = _locked(connection, reservation_id)
                if old.status == "committed":
                    return old, False
                new = replace(old, status="committed")
                if old.status == "held":  # taken again by another step between the statements
                    repository.move(connection, old, new)
                    return new, True
                return _retake(connection, old, new), True

        committed, changed = self._unless_expired_goods_help(settle)
        if changed:
            self._metrics.reservation("committed")
        return committed

    def extend(self, reservation_id: str, ttl_s: int) -> Reservation:
        """Hold it for `ttl_s` from now, or longer if it is. A committed one stays as it is.

        Raises:
            Problem: 404, or 409 when it is released, or expired and its goods are gone.
        """

        def hold() -> tuple[Reservation, bool]:
            with self._database.write() as connection:
                old = _locked(connection, reservation_id)
                if old.status == "committed":
                    return old, False
                expires = self._clock_ms() + ttl_s * 1000
                if old.status == "held":
                    longer = replace(old, expires_at_ms=max(expires, old.expires_at_ms))
                    repository.move(connection, old, longer)
                    return longer, False
                again = replace(old, status="held", expires_at_ms=expires)
                return _retake(connection, old, again), True

        held, changed = self._unless_expired_goods_help(hold)
        if changed:
            self._metrics.reservation("held")
        return held

    def release(self, reservation_id: str) -> Reservation:
        """Give the goods back, also of a committed one (its order was cancelled). Final.

        One that is not there becomes a released one without lines: should its making come late,
        it finds that and is refused.
        """
        with self._database.write() as connection:
            old = repository.reservation(connection, reservation_id, for_update=True)
            if old is None:
                tombstone = Reservation(reservation_id, "released", self._clock_ms(), "", 0, [])
                if repository.insert_reservation(connection, tombstone):
                    return tombstone
                old = _locked(connection, reservation_id)  # made between the two statements
            if old.status == "released":
                return old
            new = replace(old, status="released")
            repository.move(connection, old, new)
            if old.status == "expired":
                return new
            repository.give(connection, _quantities(old))
        self._metrics.reservation("released")
        return new

    def sweep(self) -> int:
        """Give back the goods of held reservations whose time is over; how many there were."""
        now = self._clock_ms()
        with self._database.read() as connection:
            if not repository.any_overdue(connection, now):
                return 0
        goods: Counter[str] = Counter()
        with self._database.write() as connection:
            expired = repository.expire(connection, now, _SWEEP_BATCH)
            for quantities in expired:
                goods.update(quantities)
            repository.give(connection, goods)
        self._metrics.reservation("expired", len(expired))
        return len(expired)

    def _unless_expired_goods_help(self, action: Callable[[], T]) -> T:
        """Run a transaction; where goods are short, sweep and run it once more."""
        try:
            return action()
        except Problem as error:
            if "available" not in error.extras or not self.sweep():
                raise
        return action()

    def _as_of_now(self, found: Reservation) -> Reservation:
        if found.status == "held" and found.expires_at_ms <= self._clock_ms():
            return replace(found, status="expired")
        return found


def _take(connection: Connection, quantities: Mapping[str, int]) -> dict[str, repository.Taken]:
    """Take all of the goods, or raise a Problem that names the first sku that is in the way."""
    taken = repository.take(connection, quantities)
    for sku, quantity in sorted(quantities.items()):
        if sku in taken:
            continue
        product = repository.product(connection, sku)
        if product is None:
            raise Problem(422, "unknown-sku", f"There is no product {sku!r}.", sku=sku)
        detail = f"Of {sku!r}, {quantity} are wanted and {product.stock} are free."
        raise Problem(409, "stock-short", detail, sku=sku, available=product.stock)
    return taken


def _retake(connection: Connection, old: Reservation, new: Reservation) -> Reservation:
    """Take the goods of an expired reservation again, all of them or none."""
    if old.status == "released":
        raise _released(old)
    try:
        _take(connection, _quantities(old))
    except Problem as error:
        detail = f"The reservation has expired and its goods are gone: {error.detail}"
        gone = Problem(409, "reservation-gone", detail)
        gone.extras.update(error.extras)
        raise gone from None
    repository.move(connection, old, new)
    return new


def _locked(connection: Connection, reservation_id: str) -> Reservation:
    found = repository.reservation(connection, reservation_id, for_update=True)
    if found is None:
        raise _no_reservation(reservation_id)
    return found


def _priced(
    order_id: str,
    quantities: Mapping[str, int],
    taken: Mapping[str, repository.Taken],
    expires_at_ms: int,
) -> Reservation:
    lines: list[dict[str, Any]] = [
        {
            "sku": sku,
            "name": taken[sku].name,
            "quantity": quantity,
            "price_minor": taken[sku].price_minor,
            "line_total_minor": taken[sku].price_minor * quantity,
        }
        for sku, quantity in quantities.items()
    ]
    currencies = sorted({item.currency for item in taken.values()})
    if len(currencies) > 1:
        detail = f"One order cannot mix currencies: {', '.join(currencies)}."
        raise Problem(422, "mixed-currencies", detail)
    total = sum(line["line_total_minor"] for line in lines)
    return Reservation(order_id, "held", expires_at_ms, currencies[0], total, lines)


def _quantities(reservation: Reservation) -> dict[str, int]:
    return {line["sku"]: line["quantity"] for line in reservation.lines}


def _released(reservation: Reservation) -> Problem:
    detail = f"The reservation {reservation.id!r} is released, which is final."
    return Problem(409, "reservation-gone", detail)


def _no_product(sku: str) -> Problem:
    return Problem(404, "not-found", f"There is no product {sku!r}.", sku=sku)


def _no_reservation(reservation_id: str) -> Problem:
    return Problem(404, "not-found", f"There is no reservation {reservation_id!r}.")


def _encode_cursor(last: Product, sort: str) -> str:
    positions: dict[str, list[str | int]] = {
        "sku": [last.sku],
        "name": [last.name, last.sku],
        "price": [last.price_minor, last.sku],
        "catalogue": [last.id],
    }
    values = positions[sort.lstrip("-")]
    document = json.dumps([sort, *values], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


_CURSOR_TYPES: dict[str, list[type]] = {
    "sku": [str],
    "name": [str, str],
    "price": [int, str],
    "catalogue": [int],
}


def _decode_cursor(cursor: str, sort: str) -> list[str | int]:
    bad = Problem(
        422,
        "validation",
        "The cursor is not one that this list gave out for this sort.",
        errors=[{"loc": ["query", "cursor"], "msg": "use next_cursor of the page before"}],
    )
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        document = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        str(document).encode()  # no lone surrogates: no database takes them
    except (ValueError, RecursionError):
        raise bad from None
    if not isinstance(document, list) or not document or document[0] != sort:
        raise bad
    values = document[1:]
    if [type(value) for value in values] != _CURSOR_TYPES[sort.lstrip("-")]:
        raise bad
    if any(isinstance(v, int) and abs(v) >= 2**63 for v in values):
        raise bad
    if any(isinstance(v, str) and "\0" in v for v in values):
        raise bad
    return values
