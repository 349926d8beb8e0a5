"""Reservations: every step repeatable in any order, stock never negative and never lost."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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
from service_kit.testing import wait_until

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


def test_a_release_is_final(shop: Any, product: Product) -> None:
    shop.add(product("A"))
    shop.reserve("o-1", A=4)
    shop.step("o-1", "release")
    refused = [shop.step("o-1", step) for step in ("commit", "extend")]
    for gone in (*refused, shop.reserve("o-1", A=4)):
        assert (gone.status_code, gone.get_json()["type"]) == (409, "/problems/reservation-gone")
    assert shop.stock("A") == 10
    for step in ("commit", "extend"):
        assert shop.step("nope", step).status_code == 404


def test_a_reservation_that_comes_after_its_release_is_refused(shop: Any, product: Product) -> None:
    shop.add(product("A"))
    for _ in range(2):
        tombstone = shop.step("late", "release")
        assert (tombstone.status_code, tombstone.get_json()["status"]) == (200, "released")
    assert tombstone.get_json() == shop.client.get(f"{RESERVATIONS}/late").get_json()
    assert tombstone.get_json()["lines"] == []
    gone = shop.reserve("late", A=1)
    assert (gone.status_code, gone.get_json()["type"]) == (409, "/problems/reservation-gone")
    assert shop.stock("A") == 10


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


def test_asking_again_takes_what_has_expired_again_or_is_short(timed: Any) -> None:
    service, catalogue, clock = timed
    line = [Line(sku="A", quantity=6)]
    first, _ = service.reserve("o-1", line, 60)
    for sweep in (False, True):
        clock.now_ms += 60_000
        assert service.sweep() == 1 if sweep else service.get("o-1").status == "expired"
        again, new = service.reserve("o-1", line, 60)
        assert (again.status, again.lines, new) == ("held", first.lines, False)
        assert again.expires_at_ms == clock.now_ms + 60_000
        assert catalogue.product("A").stock == 4
    clock.now_ms += 60_000
    service.reserve("o-2", line, 60)
    with pytest.raises(Problem) as short:
        service.reserve("o-1", line, 60)
    assert (short.value.slug, short.value.extras) == ("stock-short", {"sku": "A", "available": 4})
    assert service.release("o-1").status == "released"
    assert catalogue.product("A").stock == 4


def test_a_sweep_leaves_alone_what_was_extended_meanwhile(timed: Any) -> None:
    service, catalogue, clock = timed
    service.reserve("o-1", [Line(sku="A", quantity=6)], 60)
    late = clock.now_ms + 60_000
    service.extend("o-1", 600)
    clock.now_ms = late
    assert service.sweep() == 0
    assert (service.get("o-1").status, catalogue.product("A").stock) == ("held", 4)


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
    sqlite_shop.add(
        product("A", stock=7),
        product("B", stock=5, category="lamps"),
        product("C", stock=0, category="lamps"),
    )
    first = sqlite_shop.app.housekeeper
    second = open_shop(str(sqlite_shop.app.database.url)).app.housekeeper
    second._me = "another-process"
    sqlite_shop.reserve("o-1", ttl_s=1, A=2)
    wait_until(lambda: sqlite_shop.client.get(f"{RESERVATIONS}/o-1").get_json()["status"] != "held")
    first.tick()
    second.tick()
    assert first.stock() == {"mugs": (7, 0), "lamps": (5, 1)}
    assert second.stock() == {}
    first.stop()


@dataclass
class Expected:
    """What the model knows of a reservation; a held one has its goods until it is swept."""

    status: str
    basket: dict[str, int]
    expires_ms: int


class Orders(RuleBasedStateMachine):
    """Any steps in any order and number: every answer, every status, every stock as the model's."""

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
        self.stock = Counter(dict.fromkeys(self.skus, self.initial))
        self.expected: dict[str, Expected] = {}

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()

    orders = st.sampled_from(["o1", "o2", "o3", "o4"])
    baskets = st.dictionaries(st.sampled_from(skus), st.integers(1, 8), min_size=1)
    times = st.integers(1, 2)

    def answer(self, step: Callable[[], Any]) -> str:
        try:
            done = step()
        except Problem as error:
            return error.slug
        return str((done[0] if isinstance(done, tuple) else done).status)

    def overdue(self, one: Expected) -> bool:
        return one.status == "held" and one.expires_ms <= self.clock.now_ms

    def give_back_overdue(self) -> None:
        for one in self.expected.values():
            if self.overdue(one):
                one.status = "expired"
                self.stock.update(one.basket)

    def free(self, basket: dict[str, int]) -> bool:
        for _ in range(2):  # what is short is looked for once more in what has expired
            if all(self.stock[sku] >= n for sku, n in basket.items()):
                return True
            self.give_back_overdue()
        return False

    def take_again(self, one: Expected, status: str) -> bool:
        if not self.free(one.basket):
            return False
        self.stock.subtract(one.basket)
        one.status = status
        return True

    @rule(order_id=orders, basket=baskets, ttl_s=st.integers(1, 100), times=times)
    def reserve(self, order_id: str, basket: dict[str, int], ttl_s: int, times: int) -> None:
        lines = [Line(sku=sku, quantity=quantity) for sku, quantity in basket.items()]
        for _ in range(times):
            expires_ms = self.clock.now_ms + ttl_s * 1000
            one = self.expected.get(order_id)
            if one is None and self.free(basket):
                wanted = "held"
                self.stock.subtract(basket)
                self.expected[order_id] = Expected("held", basket, expires_ms)
            elif one is None:
                wanted = "stock-short"
            elif one.status == "released":
                wanted = "reservation-gone"
            elif one.basket != basket:
                wanted = "key-reused"
            elif self.overdue(one) or (one.status == "expired" and self.take_again(one, "held")):
                wanted = "held"
                one.expires_ms = expires_ms
            else:
                wanted = "stock-short" if one.status == "expired" else one.status
            got = self.answer(lambda: self.service.reserve(order_id, lines, ttl_s))
            assert got == wanted

    @rule(order_id=orders, times=times)
    def commit(self, order_id: str, times: int) -> None:
        for _ in range(times):
            one = self.expected.get(order_id)
            if one is None:
                wanted = "not-found"
            elif one.status in ("held", "committed"):
                wanted = one.status = "committed"
            elif one.status == "expired" and self.take_again(one, "committed"):
                wanted = "committed"
            else:
                wanted = "reservation-gone"
            assert self.answer(lambda: self.service.commit(order_id)) == wanted

    @rule(order_id=orders, ttl_s=st.integers(1, 100), times=times)
    def extend(self, order_id: str, ttl_s: int, times: int) -> None:
        for _ in range(times):
            expires_ms = self.clock.now_ms + ttl_s * 1000
            one = self.expected.get(order_id)
            if one is None:
                wanted = "not-found"
            elif one.status == "held":
                wanted = "held"
                one.expires_ms = max(one.expires_ms, expires_ms)
            elif one.status == "expired" and self.take_again(one, "held"):
                wanted = "held"
                one.expires_ms = expires_ms
            else:
                wanted = "committed" if one.status == "committed" else "reservation-gone"
            assert self.answer(lambda: self.service.extend(order_id, ttl_s)) == wanted

    @rule(order_id=orders, times=times)
    def release(self, order_id: str, times: int) -> None:
        for _ in range(times):
            one = self.expected.setdefault(order_id, Expected("released", {}, 0))
            if one.status in ("held", "committed"):
                self.stock.update(one.basket)
            one.status = "released"
            assert self.answer(lambda: self.service.release(order_id)) == "released"

    @rule(seconds=st.integers(1, 120))
    def time_passes(self, seconds: int) -> None:
        self.clock.now_ms += seconds * 1000

    @rule()
    def sweep(self) -> None:
        self.give_back_overdue()
        self.service.sweep()

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "expected"):
            return
        with self.database.read() as connection:
            stored = connection.execute(sa.text("SELECT id, status FROM reservations"))
            stock = {sku: self.catalogue.product(sku).stock for sku in self.skus}
            assert {row[0]: row[1] for row in stored} == {
                order_id: one.status for order_id, one in self.expected.items()
            }
        assert stock == dict(self.stock)
        assert min(stock.values()) >= 0


def test_any_steps_in_any_order(database_url: str) -> None:
    class Here(Orders):
        url = database_url.replace("postgresql:", "postgresql+psycopg:")

    Here.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
    Here.TestCase().runTest()
