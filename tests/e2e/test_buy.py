"""One order, and what the real Jaeger, Prometheus and VictoriaLogs know of it."""

import json
import re
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from tests.support.stack import Stack

SERVICES = {"order-service", "payment-service", "product-service"}
TRIES = 10


@pytest.fixture(scope="module")
def goods(stack: Stack) -> Stack:
    """The shop with the sample in stock."""
    answer = stack.run("data", "import", "--stock", "100000", "--restock")
    assert answer.returncode == 0, answer.stderr
    return stack


def refuse(stack: Stack, *arguments: str) -> dict[str, Any]:
    """The report of an order that is refused; asked again while the shop is too busy for any."""

    def refused() -> dict[str, Any] | None:
        answer = stack.run("buy", "--json", "--timeout", "30s", *arguments)
        report: dict[str, Any] = json.loads(answer.stdout) if answer.stdout else {}
        assert not report.get("confirmed")
        assert answer.returncode == 1 or " 503" in answer.stderr, answer.stderr
        problem = report.get("problem") or {"status": 503}
        told = problem["status"] != 503 and report["spans"] and report["logs"]
        return report if told else None

    return wait_until(refused, what="an order that is refused, and its telemetry")


def test_an_order_is_one_trace_in_jaeger(goods: Stack) -> None:
    bought = goods.buy("--sku", "HB1001", "--quantity", "2")
    assert bought["order"]["total_minor"] == 840
    assert bought["order"]["trace_id"] == bought["trace_id"]

    def whole() -> dict[str, Any] | None:
        url = f"{goods.url('jaeger')}/api/traces/{bought['trace_id']}"
        for trace in httpx.get(url, timeout=PATIENT_S).json()["data"] or ():
            names = {process["serviceName"] for process in trace["processes"].values()}
            if names == SERVICES:
                return dict(trace)
        return None

    trace = wait_until(whole, what="spans of every service")
    assert len(trace["spans"]) >= len(bought["spans"])
    ids = {span["spanID"] for span in trace["spans"]}
    parents = [reference["spanID"] for span in trace["spans"] for reference in span["references"]]
    orphans = sum(parent not in ids for parent in parents)
    assert orphans == 1, "all but the root have their parent"


def test_an_orders_logs_are_in_victorialogs_by_its_trace_id(goods: Stack) -> None:
    trace_id = goods.buy()["trace_id"]

    def told() -> bool:
        answer = httpx.post(
            f"{goods.url('victorialogs')}/select/logsql/query",
            data={"query": f'trace_id:="{trace_id}"'},
            timeout=PATIENT_S,
        )
        records = [json.loads(line) for line in answer.text.splitlines()]
        services = {record["service.name"] for record in records}
        messages = {record["_msg"] for record in records}
        return services == SERVICES and messages >= {"request", "order confirmed"}

    wait_until(told, what="the records of every service")


def test_an_order_is_counted_and_has_an_exemplar_in_prometheus(goods: Stack) -> None:
    # A histogram keeps few exemplars of a second: another test's request may take the place.
    for _ in range(TRIES):
        bought = goods.buy()
        counted = bought["orders"]
        if not (counted["before"] and counted["after"]):  # not seen in the time that `buy` waits
            continue
        assert counted["after"]["confirmed"] > counted["before"].get("confirmed", 0)
        if bought["exemplars"]:
            break
    answer = httpx.get(
        f"{goods.url('prometheus')}/api/v1/query_exemplars",
        params={
            "query": "http_server_request_duration_seconds_bucket",
            "start": time.time() - 3600,
            "end": time.time() + 5,
        },
        timeout=PATIENT_S,
    ).json()
    found = [
        (series["seriesLabels"]["service_name"], exemplar["labels"]["trace_id"])
        for series in answer["data"]
        for exemplar in series["exemplars"]
    ]
    assert SERVICES & {service for service, trace_id in found if trace_id == bought["trace_id"]}


def test_what_is_shown(goods: Stack) -> None:
    parts = ("is confirmed", "Oak spatula", "4.20 GBP", "checkout", "logs with", "prove_orders")
    for _ in range(TRIES):  # a busy shop may not end it in time, nor its signals be there
        answer = goods.run("buy", "--sku", "HB1001")
        if all(part in answer.stdout for part in parts):
            break
    assert answer.returncode == 0, answer.stderr
    for part in parts:
        assert part in answer.stdout
    lines = [line for line in answer.stdout.splitlines() if "http://" not in line]
    assert all(len(line) <= 100 for line in lines if "in full:" not in line)


