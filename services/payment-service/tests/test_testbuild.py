"""The launcher of the test build: every crash point fires, and what it interrupts is finished."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from payment_harness import TESTBUILD, cancel, ledger, net, pay, run_payment, settled
from service_kit.testing import PATIENT_S, Running, wait_until

QUICK = {"ACQUIRER_TIMEOUT_S": "1.8", "WORKER_LEASE_S": "2"}
POINTS = [
    f"{step}.{side}" for step in ("open", "ask", "settle", "cancel") for side in ("before", "after")
] + ["answer.before"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("token", ["tok_approve", "tok_unknown"])
def test_a_kill_at_any_point_is_made_good(
    acquirer: Running, tmp_path: Path, point: str, token: str
) -> None:
    directory = tmp_path / "crash"
    directory.mkdir()
    env: dict[str, Any] = {**QUICK, "PROVE_CRASH_DIR": str(directory)}
    with (
        run_payment(tmp_path, acquirer, TESTBUILD, **env) as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
    ):
        if point.startswith("cancel"):  # of a charge that nobody has waited for
            pay(client, "k", method=token, headers={"Prefer": "wait=0"})
        (directory / f"payment.{point}").touch()
        with contextlib.suppress(httpx.TransportError):
            (cancel if point.startswith("cancel") else pay)(client, "k", method=token)
        wait_until(lambda: service.process.poll() is not None, what=f"{point} kills the service")
        assert service.process.returncode == -signal.SIGKILL
        fired = [path.name for path in directory.iterdir()]
        assert fired == [f"payment.{point}.fired.{service.process.pid}"]
    with (
        run_payment(tmp_path, acquirer, **QUICK) as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
    ):
        done = settled(cancel, client, "k", method=token, headers={"Prefer": "wait=30"})
        assert done.status_code == 200
        assert done.json()["status"] in ("cancelled", "refunded")
        charges, kept = net(acquirer, done.json()["id"])
        assert (charges <= 1, kept) == (True, 0)
        pay(client, "k", method=token)
        assert net(acquirer, done.json()["id"]) == (charges, 0)


def test_a_cancel_that_nobody_asks_about_again_is_finished(
    acquirer: Running, tmp_path: Path
) -> None:
    env: dict[str, Any] = {**QUICK, "PROVE_CRASH_DIR": str(tmp_path)}
    with (
        run_payment(tmp_path, acquirer, TESTBUILD, **env) as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
    ):
        payment_id = pay(client, "k", method="tok_slow", headers={"Prefer": "wait=0"}).json()["id"]
        (tmp_path / "payment.cancel.after").touch()
        with contextlib.suppress(httpx.TransportError):
            cancel(client, "k", method="tok_slow")
        wait_until(lambda: service.process.poll() is not None)
    with run_payment(tmp_path, acquirer, **QUICK):
        wait_until(lambda: net(acquirer, payment_id) == (1, 0))


def test_the_service_as_shipped_knows_nothing_of_it(acquirer: Running, tmp_path: Path) -> None:
    for point in POINTS:
        (tmp_path / f"payment.{point}").touch()
    env: dict[str, Any] = {"PROVE_CRASH_DIR": str(tmp_path), "PROVE_MUTANT": "no-such"}
    with (
        run_payment(tmp_path, acquirer, **env) as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
    ):
        assert settled(pay, client, "k").status_code == 201
        assert settled(cancel, client, "k").json()["status"] == "refunded"
    assert not list(tmp_path.glob("*.fired.*"))


def test_an_unknown_mutant_is_refused(tmp_path: Path) -> None:
    env = {**os.environ, "PROVE_MUTANT": "no-such"}
    done = subprocess.run(TESTBUILD, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no mutant 'no-such' here; there are failure-hides-charge," in done.stderr


def test_the_mutants_do_what_they_say(acquirer: Running, tmp_path: Path) -> None:
    def mutant(name: str) -> Any:
        directory = tmp_path / name
        directory.mkdir()
        return run_payment(directory, acquirer, TESTBUILD, PROVE_MUTANT=name)

    def client_of(service: Running) -> httpx.Client:
        return httpx.Client(base_url=service.url, timeout=PATIENT_S)

    with mutant("failure-hides-charge") as service, client_of(service) as client:
        declined = settled(pay, client, "hidden", method="tok_unknown")
        assert declined.status_code == 402
        assert net(acquirer, declined.json()["payment_id"])[0] == 1
    with mutant("refund-twice") as service, client_of(service) as client:
        payment_id = settled(pay, client, "twice").json()["id"]
        cancel(client, "twice")
        assert client.get(f"/api/v1/payments/{payment_id}").json()["status"] == "captured"
        assert net(acquirer, payment_id) == (1, 0)
    with mutant("new-key-per-ask") as service, client_of(service) as client:
        headers = {"Prefer": "wait=1"}
        payment_id = pay(client, "new", method="tok_unknown", headers=headers).json()["id"]

        def keys() -> list[str]:
            return [e["key"] for e in ledger(acquirer) if e["key"].startswith(payment_id)]

        wait_until(lambda: len(keys()) > 1, what="another key")


def test_the_launcher_is_in_no_package() -> None:
    code = "import importlib.util as u; print(u.find_spec('testbuild'), u.find_spec('crash'))"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert done.stdout.split() == ["None", "None"]
