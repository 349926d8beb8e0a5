"""The SQL. Statements are built once; each function does one thing in the caller's transaction."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy import Connection, bindparam, func, select, text

from product_service.model import ImportItem, Product, Reservation, StockLevel

_metadata = sa.MetaData()
_products = sa.Table(
    "products",
    _metadata,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("sku", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("description", sa.Text),
    sa.Column("category", sa.Text),
    sa.Column("price_minor", sa.BigInteger),
    sa.Column("currency", sa.Text),
    sa.Column("stock", sa.BigInteger),
    sa.Column("version", sa.BigInteger),
)
_reservations = sa.Table(
    "reservations",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text),
    sa.Column("expires_at_ms", sa.BigInteger),
    sa.Column("currency", sa.Text),
    sa.Column("total_minor", sa.BigInteger),
    sa.Column("lines", sa.Text),
)
_hits = sa.table("products_fts", sa.column("rowid", sa.BigInteger))
_p = _products.c
_r = _reservations.c
_PRODUCT = [_p[field] for field in Product._fields]


# -- products


class Page(NamedTuple):
    """Which products to list: `after` is the (sort value, sku) of the last one seen, or (id,)."""

    limit: int
    sort: str
    descending: bool
    after: Sequence[str | int] | None
    words: Sequence[str] | None
    category: str | None
    min_price: int | None
    max_price: int | None


_SORTS = {"sku": _p.sku, "name": _p.name, "price": _p.price_minor, "catalogue": _p.id}


def page(connection: Connection, wanted: Page) -> list[Product]:
    """At most `limit` products after the cursor, in keyset order: no OFFSET, no COUNT."""
    after = wanted.after or ()
    statement = _page_statement(
        connection.dialect.name == "sqlite",
        wanted.sort,
        wanted.descending,
        len(after),
        wanted.words is not None,
        wanted.category is not None,
        wanted.min_price is not None,
        wanted.max_price is not None,
    )
    parameters: dict[str, Any] = {f"after_{i}": value for i, value in enumerate(after)}
    parameters |= {
        "limit": wanted.limit,
        "category": wanted.category,
        "min_price": wanted.min_price,
        "max_price": wanted.max_price,
    }
    if wanted.words is not None:
        parameters["words"] = " ".join(wanted.words)
    return [Product(*row) for row in connection.execute(statement, parameters)]


@lru_cache(maxsize=512)
def _page_statement(
    sqlite: bool,
    sort: str,
    descending: bool,
    after: int,
    search: bool,
    category: bool,
    min_price: bool,
    max_price: bool,
) -> sa.Select[Any]:
    unique = sort in ("sku", "catalogue")
    keys: list[sa.ColumnElement[Any]] = [_SORTS[sort]] if unique else [_SORTS[sort], _p.sku]
    statement = select(*_PRODUCT).limit(bindparam("limit"))
    order = keys
    if search and sqlite and sort == "catalogue":
        # The index gives its hits in this order: it is read only as far as the page goes.
        keys = order = [_hits.c.rowid]
        statement = statement.join_from(_hits, _products, _p.id == _hits.c.rowid)
        statement = statement.where(text("products_fts MATCH :words"))
    elif search and sqlite:
        statement = statement.where(
            _p.id.in_(text("SELECT rowid FROM products_fts WHERE products_fts MATCH :words"))
        )
        # The plus keeps SQLite from walking the sort's index and searching at every step.
        order = [sa.literal_column(f"+{key}", key.type) for key in keys]
    elif search:
        statement = statement.where(text("search @@ plainto_tsquery('simple', :words)"))
    if after:
        seen = [bindparam(f"after_{i}", type_=key.type) for i, key in enumerate(keys)]
        # A row value of one column would hide the column from SQLite's search index.
        position = sa.tuple_(*keys) if len(keys) > 1 else keys[0]
        limit = sa.tuple_(*seen) if len(keys) > 1 else seen[0]
        statement = statement.where(position < limit if descending else position > limit)
    if category:
        statement = statement.where(_p.category == bindparam("category"))
    if min_price:
        statement = statement.where(_p.price_minor >= bindparam("min_price"))
    if max_price:
        statement = statement.where(_p.price_minor <= bindparam("max_price"))
    return statement.order_by(*(key.desc() if descending else key for key in order))


_BY_SKU = select(*_PRODUCT).where(_p.sku == bindparam("sku"))


def product(connection: Connection, sku: str) -> Product | None:
    """One product."""
    row = connection.execute(_BY_SKU, {"sku": sku}).first()
    return Product(*row) if row is not None else None


_INSERT = sa.insert(_products).values(
    {
        **{field: bindparam(field) for field in Product._fields if field not in ("id", "version")},
        "version": 1,
    }
)


def insert(connection: Connection, values: Mapping[str, Any]) -> Product:
    """Add a product.

    Raises:
        sqlalchemy.exc.IntegrityError: the sku exists.
    """
    return Product(*connection.execute(_INSERT.returning(*_PRODUCT), values).one())


def update(connection: Connection, sku: str, values: Mapping[str, Any]) -> Product | None:
    """Set fields of a product; None when there is no such product."""
    statement = (
        sa.update(_products)
        .where(_p.sku == sku)
        .values(**values, version=_p.version + 1)
        .returning(*_PRODUCT)
    )
    row = connection.execute(statement).first()
    return Product(*row) if row is not None else None


def delete(connection: Connection, sku: str) -> bool:
    """Remove a product; False when there was none."""
    return connection.execute(sa.delete(_products).where(_p.sku == sku)).rowcount > 0


# One statement for all items, not one each: SQLite would flush its search index after every one.
# `known` keeps the stock of a product whose item has none; `lock_existing` holds it still.
_UPSERT = """
    INSERT INTO products
        (sku, name, description, category, price_minor, currency, stock, version)
    SELECT item.sku, item.name, item.description, item.category, item.price_minor, item.currency,
        COALESCE(item.stock, known.stock), 1
    FROM {items} LEFT JOIN products AS known ON known.sku = item.sku
    WHERE true
    ON CONFLICT (sku) DO UPDATE SET
        name = excluded.name, description = excluded.description, category = excluded.category,
        price_minor = excluded.price_minor, currency = excluded.currency, stock = excluded.stock,
        version = products.version + 1
    WHERE products.name <> excluded.name OR products.description <> excluded.description
        OR products.category <> excluded.category
        OR products.price_minor <> excluded.price_minor
        OR products.currency <> excluded.currency
        OR products.stock <> excluded.stock
    """
_UPSERT_SQLITE = text(
    _UPSERT.format(
        items="""(SELECT value ->> 'sku' AS sku, value ->> 'name' AS name,
            value ->> 'description' AS description, value ->> 'category' AS category,
            value ->> 'price_minor' AS price_minor, value ->> 'currency' AS currency,
            value ->> 'stock' AS stock
        FROM json_each(:items)) AS item"""
    )
)
_UPSERT_POSTGRESQL = text(
    _UPSERT.format(
        items="""jsonb_to_recordset(CAST(:items AS jsonb)) AS item(sku text, name text,
            description text, category text, price_minor bigint, currency text, stock bigint)"""
    )
)


def upsert(connection: Connection, items: Iterable[ImportItem]) -> int:
    """Create or update products; the number of rows written. New ones must have a stock."""
    sqlite = connection.dialect.name == "sqlite"
    statement = _UPSERT_SQLITE if sqlite else _UPSERT_POSTGRESQL
    document = to_json([item.__dict__ for item in items]).decode()
    return connection.execute(statement, {"items": document}).rowcount


_CATEGORIES = select(_p.category).where(_p.sku.in_(bindparam("skus", expanding=True))).distinct()


def categories(connection: Connection, skus: Iterable[str]) -> set[str]:
    """Of these products."""
    return set(connection.execute(_CATEGORIES, {"skus": list(skus)}).scalars())


def lock_existing(connection: Connection, skus: Sequence[str]) -> set[str]:
    """Which of these skus exist; nobody else can change them until the transaction ends."""
    if connection.dialect.name == "sqlite":
        statement = "SELECT sku FROM products WHERE sku IN (SELECT value FROM json_each(:skus))"
    else:
        statement = (
            "SELECT sku FROM products WHERE sku IN "
            "(SELECT jsonb_array_elements_text(CAST(:skus AS jsonb))) ORDER BY sku FOR UPDATE"
        )
    return set(connection.execute(text(statement), {"skus": json.dumps(skus)}).scalars())


def cache_size(connection: Connection, mib: int) -> None:
    """How much of the file SQLite may keep in memory, on this connection from now on."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA cache_size = -{mib * 1024}")