@pytest.mark.parametrize(
    ("arguments", "status", "outcome"),
    [
        (["--sku", "HB1001", "--method", "tok_decline"], 402, "declined"),
        (["--sku", "HB1002", "--quantity", "10000"], 409, "short"),
        (["--sku", "no-such-thing"], 422, "refused"),
        (["--sku", "HB1001", "--method", "tok_unheard_of"], 422, "refused"),
    ],
)
def test_an_order_that_is_refused(
    goods: Stack, arguments: list[str], status: int, outcome: str
) -> None:
    if outcome == "short":
        token = {"Authorization": f"Bearer {goods.token}"}
        path = f"{goods.url('product')}/api/v1/products/HB1002"
        changed = httpx.patch(path, json={"stock": 1}, headers=token, timeout=PATIENT_S)
        assert changed.status_code == 200
    refused = refuse(goods, *arguments)
    assert refused["problem"]["status"] == status
    assert refused["orders"]["outcome"] == outcome
    assert refused["spans"]
    assert refused["logs"]


def test_the_same_key_buys_once(goods: Stack) -> None:
    order = ("--key", f"e2e-{time.time_ns()}", "--sku", "HB1001")
    first, second = goods.buy(*order), goods.buy(*order)
    assert second["replayed"]
    assert second["order"]["id"] == first["order"]["id"]
    assert second["trace_id"] == first["trace_id"]


def test_an_order_whose_answer_does_not_come_can_be_asked_for_again(goods: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        answer = goods.run("buy", "--timeout", "200ms", env={"PROVE_ORDER_PORT": port})
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "may or may not be placed" in answer.stderr
    again = answer.stderr.split("`")[1].split()[1:]
    assert again[:2] == ["buy", "--key"]
    assert goods.buy(*again[1:])["key"] == again[2]


def test_a_millisecond_is_no_traceback(goods: Stack) -> None:
    customer = f"e2e-{time.time_ns()}"
    answer = goods.run("buy", "--sku", "HB1001", "--timeout", "1ms", "--customer", customer)
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert "--timeout 1ms ended the wait" in answer.stderr
    again = shlex.split(answer.stderr.split("`")[1])[1:]
    settled = goods.buy(*again[1:])
    wait_until(lambda: len(_final(_listed(answer.stderr))) == len(_listed(answer.stderr)))
    stand = [order["id"] for order in _listed(answer.stderr) if order["failure"] is None]
    assert stand == [settled["order"]["id"]]


def test_an_order_that_outlives_the_wait_can_be_looked_up(goods: Stack) -> None:
    """The acquirer takes two seconds; the order is recorded, and its customer hears nothing."""
    customer = f"e2e-{time.time_ns()}"
    arguments = ("--sku", "HB1001", "--method", "tok_slow", "--customer", customer)
    with _deaf(goods.settings.order_port) as port:
        env = {"PROVE_ORDER_PORT": str(port)}
        answer = goods.run("buy", *arguments, "--timeout", "1s", env=env)
    assert answer.returncode == 1
    assert "--timeout 1s ended the wait" in answer.stderr
    told = answer.stderr.replace(f":{port}/", f":{goods.settings.order_port}/")
    (order,) = wait_until(lambda: _final(_listed(told)), what="an order that is final")
    wait_until(lambda: not _last_state(goods, order["id"])["step"], what="nothing left to do")
    assert _last_state(goods, order["id"])["status"] == order["status"]
    again = shlex.split(answer.stderr.split("`")[1])[1:]
    if order["status"] == "confirmed":  # else it ended in 503, and its key is free
        assert goods.buy(*again[1:])["order"]["id"] == order["id"]
        assert len(_listed(told)) == 1


@contextmanager
def _deaf(port: int) -> Iterator[int]:
    """A port that passes on what is asked of another one, and no answer."""

    def pass_on() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            while data := client.recv(65536):
                server.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)  # nobody asks, if something fails before
        asking = threading.Thread(target=pass_on, daemon=True)
        asking.start()
        yield listener.getsockname()[1]
        asking.join()


def _listed(told: str) -> list[dict[str, Any]]:
    """The customer's orders, by the link that was told."""
    url = re.search(r"http://\S+", told)
    assert url
    return [
        {"failure": None} | order for order in httpx.get(url[0], timeout=PATIENT_S).json()["items"]
    ]


def _final(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [order for order in orders if order["status"] in ("confirmed", "rejected")]


def _last_state(stack: Stack, order_id: str) -> dict[str, str]:
    url = f"{stack.url('order')}/api/v1/orders/{order_id}"
    found = httpx.get(url, timeout=PATIENT_S).json()
    state: dict[str, str] = found["history"][-1]
    return state


def test_signals_that_cannot_be_had_do_not_hide_the_order(goods: Stack) -> None:
    for _ in range(TRIES):
        bought = goods.run("buy", "--sku", "HB1001", env={"PROVE_JAEGER_PORT": "1"})
        if bought.returncode == 0:
            break
    assert bought.returncode == 0, bought.stderr
    assert "is confirmed" in bought.stdout
    assert "not available: the trace store (Jaeger)" in bought.stdout
