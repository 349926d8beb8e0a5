"""Reading the books: where they are, and what is said when they are not.

(That the services' own tables are read as they are: tests/integration/test_reconcile.py.)
"""

import sqlite3
from pathlib import Path

import pytest

from prove.errors import UserError
from prove.stack.settings import StackSettings
from prove.verify import books
from prove.verify.books import Sources

SCHEMA = {
    "acquirer": "CREATE TABLE entries (seq, kind, key, charge_key, status, amount_minor, currency,"
    " reference, created_at)",
    "product": "CREATE TABLE products (sku, stock);"
    " CREATE TABLE reservations (id, status, lines, expires_at_ms)",
    "payment": "CREATE TABLE payments (id, idempotency_key, order_id, amount_minor, currency,"
    " status, traceparent, created_at_ms, updated_at_ms)",
    "order": "CREATE TABLE order_steps (order_id, seq, at_us, status, step, attempts);"
    " CREATE TABLE orders (id, customer_id, idempotency_key, status, step, lines, total_minor,"
    " currency, payment_id, failure, traceparent, created_at_us, updated_at_us, attempts)",
}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Empty databases."""
    for name, schema in SCHEMA.items():
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            connection.executescript(schema)
        connection.close()
    return Sources(**{name: f"sqlite:///{tmp_path}/{name}.db" for name in SCHEMA})


def execute(url: str, statement: str, *values: object) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_empty_books_are_books(sources: Sources) -> None:
    told: list[str] = []
    read = books.read(sources, told.append)
    assert not any((read.orders, read.steps, read.payments, read.entries, read.stock))
    assert read.read_at_us > 1_700_000_000_000_000
    assert told == ["acquirer", "product", "payment", "order"]  # what is written last comes first


def test_what_may_be_missing_in_a_row(sources: Sources) -> None:
    execute(
        sources.order,
        "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(
            "o1",
            "c1",
            None,
            "rejected",
            "",
            '[{"sku":"MUG","name":"","quantity":2,"price_minor":0}]',
        ),
        *(0, "", "", '{"code":"unavailable"}', "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", 1, 2, 0),
    )
    execute(
        sources.payment,
        "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *("pay_1", "o1", "o1", 100, "GBP", "cancelled", None, 3, 4),
    )
    read = books.read(sources)
    (order,), (payment,) = read.orders, read.payments
    assert (order.key, order.failure, order.trace_id) == (None, "unavailable", "ab" * 16)
    assert order.lines == (("MUG", 2, 0),)
    assert payment.trace_id == ""
    assert (payment.created_at_us, payment.updated_at_us) == (3000, 4000)


def test_reading_changes_nothing(sources: Sources, tmp_path: Path) -> None:
    """Also of a database in WAL mode that no service has open."""
    execute(sources.order, "PRAGMA journal_mode=WAL")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.db")}
    books.read(sources)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.db")} == before


def test_a_database_that_is_not_there(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "payment.db").unlink()
    with pytest.raises(UserError, match=r"there is no payment database at .*payment\.db"):
        books.read(sources)
    assert not (tmp_path / "payment.db").exists()


def test_a_file_that_is_no_database(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "order.db").write_bytes(b"no database at all, however long it is" * 100)
    with pytest.raises(UserError, match=r"order\.db cannot be read: file is not a database"):
        books.read(sources)


def test_a_database_of_someone_else(sources: Sources) -> None:
    execute(sources.order, "DROP TABLE order_steps")
    with pytest.raises(UserError, match=r"order\.db cannot be read: no such table: order_steps"):
        books.read(sources)


def test_a_row_that_no_service_wrote(sources: Sources) -> None:
    execute(sources.product, "INSERT INTO reservations VALUES ('o1', 'held', 'nonsense', 0)")
    with pytest.raises(UserError, match="the product database has a row that no service wrote"):
        books.read(sources)


def test_a_postgresql_server_that_is_not_there(sources: Sources) -> None:
    nowhere = Sources(
        order="postgresql://127.0.0.1:1/orders",
        payment=sources.payment,
        product=sources.product,
        acquirer=sources.acquirer,
    )
    with pytest.raises(UserError, match=r"the order database cannot be read: .*refused"):
        books.read(nowhere)


def test_the_books_of_a_stack(tmp_path: Path) -> None:
    settings = StackSettings.model_validate(
        {
            "home": tmp_path,
            "product_database_url": "postgresql://db/products",
            "payment_database_url": "sqlite:////var/lib/payment.db",
            "order_database_url": "sqlite:///data/other.db",
        }
    )
    assert Sources.of(settings) == Sources(
        order=f"sqlite:///{tmp_path}/data/other.db",
        payment="sqlite:////var/lib/payment.db",
        product="postgresql://db/products",
        acquirer=f"sqlite:///{tmp_path}/data/acquirer.db",
    )
