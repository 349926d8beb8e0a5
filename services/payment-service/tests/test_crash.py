"""What survives: kills between row and answer, a dead acquirer, several worker processes."""

import concurrent.futures
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from payment_harness import ledger, pay, rows, run_acquirer, run_payment, settled
from service_kit import testing
from service_kit.testing import PATIENT_S, Running, free_port, status_of, wait_until

LEASE = {"ACQUIRER_TIMEOUT_S": "1.8", "WORKER_LEASE_S": "2"}


def api_of(service: Running) -> httpx.Client:
    return httpx.Client(base_url=service.url, timeout=PATIENT_S)


def start_slow_charge(service: Running, acquirer: Running, key: str) -> str:
    """Have a charge booked by the acquirer but not yet answered; returns the payment's id."""
    with api_of(service) as client:
        headers = {"Prefer": "wait=0"}
        payment_id = str(pay(client, key, method="tok_slow", headers=headers).json()["id"])
    wait_until(lambda: ledger(acquirer, payment_id), what="the acquirer has booked the charge")
    return payment_id


def kill(service: Running) -> None:
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait()


def status(service: Running, payment_id: str) -> str:
    answer = httpx.get(f"{service.url}/api/v1/payments/{payment_id}", timeout=PATIENT_S)
    return str(answer.json()["status"])


def test_a_killed_service_settles_after_its_restart(acquirer_binary: str, tmp_path: Path) -> None:
    with (
        run_acquirer(acquirer_binary, tmp_path, SLOW_MS="600000") as acquirer,
        run_payment(tmp_path, acquirer, **LEASE) as service,
    ):
        payment_id = start_slow_charge(service, acquirer, "crash")
        kill(service)
    assert [row["status"] for row in rows(tmp_path)] == ["pending"]
    with (
        run_acquirer(acquirer_binary, tmp_path) as acquirer,
        run_payment(tmp_path, acquirer, **LEASE) as service,
    ):
        wait_until(lambda: status(service, payment_id) == "captured")
        with api_of(service) as client:
            again = pay(client, "crash", method="tok_slow")
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
        assert len(ledger(acquirer, payment_id)) == 1


def test_even_a_lost_database_does_not_charge_twice(acquirer: Running, tmp_path: Path) -> None:
    ids = []
    for name in ("before", "after"):
        directory = tmp_path / name
        directory.mkdir()
        with run_payment(directory, acquirer) as service, api_of(service) as client:
            ids.append(settled(pay, client, "same").json()["id"])
    assert ids[0] == ids[1]
    assert len(ledger(acquirer, ids[0])) == 1


def test_an_absent_acquirer_is_asked_when_it_comes_back(
    acquirer_binary: str, tmp_path: Path
) -> None:
    port = free_port()
    with run_acquirer(acquirer_binary, tmp_path, port) as acquirer:
        pass
    with run_payment(tmp_path, acquirer) as service, api_of(service) as client:
        waiting = pay(client, "k", headers={"Prefer": "wait=0"})
        assert waiting.status_code == 202
        wait_until(lambda: "lost" in client.get("/readyz").json()["peers"]["acquirer"])
        assert client.get("/readyz").status_code == 200
        with run_acquirer(acquirer_binary, tmp_path, port) as acquirer:
            wait_until(lambda: status(service, waiting.json()["id"]) == "captured")
            assert len(ledger(acquirer, waiting.json()["id"])) == 1


def test_a_refund_cut_off_by_a_kill_is_finished(acquirer_binary: str, tmp_path: Path) -> None:
    port = free_port()
    with (
        run_acquirer(acquirer_binary, tmp_path, port) as acquirer,
        run_payment(tmp_path, acquirer) as service,
        api_of(service) as client,
    ):
        charged = settled(pay, client, "k")
        payment_id = charged.json()["id"]
        kill(acquirer)
        url = f"{charged.headers['location']}/refund"
        pending = client.post(url, headers={"Prefer": "wait=0"})
        assert (pending.status_code, pending.json()["status"]) == (202, "refund_pending")
        kill(service)
    with (
        run_acquirer(acquirer_binary, tmp_path, port) as acquirer,
        run_payment(tmp_path, acquirer, **LEASE) as service,
    ):
        wait_until(lambda: status(service, payment_id) == "refunded")
        kinds = [entry["kind"] for entry in ledger(acquirer, payment_id)]
    assert kinds == ["charge", "refund"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/payment.db"
    else:
        with testing.postgres() as url:
            yield url


def test_several_processes_share_one_database(
    acquirer: Running, tmp_path: Path, database_url: str
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "WEB_CONCURRENCY": "3",
        "ACQUIRER_TIMEOUT_S": "0.3",
        "WORKER_LEASE_S": "0.4",
    }
    # With leases this short many are taken over while asked: that must not matter either.
    with run_payment(tmp_path, acquirer, **env) as service:
        with (
            api_of(service) as client,
            concurrent.futures.ThreadPoolExecutor(20) as pool,
        ):
            tokens = ["tok_approve", "tok_unknown", "tok_slow"] * 20
            calls = [
                pool.submit(settled, pay, client, f"k{n}", method=token)
                for n, token in enumerate(tokens)
            ]
            answers = [call.result() for call in calls]
        assert {answer.status_code for answer in answers} == {201}
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
        if children.exists():  # Linux: a dead worker is replaced
            victim = int(children.read_text().split()[0])
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: len(children.read_text().split()) == 3)
            wait_until(lambda: str(victim) not in children.read_text().split())
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENT_S) == 0
    booked = ledger(acquirer)
    assert len(booked) == len({entry["key"] for entry in booked}) == 60