def stock_by_category(connection: Connection, limit: int) -> dict[str, StockLevel]:
    """Stock of the `limit` categories with the most products."""
    total, out = func.sum(_p.stock), func.count().filter(_p.stock == 0)
    wanted = select(_p.category, total, out).group_by(_p.category)
    rows = connection.execute(wanted.order_by(func.count().desc(), _p.category).limit(limit))
    return {category: StockLevel(free=int(free), out=none) for category, free, none in rows}


# -- stock

_TAKE_SQLITE = text(
    """
    UPDATE products SET stock = stock - line.quantity, version = version + 1
    FROM (SELECT value ->> 'sku' AS sku, value ->> 'quantity' AS quantity
          FROM json_each(:lines)) AS line
    WHERE products.sku = line.sku AND products.stock >= line.quantity
    RETURNING products.sku, name, price_minor, currency
    """
)
_TAKE_POSTGRESQL = text(
    """
    UPDATE products SET stock = stock - line.quantity, version = version + 1
    FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS line(sku text, quantity bigint)
    WHERE products.sku = line.sku AND products.stock >= line.quantity
    RETURNING products.sku, name, price_minor, currency
    """
)
_LOCK_POSTGRESQL = text(
    """
    SELECT 1 FROM products WHERE sku IN
        (SELECT sku FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS line(sku text))
    ORDER BY sku FOR UPDATE
    """
)
_GIVE_SQLITE = text(
    """
    UPDATE products SET stock = stock + line.quantity, version = version + 1
    FROM (SELECT value ->> 'sku' AS sku, value ->> 'quantity' AS quantity
          FROM json_each(:lines)) AS line
    WHERE products.sku = line.sku
    """
)
_GIVE_POSTGRESQL = text(
    """
    UPDATE products SET stock = stock + line.quantity, version = version + 1
    FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS line(sku text, quantity bigint)
    WHERE products.sku = line.sku
    """
)


