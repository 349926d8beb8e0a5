"""The payments contract, over HTTP, against the real acquirer."""

import concurrent.futures
import re
import uuid

import httpx
import pytest
from payment_harness import TOKEN, body, ledger, pay
from service_kit.testing import Running, wait_until

Pair = tuple[Running, Running]

# Eight of its digits are looked for: four turn up in random hex ids by chance.
CARD = "4242424242424242"


def key() -> str:
    return uuid.uuid4().hex


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, object]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = response.json()
    assert (found["status"], found["type"]) == (status, f"/problems/{slug}")
    assert found["request_id"] == response.headers["x-request-id"]
    return found


def test_an_approved_charge_is_captured_and_replayed(api: httpx.Client, launched: Pair) -> None:
    k = key()
    first, again = pay(api, k), pay(api, k)
    assert first.status_code == again.status_code == 201
    payment = first.json()
    assert payment["status"] == "captured"
    assert payment["amount_minor"] == 1250
    assert payment["decline_reason"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", payment["created_at"])
    assert first.headers["location"] == f"/api/v1/payments/{payment['id']}"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    assert api.get(first.headers["location"]).json() == payment
    booked = ledger(launched[1], payment["id"])
    assert [(e["kind"], e["status"], e["amount_minor"]) for e in booked] == [
        ("charge", "approved", 1250)
    ]


@pytest.mark.parametrize(
    ("token", "reason"),
    [("tok_decline", "card_declined"), ("tok_decline_funds", "insufficient_funds")],
)
def test_a_decline_says_why_and_is_replayed(api: httpx.Client, token: str, reason: str) -> None:
    k = key()
    first, again = pay(api, k, method=token), pay(api, k, method=token)
    found = problem(first, 402, "declined")
    assert found["reason"] == reason
    assert problem(again, 402, "declined")["payment_id"] == found["payment_id"]
    assert again.headers["idempotency-replayed"] == "true"
    stored = api.get(f"/api/v1/payments/{found['payment_id']}").json()
    assert (stored["status"], stored["decline_reason"]) == ("declined", reason)


def test_who_does_not_wait_gets_202_and_the_charge_goes_on(
    api: httpx.Client, launched: Pair
) -> None:
    k = key()
    first = pay(api, k, method="tok_slow", headers={"Prefer": "wait=0"})
    assert first.status_code == 202
    assert first.json()["status"] == "pending"
    final = pay(api, k, method="tok_slow", headers={"Prefer": "wait=30"})  # waits for it
    assert (final.status_code, final.json()["status"]) == (201, "captured")
    assert final.headers["idempotency-replayed"] == "true"
    assert api.get(first.headers["location"]).json()["status"] == "captured"
    assert len(ledger(launched[1], first.json()["id"])) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Prefer": "respond-async, wait=0"},
        {"x-envoy-expected-rq-timeout-ms": "700"},
        {"x-envoy-expected-rq-timeout-ms": "700", "Prefer": "wait=30"},
    ],
)
def test_the_wait_is_bounded_by_the_caller(api: httpx.Client, headers: dict[str, str]) -> None:
    assert pay(api, key(), method="tok_slow", headers=headers).status_code == 202


def test_a_caller_without_time_left_is_refused_before_anything_is_done(
    api: httpx.Client, launched: Pair
) -> None:
    k = key()
    response = pay(api, k, order="late", headers={"x-envoy-expected-rq-timeout-ms": "0"})
    problem(response, 503, "unavailable")
    assert api.get("/api/v1/payments", params={"order_id": "late"}).json() == {"items": []}


def test_a_lost_answer_is_found_out_not_assumed(api: httpx.Client, launched: Pair) -> None:
    response = pay(api, key(), method="tok_unknown", headers={"Prefer": "wait=30"})
    assert (response.status_code, response.json()["status"]) == (201, "captured")
    assert len(ledger(launched[1], response.json()["id"])) == 1


def test_fifty_concurrent_duplicates_make_one_charge(api: httpx.Client, launched: Pair) -> None:
    k = key()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: pay(api, k, method="tok_slow"), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len(ledger(launched[1], answers[0].json()["id"])) == 1


@pytest.mark.parametrize(
    "other",
    [body(amount=1), body(order="o2"), body(method="tok_decline"), body() | {"currency": "EUR"}],
)
def test_a_key_stands_for_one_request(api: httpx.Client, other: dict[str, object]) -> None:
    k = key()
    pay(api, k)
    problem(pay(api, k, json=other), 422, "key-reused")