def test_sigterm_lets_the_waiting_finish_and_exits_0(acquirer: Running, tmp_path: Path) -> None:
    with (
        run_payment(tmp_path, acquirer) as service,
        api_of(service) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(pay, client, "k", method="tok_slow")
        wait_until(lambda: ledger(acquirer))
        service.process.send_signal(signal.SIGTERM)
        assert waiting.result().status_code == 201
        assert service.process.wait(PATIENT_S) == 0
        assert "Traceback" not in service.logs()


def test_readiness_goes_first(acquirer: Running, tmp_path: Path) -> None:
    with run_payment(tmp_path, acquirer, SHUTDOWN_DELAY_S="8") as service:
        service.process.send_signal(signal.SIGTERM)
        # The delay is the time there is for seeing both.
        wait_until(lambda: status_of(f"{service.url}/readyz") == 503)
        assert status_of(f"{service.url}/livez", PATIENT_S) == 200
        with api_of(service) as client:
            assert settled(pay, client, "still-served").status_code == 201
        assert service.process.wait(PATIENT_S) == 0


def test_more_than_can_be_done_is_refused_not_queued(acquirer: Running, tmp_path: Path) -> None:
    with (
        run_payment(tmp_path, acquirer) as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S, limits=httpx.Limits()) as client,
        concurrent.futures.ThreadPoolExecutor(100) as pool,
    ):
        lock = sqlite3.connect(tmp_path / "payment.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        calls = [pool.submit(pay, client, f"k{n}") for n in range(100)]
        wait_until(lambda: sum(call.done() for call in calls) >= 36)
        lock.execute("ROLLBACK")
        lock.close()
        answers = [call.result() for call in calls]
        refused = [answer for answer in answers if answer.status_code == 503]
        assert len(refused) >= 36
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {settled(pay, client, f"k{n}").status_code for n in range(100)} == {201}
    assert len(ledger(acquirer)) == 100


def test_a_locked_database_is_503_and_nothing_is_charged(acquirer: Running, tmp_path: Path) -> None:
    with run_payment(tmp_path, acquirer) as service, api_of(service) as client:
        lock = sqlite3.connect(tmp_path / "payment.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        refused = pay(client, "k")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert client.get("/livez").status_code == 200
        lock.execute("ROLLBACK")
        lock.close()
        assert ledger(acquirer) == []
        assert settled(pay, client, "k").status_code == 201


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_exits_at_once(acquirer_binary: str, tmp_path: Path, workers: str) -> None:
    with (
        run_acquirer(acquirer_binary, tmp_path, SLOW_MS="600000") as acquirer,
        run_payment(
            tmp_path,
            acquirer,
            WEB_CONCURRENCY=workers,
            SHUTDOWN_GRACE_S="600",
            ACQUIRER_TIMEOUT_S="60",
            WORKER_LEASE_S="61",
        ) as service,
        api_of(service) as client,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(pay, client, "k", method="tok_slow", headers={"Prefer": "wait=30"})
        wait_until(lambda: ledger(acquirer), what="the charge to be booked")
        service.process.send_signal(signal.SIGTERM)

        def exited() -> bool:
            service.process.send_signal(signal.SIGTERM)
            return service.process.poll() is not None

        wait_until(exited)
        assert service.process.returncode == 128 + signal.SIGTERM
        lines = [json.loads(line) for line in service.logs().splitlines()]
        assert all(line["service"] == "payment-service" for line in lines)
        # What was being asked stays pending and leased, for the next process.
        assert [(row["status"], row["lease_until_ms"] > 0) for row in rows(tmp_path)] == [
            ("pending", True)
        ]
