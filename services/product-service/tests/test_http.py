"""What holds for every request: ids, problems, limits, deadline, faults, health."""

import contextlib
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest
from service_kit.testing import wait_until
from sqlalchemy import event

Product = Callable[..., dict[str, Any]]

PRODUCTS = "/api/v1/products"


def test_a_problem_has_everything_it_needs(sqlite_shop: Any) -> None:
    response = sqlite_shop.client.get(f"{PRODUCTS}/nope", headers={"X-Request-Id": "my-id.1"})
    assert response.content_type == "application/problem+json"
    assert response.get_json() == {
        "type": "/problems/not-found",
        "title": "Not found",
        "status": 404,
        "detail": "There is no product 'nope'.",
        "instance": f"{PRODUCTS}/nope",
        "trace_id": None,
        "request_id": "my-id.1",
        "sku": "nope",
    }


@pytest.mark.parametrize("given", ["", "has space", "x" * 129, "é"])
def test_a_bad_request_id_is_replaced(sqlite_shop: Any, given: str) -> None:
    headers = {"X-Request-Id": given.encode().decode("latin-1")}
    answered = sqlite_shop.client.get(PRODUCTS, headers=headers).headers["X-Request-Id"]
    assert answered != given
    assert len(answered) == 32


@pytest.mark.parametrize(
    ("body", "content_type", "status", "slug"),
    [
        (b"{", "application/json", 400, "malformed"),
        (b"", "application/json", 400, "malformed"),
        (b"\xff", "application/json", 400, "malformed"),
        (b"[" * 100_000, "application/json", 400, "malformed"),
        (b"[]", "application/json", 422, "validation"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
        (b"{}", None, 415, "unsupported-media-type"),
        (b" " * 1_100_000, "application/json", 413, "body-too-large"),
    ],
)
def test_bad_bodies(
    sqlite_shop: Any, body: bytes, content_type: str | None, status: int, slug: str
) -> None:
    response = sqlite_shop.client.post("/api/v1/reservations", data=body, content_type=content_type)
    assert (response.status_code, response.get_json()["type"]) == (status, f"/problems/{slug}")


def test_the_import_has_its_own_limit(open_shop: Any, sqlite_url: str, product: Product) -> None:
    shop = open_shop(sqlite_url, max_body_bytes=1024, max_import_bytes=4096)
    long = product("A", description="x" * 1500)
    assert shop.admin("POST", PRODUCTS, long).status_code == 413
    assert shop.admin("POST", f"{PRODUCTS}/import", {"items": [long]}).status_code == 200
    items = [product(f"A{i}", description="x" * 1500) for i in range(3)]
    assert shop.admin("POST", f"{PRODUCTS}/import", {"items": items}).status_code == 413


def test_method_not_allowed_names_the_allowed(sqlite_shop: Any) -> None:
    for path, allowed in ((PRODUCTS, "POST"), (f"{PRODUCTS}/import", "POST"), ("/livez", "GET")):
        response = sqlite_shop.client.delete(path)
        assert response.status_code == 405
        assert response.get_json()["type"] == "/problems/method-not-allowed"
        assert allowed in response.headers["Allow"]
    assert "GET" not in sqlite_shop.client.get(f"{PRODUCTS}/import").headers["Allow"]


def test_nothing_is_done_that_nobody_waits_for(sqlite_shop: Any) -> None:
    late = {"x-envoy-expected-rq-timeout-ms": "0"}
    response = sqlite_shop.client.get(PRODUCTS, headers=late)
    assert (response.status_code, response.get_json()["type"]) == (503, "/problems/unavailable")
    for fine in ("60000", "junk", "-1"):
        headers = {"x-envoy-expected-rq-timeout-ms": fine}
        assert sqlite_shop.client.get(PRODUCTS, headers=headers).status_code == 200


def test_a_bug_is_a_problem_without_a_traceback(
    sqlite_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("product_service.repository.product", broken)
    response = sqlite_shop.client.get(f"{PRODUCTS}/A")
    assert (response.status_code, response.get_json()["type"]) == (500, "/problems/internal")
    assert "secret" not in response.text


def test_a_locked_database_is_unavailable(sqlite_shop: Any, product: Product) -> None:
    sqlite_shop.add(product("A"))
    sqlite_shop.app.database.engine.dispose()
    event.listen(
        sqlite_shop.app.database.engine,
        "connect",
        lambda connection, _record: connection.execute("PRAGMA busy_timeout = 50"),
    )
    path = sqlite_shop.app.database.url.database
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        response = sqlite_shop.reserve("o-1", A=1)
    assert (response.status_code, response.get_json()["type"]) == (503, "/problems/unavailable")
    assert response.headers["Retry-After"] == "1"
    assert sqlite_shop.reserve("o-1", A=1).status_code == 201


def put_fault(shop: Any, name: str, **fault: Any) -> Any:
    return shop.admin("PUT", f"/faults/{name}", {"ttl_s": 60, **fault})


def test_an_error_fault_hits_its_route_only(sqlite_shop: Any) -> None:
    set_ = put_fault(
        sqlite_shop,
        "broken-item",
        type="error",
        params={"rate": 1, "status": 507},
        match={"method": "GET", "route": "/api/v1/products/{sku}"},
    )
    assert set_.status_code == 200
    response = sqlite_shop.client.get(f"{PRODUCTS}/A")
    assert (response.status_code, response.get_json()["type"]) == (507, "/problems/injected")
    assert sqlite_shop.admin("DELETE", f"{PRODUCTS}/A").status_code == 404
    assert sqlite_shop.client.get(PRODUCTS).status_code == 200
    listed = sqlite_shop.admin("GET", "/faults").get_json()["items"]
    assert [lease["name"] for lease in listed] == ["broken-item"]
    assert sqlite_shop.admin("DELETE", "/faults/broken-item").status_code == 204
    assert sqlite_shop.admin("DELETE", "/faults/broken-item").status_code == 204
    assert sqlite_shop.client.get(f"{PRODUCTS}/A").status_code == 404


def test_a_latency_fault_delays(sqlite_shop: Any) -> None:
    params = {"distribution": "constant", "delay_ms": 300}
    put_fault(sqlite_shop, "slow", type="latency", params=params)
    started = time.monotonic()
    assert sqlite_shop.client.get(PRODUCTS).status_code == 200
    assert time.monotonic() - started >= 0.3
    assert sqlite_shop.client.get("/readyz").status_code == 200


def test_a_fault_from_another_process_is_seen_and_its_removal_too(
    sqlite_shop: Any, open_shop: Any, sqlite_url: str, tmp_path: Any
) -> None:
    other = open_shop(sqlite_url)
    put_fault(other, "all", type="error", params={"rate": 1})
    wait_until(lambda: sqlite_shop.client.get(PRODUCTS).status_code == 503)
    (tmp_path / "faults.json").unlink()
    wait_until(lambda: sqlite_shop.client.get(PRODUCTS).status_code == 200)


@pytest.mark.parametrize(
    "fault",
    [
        {"type": "error", "params": {"rate": 0}},
        {"type": "error", "params": {"rate": 1.1}},
        {"type": "error", "params": {"rate": 1, "status": 399}},
        {"type": "error", "params": {"rate": 1}, "ttl_s": 901},
        {"type": "latency", "params": {"distribution": "constant"}},
        {"type": "latency", "params": {"distribution": "uniform", "delay_ms": 1}},
        {"type": "disk", "params": {}},
    ],
)
def test_bad_faults(sqlite_shop: Any, fault: dict[str, Any]) -> None:
    assert put_fault(sqlite_shop, "x", **fault).status_code == 422


def test_fault_endpoints_are_closed_without_a_token(open_shop: Any, sqlite_url: str) -> None:
    closed = open_shop(sqlite_url, admin_token=None)
    assert put_fault(closed, "x", type="error", params={"rate": 1}).status_code == 404
    assert closed.admin("GET", "/faults").status_code == 404


def test_health_follows_the_database_and_the_shutdown(sqlite_shop: Any) -> None:
    client = sqlite_shop.client
    for path in ("/livez", "/readyz", "/startupz"):
        assert client.get(path).get_json()["status"] == "ok"
    with sqlite_shop.app.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    unready = client.get("/readyz")
    assert unready.status_code == 503
    assert "run the migrate command" in unready.get_json()["checks"]["migrations"]
    assert client.get("/livez").status_code == 200
    with sqlite_shop.app.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    assert client.get("/readyz").status_code == 200
    sqlite_shop.app.health.draining = True
    assert client.get("/readyz").get_json()["checks"] == {"shutdown": "draining"}
    assert client.get(PRODUCTS).status_code == 200


def test_the_document_covers_every_route(sqlite_shop: Any) -> None:
    document = sqlite_shop.client.get("/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    documented = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method != "parameters"
    }
    routed = {
        (method, rule.rule.replace("<sku:", "{").replace("<", "{").replace(">", "}"))
        for rule in sqlite_shop.app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule != "/openapi.json"
    }
    assert routed <= documented
    assert {path for _, path in documented - routed} == {"/livez", "/readyz", "/startupz"}