def test_a_refund_gives_the_money_back_once(api: httpx.Client, launched: Pair) -> None:
    k = key()
    charged = pay(api, k)
    url = f"{charged.headers['location']}/refund"
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: api.post(url), range(10)))
    assert {(a.status_code, a.json()["status"]) for a in answers} == {(200, "refunded")}
    booked = ledger(launched[1], charged.json()["id"])
    assert [(e["kind"], e["amount_minor"]) for e in booked] == [("charge", 1250), ("refund", 1250)]
    assert pay(api, k).content == charged.content, "a replay is the first answer"
    assert api.get(charged.headers["location"]).json()["status"] == "refunded"


def test_only_a_captured_payment_is_refunded(api: httpx.Client) -> None:
    declined = pay(api, key(), method="tok_decline").json()["payment_id"]
    response = api.post(f"/api/v1/payments/{declined}/refund")
    assert problem(response, 409, "not-refundable")["payment_status"] == "declined"
    absent = f"/api/v1/payments/pay_{'0' * 32}"
    problem(api.post(f"{absent}/refund"), 404, "not-found")
    problem(api.get(absent), 404, "not-found")
    problem(api.get("/api/v1/payments/else"), 404, "not-found")


def test_the_payments_of_an_order(api: httpx.Client) -> None:
    order = key()
    ids = [pay(api, key(), order=order).json()["id"] for _ in range(3)]
    found = api.get("/api/v1/payments", params={"order_id": order, "limit": 2}).json()["items"]
    assert [payment["id"] for payment in found] == ids[:2]
    problem(api.get("/api/v1/payments"), 422, "validation")


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"amount_minor": 0}, "amount_minor"),
        ({"amount_minor": "5"}, "amount_minor"),
        ({"amount_minor": True}, "amount_minor"),
        ({"currency": "pounds"}, "currency"),
        ({"method_token": "tok_other"}, "method_token"),
        ({"order_id": "a b"}, "order_id"),
        ({"card_number": CARD}, "card_number"),
    ],
)
def test_bad_fields_are_named_and_not_repeated(
    api: httpx.Client, change: dict[str, object], loc: str
) -> None:
    response = pay(api, key(), json=body() | change)
    found = problem(response, 422, "validation")
    assert found["errors"][0]["loc"] == ["body", loc]  # type: ignore[index]
    assert CARD[:8] not in response.text


def test_requests_that_are_not_understood(api: httpx.Client) -> None:
    url = "/api/v1/payments"
    json_type = {"Content-Type": "application/json"}
    keyed = {"Idempotency-Key": key(), **json_type}
    problem(api.post(url, json=body()), 400, "key-missing")
    problem(api.post(url, content=b"{", headers=keyed), 400, "malformed")
    problem(api.post(url, content=b"\xff", headers=keyed), 400, "malformed")
    problem(api.post(url, content=b"[" * 100_000, headers=keyed), 400, "malformed")
    problem(api.post(url, content=b" " * 1_048_577, headers=keyed), 413, "body-too-large")
    chunks = (b" " * 65536 for _ in range(17))
    problem(api.post(url, content=chunks, headers=keyed), 413, "body-too-large")
    plain = {**keyed, "Content-Type": "text/plain"}
    problem(api.post(url, content=b"{}", headers=plain), 415, "unsupported-media-type")
    problem(api.post(url, json=body(), headers={"Idempotency-Key": "k" * 256}), 422, "validation")
    problem(api.get("/nothing"), 404, "not-found")
    response = api.delete(url)
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "GET, POST"
    problem(api.get(url, headers={"X-Filler": "x" * 40_000}), 431, "headers-too-large")
    assert api.get(url, headers={"X-Filler": "x" * 200_000}).status_code == 431


def test_request_ids_are_kept_when_well_formed(api: httpx.Client) -> None:
    ours = api.get("/nothing", headers={"X-Request-Id": "mine.1"})
    assert ours.headers["x-request-id"] == "mine.1"
    bad = api.get("/nothing", headers={"X-Request-Id": "not mine"})
    assert re.fullmatch(r"[0-9a-f]{32}", bad.headers["x-request-id"])


def test_health_reports_the_acquirer_without_depending_on_it(api: httpx.Client) -> None:
    assert api.get("/livez").status_code == 200
    assert api.get("/startupz").status_code == 200
    ready = api.get("/readyz").json()
    assert ready["checks"] == {"database": "ok", "migrations": "ok"}
    assert "acquirer" in ready["peers"]


def test_nothing_secret_is_logged(api: httpx.Client, launched: Pair) -> None:
    pay(api, "key-for-the-log", order="order-in-log")
    pay(api, key(), json=body() | {"card_number": CARD})
    api.get("/faults", headers={"Authorization": f"Bearer {TOKEN}"})
    log = wait_until(lambda: "order-in-log" in launched[0].logs() and launched[0].logs())
    for secret in (TOKEN, CARD[:8], "tok_approve", "key-for-the-log"):
        assert secret not in str(log)
