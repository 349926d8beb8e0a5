"""Reservations: every step repeatable in any order, stock never negative and never lost."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from product_service.metrics import Metrics
from product_service.model import Line, ProductCreate
from product_service.service import Catalogue, Reservations
from service_kit.database import Database, migrate
from service_kit.problem import Problem

Product = Callable[..., dict[str, Any]]

RESERVATIONS = "/api/v1/reservations"


def test_reserve_prices_and_takes(shop: Any, product: Product) -> None:
    shop.add(product("A", price_minor=300), product("B", price_minor=50))
    response = shop.reserve("o-1", A=2, B=4)
    assert response.status_code == 201
    assert response.headers["Location"] == f"{RESERVATIONS}/o-1"
    held = response.get_json()
    assert held["lines"] == [
        {
            "sku": "A",
            "name": "Product A",
            "quantity": 2,
            "price_minor": 300,
            "line_total_minor": 600,
        },
        {
            "sku": "B",
            "name": "Product B",
            "quantity": 4,
            "price_minor": 50,
            "line_total_minor": 200,
        },
    ]
    assert (held["id"], held["order_id"], held["status"]) == ("o-1", "o-1", "held")
    assert (held["currency"], held["total_minor"]) == ("GBP", 800)
    assert (shop.stock("A"), shop.stock("B")) == (8, 6)
    assert shop.client.get(f"{RESERVATIONS}/o-1").get_json() == held


def test_asking_again_gives_the_same_answer(shop: Any, product: Product) -> None:
    shop.add(product("A", stock=3))
    first = shop.reserve("o-1", A=3)
    shop.admin("PATCH", "/api/v1/products/A", {"price_minor": 1})
    again = shop.reserve("o-1", A=3)
    assert (again.status_code, again.get_json()) == (200, first.get_json())
    other = shop.reserve("o-1", A=2)
    assert (other.status_code, other.get_json()["type"]) == (422, "/problems/key-reused")
    assert shop.stock("A") == 0


def test_lines_of_one_sku_are_added_up(shop: Any, product: Product) -> None:
    shop.add(product("A"))
    lines = [{"sku": "A", "quantity": 2}, {"sku": "A", "quantity": 3}]
    held = shop.client.post(RESERVATIONS, json={"order_id": "o-1", "lines": lines})
    assert [line["quantity"] for line in held.get_json()["lines"]] == [5]
    assert shop.reserve("o-1", A=5).status_code == 200


def test_short_takes_nothing(shop: Any, product: Product) -> None:
    shop.add(product("A"), product("B", stock=1), product("C"))
    response = shop.reserve("o-1", A=1, B=2, C=1)
    body = response.get_json()
    assert (response.status_code, body["type"]) == (409, "/problems/stock-short")
    assert (body["sku"], body["available"]) == ("B", 1)
    assert [shop.stock(sku) for sku in "ABC"] == [10, 1, 10]
    assert shop.reserve("o-1", A=1, B=1).status_code == 201  # the id is free after a refusal


def test_unknown_sku_and_mixed_currencies(shop: Any, product: Product) -> None:
    shop.add(product("A"), product("E", currency="EUR"))
    unknown = shop.reserve("o-1", A=1, nope=1)
    assert (unknown.status_code, unknown.get_json()["type"]) == (422, "/problems/unknown-sku")
    assert unknown.get_json()["sku"] == "nope"
    mixed = shop.reserve("o-1", A=1, E=1)
    assert (mixed.status_code, mixed.get_json()["type"]) == (422, "/problems/mixed-currencies")
    assert shop.stock("A") == 10


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"order_id": "o", "lines": []},
        {"order_id": "o", "lines": [{"sku": "A", "quantity": 0}]},
        {"order_id": "o", "lines": [{"sku": "A", "quantity": 10_001}]},
        {"order_id": "../x", "lines": [{"sku": "A", "quantity": 1}]},
        {"order_id": "o", "lines": [{"sku": "A", "quantity": 1}], "ttl_s": 3601},
        {"order_id": "o", "lines": [{"sku": f"A{i}", "quantity": 1} for i in range(501)]},
    ],
)
def test_bad_reservations(shop: Any, body: dict[str, Any]) -> None:
    assert shop.client.post(RESERVATIONS, json=body).status_code == 422


def test_commit_release_and_back(shop: Any, product: Product) -> None:
    shop.add(product("A"))
    shop.reserve("o-1", A=4)
    for _ in range(2):
        committed = shop.step("o-1", "commit")
        assert (committed.status_code, committed.get_json()["status"]) == (200, "committed")
    extended = shop.step("o-1", "extend", ttl_s=9)
    assert (extended.status_code, extended.get_json()["status"]) == (200, "committed")
    assert shop.stock("A") == 6
    for _ in range(2):
        released = shop.step("o-1", "release")
        assert (released.status_code, released.get_json()["status"]) == (200, "released")
    assert shop.stock("A") == 10
    assert shop.step("o-1", "commit").get_json()["status"] == "committed"
    assert shop.stock("A") == 6
    shop.step("o-1", "release")
    assert shop.step("o-1", "extend", ttl_s=5).get_json()["status"] == "held"
    shop.step("o-1", "release")
    assert shop.reserve("o-2", A=8).status_code == 201
    for step in ("commit", "extend"):
        gone = shop.step("o-1", step)
        assert (gone.status_code, gone.get_json()["type"]) == (409, "/problems/reservation-gone")
        assert (gone.get_json()["sku"], gone.get_json()["available"]) == ("A", 2)
    for step in ("commit", "extend", "release"):
        assert shop.step("nope", step).status_code == 404


def test_extend_holds_longer_never_shorter(shop: Any, product: Product) -> None:
    shop.add(product("A"))
    held = shop.reserve("o-1", ttl_s=60, A=1).get_json()
    longer = shop.step("o-1", "extend", ttl_s=600).get_json()
    assert longer["expires_at"] > held["expires_at"]
    assert shop.step("o-1", "extend", ttl_s=1).get_json() == longer


class Clock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def timed(database_url: str, product: Product) -> Any:
    database = Database(sa.make_url(database_url.replace("postgresql:", "postgresql+psycopg:")))
    migrate(database, "product_service")
    clock = Clock()
    service = Reservations(database, Metrics(dict), clock)
    catalogue = Catalogue(database)
    catalogue.create(ProductCreate(**product("A")))
    yield service, catalogue, clock
    database.close()


def test_expired_goods_help_whoever_needs_them(timed: Any) -> None:
    service, catalogue, clock = timed
    service.reserve("o-1", [Line(sku="A", quantity=10)], 60)
    clock.now_ms += 60_000
    assert service.get("o-1").status == "expired"
    assert catalogue.product("A").stock == 0  # nobody needed them yet
    service.reserve("o-2", [Line(sku="A", quantity=4)], 60)
    assert catalogue.product("A").stock == 6
    with pytest.raises(Problem, match="are gone") as gone:
        service.commit("o-1")
    assert gone.value.slug == "reservation-gone"


def test_an_expired_reservation_can_be_committed_while_its_goods_are_there(timed: Any) -> None:
    service, catalogue, clock = timed
    for order_id, sweep in (("o-1", False), ("o-2", True)):
        service.reserve(order_id, [Line(sku="A", quantity=5)], 60)
        clock.now_ms += 60_000
        if sweep:
            assert service.sweep() == 1
        assert service.commit(order_id).status == "committed"
    assert catalogue.product("A").stock == 0
    assert service.sweep() == 0


def test_the_housekeeper_leads_alone_and_reports_stock(
    sqlite_shop: Any, open_shop: Any, product: Product
) -> None:
    sqlite_shop.add(product("A", stock=7), product("B", stock=5, category="lamps"))
    first = sqlite_shop.app.housekeeper
    second = open_shop(str(sqlite_shop.app.database.url)).app.housekeeper
    second._me = "another-process"
    sqlite_shop.reserve("o-1", ttl_s=1, A=2)
    deadline = time.monotonic() + 20
    while sqlite_shop.client.get(f"{RESERVATIONS}/o-1").get_json()["status"] == "held":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.tick()
    second.tick()
    assert first.stock_levels() == {"mugs": 7, "lamps": 5}
    assert second.stock_levels() == {}
    first.stop()


class Orders(RuleBasedStateMachine):
    """Any steps in any order: stock = initial - held - committed, and never below zero."""

    skus = ("A", "B", "C")
    initial = 12

    url = ""

    @initialize()
    def open(self) -> None:
        self.database = Database(sa.make_url(self.url))
        migrate(self.database, "product_service")
        with self.database.write() as connection:
            connection.execute(sa.text("DELETE FROM reservations"))
            connection.execute(sa.text("DELETE FROM products"))
        self.clock = Clock()
        self.service = Reservations(self.database, Metrics(dict), self.clock)
        self.catalogue = Catalogue(self.database)
        for sku in self.skus:
            new = ProductCreate(
                sku=sku, name=sku, category="c", price_minor=1, currency="GBP", stock=self.initial
            )
            self.catalogue.create(new)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()

    orders = st.sampled_from(["o1", "o2", "o3", "o4"])
    baskets = st.dictionaries(st.sampled_from(skus), st.integers(1, 8), min_size=1)

    def attempt(self, *slugs: str) -> Any:
        class Allowed:
            def __enter__(self) -> None: ...
            def __exit__(self, _type: object, error: object, _tb: object) -> bool:
                return isinstance(error, Problem) and error.slug in slugs

        return Allowed()

    @rule(order_id=orders, basket=baskets, ttl_s=st.integers(1, 100))
    def reserve(self, order_id: str, basket: dict[str, int], ttl_s: int) -> None:
        lines = [Line(sku=sku, quantity=quantity) for sku, quantity in basket.items()]
        with self.attempt("stock-short", "key-reused"):
            self.service.reserve(order_id, lines, ttl_s)

    @rule(order_id=orders)
    def commit(self, order_id: str) -> None:
        with self.attempt("not-found", "reservation-gone"):
            for _ in range(2):
                assert self.service.commit(order_id).status == "committed"

    @rule(order_id=orders, ttl_s=st.integers(1, 100))
    def extend(self, order_id: str, ttl_s: int) -> None:
        with self.attempt("not-found", "reservation-gone"):
            assert self.service.extend(order_id, ttl_s).status in ("held", "committed")

    @rule(order_id=orders)
    def release(self, order_id: str) -> None:
        with self.attempt("not-found"):
            for _ in range(2):
                assert self.service.release(order_id).status in ("released", "expired")

    @rule(seconds=st.integers(1, 120))
    def time_passes(self, seconds: int) -> None:
        self.clock.now_ms += seconds * 1000

    @rule()
    def sweep(self) -> None:
        self.service.sweep()

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "database"):
            return
        out = dict.fromkeys(self.skus, 0)
        with self.database.read() as connection:
            rows = connection.execute(
                sa.text("SELECT lines FROM reservations WHERE status IN ('held', 'committed')")
            )
            for (lines,) in rows:
                for line in json.loads(lines):
                    out[line["sku"]] += line["quantity"]
        for sku in self.skus:
            stock = self.catalogue.product(sku).stock
            assert stock >= 0
            assert stock == self.initial - out[sku]


def test_any_steps_in_any_order(database_url: str) -> None:
    class Here(Orders):
        url = database_url.replace("postgresql:", "postgresql+psycopg:")

    Here.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
    Here.TestCase().runTest()
