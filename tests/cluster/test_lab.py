"""The lab itself: what it brings up is a real cluster, and nothing of it stays."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import toys
from tests.cluster.conftest import Figures, Ground
from tests.cluster.lab import Kubectl, host
from tests.cluster.lab.cluster import sweep
from tests.cluster.lab.kubectl import RefusedError, eventually, is_ready

SPACE = "lab-toys"


@pytest.fixture(scope="module")
def space(ground: Ground) -> Iterator[str]:
    """A restricted namespace with two toys behind a Service, and a client pod."""
    lab = ground.needs_lab("it is the lab that these test")
    kubectl = ground.kubectl
    assert lab
    kubectl.make_namespace(toys.namespace(SPACE))
    kubectl.apply(
        toys.deployment("web", 2), toys.service("web"), toys.pod("client", "wait"), namespace=SPACE
    )
    kubectl.rolled_out(SPACE, "deployment/web")
    kubectl("wait", "-n", SPACE, "--for=condition=Ready", "pod/client", "--timeout=120s")
    yield SPACE
    kubectl("delete", "namespace", SPACE, "--wait=false")


def ask(kubectl: Kubectl, *arguments: str) -> list[str]:
    """What the client pod's toy answers."""
    return kubectl.exec(SPACE, "client", "/toy", *arguments).splitlines()


def test_it_comes_up(ground: Ground, figures: Figures) -> None:
    lab = ground.needs_lab("others come up by themselves")
    [node] = lab.kubectl.all("nodes")
    assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.34.")
    rounded = {step: round(seconds, 1) for step, seconds in lab.seconds.items()}
    figures.record("lab", network=lab.network, seconds=rounded)


def test_names_resolve_and_services_spread(kubectl: Kubectl, space: str) -> None:
    names = {pod["metadata"]["name"] for pod in kubectl.pods(space, "app=web")}

    def spread() -> bool:
        [address] = ask(kubectl, "lookup", f"web.{space}.svc.cluster.local")
        assert address.split()[1] == kubectl.get("service", "web", space)["spec"]["clusterIP"]
        # 40 connections on two pods: that one gets none by chance is one in 10^12.
        answers = ask(kubectl, "get", *["http://web/"] * 40)
        assert {answer.split()[0] for answer in answers} == {"200"}, answers
        return {answer.split()[1] for answer in answers} == names

    # The name server and kube-proxy hear of them a moment after they are there.
    eventually("both pods answer", spread)


def test_a_pod_that_is_not_ready_gets_nothing_and_a_sick_one_is_restarted(
    kubectl: Kubectl, space: str
) -> None:
    one, other = kubectl.pods(space, "app=web")
    address = one["status"]["podIP"]
    ask(kubectl, "get", f"http://{address}:8080/unready")

    def only_the_other() -> bool:
        answers = ask(kubectl, "get", *["http://web/"] * 20)
        return {answer.split()[1] for answer in answers} == {other["metadata"]["name"]}

    eventually("traffic goes to the ready pod alone", only_the_other)
    ask(kubectl, "get", f"http://{address}:8080/ready", f"http://{address}:8080/sick")

    def restarted() -> bool:
        again = kubectl.get("pod", one["metadata"]["name"], space)
        [container] = again["status"]["containerStatuses"]
        return bool(container["restartCount"]) and is_ready(again)

    eventually("the sick pod was restarted", restarted)


