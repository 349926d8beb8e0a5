"""The catalogue's contract, on both databases."""

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

Product = Callable[..., dict[str, Any]]

PRODUCTS = "/api/v1/products"


def walk(shop: Any, **query: Any) -> list[dict[str, Any]]:
    """All pages of a list."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = shop.list(**query, **({"cursor": cursor} if cursor else {}))
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def test_create_read_replace_patch_delete(shop: Any, product: Product) -> None:
    created = shop.admin("POST", PRODUCTS, product("A1"))
    assert created.status_code == 201
    assert created.headers["Location"] == f"{PRODUCTS}/A1"
    assert shop.client.get(f"{PRODUCTS}/A1").get_json() == product("A1")
    again = shop.admin("POST", PRODUCTS, product("A1"))
    assert (again.status_code, again.get_json()["type"]) == (409, "/problems/exists")

    replaced = shop.admin("PUT", f"{PRODUCTS}/A1", product("A1", name="New", stock=3))
    assert (replaced.status_code, replaced.get_json()["name"]) == (200, "New")
    assert shop.admin("PUT", f"{PRODUCTS}/A2", product("A2")).status_code == 201
    assert shop.admin("PUT", f"{PRODUCTS}/A2", product("A3")).status_code == 422

    patched = shop.admin("PATCH", f"{PRODUCTS}/A1", {"price_minor": 999})
    assert patched.get_json() == product("A1", name="New", stock=3, price_minor=999)
    assert shop.admin("PATCH", f"{PRODUCTS}/A1", {}).status_code == 422
    assert shop.admin("PATCH", f"{PRODUCTS}/A1", {"name": None}).status_code == 422
    assert shop.admin("PATCH", f"{PRODUCTS}/nope", {"stock": 1}).status_code == 404

    assert shop.admin("DELETE", f"{PRODUCTS}/A1").status_code == 204
    assert shop.admin("DELETE", f"{PRODUCTS}/A1").status_code == 404
    assert shop.client.get(f"{PRODUCTS}/A1").status_code == 404


@pytest.mark.parametrize("path", ["/api/v1/products/a%00b", "/api/v1/products/%ff", "/x"])
def test_unknown_paths_are_not_found(shop: Any, path: str) -> None:
    response = shop.client.get(path)
    assert response.status_code == 404
    assert response.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "changes",
    [
        {"sku": "-x"},
        {"sku": "import"},
        {"sku": "x" * 33},
        {"name": ""},
        {"name": "a\x00b"},
        {"name": "\ud800"},
        {"price_minor": 0},
        {"price_minor": 1.5},
        {"price_minor": "1"},
        {"price_minor": True},
        {"price_minor": 10**10},
        {"currency": "gbp"},
        {"stock": -1},
        {"stock": None},
        {"more": 1},
    ],
)
def test_bad_products_are_refused_by_name_of_the_field(
    shop: Any, changes: dict[str, Any], product: Product
) -> None:
    body = json.dumps(product() | changes)
    response = shop.client.post(
        PRODUCTS,
        data=body,
        content_type="application/json",
        headers={"Authorization": "Bearer test-token"},
    )
    assert response.status_code in (400, 422), response.text
    if response.status_code == 422:
        assert response.get_json()["errors"][0]["loc"] == ["body", next(iter(changes))]


@pytest.mark.parametrize("sort", ["sku", "-sku", "name", "-name", "price", "-price"])
def test_every_sort_pages_through_everything_once(shop: Any, sort: str, product: Product) -> None:
    rng = random.Random(7)
    shop.add(
        *(
            product(f"P{i:03}", name=f"N{rng.randrange(8)}", price_minor=rng.randrange(1, 6))
            for i in range(57)
        )
    )
    key = {"sku": "sku", "name": "name", "price": "price_minor"}[sort.lstrip("-")]
    expected = sorted(
        shop.list(limit=100)["items"],
        key=lambda item: (item[key], item["sku"]),
        reverse=sort.startswith("-"),
    )
    assert walk(shop, sort=sort, limit=10) == expected


def test_filters(shop: Any, product: Product) -> None:
    shop.add(
        product("A", category="mugs", price_minor=100),
        product("B", category="mugs", price_minor=200),
        product("C", category="lamps", price_minor=300),
    )

    def skus(**query: Any) -> list[str]:
        return [item["sku"] for item in shop.list(**query)["items"]]

    assert skus(category="mugs") == ["A", "B"]
    assert skus(category="none") == []
    assert skus(min_price=200) == ["B", "C"]
    assert skus(max_price=200, sort="-price") == ["B", "A"]
    assert skus(category="mugs", min_price=150, max_price=250) == ["B"]
    assert skus(min_price=300, max_price=100) == []


def test_search_finds_words_of_name_description_and_sku(shop: Any, product: Product) -> None:
    shop.add(
        product("R1", name="Red retro-spot MUG", price_minor=3),
        product("R2", name="Blue lamp", description="goes with the retro mug", price_minor=2),
        product("85123A", name="White heart"),
    )

    def skus(q: str, **query: Any) -> list[str]:
        return [item["sku"] for item in shop.list(q=q, **query)["items"]]

    assert skus("retro mug") == ["R1", "R2"]
    assert skus("retro mug", sort="price") == ["R2", "R1"]
    assert skus("85123a") == ["85123A"]
    assert skus("retro lamp heart") == []
    assert skus("retro", category="none") == []
    assert len(skus("  ")) == 3
    assert walk(shop, q="retro", limit=1) == walk(shop, q="retro")
    shop.admin("PATCH", f"{PRODUCTS}/R1", {"name": "Green plate"})
    shop.admin("DELETE", f"{PRODUCTS}/R2")
    assert skus("retro") == []
    assert skus("green plate") == ["R1"]


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(q=st.text(max_size=40) | st.text(alphabet="\"'*()-:^+ANDORNT{}&|!<>\\%_. \x00", max_size=20))
@example(q="AND")
@example(q="a NEAR b")
@example(q="NOT")
@example(q="x\u0301\u00b2_1")
def test_no_search_is_an_error(shop: Any, q: str) -> None:
    response = shop.client.get(PRODUCTS, query_string={"q": q.encode("utf-8", "replace")})
    assert response.status_code == 200, response.text


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    sort=st.sampled_from(["sku", "name", "-price"]),
    junk=st.text(max_size=30)
    | st.lists(st.none() | st.booleans() | st.integers() | st.text(max_size=5), max_size=4).map(
        lambda values: base64.urlsafe_b64encode(json.dumps(values).encode()).decode()
    ),
)
def test_a_made_up_cursor_is_refused(shop: Any, sort: str, junk: str) -> None:
    cursor = junk.encode("utf-8", "replace")
    response = shop.client.get(PRODUCTS, query_string={"cursor": cursor, "sort": sort})
    assert response.status_code == 422, response.text


def test_a_cursor_of_another_sort_is_refused(shop: Any, product: Product) -> None:
    shop.add(product("A"), product("B"))
    cursor = shop.list(limit=1)["next_cursor"]
    response = shop.client.get(PRODUCTS, query_string={"cursor": cursor, "sort": "name"})
    assert response.status_code == 422


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=+5", "limit=1&limit=2", "sort=x", "min_price=-1"]
)
def test_bad_queries(shop: Any, query: str) -> None:
    assert shop.client.get(f"{PRODUCTS}?{query}").status_code == 422


def test_etags_change_with_content_and_stock_only(shop: Any, product: Product) -> None:
    shop.add(product("A"), product("B"))
    for path in (f"{PRODUCTS}/A", PRODUCTS):
        tag = shop.client.get(path).headers["ETag"]
        known = {"If-None-Match": tag}
        same = shop.client.get(path, headers=known)
        assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", tag)
        assert shop.client.get(path, headers={"If-None-Match": f"W/{tag}"}).status_code == 304
        shop.add(product("A"))  # changes nothing
        assert shop.client.get(path, headers=known).status_code == 304
        assert shop.reserve(f"order-{len(path)}", A=1).status_code == 201
        assert shop.client.get(path, headers=known).status_code == 200
        shop.admin("DELETE", f"{PRODUCTS}/A")
        shop.add(product("A"))
        assert shop.client.get(path, headers=known).status_code == 200


def test_import_creates_updates_and_counts(shop: Any, product: Product) -> None:
    def load(*items: dict[str, Any]) -> Any:
        return shop.admin("POST", f"{PRODUCTS}/import", {"items": list(items)})

    both = [product("A"), product("B")]
    assert load(*both).get_json() == {"created": 2, "updated": 0, "unchanged": 0}
    assert load(*both).get_json() == {"created": 0, "updated": 0, "unchanged": 2}
    shop.reserve("o1", A=4)
    without_stock = {k: v for k, v in product("A", name="New").items() if k != "stock"}
    assert load(without_stock).get_json() == {"created": 0, "updated": 1, "unchanged": 0}
    assert shop.stock("A") == 6
    assert load(product("A", name="New", stock=1)).get_json()["updated"] == 1
    assert shop.stock("A") == 1
    assert load().get_json() == {"created": 0, "updated": 0, "unchanged": 0}


def test_import_is_all_or_nothing(shop: Any, product: Product) -> None:
    no_stock = {k: v for k, v in product("B").items() if k != "stock"}
    for second in (no_stock, product("A", name="twice"), product("C", price_minor=0)):
        body = {"items": [product("A"), second]}
        response = shop.admin("POST", f"{PRODUCTS}/import", body)
        assert response.status_code == 422, response.text
        assert shop.list()["items"] == []


def test_import_of_ten_thousand(shop: Any, product: Product) -> None:
    items = [product(f"P{i}", name=f"Thing {i} of many") for i in range(10_000)]
    assert shop.admin("POST", f"{PRODUCTS}/import", {"items": items}).get_json()["created"] == 10000
    assert [item["sku"] for item in shop.list(q="9876")["items"]] == ["P9876"]
    too_many = {"items": [*items, product("more")]}
    assert shop.admin("POST", f"{PRODUCTS}/import", too_many).status_code == 422


def test_admin_endpoints_need_the_token(
    shop: Any, open_shop: Any, sqlite_url: str, product: Product
) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic test-token"}):
        response = shop.client.post(PRODUCTS, json=product("A"), headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    closed = open_shop(sqlite_url, admin_token=None)
    assert closed.admin("POST", PRODUCTS, product("A")).status_code == 404
