"""Istio's objects in `k8s/mesh`: as Istio's own types have them, and one policy for each edge."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from prove import tools
from prove.mesh import edges

RENDERED = tools.repository_root() / "k8s" / "mesh" / "istio.yaml"
TRUST = "cluster.local/ns/prove/sa"


@pytest.fixture(scope="module")
def checker() -> Path:
    return tools.ensure("istio")["istio-check"]


def objects(kind: str) -> dict[str, dict[str, Any]]:
    found = [each for each in yaml.safe_load_all(RENDERED.read_text()) if each["kind"] == kind]
    return {each["metadata"]["name"]: each["spec"] for each in found}


def checked(checker: Path, text: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([checker], input=text, capture_output=True, text=True, timeout=60)


def test_istios_own_types_take_all_of_it(checker: Path) -> None:
    done = checked(checker, RENDERED.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 problems" in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("attempts: 0", "atempts: 0", 'unknown field "atempts"'),
        ("mode: STRICT", "mode: STRONG", "invalid value for enum field mode"),
        ("maxConnections: 256", 'maxConnections: "many"', "maxConnections"),
        ("kind: PeerAuthentication", "kind: PeerAuthorization", "not one of the kinds"),
    ],
)
def test_what_is_wrong_is_told(checker: Path, right: str, wrong: str, says: str) -> None:
    text = RENDERED.read_text()
    assert right in text
    done = checked(checker, text.replace(right, wrong))
    assert done.returncode == 1
    assert says in done.stdout


def test_every_edge_has_its_policy_and_nothing_else_has() -> None:
    policies = objects("AuthorizationPolicy")
    assert set(policies) == {edge.name for edge in edges.load().edges}
    for edge in edges.load().edges:
        spec = policies[edge.name]
        (rule,) = spec["rules"]
        (source,) = rule["from"]
        (principal,) = source["source"]["principals"]
        gateway = "cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"
        assert principal == (gateway if edge.caller == "edge" else f"{TRUST}/{edge.caller}")
        assert spec["selector"]["matchLabels"]["app.kubernetes.io/name"] == edge.called
        assert [
            (tuple(to["operation"]["methods"]), tuple(to["operation"]["paths"]))
            for to in rule["to"]
        ] == [(each.methods, each.paths) for each in edge.allow]


def test_no_route_is_tried_again_and_each_ends() -> None:
    services = objects("VirtualService")
    assert set(services) == set(edges.load().services)
    for called, spec in services.items():
        timeouts = {route["name"]: route["timeout"] for route in spec["http"]}
        for route in spec["http"]:
            assert route["retries"] == {"attempts": 0}
            assert route["timeout"]
        for edge in edges.load().into(called):
            if edge.caller != "edge":
                assert timeouts[edge.caller] == f"{edge.timeout_s:g}s"


def test_instances_that_fail_are_left_alone_and_connections_are_few() -> None:
    limits = edges.load().limits
    for spec in objects("DestinationRule").values():
        policy = spec["trafficPolicy"]
        assert policy["tls"] == {"mode": "ISTIO_MUTUAL"}
        assert policy["connectionPool"]["tcp"]["maxConnections"] == limits.connections
        assert policy["outlierDetection"] == {
            "consecutive5xxErrors": limits.eject.consecutive_5xx,
            "interval": f"{limits.eject.interval_s:g}s",
            "baseEjectionTime": f"{limits.eject.for_s:g}s",
            "maxEjectionPercent": limits.eject.at_most_percent,
        }
    assert objects("PeerAuthentication") == {"default": {"mtls": {"mode": "STRICT"}}}
