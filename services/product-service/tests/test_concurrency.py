"""Many at once, in two processes and many threads: nothing is lost, nothing sold twice."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from product_harness import done
from product_service.metrics import Metrics
from product_service.model import Line, ProductCreate
from product_service.service import Catalogue, Reservations
from service_kit.database import Database, migrate
from service_kit.problem import Problem

Product = Callable[..., dict[str, Any]]


def test_400_concurrent_decrements_lose_none(
    start: Any, database_url: str, product: Product
) -> None:
    service = start(DATABASE_URL=database_url, WEB_CONCURRENCY="2")
    items = {"items": [product("A", stock=1000), product("B", stock=200)]}
    assert done(service.url, "/api/v1/products/import", "POST", items)[0] == 200

    def order(number: int) -> int:
        lines = [{"sku": sku, "quantity": 1} for sku in ("BA" if number % 2 else "AB")]
        body = {"order_id": f"o-{number}", "lines": lines}
        status, _ = done(service.url, "/api/v1/reservations", "POST", body)
        if status == 201 and number % 4 == 0:
            for step in ("commit", "release", "commit"):
                path = f"/api/v1/reservations/o-{number}/{step}"
                assert done(service.url, path, "POST")[0] in (200, 409)
        return status

    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(order, range(400)))
    assert set(statuses) == {201, 409}

    taken = 0
    for number in range(400):
        status, reservation = done(service.url, f"/api/v1/reservations/o-{number}")
        taken += status == 200 and reservation["status"] in ("held", "committed")
    left = {sku: done(service.url, f"/api/v1/products/{sku}")[1]["stock"] for sku in ("A", "B")}
    assert left == {"A": 1000 - taken, "B": 200 - taken}
    assert taken <= 200


def test_one_order_id_at_once_holds_once(start: Any, database_url: str, product: Product) -> None:
    service = start(DATABASE_URL=database_url, WEB_CONCURRENCY="2")
    items = {"items": [product("A", stock=100)]}
    assert done(service.url, "/api/v1/products/import", "POST", items)[0] == 200
    body = {"order_id": "same", "lines": [{"sku": "A", "quantity": 3}]}

    def order(_number: int) -> tuple[int, Any]:
        return done(service.url, "/api/v1/reservations", "POST", body)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(order, range(48)))
    assert Counter(status for status, _ in answers) == {201: 1, 200: 47}
    assert all(answer == answers[0][1] for _, answer in answers)
    assert done(service.url, "/api/v1/products/A")[1]["stock"] == 97


def test_steps_of_the_same_orders_at_once_with_sweeps_between(
    database_url: str, product: Product
) -> None:
    database = Database(sa.make_url(database_url.replace("postgresql:", "postgresql+psycopg:")))
    migrate(database, "product_service")
    catalogue = Catalogue(database)
    for sku in "ABC":
        catalogue.create(ProductCreate(**product(sku, stock=30)))
    service = Reservations(database, Metrics(dict))
    # Another process, with a clock a minute ahead: what is held for less is over to it.
    sweeper = Reservations(database, Metrics(dict), lambda: time.time_ns() // 1_000_000 + 60_000)

    def live(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(40):
            order_id = f"o-{choice.randrange(12)}"
            lines = [Line(sku=sku, quantity=2) for sku in choice.sample("ABC", 2)]
            steps: list[Callable[[], object]] = [
                lambda o=order_id, ls=lines: service.reserve(o, ls, 30),  # type: ignore[misc]
                lambda o=order_id: service.commit(o),  # type: ignore[misc]
                lambda o=order_id: service.extend(o, 30),  # type: ignore[misc]
                sweeper.sweep,
            ]
            step = choice.choice(steps) if choice.random() < 0.95 else None
            try:
                service.release(order_id) if step is None else step()
            except Problem as error:
                if error.status not in (404, 409, 422):
                    raise

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(live, range(8)))
    out: Counter[str] = Counter()
    with database.read() as connection:
        query = "SELECT lines FROM reservations WHERE status IN ('held', 'committed')"
        for (lines,) in connection.execute(sa.text(query)):
            out.update({line["sku"]: line["quantity"] for line in json.loads(lines)})
    stock = {sku: catalogue.product(sku).stock for sku in "ABC"}
    database.close()
    assert stock == {sku: 30 - out[sku] for sku in "ABC"}
