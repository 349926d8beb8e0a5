"""Who may talk to whom, may do what, and may run as what: each a table, asked of a real cluster."""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.cluster import toys
from tests.cluster.conftest import Figures, Ground
from tests.cluster.lab.cluster import TOY
from tests.cluster.lab.kubectl import Object, RefusedError, eventually, is_ready
from tests.cluster.shop import CHART, CLIENTS, NAMESPACE, SERVICES, Shop

PROBE = "edges"
OUTSIDER, CUSTOMER = "outsider", "buyer"


@dataclass(frozen=True)
class Target:
    """One listening port of a part."""

    part: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Source:
    """A part, and the pod and container from which its connections are tried."""

    part: str
    namespace: str
    pod: str
    container: str


def part_of(pod: Object) -> str:
    """The chart's name of what a pod is."""
    return str(pod["metadata"]["labels"]["app.kubernetes.io/name"])


@pytest.fixture(scope="module")
def ready(shop: Shop) -> dict[str, list[Object]]:
    """All pods by part, each ready."""

    def all_are() -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for pod in shop.kubectl.all("pods", NAMESPACE):
            if pod["status"]["phase"] == "Succeeded":
                continue
            if not is_ready(pod) or "deletionTimestamp" in pod["metadata"]:
                return {}
            found.setdefault(part_of(pod), []).append(pod)
        return found

    return eventually("all pods are ready", all_are, seconds=240)


@pytest.fixture(scope="module")
def sources(shop: Shop, ready: dict[str, list[Object]]) -> Iterator[list[Source]]:
    """A toy inside one pod of each part, in its network; and one in a pod that nobody knows."""
    kubectl = shop.kubectl
    kubectl.make_namespace(toys.namespace("prove-test-outside"))
    kubectl.apply(toys.pod(OUTSIDER, "wait"), namespace="prove-test-outside")
    found = [
        Source(OUTSIDER, "prove-test-outside", OUTSIDER, "toy"),
        Source(CUSTOMER, CLIENTS, CUSTOMER, PROBE),
        *(
            Source(part, NAMESPACE, pods[0]["metadata"]["name"], PROBE)
            for part, pods in ready.items()
        ),
    ]
    for source in found:
        if source.container == PROBE:
            kubectl(
                *("debug", "-n", source.namespace, f"pod/{source.pod}", "--profile=restricted"),
                *(f"--container={PROBE}", f"--image={TOY}", "--image-pull-policy=IfNotPresent"),
                *("--", "/toy", "wait"),
            )
    eventually("all can be looked out of", lambda: [attempt(shop, source, []) for source in found])
    yield found
    kubectl("delete", "namespace", "prove-test-outside", "--wait=false")


def attempt(shop: Shop, source: Source, targets: list[Target]) -> dict[Target, str]:
    """What becomes of a TCP connection to each target: open, closed or timeout."""
    if not targets:
        words = ["/toy", "connect"]
        shop.kubectl.exec(source.namespace, source.pod, *words, container=source.container)
        return {}
    lines = shop.kubectl.exec(
        source.namespace,
        source.pod,
        *("/toy", "connect", *map(str, targets)),
        container=source.container,
    ).splitlines()
    return {target: line.split(" ", 1)[1] for target, line in zip(targets, lines, strict=True)}


