"""Fault leases and the incidents made of them."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from payment_harness import TOKEN, pay, run_payment
from service_kit.testing import PATIENT_S, Running, wait_until

NAMES = [
    "payment-latency",
    "payment-errors",
    "payment-brownout",
    "payment-degradation",
    "payment-hang",
    "payment-drip",
    "payment-crash",
    "payment-crash-loop",
    "payment-cpu",
    "payment-memory",
    "payment-pool",
    "payment-lock",
]


@pytest.fixture
def admin(launched: tuple[Running, Running]) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=launched[0].url, headers=headers, timeout=PATIENT_S) as client:
        yield client
        for lease in client.get("/faults").json()["items"]:
            client.delete(f"/faults/{lease['name']}")


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
            headers = {"Authorization": "Bearer x"}
            response = httpx.get(service.url + path, headers=headers, timeout=PATIENT_S)
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
    request = {"ttl_s": 10, "params": {"mean_ms": 30000, "stddev_ms": 0}}
    admin.post("/incidents/payment-latency/start", json=request)
    with (
        httpx.Client(base_url=admin.base_url, timeout=0.3) as hasty,
        pytest.raises(httpx.TimeoutException),
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
        ("/incidents/payment-memory/start", {"ttl_s": 5, "params": {"cap_mb": 513}}, 422),
        ("/incidents/payment-pool/start", {"ttl_s": 5, "params": {"connections": 1}}, 422),
        ("/incidents/payment-lock/start", {"ttl_s": 5, "params": {"hold_ms": 0}}, 422),
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


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_a_set_of_leases_that_the_contract_has(
    admin: httpx.Client, name: str
) -> None:
    params = {"after_s": 900} if name == "payment-crash-loop" else {}  # the service is to answer
    request = {"ttl_s": 60, "params": params}
    started = admin.post(f"/incidents/{name}/start", json=request)
    assert (started.status_code, started.json()["active"]) == (200, True)
    assert not admin.post(f"/incidents/{name}/stop").json()["active"]
    assert admin.get("/faults").json() == {"items": []}


def put(client: httpx.Client, kind: str, **parts: object) -> None:
    answer = client.put("/faults/mine", json={"type": kind, "ttl_s": 60, **parts})
    assert answer.status_code == 200, answer.text


def test_a_hang_ends_when_its_entry_in_the_file_does(
    admin: httpx.Client, launched: tuple[Running, Running]
) -> None:
    put(admin, "hang", match={"method": "POST"})
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(pay, admin, "held")
        time.sleep(0.3)  # on its way, for as long as it is held
        assert not held.done()
        file = launched[0].log.parent / "faults-payment-service.json"
        file.unlink()
        assert held.result(PATIENT_S).status_code == 201


def test_an_answer_drips_and_is_whole(admin: httpx.Client) -> None:
    whole = pay(admin, "drip")
    put(admin, "drip", params={"bytes_per_s": 2000})
    dripped = admin.get(whole.headers["location"])
    assert (dripped.status_code, dripped.json()) == (200, whole.json())


def test_an_error_says_what_its_lease_says(admin: httpx.Client) -> None:
    put(admin, "error", params={"rate": 1, "status": 502, "body": "<h1>Bad gateway</h1>"})
    answer = pay(admin, "text")
    assert (answer.status_code, answer.text) == (502, "<h1>Bad gateway</h1>")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_the_same_keys_are_always_hit(admin: httpx.Client) -> None:
    put(admin, "error", params={"rate": 1}, match={"percentage": 50, "method": "POST"})
    hit = [pay(admin, f"half-{n}").status_code == 503 for n in range(20)]
    assert 0 < sum(hit) < 20
    assert [pay(admin, f"half-{n}").status_code == 503 for n in range(20)] == hit


def test_without_a_connection_there_is_no_payment_and_then_there_is(admin: httpx.Client) -> None:
    put(admin, "pool", params={"all": True})
    wait_until(lambda: not _ready(admin))
    admin.delete("/faults/mine")
    wait_until(lambda: _ready(admin))
    assert pay(admin, "pooled").status_code == 201


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz", timeout=10).status_code == 200
    except httpx.TimeoutException:
        return False


def test_a_crash_takes_the_process_and_a_crash_loop_the_next(
    launched: tuple[Running, Running], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("crash")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with (
        run_payment(directory, launched[1], WEB_CONCURRENCY="2") as service,
        httpx.Client(base_url=service.url, headers=headers, timeout=PATIENT_S) as client,
    ):
        put(client, "crash", match={"method": "POST"})
        with pytest.raises(httpx.TransportError):
            pay(client, "crash")
        wait_until(lambda: "worker died" in service.logs())
        client.delete("/faults/mine")
        # A worker looks for leases now and then: for a moment one may still crash.
        wait_until(lambda: _pays(client))
        put(client, "crash-loop", params={"after_s": 1})
        wait_until(lambda: service.logs().count("worker died") > 3)
        (directory / "faults-payment-service.json").unlink()
        wait_until(lambda: _pays(client))


def _pays(client: httpx.Client) -> bool:
    try:
        return pay(client, "crash").status_code == 201
    except httpx.TransportError:
        return False
