"""Autoscaling: up by CPU and by memory, back down, once each, while the shop keeps its promise."""

import itertools
import time
from collections.abc import Iterator

import httpx
import pytest

from prove.kubernetes.context import mebibytes
from tests.cluster.conftest import Figures
from tests.cluster.lab.kubectl import eventually, is_ready
from tests.cluster.shop import ERRORS, NAMESPACE, PORTS, SERVICES, Shop

QUIET = 2
"""Orders a second."""
VISITS = 35
"""Looks at a page of goods a second: what costs the product service alone.

More CPU than the autoscaler wants, and not much more than the pods' request: that is all they are
sure of while new ones start.
"""
MINIMUM = 2


@pytest.fixture(scope="module", autouse=True)
def calm(shop: Shop) -> Iterator[None]:
    """Metrics are there, nothing is scaled up yet, and nothing pages as after an installation."""
    shop.customers("rate", str(QUIET))
    eventually("nothing pages", lambda: not pages(shop, since_s=5), seconds=240)
    for name in SERVICES:
        wait_for_metrics(shop, name)
        wait_for_minimum(shop, name)
    yield
    shop.customers("browse", "1")


def wait_for_minimum(shop: Shop, name: str) -> None:
    """Wait until a service is not scaled up any more."""
    eventually(f"{name} is at its minimum", lambda: wanted(shop, name) == MINIMUM, seconds=240)


def wait_for_metrics(shop: Shop, name: str) -> None:
    """Wait until the autoscaler has seen both metrics."""

    def has_both() -> bool:
        current = shop.kubectl.get("hpa", name, NAMESPACE)["status"].get("currentMetrics", [])
        names = {metric.get("resource", {}).get("name") for metric in current}
        return names >= {"cpu", "memory"}

    eventually(f"the autoscaler of {name} has CPU and memory", has_both, seconds=240)


def wanted(shop: Shop, name: str) -> int:
    """The replicas that a service is to have."""
    return int(shop.kubectl.get("deployment", name, NAMESPACE)["spec"]["replicas"])


class History:
    """What a service was scaled to, and when."""

    def __init__(self, shop: Shop, name: str) -> None:
        self.shop, self.name = shop, name
        self.began = time.monotonic()
        self.steps: list[tuple[float, int]] = []

    def look(self) -> int:
        """The wanted replicas now."""
        now = wanted(self.shop, self.name)
        if not self.steps or self.steps[-1][1] != now:
            self.steps.append((round(time.monotonic() - self.began, 1), now))
        return now

    def turns(self) -> int:
        """How often the direction changed: once up and once down is one."""
        counts = [count for _, count in self.steps]
        signs = [after > before for before, after in itertools.pairwise(counts)]
        return sum(one != other for one, other in itertools.pairwise(signs))


def pages(shop: Shop, since_s: float) -> list[str]:
    """The SLOs whose alerts paged meanwhile."""
    query = f'max_over_time(ALERTS{{sloth_severity="page",alertstate="firing"}}[{since_s:.0f}s])'
    with shop.forward("service/prometheus", 9090) as port:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=30
        )
    return [found["metric"]["alertname"] for found in answer.json()["data"]["result"]]


def test_load_scales_up_and_its_end_down_without_flapping(shop: Shop, figures: Figures) -> None:
    history = History(shop, "product")
    history.look()
    shop.customers("forget")
    before = shop.bought()
    shop.customers("browse", str(VISITS))
    eventually("product has more pods", lambda: history.look() > MINIMUM, seconds=180)
    reacted = history.steps[-1][0]

    def all_serve() -> bool:
        pods = shop.ready_pods("product")
        return len(pods) == history.look() and all(is_ready(pod) for pod in pods)

    eventually("they are ready", all_serve, seconds=180)
    served = round(time.monotonic() - history.began, 1)
    shop.customers("browse", "1")
    eventually("it is back at its minimum", lambda: history.look() == MINIMUM, seconds=300)
    after = shop.bought()
    assert history.turns() == 1, history.steps
    requests, failed = (after[key] - before[key] for key in ("requests", "failed"))
    # Pods that start take the machine's two cores: the old ones shed what waits over a second.
    assert failed / requests < ERRORS, after["failures"]
    assert not pages(shop, since_s=time.monotonic() - history.began)
    figures.record(
        "hpa_cpu",
        reads_per_s=VISITS,
        seconds_to_scale=reacted,
        seconds_to_ready=served,
        steps=history.steps,
        requests=requests,
        failed=failed,
        p95_ms=round(after["p95_ms"]),
    )


def leak(shop: Shop, pod: str, mb: int) -> None:
    """Have one pod's memory grow, for as long as the lease lasts."""
    with shop.forward(f"pod/{pod}", PORTS["product"]) as port:
        httpx.put(
            f"http://127.0.0.1:{port}/faults/leak",
            json={"type": "memory", "params": {"mb_per_s": 32, "cap_mb": mb}, "ttl_s": 300},
            headers={"Authorization": f"Bearer {shop.secret('admin-token')}"},
            timeout=30,
        ).raise_for_status()


def test_a_leak_scales_up_and_a_restart_of_the_pods_down(shop: Shop, figures: Figures) -> None:
    history = History(shop, "product")
    history.look()
    for pod in shop.ready_pods("product"):
        leak(shop, pod["metadata"]["name"], mb=224)
    eventually("product has more pods", lambda: history.look() > MINIMUM, seconds=240)
    reacted = history.steps[-1][0]
    # A lease is its pod's: a new pod has none.
    shop.kubectl("rollout", "restart", "-n", NAMESPACE, "deployment/product")
    shop.kubectl.rolled_out(NAMESPACE, "deployment/product")
    eventually("it is back at its minimum", lambda: history.look() == MINIMUM, seconds=300)
    figures.record("hpa_memory", seconds_to_scale=reacted, steps=history.steps)


def test_metrics_of_pods_are_served(shop: Shop, figures: Figures) -> None:
    def used() -> dict[str, int]:
        lines = shop.kubectl("top", "pods", "-n", NAMESPACE, "--no-headers").splitlines()
        return {name: mebibytes(memory) for name, _, memory in map(str.split, lines)}

    def of_every_pod() -> dict[str, int]:
        known = used()
        assert {pod["metadata"]["name"] for pod in shop.kubectl.pods(NAMESPACE)} <= set(known)
        return known

    known = eventually("kubectl top knows every pod", of_every_pod)
    parts: dict[str, dict[str, int]] = {}
    for pod in shop.kubectl.pods(NAMESPACE):
        name = pod["metadata"]["labels"]["app.kubernetes.io/name"]
        part = parts.setdefault(name, {"pods": 0, "used_mib": 0, "limit_mib": 0})
        part["pods"] += 1
        part["used_mib"] += known[pod["metadata"]["name"]]
        part["limit_mib"] += sum(
            mebibytes(container["resources"]["limits"]["memory"])
            for container in pod["spec"]["containers"]
        )
    figures.record("footprint", parts=parts)