class Taken(NamedTuple):
    """A product whose stock was taken."""

    sku: str
    name: str
    price_minor: int
    currency: str


def take(connection: Connection, quantities: Mapping[str, int]) -> dict[str, Taken]:
    """Take stock by one conditional UPDATE: a line that is short is left out of the result.

    The caller must roll back unless every line is in it.
    """
    lines = {"lines": _lines(quantities)}
    if connection.dialect.name == "sqlite":
        rows = connection.execute(_TAKE_SQLITE, lines)
    else:
        _lock(connection, quantities, lines)
        rows = connection.execute(_TAKE_POSTGRESQL, lines)
    return {row[0]: Taken(*row) for row in rows}


def give(connection: Connection, quantities: Mapping[str, int]) -> None:
    """Give stock back."""
    lines = {"lines": _lines(quantities)}
    if connection.dialect.name == "sqlite":
        connection.execute(_GIVE_SQLITE, lines)
    else:
        _lock(connection, quantities, lines)
        connection.execute(_GIVE_POSTGRESQL, lines)


def _lock(connection: Connection, quantities: Mapping[str, int], lines: Mapping[str, str]) -> None:
    # PostgreSQL locks rows one by one: in sku order, so that two orders cannot deadlock.
    if len(quantities) > 1:
        connection.execute(_LOCK_POSTGRESQL, lines)


def _lines(quantities: Mapping[str, int]) -> str:
    return json.dumps([{"sku": sku, "quantity": n} for sku, n in quantities.items()])


# -- reservations

