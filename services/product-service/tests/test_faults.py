"""Faults that look at the goods of a request, or at an answer; and those of the whole process."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from service_kit import testing
from service_kit.testing import wait_until

PRODUCTS = "/api/v1/products"
RESERVATIONS = "/api/v1/reservations"
CATALOGUE = {"A": "toys", "B": "food", "C": "toys"}


@pytest.fixture
def filled(shop: Any) -> Any:
    for sku, category in CATALOGUE.items():
        product = {"name": sku, "category": category, "price_minor": 250, "currency": "GBP"}
        assert shop.admin("PUT", f"{PRODUCTS}/{sku}", {**product, "stock": 9}).status_code == 201
    return shop


def put(shop: Any, kind: str, **fault: Any) -> None:
    answer = shop.admin("PUT", "/faults/x", {"type": kind, "ttl_s": 60, **fault})
    assert answer.status_code == 200, answer.text


def fail(shop: Any, **match: Any) -> None:
    put(shop, "error", params={"rate": 1}, match=match)


def status(shop: Any, url: str) -> int:
    return int(shop.client.get(url).status_code)


def test_a_product_is_hit_where_it_is_read_or_reserved(filled: Any) -> None:
    fail(filled, sku="A")
    assert [status(filled, f"{PRODUCTS}/{sku}") for sku in "ABC"] == [503, 200, 200]
    assert status(filled, PRODUCTS) == 200
    assert filled.reserve("o-1", A=1, B=1).status_code == 503
    assert filled.reserve("o-2", B=1).status_code == 201
    assert status(filled, f"{RESERVATIONS}/o-2") == 200


def test_a_category_is_hit_where_its_products_are(filled: Any) -> None:
    fail(filled, category="toys")
    assert [status(filled, f"{PRODUCTS}/{sku}") for sku in "ABC"] == [503, 200, 503]
    assert status(filled, f"{PRODUCTS}?category=toys") == 503
    assert status(filled, f"{PRODUCTS}?category=food") == 200
    assert filled.reserve("o-1", B=1, C=1).status_code == 503
    assert filled.reserve("o-2", B=1).status_code == 201
    assert status(filled, f"{PRODUCTS}/none-such") == 404


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"lines": 1}', b'{"lines": [1, {"sku": "\\u0000"}]}']
)
def test_what_is_wrong_with_a_body_the_handler_says(filled: Any, body: bytes) -> None:
    fail(filled, sku="A")
    answer = filled.client.post(RESERVATIONS, data=body, content_type="application/json")
    assert answer.status_code in (400, 422)
    assert filled.client.post(RESERVATIONS, data=b"x" * 2_000_000).status_code in (413, 415)


def test_all_steps_of_an_order_are_hit_or_none(filled: Any) -> None:
    fail(filled, percentage=50, method="POST")
    hit = {f"o-{n}": filled.reserve(f"o-{n}", B=1).status_code == 503 for n in range(9)}
    assert len(set(hit.values())) == 2
    for order_id, was in hit.items():
        assert (filled.step(order_id, "release").status_code == 503) is was


def test_wrong_prices_are_read_and_right_ones_reserved(filled: Any) -> None:
    tagged = filled.client.get(f"{PRODUCTS}/A").headers["ETag"]
    put(filled, "wrong-data", params={"factor": 10}, match={"category": "toys"})
    wrong = filled.client.get(f"{PRODUCTS}/A")
    assert wrong.get_json()["price_minor"] == 2500
    assert "ETag" not in wrong.headers
    assert filled.client.get(f"{PRODUCTS}/B").get_json()["price_minor"] == 250
    prices = {item["sku"]: item["price_minor"] for item in filled.list()["items"]}
    assert prices == {"A": 2500, "B": 250, "C": 2500}
    assert filled.reserve("o-1", A=1).get_json()["total_minor"] == 250
    filled.admin("DELETE", "/faults/x")
    right = filled.client.get(f"{PRODUCTS}/B")
    assert right.get_json()["price_minor"] == 250
    assert filled.client.get(f"{PRODUCTS}/C").headers["ETag"] != tagged


def test_an_answer_drips_and_is_whole(filled: Any) -> None:
    whole = filled.client.get(f"{PRODUCTS}/A")
    put(filled, "drip", params={"bytes_per_s": 2000})
    dripped = filled.client.get(f"{PRODUCTS}/A")
    assert dripped.data == whole.data
    assert dripped.headers["Content-Length"] == str(len(whole.data))


def test_a_text_instead_of_a_problem(filled: Any) -> None:
    put(filled, "error", params={"rate": 1, "status": 502, "body": "Bad gateway"})
    answer = filled.client.get(f"{PRODUCTS}/A")
    assert (answer.status_code, answer.text) == (502, "Bad gateway")
    assert answer.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"type": "wrong-data", "params": {"factor": 10}}, "match"),
        ({"type": "wrong-data", "params": {"factor": 10}, "match": {"sku": "A"}}, "category"),
        ({"type": "hang", "match": {"customer": "c"}}, "customer"),
        ({"type": "lock", "params": {"hold_ms": 9, "every_ms": 9}, "match": {}}, "match"),
        ({"type": "latency", "params": {"distribution": "ramp", "from_ms": 1}}, "to_ms"),
    ],
)
def test_a_wrong_fault_names_its_field(sqlite_shop: Any, fault: Any, field: str) -> None:
    answer = sqlite_shop.admin("PUT", "/faults/x", {**fault, "ttl_s": 60})
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["loc"][-1] == field


def admin(service: testing.Running, method: str, fault: Any = None) -> None:
    url, token = f"{service.url}/faults/x", {"Authorization": "Bearer test-token"}
    answer = httpx.request(method, url, json=fault, headers=token, timeout=testing.PATIENT_S)
    answer.raise_for_status()


def test_a_hung_service_is_freed_by_its_leases_file(start: Any, tmp_path: Any) -> None:
    file = tmp_path / "faults.json"
    service = start(WEB_CONCURRENCY="1", THREADS="2", FAULTS_FILE=str(file))
    hang = {"type": "hang", "ttl_s": 900}
    admin(service, "PUT", hang)

    def silent() -> bool:
        """Both threads of the service are taken, for as long as they are held."""
        return testing.status_of(f"{service.url}/livez", timeout_s=1) == 0

    with ThreadPoolExecutor(2) as pool:
        products = service.url + PRODUCTS
        held = [pool.submit(httpx.get, products, timeout=testing.PATIENT_S) for _ in range(2)]
        wait_until(silent)
        assert not any(one.done() for one in held)
        file.unlink()
        # One that had to queue for longer than a second meanwhile is refused.
        assert {one.result().status_code for one in held} <= {200, 503}
        assert testing.status_of(products, testing.PATIENT_S) == 200


def test_every_worker_loses_its_connections_and_gets_them_back(start: Any) -> None:
    service = start(WEB_CONCURRENCY="2", THREADS="2")
    admin(service, "PUT", {"type": "pool", "params": {"all": True}, "ttl_s": 900})
    wait_until(lambda: service.logs().count('"event":"fault begins"') == 2)
    admin(service, "DELETE")
    wait_until(lambda: service.logs().count('"event":"fault ends"') == 2)
    wait_until(lambda: testing.status_of(service.url + PRODUCTS) == 200)


def test_a_crash_takes_one_worker_which_is_replaced(start: Any) -> None:
    service = start(WEB_CONCURRENCY="2")
    crash = {"type": "crash", "ttl_s": 900, "match": {"method": "GET"}}
    admin(service, "PUT", crash)
    with pytest.raises(httpx.TransportError):
        httpx.get(service.url + PRODUCTS, timeout=testing.PATIENT_S)

    def revoked() -> bool:
        with contextlib.suppress(httpx.TransportError):
            admin(service, "DELETE")
            return True
        return False

    wait_until(revoked)
    wait_until(lambda: testing.status_of(service.url + PRODUCTS) == 200)
    assert "crashing, as a fault wants it" in service.logs()
