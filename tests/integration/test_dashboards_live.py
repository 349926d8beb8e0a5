"""Every query of every dashboard, asked of the Prometheus of a shop that works and suffers."""

import contextlib
import json
import math
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from prove import dashboards
from prove.tools import repository_root
from tests.support.stack import Stack

pytestmark = pytest.mark.timeout(600)

SAMPLE = str(repository_root() / "load" / "sample" / "corner-shop.csv")
SHOWN_S = 600
STEP_S = 5
FAILING_S = 8
DEADLINE_S = 240
# As Grafana fills them in: four intervals of the slowest source, the time that is shown.
FILLED = {"$__rate_interval": "20s", "$__range": f"{SHOWN_S}s"}


@dataclass(frozen=True)
class Asked:
    """One query of one panel, its variables filled in."""

    panel: str
    expr: str
    instant: bool
    exemplars: bool


@pytest.fixture(scope="module")
def eventful(stack: Stack) -> Iterator[Stack]:
    """The shop under load, after declined cards, a shortage, and a payment service that failed."""
    imported = stack.run("data", "import", SAMPLE, "--stock", "100000", "--restock")
    assert imported.returncode == 0, imported.stderr
    admin = {"Authorization": f"Bearer {stack.token}"}
    with httpx.Client(timeout=PATIENT_S, headers=admin) as client:
        sold_out = {
            "sku": "SOLD-OUT",
            "name": "The last one is gone",
            "description": "",
            "category": "rare",
            "price_minor": 100,
            "currency": "GBP",
            "stock": 0,
        }
        answer = client.post(
            f"{stack.url('product')}/api/v1/products/import", json={"items": [sold_out]}
        )
        assert answer.status_code == 200, answer.text
        wait_until(lambda: buy(client, stack, "SOLD-OUT").status_code == 409, what="a shortage")
        with stack.start(
            *("load", "--rate", "8/s", "--duration", "10m", "--mix", "mixed", "--decline", "30%")
        ) as load:
            try:
                fail_payments(client, stack)
                yield stack
            finally:
                load.send_signal(signal.SIGINT)
                load.communicate(timeout=PATIENT_S)
        client.delete(f"{stack.url('product')}/api/v1/products/SOLD-OUT")
        wait_until(
            lambda: buy(client, stack, a_sku(client, stack)).status_code == 201,
            what="the shop to sell again",
        )


def fail_payments(client: httpx.Client, stack: Stack) -> None:
    """Long enough for retries, put-off steps, an open breaker and shed checkouts."""
    lease = {"type": "error", "params": {"rate": 1, "status": 503}, "ttl_s": 120}
    answer = client.put(
        f"{stack.url('payment')}/faults/dashboards",
        json={**lease, "match": {"route": "/api/v1/payments"}},
    )
    assert answer.status_code == 200, answer.text
    sku = a_sku(client, stack)
    begun = time.monotonic()

    def shed() -> bool:
        """Whether an order was refused unrecorded, and all of it has lasted for a while."""
        answer = buy(client, stack, sku)
        refused = answer.status_code == 503 and "order_id" not in answer.json()
        return refused and time.monotonic() - begun > FAILING_S

    wait_until(shed, what="checkouts to be shed")
    client.delete(f"{stack.url('payment')}/faults/dashboards").raise_for_status()


def a_sku(client: httpx.Client, stack: Stack) -> str:
    answer = client.get(f"{stack.url('product')}/api/v1/products", params={"category": "kitchen"})
    sku: str = answer.json()["items"][0]["sku"]
    return sku


def buy(client: httpx.Client, stack: Stack, sku: str) -> httpx.Response:
    return client.post(
        f"{stack.url('order')}/api/v1/orders",
        headers={"Idempotency-Key": uuid.uuid4().hex},
        json={
            "customer_id": "dashboards",
            "lines": [{"sku": sku, "quantity": 1}],
            "payment_method": "tok_approve",
        },
    )


class Metrics:
    """The stack's Prometheus, asked as Grafana asks it."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def answers(self, asked: Asked) -> bool:
        """Whether a query gives at least one number (and one trace, if it asks for exemplars)."""
        now = time.time()
        window: dict[str, str | float] = {
            "query": asked.expr,
            "start": now - SHOWN_S,
            "end": now,
        }
        if asked.instant:
            found = self._get("/api/v1/query", {"query": asked.expr})["result"]
            values = [series["value"] for series in found]
        else:
            found = self._get("/api/v1/query_range", {**window, "step": STEP_S})["result"]
            values = [value for series in found for value in series["values"]]
        if not any(math.isfinite(float(value)) for _, value in values):
            return False
        if not asked.exemplars:
            return True
        exemplars = self._get("/api/v1/query_exemplars", window)
        return any(one["labels"]["trace_id"] for series in exemplars for one in series["exemplars"])

    def values(self, question: str) -> list[str]:
        """What Grafana's label_values(METRIC{…}, LABEL) gives."""
        selector, label = question.removeprefix("label_values(")[:-1].rsplit(", ", 1)
        found = self._get(f"/api/v1/label/{label}/values", {"match[]": selector})
        return [str(value) for value in found]

    def _get(self, path: str, parameters: dict[str, Any]) -> Any:
        answer = self._http.get(path, params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]


def fill(expr: str, variables: dict[str, str]) -> str:
    for name, value in (FILLED | variables).items():
        expr = expr.replace(name, value)
    return expr


def of_board(board: dict[str, Any], metrics: Metrics) -> Iterator[Asked]:
    """Its queries, once for each value of a variable that has no "All"."""
    names, values = [], []
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            every = {"$service": ".*"}
            question = fill(variable["query"]["query"], every)
            found = metrics.values(question)
            assert found, question
            names.append(f"${variable['name']}")
            values.append([variable["allValue"]] if variable.get("includeAll") else found)
    for chosen in product(*values):
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                title = " ".join((board["uid"], panel["title"], target["refId"], *chosen))
                yield Asked(
                    panel=title,
                    expr=fill(target["expr"], dict(zip(names, chosen, strict=True))),
                    instant=target.get("instant", False),
                    exemplars=target.get("exemplar", False),
                )


@pytest.fixture
def metrics(eventful: Stack) -> Iterator[Metrics]:
    with httpx.Client(base_url=eventful.url("prometheus"), timeout=PATIENT_S) as http:
        yield Metrics(http)


def test_no_panel_is_empty(metrics: Metrics) -> None:
    boards = [json.loads(text) for text in dashboards.build().values()]
    objectives = "label_values(slo:objective:ratio, sloth_id)"
    wait_until(
        lambda: len(metrics.values(objectives)) == 10,
        what="the rules to be evaluated",
        timeout_s=DEADLINE_S,
    )
    left = [asked for board in boards for asked in of_board(board, metrics)]
    assert len(left) > 100

    def answered() -> bool:
        left[:] = [asked for asked in left if not metrics.answers(asked)]
        return not left

    with contextlib.suppress(TimeoutError):  # the next line says more
        wait_until(answered, what="every panel to show something", timeout_s=DEADLINE_S)
    assert [f"{asked.panel}: {asked.expr}" for asked in left] == []