_RESERVATION = select(_reservations).where(_r.id == bindparam("id"))
_RESERVATION_FOR_UPDATE = _RESERVATION.with_for_update()
_INSERT_RESERVATION = text(
    """
    INSERT INTO reservations (id, status, expires_at_ms, currency, total_minor, lines)
    VALUES (:id, :status, :expires_at_ms, :currency, :total_minor, :lines)
    ON CONFLICT (id) DO NOTHING
    """
)
_PRICE_RESERVATION = text(
    """
    UPDATE reservations SET currency = :currency, total_minor = :total_minor, lines = :lines
    WHERE id = :id
    """
)
_MOVE = text(
    """
    UPDATE reservations SET status = :status, expires_at_ms = :expires_at_ms
    WHERE id = :id AND status = :expected
    """
)
_COMMIT_HELD = (
    sa.update(_reservations)
    .where(_r.id == bindparam("key"), _r.status == "held")
    .values(status="committed")
    .returning(*_reservations.c)
)
_is_overdue = (text("status = 'held'"), _r.expires_at_ms <= bindparam("now_ms"))
_ANY_OVERDUE = select(_r.id).where(*_is_overdue).limit(1)
_EXPIRE = (
    sa.update(_reservations)
    .where(
        _r.id.in_(
            select(_r.id)
            .where(*_is_overdue)
            .order_by(_r.expires_at_ms)
            .limit(bindparam("limit"))
            # PostgreSQL: who is being committed, extended or swept elsewhere is left alone, and
            # looked at again once locked. SQLite has one writer and ignores it.
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
    )
    .values(status="expired")
    .returning(_r.lines)
)


def reservation(
    connection: Connection, reservation_id: str, *, for_update: bool = False
) -> Reservation | None:
    """One reservation; `for_update` locks it to the end of the transaction (PostgreSQL)."""
    statement = _RESERVATION_FOR_UPDATE if for_update else _RESERVATION
    row = connection.execute(statement, {"id": reservation_id}).first()
    return _to_reservation(row) if row is not None else None


def insert_reservation(connection: Connection, new: Reservation) -> bool:
    """Store a reservation; False when the id is taken."""
    return connection.execute(_INSERT_RESERVATION, _values(new)).rowcount == 1


def price_reservation(connection: Connection, held: Reservation) -> None:
    """Write down the goods and prices of a reservation that was just stored without."""
    connection.execute(_PRICE_RESERVATION, _values(held))


def move(connection: Connection, old: Reservation, new: Reservation) -> bool:
    """Go from one status to the next; False when it is not in the old one any more."""
    values = {
        "id": old.id,
        "expected": old.status,
        "status": new.status,
        "expires_at_ms": new.expires_at_ms,
    }
    return connection.execute(_MOVE, values).rowcount == 1


def commit_held(connection: Connection, reservation_id: str) -> Reservation | None:
    """The usual commit in one statement; None when the reservation is not held."""
    row = connection.execute(_COMMIT_HELD, {"key": reservation_id}).first()
    return _to_reservation(row) if row is not None else None


def any_overdue(connection: Connection, now_ms: int) -> bool:
    """Whether the time of any held reservation is over."""
    return connection.execute(_ANY_OVERDUE, {"now_ms": now_ms}).first() is not None


def expire(connection: Connection, now_ms: int, limit: int) -> list[dict[str, int]]:
    """Expire held reservations whose time is over, the oldest first; what each of them held."""
    rows = connection.execute(_EXPIRE, {"now_ms": now_ms, "limit": limit})
    return [{line["sku"]: line["quantity"] for line in json.loads(row[0])} for row in rows]


def _values(reservation: Reservation) -> dict[str, Any]:
    lines = json.dumps(reservation.lines, ensure_ascii=False)
    return {**reservation.__dict__, "lines": lines}


def _to_reservation(row: Any) -> Reservation:
    return Reservation(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]))


# -- who leads

_LEADER = text("SELECT holder, expires_at_ms FROM leader WHERE job = :job")
_LEAD = text(
    """
    INSERT INTO leader (job, holder, expires_at_ms) VALUES (:job, :holder, :expires_at_ms)
    ON CONFLICT (job) DO UPDATE SET holder = excluded.holder, expires_at_ms = excluded.expires_at_ms
    WHERE leader.holder = excluded.holder OR leader.expires_at_ms <= :now_ms
    """
)


def leader(connection: Connection, job: str) -> tuple[str, int] | None:
    """Who leads a job and until when (Unix ms)."""
    row = connection.execute(_LEADER, {"job": job}).first()
    return (row[0], row[1]) if row is not None else None


def lead(connection: Connection, job: str, holder: str, now_ms: int, expires_at_ms: int) -> bool:
    """Take or keep the lead; False when someone else has it."""
    values = {
        "job": job,
        "holder": holder,
        "now_ms": now_ms,
        "expires_at_ms": expires_at_ms,
    }
    return connection.execute(_LEAD, values).rowcount == 1
