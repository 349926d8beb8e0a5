"""The chart on a real cluster: its life, and what customers notice of it.

Tests of one module run in order, and the last ones take the shop away.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import Figures
from tests.cluster.lab.kubectl import RefusedError, eventually, is_ready
from tests.cluster.shop import CLIENTS, NAMESPACE, PORTS, RELEASE, SERVICES, HelmError, Shop


@pytest.fixture
def measured(figures: Figures, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Figures of a test, kept under its name."""
    values: dict[str, Any] = {}
    began = time.monotonic()
    yield values
    values["seconds"] = round(time.monotonic() - began, 1)
    figures.record(request.node.name.removeprefix("test_"), **values)


def all_ready(shop: Shop) -> bool:
    """Whether each service has as many ready pods as it wants."""
    for name in SERVICES:
        status = shop.kubectl.get("deployment", name, NAMESPACE)["status"]
        if status.get("readyReplicas", 0) < 2 or status.get("unavailableReplicas"):
            return False
    return True


def test_helm_test_places_an_order(shop: Shop, measured: dict[str, Any]) -> None:
    shop.helm("test", RELEASE, "--timeout=180s")


def test_a_rolling_update_of_every_service_fails_no_request(
    shop: Shop, measured: dict[str, Any]
) -> None:
    for name in SERVICES:
        figures = measured.setdefault(name, {})
        with shop.watched(figures):
            began = time.monotonic()
            shop.kubectl("rollout", "restart", "-n", NAMESPACE, f"deployment/{name}")
            shop.kubectl.rolled_out(NAMESPACE, f"deployment/{name}")
            figures["rollout_seconds"] = round(time.monotonic() - began, 1)
            # Until the last old pod is gone: it may still have had connections.
            wait_for_old_pods(shop, name)
    measured["orders"] = shop.assert_no_order_lost()


def wait_for_old_pods(shop: Shop, name: str) -> None:
    """Wait until two pods are left, those on their way out included."""
    eventually("old pods are gone", lambda: len(pods(shop, name)) == 2)


def pods(shop: Shop, name: str) -> list[dict[str, Any]]:
    """All pods of a part, also those on their way out."""
    return shop.kubectl.all("pods", NAMESPACE, f"app.kubernetes.io/name={name}")


def evict(shop: Shop, pod: str) -> bool:
    """Ask for an eviction; False while the disruption budget forbids it."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": NAMESPACE},
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    try:
        shop.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    except RefusedError as error:
        if "disruption budget" in str(error):
            return False
        raise
    return True


def test_eviction_of_every_pod_fails_no_request_and_loses_no_order(
    shop: Shop, measured: dict[str, Any]
) -> None:
    refused = 0
    evicted = 0
    with shop.watched(measured):
        for name in SERVICES:
            for pod in shop.ready_pods(name):
                before = pod["metadata"]["name"]
                while not evict(shop, before):
                    refused += 1
                    time.sleep(0.5)
                evicted += 1

                def replaced(name: str = name, before: str = before) -> bool:
                    now = pods(shop, name)
                    gone = before not in {pod["metadata"]["name"] for pod in now}
                    return gone and len(now) == 2 and all(is_ready(pod) for pod in now)

                eventually(f"{before} is replaced", replaced, seconds=180)
    measured["evicted"] = evicted
    measured["refused_by_budget"] = refused
    measured["orders"] = shop.assert_no_order_lost()


def test_the_budget_refuses_a_second_eviction_at_once(shop: Shop) -> None:
    eventually("both pods of order are ready", lambda: all_ready(shop))
    one, other = (pod["metadata"]["name"] for pod in shop.ready_pods("order"))
    assert evict(shop, one)
    assert not evict(shop, other)
    eventually("both are ready again", lambda: all_ready(shop), seconds=180)


@pytest.mark.parametrize(
    ("name", "route"), [("order", "/api/v1/orders"), ("product", "/api/v1/reservations")]
)
def test_traffic_is_spread_over_replicas_also_on_kept_connections(
    shop: Shop, figures: Figures, name: str, route: str
) -> None:
    """Clients keep connections; servers close them every few seconds, for a Service to place anew.

    Seen in the pods' own logs: of what customers ask, and of what the order service asks.
    """
    eventually("all are ready", lambda: all_ready(shop), seconds=180)
    shop.customers("rate", "10")

    def shares() -> list[float]:
        """What each pod took of the last half minute's requests."""
        counts = []
        for pod in shop.ready_pods(name):
            which = ("-n", NAMESPACE, pod["metadata"]["name"], "-c", name)
            lines = shop.kubectl("logs", *which, "--since=30s").splitlines()
            counts.append(sum(route in line for line in lines))
        return [round(count / max(1, sum(counts)), 2) for count in sorted(counts)]

    try:
        found = eventually("every pod takes its part", lambda: fair(shares()))
    finally:
        shop.customers("rate", "2")
    figures.record(f"spread_{name}", shares=found)


def fair(shares: list[float]) -> list[float]:
    """The shares, when each is at least half of an even one."""
    assert min(shares) >= 0.5 / len(shares), shares
    return shares


def test_an_upgrade_fails_no_request(shop: Shop, measured: dict[str, Any]) -> None:
    with shop.watched(measured):
        shop.deploy(environment="upgraded")
    revision = json.loads(shop.helm("status", RELEASE, "-o", "json"))
    assert revision["info"]["status"] == "deployed"
    pod = shop.ready_pods("order")[0]
    env = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    assert "deployment.environment.name=upgraded" in str(env["OTEL_RESOURCE_ATTRIBUTES"])


def test_a_failed_upgrade_rolls_back_and_fails_no_request(
    shop: Shop, measured: dict[str, Any]
) -> None:
    with shop.watched(measured):
        with pytest.raises(HelmError):
            shop.deploy(
                "--rollback-on-failure",
                seconds=90,  # also what the rollback is given
                environment="upgraded",
                order={"image": {"tag": "never-built"}},
            )
        status = json.loads(shop.helm("status", RELEASE, "-o", "json"))
        assert status["info"]["status"] == "deployed"
        eventually("all are ready", lambda: all_ready(shop), seconds=180)


def test_a_rollback_fails_no_request(shop: Shop, measured: dict[str, Any]) -> None:
    with shop.watched(measured):
        shop.helm("rollback", RELEASE, "1", "--wait", "--timeout=300s")
    pod = shop.ready_pods("order")[0]
    env = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    assert "deployment.environment.name=lab" in str(env["OTEL_RESOURCE_ATTRIBUTES"])
    measured["orders"] = shop.assert_no_order_lost()


def test_customers_came_from_outside_the_namespace(shop: Shop) -> None:
    """What the figures above are made of: real orders, by the front door."""
    stats = shop.bought()
    assert stats["statuses"]["order 201"] > 100
    assert CLIENTS != NAMESPACE
    assert set(PORTS) >= set(SERVICES)
