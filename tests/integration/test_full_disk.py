"""A disk without room, or that can't be written: one sentence at start, and nothing lost later.

The Product Service's own suite has the same for it.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_kit.ports import claim
from service_kit.testing import PATIENT_S, Running, running, script, wait_until

from prove import tools

HEALTH = {"order": "/readyz", "payment": "/readyz", "acquirer": "/healthz"}


def command(service: str) -> list[str]:
    if service == "payment":
        return [script("payment-service"), "serve"]
    name = "acquirer" if service == "acquirer" else f"{service}-service"
    return [str(tools.ensure_service(name)), "serve"]


def environment(directory: Path, service: str, **env: str) -> dict[str, str]:
    return {
        "OTEL_SDK_DISABLED": "true",
        "DATABASE_URL": f"sqlite:///{directory / service}.db",
        **env,
    }


@contextlib.contextmanager
def mounted(directory: Path, options: str) -> Iterator[Path]:
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a tmpfs needs root on Linux")
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = directory / "ballast"
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def refused(directory: Path, service: str) -> str:
    done = subprocess.run(
        command(service),
        env={**os.environ, **environment(directory, service), "PORT": str(claim()[0])},
        cwd=directory.parent,
        capture_output=True,
        text=True,
        timeout=PATIENT_S,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("service", HEALTH)
def test_a_full_disk_at_start_is_one_sentence(tmp_path: Path, service: str) -> None:
    with mounted(tmp_path / "disk", "size=64k") as disk:
        fill(disk)
        said = refused(disk, service)
    assert f"{service}.db" in said
    assert "full" in said or "no space left" in said


@pytest.mark.parametrize("service", HEALTH)
def test_a_read_only_directory_is_one_sentence(tmp_path: Path, service: str) -> None:
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        said = refused(disk, service)
    assert f"{service}.db" in said
    assert "writ" in said


@contextlib.contextmanager
def serving(directory: Path, service: str, **env: str) -> Iterator[Running]:
    with running(
        command(service),
        environment(directory, service, **env),
        claim()[0],
        directory.parent,
        HEALTH[service],
    ) as process:
        yield process


def test_an_order_that_can_not_be_recorded_is_none(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{claim()[0]}"
    with (
        mounted(tmp_path / "disk", "size=4m") as disk,
        serving(disk, "order", PRODUCT_URL=nobody, PAYMENT_URL=nobody) as order,
    ):
        orders = f"{order.url}/api/v1/orders"

        def place(key: str) -> httpx.Response:
            body = {
                "customer_id": "c",
                "lines": [{"sku": "A", "quantity": 1}],
                "payment_method": "tok_approve",
            }
            headers = {"Idempotency-Key": key}
            return httpx.post(orders, json=body, headers=headers, timeout=PATIENT_S)

        ballast = fill(disk)
        refusal = place("full")
        assert refusal.status_code == 503, refusal.text
        assert refusal.headers["content-type"] == "application/problem+json"
        assert (
            httpx.get(orders, params={"customer_id": "c"}, timeout=PATIENT_S).json()["items"] == []
        )
        ballast.unlink()
        # Without peers it is rejected: recorded, so it can be looked up.
        wait_until(lambda: "order_id" in place("room").json(), what="orders are recorded again")
        assert order.process.poll() is None


def test_a_payment_that_can_not_be_recorded_is_not_charged(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "size=4m") as disk,
        serving(tmp_path, "acquirer") as acquirer,
        serving(disk, "payment", ACQUIRER_URL=acquirer.url) as payment,
    ):

        def pay(key: str) -> httpx.Response:
            body = {
                "order_id": key,
                "amount_minor": 100,
                "currency": "GBP",
                "method_token": "tok_approve",
            }
            return httpx.post(
                f"{payment.url}/api/v1/payments",
                json=body,
                headers={"Idempotency-Key": key},
                timeout=PATIENT_S,
            )

        ballast = fill(disk)
        refusal = pay("first")
        assert refusal.status_code == 503, refusal.text
        assert refusal.headers["content-type"] == "application/problem+json"
        assert httpx.get(f"{acquirer.url}/v1/ledger", timeout=PATIENT_S).json()["entries"] == []
        ballast.unlink()
        assert wait_until(lambda: pay("first").status_code == 201, what="payments are taken again")
        assert len(httpx.get(f"{acquirer.url}/v1/ledger", timeout=PATIENT_S).json()["entries"]) == 1


def test_a_charge_that_can_not_be_booked_is_not_approved(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "size=4m") as disk,
        serving(disk, "acquirer") as acquirer,
    ):

        def charge() -> httpx.Response:
            body = {
                "key": "k",
                "amount_minor": 100,
                "currency": "GBP",
                "method_token": "tok_approve",
            }
            return httpx.post(f"{acquirer.url}/v1/charges", json=body, timeout=PATIENT_S)

        ballast = fill(disk)
        refusal = charge()
        assert refusal.status_code >= 500, refusal.text
        assert "approved" not in refusal.text
        ballast.unlink()
        wait_until(lambda: "approved" in charge().text, what="charges are booked again")
