"""The scenarios of the acquirer: whatever it plays, each payment is charged once, and settled."""

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from payment_harness import TOKEN, ledger, pay, run_acquirer, run_payment, settled
from service_kit.testing import PATIENT_S, Running, wait_until

Launched = tuple[httpx.Client, Running]


@pytest.fixture(scope="module")
def shop(acquirer_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("acquirer")
        acquirer = stack.enter_context(run_acquirer(acquirer_binary, directory, ADMIN_TOKEN=TOKEN))
        service = stack.enter_context(
            run_payment(
                tmp_path_factory.mktemp("payment"),
                acquirer,
                ACQUIRER_TIMEOUT_S="0.5",
                WORKER_LEASE_S="1",
            )
        )
        client = stack.enter_context(httpx.Client(base_url=service.url, timeout=PATIENT_S))
        yield client, acquirer


@pytest.fixture
def play(shop: Launched) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=shop[1].url, headers=headers, timeout=PATIENT_S) as admin:
        yield admin
        admin.delete("/faults/x")


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("answer-twice", {}),
        ("lose-answer", {}),
        ("failing", {"rate": 0.5}),
        ("flapping", {"period_s": 1}),
        ("slow", {"delay_ms": 900}),
    ],
)
def test_every_payment_is_settled_and_charged_once(
    shop: Launched, play: httpx.Client, kind: str, params: dict[str, float]
) -> None:
    api, acquirer = shop
    play.put("/faults/x", json={"type": kind, "params": params, "ttl_s": 60}).raise_for_status()
    keys = [f"{kind}-{n}" for n in range(6)]
    paid = {key: pay(api, key, headers={"Prefer": "wait=0"}, order=key) for key in keys}
    assert {answer.status_code for answer in paid.values()} <= {201, 202}
    if kind == "slow":  # slower than the service waits: nobody can tell until it is over
        play.delete("/faults/x")
    for key in keys:
        wait_until(lambda: pay(api, key, order=key).json()["status"] == "captured")  # noqa: B023
        amounts = [entry["amount_minor"] for entry in ledger(acquirer) if entry["reference"] == key]
        assert amounts == [1250]


def test_a_decline_is_told_with_its_reason(shop: Launched, play: httpx.Client) -> None:
    play.put("/faults/x", json={"type": "declining", "ttl_s": 60}).raise_for_status()
    declined = settled(pay, shop[0], "declined")
    assert (declined.status_code, declined.json()["reason"]) == (402, "issuer_unavailable")
