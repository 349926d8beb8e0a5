"""`provectl orders reconcile` upon copies of real databases, with differences planted in them."""

import json
import os
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from service_kit import testing
from service_kit.testing import PATIENT_S, wait_until

from prove import tools
from tests.support.stack import Stack

SKU = "RECONCILED"
PRICE = 250
FINAL = {"confirmed", "rejected", "cancelled"}


@pytest.fixture(scope="module")
def orders(stack: Stack) -> dict[str, dict[str, Any]]:
    """Three orders of a real shop, by how they ended."""
    item = {"sku": SKU, "name": "Mug", "description": "", "category": "kitchen"}
    imported = httpx.post(
        f"{stack.url('product')}/api/v1/products/import",
        headers={"Authorization": f"Bearer {stack.token}"},
        json={"items": [item | {"price_minor": PRICE, "currency": "GBP", "stock": 1000}]},
        timeout=PATIENT_S,
    )
    assert imported.status_code == 200, imported.text
    confirmed, cancelled = buy(stack, "tok_approve", 201), buy(stack, "tok_approve", 201)
    cancel = f"{api(stack)}/{cancelled}/cancel"
    wait_until(lambda: httpx.post(cancel, timeout=PATIENT_S).is_success, what="the cancellation")
    declined = buy(stack, "tok_decline", 402)
    ends = {}
    for order_id in (confirmed, cancelled, declined):
        order = wait_until(partial(finished, stack, order_id), what="the order's end")
        ends[order["status"]] = order
    assert set(ends) == FINAL
    return ends


CUSTOMER = f"reconcile-{uuid.uuid4().hex[:8]}"


def api(stack: Stack) -> str:
    return f"{stack.url('order')}/api/v1/orders"


def buy(stack: Stack, method: str, status: int) -> str:
    """The id of an order that ended so; asked for under its key while the shop is busy."""
    key = uuid.uuid4().hex

    def ended() -> str | None:
        answer = httpx.post(
            api(stack),
            headers={"Idempotency-Key": key},
            json={
                "customer_id": CUSTOMER,
                "lines": [{"sku": SKU, "quantity": 2}],
                "payment_method": method,
            },
            timeout=PATIENT_S,
        )
        body: dict[str, str] = answer.json()
        return body.get("order_id") or body["id"] if answer.status_code == status else None

    return wait_until(ended, what=f"an order that is answered with {status}")


def finished(stack: Stack, order_id: str) -> dict[str, Any] | None:
    """The order, once no step of it is left in the books."""
    with closing(connect(stack.settings.data_dir / "order.db", "ro")) as books:
        (step,) = books.execute("SELECT step FROM orders WHERE id = ?", [order_id]).fetchone()
    order: dict[str, Any] = httpx.get(f"{api(stack)}/{order_id}", timeout=PATIENT_S).json()
    return order if not step and order["status"] in FINAL else None