def test_the_autoscaler_reacts_to_load(kubectl: Kubectl, space: str) -> None:
    kubectl.apply(
        toys.deployment(
            "busy",
            None,
            resources={"requests": {"cpu": "50m"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
        ),
        toys.service("busy"),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "busy"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
                "minReplicas": 1,
                "maxReplicas": 2,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 60},
                        },
                    }
                ],
            },
        },
        namespace=space,
    )
    kubectl.rolled_out(space, "deployment/busy")
    burn = "http://busy/burn?ms=800"

    def two() -> bool:
        ask(kubectl, "get", burn, burn)
        return len(kubectl.pods(space, "app=busy")) == 2

    eventually("a busy pod gets company", two, seconds=180)
    kubectl("delete", "-n", space, "hpa/busy", "deployment/busy", "service/busy")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("runAsNonRoot", {"securityContext": {**toys.CONFINED, "runAsUser": 0}}),
        ("privileged", {"securityContext": {"privileged": True}}),
        ("allowPrivilegeEscalation", {"securityContext": {}}),
    ],
)
def test_a_restricted_namespace_refuses(
    kubectl: Kubectl, space: str, what: str, change: dict[str, object]
) -> None:
    pod = toys.pod("intruder", "wait", **change)
    if what == "runAsNonRoot":
        pod["spec"]["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}
    with pytest.raises(RefusedError, match=f"violates PodSecurity.*{what}"):
        kubectl.apply(pod, namespace=space)


def test_a_restricted_namespace_refuses_the_hosts_files(kubectl: Kubectl, space: str) -> None:
    pod = toys.pod("intruder", "wait")
    pod["spec"]["volumes"] = [{"name": "root", "hostPath": {"path": "/"}}]
    with pytest.raises(RefusedError, match=r"violates PodSecurity.*hostPath"):
        kubectl.apply(pod, namespace=space)


def test_policies_are_enforced_and_without_the_enforcer_they_are_not(
    ground: Ground, space: str
) -> None:
    lab = ground.needs_lab("another cluster's enforcer can't be switched off")
    if lab.cilium is None:
        pytest.skip(f"policies need Cilium: {host.why_not_cilium() or '--network=bridge'}")
    kubectl = ground.kubectl
    assert ask(kubectl, "connect", "web:80") == ["web:80 open"]
    kubectl.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "nobody"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]},
        },
        namespace=space,
    )
    try:
        denied, allowed = ["web:80 timeout"], ["web:80 open"]
        eventually("the policy is in force", lambda: ask(kubectl, "connect", "web:80") == denied)
        lab.cilium.enforce(False)
        eventually("nothing is enforced", lambda: ask(kubectl, "connect", "web:80") == allowed)
        lab.cilium.enforce(True)
        eventually("it is in force again", lambda: ask(kubectl, "connect", "web:80") == denied)
    finally:
        lab.cilium.enforce(True)
        kubectl("delete", "-n", space, "networkpolicy", "nobody")


# A cluster of its own: up to the first pod, then ended as its second argument says.
RUN = """
import signal
import sys
from tests.cluster import toys
from tests.cluster.lab import Cluster
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is deaf to it
with Cluster("bridge") as lab, lab.kubectl.proxied() as kubectl:
    kubectl.make_namespace(toys.namespace("own"))
    kubectl.apply(toys.pod("web"), namespace="own")
    kubectl("wait", "-n", "own", "--for=condition=Ready", "pod/web", "--timeout=120s")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [None, signal.SIGINT, signal.SIGKILL], ids=["end", "^C", "kill"])
def test_nothing_stays(end: signal.Signals | None) -> None:
    """At the end, after Ctrl-C, or killed: the kernel ends it then, and the next start tidies."""
    if reason := host.why_not():
        pytest.skip(f"no cluster on this machine: {reason}")
    before = host.traces()
    with subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert host.traces() != before
        if end is not None:
            process.send_signal(end)
            process.wait(120)  # before its stdin is closed, which would end it too

    def as_before() -> bool:
        if end is signal.SIGKILL:
            sweep()
        after = host.traces()
        changed = {kind: (before[kind], after[kind]) for kind in after}
        assert {kind: both for kind, both in changed.items() if both[0] != both[1]} == {}
        return True

    if end is signal.SIGKILL:  # the kernel is still at it
        eventually("nothing is left", as_before)
    else:
        as_before()
