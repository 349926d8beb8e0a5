"""Fault leases and the incidents made of them."""

from collections.abc import Iterator

import httpx
import pytest
from payment_harness import TOKEN, pay, run_payment
from service_kit.testing import Running, wait_until

NAMES = ["payment-latency", "payment-errors", "payment-brownout"]


@pytest.fixture
def admin(launched: tuple[Running, Running]) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=launched[0].url, headers=headers, timeout=40) as client:
        yield client
        for name in NAMES:
            client.post(f"/incidents/{name}/stop")
        client.delete("/faults/mine")


def test_without_the_token_nothing_happens(api: httpx.Client) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        for call in (
            api.get("/incidents", headers=headers),
            api.get("/faults", headers=headers),
            api.post("/incidents/payment-errors/start", headers=headers, json={"ttl_s": 9}),
            api.delete("/faults/x", headers=headers),
        ):
            assert (call.status_code, call.headers["www-authenticate"]) == (401, "Bearer")
    assert pay(api, "still-works").status_code == 201


def test_without_a_configured_token_there_is_nothing(
    launched: tuple[Running, Running], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("open")
    with run_payment(directory, launched[1], ADMIN_TOKEN="") as service:
        for path in ("/incidents", "/faults"):
            response = httpx.get(service.url + path, headers={"Authorization": "Bearer x"})
            assert response.status_code == 404


def test_errors_start_and_stop(admin: httpx.Client) -> None:
    listed = {i["name"]: i for i in admin.get("/incidents").json()["items"]}
    assert list(listed) == NAMES
    assert not any(incident["active"] for incident in listed.values())

    request = {"ttl_s": 60, "params": {"rate": 1, "status": 502}}
    started = admin.post("/incidents/payment-errors/start", json=request).json()
    assert started["active"]
    assert started["until"] is not None
    assert started["faults"]["payment-errors"]["params"] == {
        "rate": 1.0,
        "status": 502,
        "select": "random",
    }
    answer = pay(admin, "hit")
    assert (answer.status_code, answer.json()["type"]) == (502, "/problems/injected")
    assert admin.get("/api/v1/payments", params={"order_id": "o1"}).status_code == 200

    stopped = admin.post("/incidents/payment-errors/stop")
    assert not stopped.json()["active"]
    assert pay(admin, "hit").status_code == 201


def test_a_brownout_is_two_leases(admin: httpx.Client) -> None:
    request = {"ttl_s": 60, "params": {"mean_ms": 1, "stddev_ms": 0, "rate": 1}}
    admin.post("/incidents/payment-brownout/start", json=request)
    leases = admin.get("/faults").json()["items"]
    assert {(lease["name"], lease["type"]) for lease in leases} == {
        ("payment-brownout-latency", "latency"),
        ("payment-brownout-errors", "error"),
    }
    assert pay(admin, "brown").status_code == 503
    admin.delete("/faults/payment-brownout-errors")
    active = {i["name"]: i["active"] for i in admin.get("/incidents").json()["items"]}
    assert not any(active.values()), "half an incident is none"
    assert pay(admin, "brown").status_code == 201


def test_latency_waits_and_ends_by_itself(admin: httpx.Client) -> None:
    request = {"ttl_s": 1, "params": {"mean_ms": 30000, "stddev_ms": 0}}
    admin.post("/incidents/payment-latency/start", json=request)
    with (
        httpx.Client(base_url=admin.base_url, timeout=0.3) as hasty,
        pytest.raises(httpx.ReadTimeout),
    ):
        pay(hasty, "delayed")
    wait_until(lambda: admin.get("/faults").json()["items"] == [])
    assert pay(admin, "after").status_code == 201


def test_a_delayed_request_whose_caller_left_charges_nothing(admin: httpx.Client) -> None:
    request = {"ttl_s": 60, "params": {"mean_ms": 200, "stddev_ms": 0}}
    admin.post("/incidents/payment-latency/start", json=request)
    headers = {"x-envoy-expected-rq-timeout-ms": "50"}
    assert pay(admin, "gone", order="gone", headers=headers).status_code == 503
    assert admin.get("/api/v1/payments", params={"order_id": "gone"}).json()["items"] == []


@pytest.mark.parametrize(
    ("path", "json", "status"),
    [
        ("/incidents/nothing/start", {"ttl_s": 5}, 404),
        ("/incidents/payment-errors/start", {"ttl_s": 901}, 422),
        ("/incidents/payment-errors/start", {"ttl_s": 5, "params": {"rate": 2}}, 422),
        ("/incidents/payment-errors/start", {"ttl_s": 5, "params": {"mean_ms": 2}}, 422),
        ("/incidents/payment-brownout/start", {"ttl_s": 5, "params": {"rate": 0}}, 422),
    ],
)
def test_a_bad_start_sets_nothing(
    admin: httpx.Client, path: str, json: dict[str, object], status: int
) -> None:
    assert admin.post(path, json=json).status_code == status
    assert admin.get("/faults").json() == {"items": []}


def test_a_fault_by_hand(admin: httpx.Client) -> None:
    fault = {
        "type": "error",
        "params": {"rate": 1.0, "status": 500, "select": "random"},
        "match": {"method": "GET", "route": "/api/v1/payments/{payment_id}"},
        "ttl_s": 60,
    }
    assert admin.put("/faults/mine", json=fault).json()["name"] == "mine"
    payment = pay(admin, "by-hand")
    assert payment.status_code == 201
    assert admin.get(payment.headers["location"]).status_code == 500
    assert admin.delete("/faults/mine").status_code == 204
    assert admin.delete("/faults/mine").status_code == 204
    assert admin.get(payment.headers["location"]).status_code == 200
