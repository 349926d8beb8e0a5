"""What breaks in a pod is seen by the right probe, acted on, and costs no order."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from service_kit import database

from tests.cluster.conftest import Figures, Ground
from tests.cluster.lab.kubectl import Object, eventually, is_ready
from tests.cluster.shop import NAMESPACE, PORTS, SERVICES, Shop

MIGRATION_LOCK = database._MIGRATION_LOCK


@pytest.fixture(autouse=True)
def healthy(shop: Shop) -> None:
    """Begin with two ready pods of everything."""
    for name in SERVICES:
        wait_for_two(shop, name)


def wait_for_two(shop: Shop, name: str) -> None:
    """Wait until a service has its pods, ready, and no others."""

    def two() -> bool:
        pods = shop.kubectl.all("pods", NAMESPACE, f"app.kubernetes.io/name={name}")
        return len(pods) >= 2 and all(is_ready(pod) for pod in pods)

    eventually(f"{name} is ready", two, seconds=300)


def restarts(pod: Object) -> int:
    """How often the pod's container was started again."""
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


@contextmanager
def stopped(ground: Ground, pod: Object) -> Iterator[None]:
    """All processes of a pod stand still, as if they hung."""
    lab = ground.needs_lab("a process of another cluster's node can't be stopped from here")
    pids = lab.processes(pod)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in lab.processes(pod):
            os.kill(pid, signal.SIGCONT)


def test_a_hung_process_is_restarted(ground: Ground, shop: Shop, figures: Figures) -> None:
    pod = shop.ready_pods("payment")[0]
    name = pod["metadata"]["name"]
    with stopped(ground, pod):

        def restarted() -> bool:
            return restarts(shop.kubectl.get("pod", name, NAMESPACE)) > restarts(pod)

        eventually("liveness had it restarted", restarted, seconds=240)
    figures.record("hung", orders=shop.assert_no_order_lost())


def test_a_dead_database_takes_pods_out_and_restarts_none(
    ground: Ground, shop: Shop, figures: Figures
) -> None:
    before = {
        pod["metadata"]["name"]: restarts(pod) for name in SERVICES for pod in shop.ready_pods(name)
    }
    [postgresql] = shop.ready_pods("postgresql")

    def ready() -> int:
        return sum(is_ready(pod) for name in SERVICES for pod in shop.ready_pods(name))

    with stopped(ground, postgresql):
        eventually("no pod gets traffic", lambda: ready() == 0, seconds=50)
    eventually("all are back", lambda: ready() == len(before), seconds=180)
    after = {
        pod["metadata"]["name"]: restarts(pod) for name in SERVICES for pod in shop.ready_pods(name)
    }
    assert after == before
    figures.record("dead_database", pods_out_and_back=len(before))


def test_a_slow_migration_is_waited_for(shop: Shop, figures: Figures) -> None:
    """Another one holds the lock: new pods wait in their init container, old ones serve on."""
    measured: dict[str, Any] = {}
    with shop.forward("service/postgresql", 5432) as port, shop.watched(measured):
        url = f"postgresql://product:{shop.secret('product-password')}@127.0.0.1:{port}/product"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
            shop.kubectl("rollout", "restart", "-n", NAMESPACE, "deployment/product")

            def waits() -> bool:
                waiting = connection.execute(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                ).fetchone()
                return bool(waiting and waiting[0])

            eventually("a migration waits for its turn", waits)
            connection.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
        shop.kubectl.rolled_out(NAMESPACE, "deployment/product")
    assert all(restarts(pod) == 0 for pod in shop.ready_pods("product"))
    figures.record("slow_migration", **measured)


def test_a_kill_for_memory_is_seen_alerted_and_survived(shop: Shop, figures: Figures) -> None:
    name = shop.ready_pods("payment")[0]["metadata"]["name"]
    with shop.forward(f"pod/{name}", PORTS["payment"]) as port:
        httpx.put(
            f"http://127.0.0.1:{port}/faults/leak",
            json={"type": "memory", "params": {"mb_per_s": 128, "cap_mb": 512}, "ttl_s": 60},
            headers={"Authorization": f"Bearer {shop.secret('admin-token')}"},
            timeout=30,
        ).raise_for_status()

    def killed() -> bool:
        [status] = shop.kubectl.get("pod", name, NAMESPACE)["status"]["containerStatuses"]
        last = status["lastState"].get("terminated", {})
        return bool(last.get("reason") == "OOMKilled")

    eventually("kubelet says OOMKilled", killed, seconds=180)

    def alerted() -> bool:
        with shop.forward("service/prometheus", 9090) as port:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=30).json()
        alerts = answer["data"]["alerts"]
        return any(
            alert["labels"]["alertname"] == "ContainerKilledForMemory"
            and alert["labels"]["pod"] == name
            for alert in alerts
        )

    eventually("the alert fires", alerted, seconds=240)
    wait_for_two(shop, "payment")
    figures.record("memory_kill", orders=shop.assert_no_order_lost())
