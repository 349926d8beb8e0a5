"""Telemetry is complete in the cluster too: a trace, logs, metrics, dashboards and a page."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from prove import dashboards
from tests.cluster import toys
from tests.cluster.conftest import Figures
from tests.cluster.lab.kubectl import eventually
from tests.cluster.shop import CLIENTS, INBOX, NAMESPACE, PORTS, SERVICES, Shop
from tests.integration.test_dashboards_live import Metrics, of_board

ATTRIBUTES = ("k8s.namespace.name", "k8s.pod.name", "k8s.node.name", "k8s.deployment.name")


@pytest.fixture(scope="module")
def trace_id(shop: Shop) -> str:
    """The trace of one order, bought just now."""
    with shop.forward(*shop.door("product")) as port:
        listing = httpx.get(f"http://127.0.0.1:{port}/api/v1/products", timeout=30).json()
    return shop.order(listing["items"][0]["sku"])


def test_one_order_is_one_trace_that_names_its_pods(
    shop: Shop, trace_id: str, figures: Figures
) -> None:
    with shop.forward("service/jaeger", 16686) as port:

        def processes() -> dict[str, dict[str, str]]:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/traces/{trace_id}", timeout=30)
            if answer.status_code != 200:
                return {}
            found = {}
            for process in answer.json()["data"][0]["processes"].values():
                tags = {tag["key"]: str(tag["value"]) for tag in process["tags"]}
                found[process["serviceName"]] = tags
            return found if len(found) >= len(SERVICES) else {}

        found = eventually("the trace has all services", processes)
    assert set(found) == {f"{name}-service" for name in SERVICES}
    pods = {pod["metadata"]["name"] for pod in shop.kubectl.pods(NAMESPACE)}
    for service, tags in found.items():
        assert {key for key in ATTRIBUTES if tags.get(key)} == set(ATTRIBUTES), service
        assert tags["k8s.pod.name"] in pods
        assert tags["k8s.namespace.name"] == NAMESPACE
    figures.record("trace", services=sorted(found), attributes=ATTRIBUTES)


def test_the_logs_of_the_order_are_found_by_its_trace(shop: Shop, trace_id: str) -> None:
    with shop.forward("service/victorialogs", 9428) as port:

        def services() -> bool:
            answer = httpx.get(
                f"http://127.0.0.1:{port}/select/logsql/query",
                params={"query": f"trace_id:={trace_id}", "limit": 100},
                timeout=30,
            )
            lines = [json.loads(line) for line in answer.text.splitlines()]
            return {line.get("service.name") for line in lines} >= {"order-service"}

        eventually("its logs are there", services)


@pytest.fixture
def metrics(shop: Shop) -> Iterator[Metrics]:
    """The release's Prometheus."""
    with (
        shop.forward("service/prometheus", 9090) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        yield Metrics(http)


@pytest.mark.parametrize(
    "metric", ["container_memory_working_set_bytes", "container_cpu_usage_seconds_total"]
)
def test_containers_are_measured(shop: Shop, metrics: Metrics, metric: str) -> None:
    question = f'label_values({metric}{{namespace="{NAMESPACE}"}}, container)'

    def all_are() -> bool:
        return set(SERVICES) <= set(metrics.values(question))

    eventually(f"Prometheus has {metric} of every service", all_are)


def test_every_query_of_a_dashboard_is_answered(
    shop: Shop, metrics: Metrics, figures: Figures
) -> None:
    objectives = "label_values(slo:objective:ratio, sloth_id)"
    eventually("the rules are evaluated", lambda: len(metrics.values(objectives)) == 10)
    boards = [json.loads(text) for text in dashboards.build().values()]
    asked = [query for board in boards for query in of_board(board, metrics)]
    with_data = sum(metrics.answers(query) for query in asked)  # raises for one that is refused
    figures.record("dashboards", queries=len(asked), with_data=with_data)
    assert with_data > len(asked) / 2


def test_an_alert_fires_and_is_delivered(shop: Shop, figures: Figures) -> None:
    toys_ready = toys.deployment(INBOX, 1), toys.service(INBOX)
    shop.kubectl.apply(*toys_ready, namespace=CLIENTS)
    shop.kubectl.rolled_out(CLIENTS, f"deployment/{INBOX}")
    token = shop.secret("admin-token")
    began = datetime.now(UTC)
    lease = {"type": "error", "params": {"rate": 1, "status": 503}, "ttl_s": 120}
    for pod in shop.ready_pods("payment"):
        with shop.forward(f"pod/{pod['metadata']['name']}", PORTS["payment"]) as port:
            httpx.put(
                f"http://127.0.0.1:{port}/faults/page",
                json={**lease, "match": {"route": "/api/v1/payments"}},
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            ).raise_for_status()

    def delivered() -> list[Any]:
        # By a toy of its own: the inbox answers whoever asks.
        shop.kubectl.apply(toys.pod("reader", "wait"), namespace=CLIENTS)
        text = shop.kubectl.exec(CLIENTS, "reader", "/toy", "get", f"http://{INBOX}/inbox")
        bodies = [json.loads(line) for line in text.removeprefix("200 ").splitlines() if line]
        return [
            alert["labels"]["alertname"]
            for body in bodies
            for alert in body.get("alerts", [])
            if alert["status"] == "firing"
            and alert["labels"].get("sloth_severity") == "page"
            and datetime.fromisoformat(alert["startsAt"]) > began
        ]

    paged = eventually("a page is delivered", delivered, seconds=240)
    for pod in shop.ready_pods("payment"):
        with shop.forward(f"pod/{pod['metadata']['name']}", PORTS["payment"]) as port:
            httpx.delete(
                f"http://127.0.0.1:{port}/faults/page",
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            )
    figures.record("page", alerts=sorted(set(paged)))