def connect(file: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{file}?mode={mode}", uri=True)


@pytest.fixture
def books(stack: Stack, orders: dict[str, Any], tmp_path: Path) -> Stack:
    """A stack that never ran: copies of the real databases, with nothing but those orders."""
    copy = Stack.at(tmp_path / "home")
    copy.settings.data_dir.mkdir(parents=True)
    for name in ("order", "payment", "product", "acquirer"):
        file = copy.settings.data_dir / f"{name}.db"
        with (
            closing(connect(stack.settings.data_dir / file.name, "ro")) as real,
            closing(sqlite3.connect(file)) as ours,
        ):
            real.backup(ours)
    kept = json.dumps([order["id"] for order in orders.values()] + [SKU])
    for name, table, column in (
        ("order", "orders", "id"),
        ("order", "order_steps", "order_id"),
        ("payment", "payments", "order_id"),
        ("product", "reservations", "id"),
        ("product", "products", "sku"),
        ("acquirer", "entries", "reference"),
    ):
        with closing(connect(copy.settings.data_dir / f"{name}.db", "rw")) as connection:
            connection.execute(
                f"DELETE FROM {table} WHERE {column} NOT IN "  # noqa: S608 - the names above
                "(SELECT value FROM json_each(?))",
                [kept],
            )
            connection.commit()
    return copy


def execute(stack: Stack, name: str, statement: str, order_id: str) -> None:
    with closing(connect(stack.settings.data_dir / f"{name}.db", "rw")) as connection:
        changed = connection.execute(statement, [order_id])
        connection.commit()
        assert changed.rowcount > 0, "there was nothing to plant it in"


def reconcile(books: Stack, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return books.run("orders", "reconcile", "--grace", "1ms", *arguments, env=env)


def test_books_that_agree(books: Stack) -> None:
    answer = reconcile(books)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "no difference" in answer.stdout
    rows = [line.split() for line in answer.stdout.splitlines()]
    assert ["orders", "cancelled", "1"] in rows
    assert ["captured", "10.00", "GBP"] in [row[-3:] for row in rows]
    assert ["net", "5.00", "GBP"] in rows

    document = json.loads(reconcile(books, "--json").stdout)
    assert document["differences"] == []
    assert document["orders"] == {
        "all": 3,
        "unfinished": 0,
        "by_status": {"confirmed": 1, "rejected": 1, "cancelled": 1},
    }
    assert document["money"] == {
        "GBP": {
            "captured_minor": 4 * PRICE,
            "refunded_minor": 2 * PRICE,
            "net_minor": 2 * PRICE,
            "confirmed_minor": 2 * PRICE,
        }
    }


@pytest.mark.parametrize(
    ("database", "statement", "whose", "kinds"),
    [
        (
            "acquirer",
            "DELETE FROM entries WHERE kind = 'refund' AND reference = ?",
            "cancelled",
            ["unrefunded-charge", "payment-differs"],
        ),
        (
            "acquirer",
            "UPDATE entries SET amount_minor = amount_minor + 1 WHERE reference = ?",
            "confirmed",
            ["wrong-amount", "wrong-amount"],
        ),
        (
            "payment",
            "UPDATE payments SET status = 'captured' WHERE order_id = ?",
            "rejected",
            ["payment-differs"],
        ),
        (
            "product",
            "UPDATE reservations SET status = 'released' WHERE id = ?",
            "confirmed",
            ["uncommitted-stock"],
        ),
        (
            "order",
            "UPDATE orders SET status = 'rejected', version = version + 1 WHERE id = ?",
            "confirmed",
            ["unrefunded-charge", "stock-held", "impossible-history"],
        ),
        (
            "order",
            "DELETE FROM orders WHERE id = ?",
            "confirmed",
            ["unknown-payment", "unknown-reservation"],
        ),
    ],
)
def test_a_planted_difference_is_found(
    books: Stack,
    orders: dict[str, Any],
    database: str,
    statement: str,
    whose: str,
    kinds: list[str],
) -> None:
    order = orders[whose]
    execute(books, database, statement, order["id"])

    answer = reconcile(books, "--json")
    assert answer.returncode == 1, answer.stderr
    found = json.loads(answer.stdout)["differences"]
    assert [difference["kind"] for difference in found] == kinds
    assert {difference["order_id"] for difference in found} == {order["id"]}
    assert {difference["trace_id"] for difference in found} == {order["trace_id"]}

    shown = reconcile(books)
    assert shown.returncode == 1
    assert order["id"] in shown.stdout
    assert f"logs --trace {order['trace_id']}" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_without_books_it_says_what_to_do(tmp_path: Path) -> None:
    nowhere = Stack.at(tmp_path / "home")
    answer = reconcile(nowhere)
    assert answer.returncode == 2
    assert "there is no acquirer database at" in answer.stderr
    assert "PROVE_HOME" in answer.stderr
    assert reconcile(nowhere, "--grace", "soon").returncode == 2


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with testing.postgres() as url:
        yield url


def test_the_same_books_in_postgresql(books: Stack, orders: dict[str, Any], server: str) -> None:
    """The services' own tables, made by their own migrations."""
    order_id = orders["confirmed"]["id"]
    execute(books, "order", "UPDATE orders SET total_minor = 1 WHERE id = ?", order_id)
    expected = json.loads(reconcile(books, "--json").stdout)
    assert [found["kind"] for found in expected["differences"]] == ["wrong-amount"]

    programs = {
        "order": str(tools.ensure_service("order-service")),
        "payment": testing.script("payment-service"),
        "product": testing.script("product-service"),
    }
    env = {}
    for name, program in programs.items():
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = f"{server.rpartition('/')[0]}/{name}"
        migrated = subprocess.run(
            [program, "migrate"],
            env={**os.environ, "DATABASE_URL": url, "OTEL_SDK_DISABLED": "true"},
            capture_output=True,
            text=True,
        )
        assert migrated.returncode == 0, migrated.stderr
        copy_tables(books.settings.data_dir / f"{name}.db", url, TABLES[name])
        (books.settings.data_dir / f"{name}.db").unlink()
        env[f"PROVE_{name.upper()}_DATABASE_URL"] = url
    answer = reconcile(books, "--json", **env)
    assert answer.returncode == 1, answer.stderr
    assert json.loads(answer.stdout) == expected


TABLES = {
    "order": ("orders", "order_steps"),
    "payment": ("payments",),
    "product": ("products", "reservations"),
}


def copy_tables(file: Path, url: str, tables: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(file)) as ours, psycopg.connect(url) as theirs:
        for table in tables:
            rows = ours.execute(f"SELECT * FROM {table}")  # noqa: S608 - a name of this file
            names = [column for column, *_ in rows.description]
            into = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join([sql.Placeholder()] * len(names)),
            )
            # The order's own trigger has recorded steps of what was just inserted.
            theirs.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
            theirs.cursor().executemany(into, rows.fetchall())
