"""Cancelling by key: whatever became of the charge, in the end nothing is paid."""

import concurrent.futures
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from payment_harness import cancel, ledger, net, pay, run_acquirer, run_payment, settled
from service_kit import testing
from service_kit.testing import PATIENT_S, Running, free_port, wait_until

Pair = tuple[Running, Running]
NOW = {"Prefer": "wait=0"}
LATER = {"Prefer": "wait=30"}


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


def is_problem(response: httpx.Response, status: int, slug: str) -> bool:
    body = response.json()
    return (response.status_code, body["status"], body.get("type")) == (
        status,
        status,
        f"/problems/{slug}",
    )


def test_a_charge_that_comes_after_its_cancel_never_reaches_the_acquirer(
    api: httpx.Client, launched: Pair, key: str
) -> None:
    first, again = cancel(api, key), cancel(api, key)
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert first.content == again.content
    late = pay(api, key)
    assert is_problem(late, 409, "cancelled")
    assert late.json()["payment_id"] == first.json()["id"]
    assert ledger(launched[1], first.json()["id"]) == []


def test_what_was_captured_is_refunded_once(api: httpx.Client, launched: Pair, key: str) -> None:
    charged = settled(pay, api, key)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: settled(cancel, api, key), range(8)))
    assert {(a.status_code, a.json()["status"]) for a in answers} == {(200, "refunded")}
    kinds = [entry["kind"] for entry in ledger(launched[1], charged.json()["id"])]
    assert kinds == ["charge", "refund"]
    assert pay(api, key).content == charged.content, "a replay is the first answer"


def test_what_was_declined_stays_so(api: httpx.Client, key: str) -> None:
    assert settled(pay, api, key, method="tok_decline").status_code == 402
    answer = cancel(api, key, method="tok_decline")
    assert (answer.status_code, answer.json()["status"]) == (200, "declined")


@pytest.mark.parametrize("begun", [True, False])
def test_a_key_stands_for_one_request(api: httpx.Client, key: str, begun: bool) -> None:
    assert (pay if begun else cancel)(api, key).is_success
    assert is_problem(cancel(api, key, amount=1), 422, "key-reused")
    assert is_problem(pay(api, key, amount=1), 422, "key-reused")


@pytest.mark.parametrize("token", ["tok_slow", "tok_unknown"])
def test_a_charge_in_flight_ends_refunded(
    api: httpx.Client, launched: Pair, key: str, token: str
) -> None:
    waiting = pay(api, key, method=token, headers=NOW)
    assert waiting.status_code == 202
    payment_id = waiting.json()["id"]
    first = cancel(api, key, method=token, headers=NOW)
    assert first.status_code in (200, 202)
    assert first.headers.get("location") in (None, f"/api/v1/payments/{payment_id}")
    last = settled(cancel, api, key, method=token, headers=LATER)
    assert (last.status_code, last.json()["status"]) == (200, "refunded")
    assert net(launched[1], payment_id) == (1, 0)


def test_who_waits_for_a_charge_hears_of_its_cancel(
    acquirer_binary: str, tmp_path: Path, key: str
) -> None:
    slow: dict[str, Any] = {"method": "tok_slow", "order": key}
    port = free_port()
    with (
        run_acquirer(acquirer_binary, tmp_path, port, SLOW_MS="600000") as acquirer,
        run_payment(tmp_path, acquirer, ACQUIRER_TIMEOUT_S="60", WORKER_LEASE_S="61") as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(pay, client, key, headers=LATER, **slow)
        listed = {"order_id": key}
        wait_until(lambda: client.get("/api/v1/payments", params=listed).json()["items"])
        wait_until(lambda: ledger(acquirer), what="the charge to be booked")
        begun = cancel(client, key, headers=NOW, **slow)
        assert (begun.status_code, begun.json()["status"]) == (202, "cancelling")
        assert is_problem(waiting.result(), 409, "cancelled")
        acquirer.process.kill()  # what it was asked is asked again, of one that answers
        acquirer.process.wait()
        with run_acquirer(acquirer_binary, tmp_path, port):
            last = settled(cancel, client, key, headers=LATER, **slow)
            assert last.json()["status"] == "refunded"
            assert is_problem(pay(client, key, **slow), 409, "cancelled")


def test_nobody_but_the_charge_itself_can_be_cancelled(api: httpx.Client) -> None:
    url = "/api/v1/payments/cancel"
    assert is_problem(api.post(url, json={}), 400, "key-missing")
    assert api.get(url).status_code == 405
    assert api.get(url).headers["allow"] == "POST"


def test_a_cancel_without_an_acquirer_is_done_when_it_comes_back(
    acquirer_binary: str, tmp_path: Path
) -> None:
    port = free_port()
    with run_acquirer(acquirer_binary, tmp_path, port) as acquirer:
        pass
    with (
        run_payment(tmp_path, acquirer) as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
    ):
        payment_id = pay(client, "k", headers=NOW).json()["id"]
        pending = cancel(client, "k", headers=NOW)
        assert (pending.status_code, pending.json()["status"]) == (202, "cancelling")
        assert is_problem(pay(client, "k"), 409, "cancelled")
        refund = client.post(f"/api/v1/payments/{payment_id}/refund")
        assert is_problem(refund, 409, "not-refundable")
        with run_acquirer(acquirer_binary, tmp_path, port) as acquirer:
            done = settled(cancel, client, "k", headers=LATER)
            assert (done.status_code, done.json()["status"]) == (200, "refunded")
            assert net(acquirer, payment_id) == (1, 0)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/payment.db"
    else:
        with testing.postgres() as url:
            yield url


def test_charges_and_cancels_at_once_in_several_processes(
    acquirer: Running, tmp_path: Path, database_url: str
) -> None:
    env = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": "2"}
    tokens = ["tok_approve", "tok_unknown", "tok_decline", "tok_slow"]
    purchases = [(f"k{n}", tokens[n % 4]) for n in range(24)]
    with run_payment(tmp_path, acquirer, **env) as service:
        with (
            httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
            concurrent.futures.ThreadPoolExecutor(16) as pool,
        ):
            calls = [
                pool.submit(settled, call, client, key, method=token, headers=LATER)
                for key, token in purchases
                for call in (pay, cancel, pay, cancel)
            ]
            statuses = {call.result().status_code for call in calls}
            assert statuses <= {200, 201, 402, 409}
            last = [
                settled(cancel, client, k, method=token, headers=LATER) for k, token in purchases
            ]
        assert {answer.status_code for answer in last} == {200}
        final = {answer.json()["status"] for answer in last}
        assert final <= {"cancelled", "refunded", "declined"}
        for answer in last:
            charges, kept = net(acquirer, answer.json()["id"])
            assert (charges <= 1, kept) == (True, 0)