def targets_of(ready: dict[str, list[Object]]) -> list[Target]:
    """Every port that a container says it listens on, of the last pod of each part."""
    return [
        Target(part, pods[-1]["status"]["podIP"], port["containerPort"])
        for part, pods in sorted(ready.items())
        for container in pods[-1]["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("protocol", "TCP") == "TCP"
    ]


@functools.cache
def edges() -> set[tuple[str, str, int]]:
    """Who may reach which port, as the chart has it, and customers the front door."""
    rows = yaml.safe_load((CHART / "files" / "edges.yaml").read_text())["edges"]
    allowed = {(row["from"], row["to"], row["port"]) for row in rows}
    return allowed | {(CUSTOMER, "product", 8001), (CUSTOMER, "order", 8002)}


def table(
    shop: Shop, sources: list[Source], targets: list[Target], own: dict[str, str]
) -> dict[tuple[str, str, int], str]:
    """The outcome for each pair of another pod and port."""
    outcome = {}
    for source in sources:
        others = [target for target in targets if own.get(source.pod) != target.address]
        for target, answer in attempt(shop, source, others).items():
            outcome[source.part, target.part, target.port] = answer
    return outcome


def test_every_pair_of_pods_may_connect_as_intended(
    ground: Ground,
    shop: Shop,
    ready: dict[str, list[Object]],
    sources: list[Source],
    figures: Figures,
) -> None:
    """Allowed is what `edges.yaml` allows. Without the enforcer all connect: so it was policy."""
    lab = ground.needs_lab("another cluster's enforcer can't be switched off")
    if lab.cilium is None:
        pytest.skip("policies need Cilium, or another network that enforces them")
    targets = targets_of(ready)
    own = {
        pod["metadata"]["name"]: pod["status"]["podIP"] for pods in ready.values() for pod in pods
    }
    lab.cilium.enforce(False)
    try:

        def all_open() -> dict[tuple[str, str, int], str]:
            free = table(shop, sources, targets, own)
            shut = {pair: answer for pair, answer in free.items() if answer != "open"}
            assert not shut
            return free

        free = eventually("without the enforcer all pairs connect", all_open)
    finally:
        lab.cilium.enforce(True)

    def as_intended() -> dict[tuple[str, str, int], str]:
        found = table(shop, sources, targets, own)
        wrong = {
            pair: answer
            for pair, answer in found.items()
            if answer != ("open" if pair in edges() else "timeout")
        }
        assert not wrong
        return found

    found = eventually("each pair is allowed or denied as intended", as_intended)
    assert set(found) == set(free)
    # Every edge of what is installed was tried.
    here = {part for part, _, _ in found}
    there = {(part, port) for _, part, port in found}
    untried = {
        edge
        for edge in edges() - set(found)
        if edge[0] in here and edge[1:] in there and edge[0] != edge[1]
    }
    assert untried == set()
    allowed = sorted(pair for pair, answer in found.items() if answer == "open")
    figures.record(
        "policies",
        pairs=len(found),
        allowed=len(allowed),
        denied=len(found) - len(allowed),
        connect_without_enforcer=len(free),
        edges=[f"{source} → {target}:{port}" for source, target, port in allowed],
    )


ASKERS = {"prometheus", "kube-state-metrics"}
"""Those that ask the API server for something: all others may do nothing there."""
TRIED = [
    *(("get", kind) for kind in ("secrets", "pods", "configmaps", "nodes", "nodes/metrics")),
    *(("list", kind) for kind in ("secrets", "pods", "deployments.apps", "nodes")),
    *(("create", kind) for kind in ("pods", "pods/exec", "deployments.apps")),
    *(("delete", kind) for kind in ("pods", "secrets", "namespaces")),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("impersonate", "users"),
    ("escalate", "clusterroles.rbac.authorization.k8s.io"),
]
MAY = {
    "prometheus": {("get", "nodes"), ("list", "nodes"), ("get", "nodes/metrics")},
    "kube-state-metrics": {("list", "pods"), ("list", "deployments.apps")},
}


def test_who_may_do_what_at_the_api_server(shop: Shop, figures: Figures) -> None:
    accounts = [item["metadata"]["name"] for item in shop.kubectl.all("serviceaccounts", NAMESPACE)]
    assert set(SERVICES) < set(accounts)
    matrix: dict[str, list[str]] = {}
    for account in accounts:
        user = f"system:serviceaccount:{NAMESPACE}:{account}"
        can = allowed(shop, user, "system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}")
        matrix[account] = sorted(f"{verb} {kind}" for verb, kind in can)
        assert can <= MAY.get(account, set()), account
    assert allowed(shop, "nobody") == set()
    assert allowed(shop, "somebody", "system:masters") == set(TRIED)
    figures.record("rbac", tried=len(TRIED), matrix=matrix)


def allowed(shop: Shop, user: str, *groups: str) -> set[tuple[str, str]]:
    """Which of the pairs that are tried a user may, by the API server's own answer."""

    def review(verb: str, kind: str) -> Object:
        named, _, subresource = kind.partition("/")
        resource, _, group = named.partition(".")
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": [*groups, "system:authenticated"],
                "resourceAttributes": {
                    "namespace": NAMESPACE,
                    "verb": verb,
                    "group": group,
                    "resource": resource,
                    "subresource": subresource,
                },
            },
        }

    asked = yaml.safe_dump_all(review(*pair) for pair in TRIED)
    answer = r'jsonpath={.status.allowed}{"\n"}'
    lines = shop.kubectl("create", "-f", "-", "-o", answer, stdin=asked).split()
    return {pair for pair, line in zip(TRIED, lines, strict=True) if line == "true"}


def test_no_pod_has_a_token_it_does_not_need(ready: dict[str, list[Object]]) -> None:
    for part, pods in ready.items():
        for pod in pods:
            mounted = [
                volume
                for volume in pod["spec"].get("volumes", [])
                if any("serviceAccountToken" in source for source in projected(volume))
            ]
            assert bool(mounted) == (part in ASKERS), part


def projected(volume: dict[str, Any]) -> list[dict[str, Any]]:
    """The sources of a projected volume."""
    found: list[dict[str, Any]] = volume.get("projected", {}).get("sources", [])
    return found


REFUSED: dict[str, dict[str, Any]] = {
    "root": {"securityContext": {**toys.CONFINED, "runAsUser": 0, "runAsNonRoot": False}},
    "privileged": {"securityContext": {"privileged": True}},
    "escalation": {"securityContext": {"capabilities": {"drop": ["ALL"]}}},
    "capability": {
        "securityContext": {
            **toys.CONFINED,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        }
    },
    "hostPort": {"ports": [{"containerPort": 8080, "hostPort": 8080}]},
}


@pytest.mark.parametrize("what", [*REFUSED, "hostPath", "hostNetwork", "hostPID"])
def test_the_namespace_refuses(shop: Shop, what: str) -> None:
    pod = toys.pod("intruder", "wait", **REFUSED.get(what, {}))
    if what == "hostPath":
        pod["spec"]["volumes"] = [{"name": "root", "hostPath": {"path": "/"}}]
    elif what.startswith("host") and what != "hostPort":
        pod["spec"][what] = True
    with pytest.raises(RefusedError, match="violates PodSecurity"):
        shop.kubectl.apply(pod, namespace=NAMESPACE)


def test_what_says_no_limits_gets_those_of_the_namespace(shop: Shop) -> None:
    shop.kubectl.apply(toys.pod("modest", "wait"), namespace=NAMESPACE)
    try:
        pod = shop.kubectl.get("pod", "modest", NAMESPACE)
        [container] = pod["spec"]["containers"]
        assert set(container["resources"]) == {"limits", "requests"}
    finally:
        shop.kubectl("delete", "pod", "modest", "-n", NAMESPACE, "--wait=false")
    [quota] = shop.kubectl.all("resourcequotas", NAMESPACE)
    assert json.dumps(quota["status"]["used"]) != "{}"
