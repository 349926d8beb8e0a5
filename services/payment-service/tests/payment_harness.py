"""How the tests run and ask the Payment Service and the acquirer."""

import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import httpx
from service_kit import testing
from service_kit.testing import PATIENT_S, Running, wait_until

TOKEN = "test-admin-token"


class Addressed(Protocol):
    """Whatever answers at a URL."""

    @property
    def url(self) -> str: ...


def run_acquirer(
    binary: str, directory: Path, port: int | None = None, **env: str
) -> AbstractContextManager[Running]:
    env = {"SLOW_MS": "1500", **env}
    return testing.running([binary], env, port or testing.free_port(), directory, probe="/healthz")


TESTBUILD = (sys.executable, str(Path(__file__).parents[1] / "testbuild.py"))


def run_payment(
    directory: Path,
    acquirer: Addressed,
    command: Sequence[str] = (testing.script("payment-service"),),
    **env: str,
) -> AbstractContextManager[Running]:
    env = {
        "OTEL_SDK_DISABLED": "true",
        "ADMIN_TOKEN": TOKEN,
        "ACQUIRER_URL": acquirer.url,
        "WORKER_POLL_S": "0.2",
        "SHUTDOWN_GRACE_S": "100",
        **env,
    }
    return testing.running(command, env, testing.free_port(), directory)


def body(method: str = "tok_approve", order: str = "o1", amount: int = 1250) -> dict[str, Any]:
    return {
        "order_id": order,
        "amount_minor": amount,
        "currency": "GBP",
        "method_token": method,
    }


def pay(
    api: httpx.Client,
    key: str,
    headers: dict[str, str] | None = None,
    json: dict[str, Any] | None = None,
    **fields: Any,
) -> httpx.Response:
    headers = {"Idempotency-Key": key, **(headers or {})}
    return api.post("/api/v1/payments", headers=headers, json=json or body(**fields))


def cancel(
    api: httpx.Client, key: str, headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    headers = {"Idempotency-Key": key, **(headers or {})}
    return api.post("/api/v1/payments/cancel", headers=headers, json=body(**fields))


def settled(ask: Callable[..., httpx.Response], *arguments: Any, **fields: Any) -> httpx.Response:
    """The answer that is final, of `pay` or `cancel`, asked as often as it takes.

    202 says that the outcome is not known yet, 503 that the service is busy and has begun nothing.
    """

    def final() -> httpx.Response | None:
        answer = ask(*arguments, **fields)
        return None if answer.status_code in (202, 503) else answer

    return wait_until(final, what="a final answer")


def ledger(acquirer: Running, key: str | None = None) -> list[dict[str, Any]]:
    """What the acquirer has booked: its own account, not ours."""
    entries: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        query = f"{acquirer.url}/v1/ledger?after={after}&limit=1000"
        page = httpx.get(query, timeout=PATIENT_S).raise_for_status().json()
        entries += page["entries"]
        after = page["next"]
    return [entry for entry in entries if key in (None, entry["charge_key"])]


def rows(directory: Path) -> list[sqlite3.Row]:
    with sqlite3.connect(directory / "payment.db") as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM payments").fetchall()


def net(acquirer: Running, key: str) -> tuple[int, int]:
    """How often it was charged, and how much of it we still have."""
    booked = [entry for entry in ledger(acquirer, key) if entry["status"] == "approved"]
    signs = {"charge": 1, "refund": -1}
    charges = sum(entry["kind"] == "charge" for entry in booked)
    return charges, sum(signs[entry["kind"]] * entry["amount_minor"] for entry in booked)
