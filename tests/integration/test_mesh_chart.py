"""The chart with Envoy before each service: what its proxies are told, as a real Envoy takes it."""

import base64
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from prove import tools
from prove.charts import generate
from prove.errors import UserError
from prove.mesh import certificates, edges, kubernetes
from prove.stack import mesh as stack_mesh
from tests.support.stack import Stack

NAMESPACE, DOMAIN = "elsewhere", "trust.example"
PROXIES = ("edge", *kubernetes.PORTS)
CHECKOUT_S = 10
"""The Order Service's own limit, which the chart leaves as it is."""


@cache
def rendered(*more: str) -> list[dict[str, Any]]:
    helm = tools.ensure("helm")["helm"]
    text = generate.helm(
        helm,
        "template",
        "prove",
        str(tools.repository_root() / generate.CHART),
        f"--namespace={NAMESPACE}",
        "--kube-version=1.31.0",
        "--set=secrets.existingSecret=prove",
        "--set=mesh.mode=envoy",
        f"--set=mesh.trustDomain={DOMAIN}",
        *more,
    )
    return [each for each in yaml.safe_load_all(text) if each]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        each
        for each in rendered("--set=mesh.envoy.issuer=mesh")
        if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return found


@pytest.mark.parametrize("name", PROXIES)
def test_a_real_envoy_takes_what_it_is_told(name: str, tmp_path: Path) -> None:
    try:
        program = stack_mesh.program()
    except UserError as error:
        pytest.skip(str(error))
    config = tmp_path / "envoy"
    config.mkdir()
    for file, text in one("ConfigMap", f"mesh-{name}")["data"].items():
        assert "__" not in text
        here = text.replace("/etc/envoy", str(config)).replace("/etc/mesh", str(tmp_path / "mesh"))
        (config / file).write_text(here)
    done = subprocess.run(
        [*stack_mesh.arguments(program, config / "envoy.json"), "--mode", "validate"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", kubernetes.PORTS)
def test_a_service_is_behind_its_proxy(service: str) -> None:
    spec = one("Deployment", service)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    port = kubernetes.PORTS[service]
    assert (env["HOST"], env["PORT"]) == ("127.0.0.1", str(kubernetes.BEHIND + port))
    for edge in edges.load().edges:
        if edge.caller == service:
            url = f"http://127.0.0.1:{kubernetes.CALLS + kubernetes.PORTS[edge.called]}"
            assert env[f"{edge.called.upper()}_URL"] == url
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == kubernetes.HEALTH_PORT
    proxy = spec["initContainers"][0]
    assert (proxy["name"], proxy["restartPolicy"]) == ("proxy", "Always")
    assert {"name": "http", "containerPort": port} in proxy["ports"]
    assert one("Service", f"{service}-pods")["spec"]["clusterIP"] == "None"


def test_a_pod_serves_on_until_proxies_know_that_it_goes() -> None:
    """They hear of it by DNS: half a minute with kubeadm's CoreDNS, and 5 s until they ask anew."""
    spec = one("Deployment", "order")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 30 + 5
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert spec["terminationGracePeriodSeconds"] >= pause + int(env["SHUTDOWN_GRACE_S"])


def test_the_edge_goes_when_nobody_can_have_begun_anything() -> None:
    """On a kept connection, for 15 s after a Service has dropped it, and that takes 10 s more."""
    told = json.loads(one("ConfigMap", "mesh-edge")["data"]["envoy.json"])
    doors = [
        filter_["typed_config"]
        for listener in told["static_resources"]["listeners"]
        if listener["traffic_direction"] == "OUTBOUND"
        for filter_ in listener["filter_chains"][0]["filters"]
    ]
    assert len(doors) == 4
    for door in doors:
        limits = door["common_http_protocol_options"]
        assert door["http1_safe_max_connection_duration"]
        kept_s = sum(int(limits[each][:-1]) for each in ("idle_timeout", "max_connection_duration"))
        spec = one("Deployment", "edge")["spec"]["template"]["spec"]
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert kept_s + CHECKOUT_S < pause < spec["terminationGracePeriodSeconds"]


def test_who_has_no_proxy_asks_by_the_edge() -> None:
    for kind, name in (("Deployment", "canary"), ("Pod", "test-order")):
        found = one(kind, name)["spec"]
        (container,) = (found["template"]["spec"] if kind == "Deployment" else found)["containers"]
        assert "--products=http://edge:8001" in container["args"]
        assert "--orders=http://edge:8002" in container["args"]
    told = one("ConfigMap", "prometheus")["data"]["prometheus.yml"]
    assert "http://edge:8001/api/v1/products?limit=1" in told
    assert "http://product:8001" not in told


def test_certificates_are_asked_of_cert_manager_with_the_names_that_envoy_wants() -> None:
    for name in ("edge", *kubernetes.WATCHERS, *kubernetes.PORTS):
        spec = one("Certificate", f"mesh-{name}")["spec"]
        assert spec["uris"] == [edges.identity(name, DOMAIN, NAMESPACE)]
        assert spec["secretName"] == f"mesh-{name}"
    assert not [each for each in rendered() if each["kind"] == "Certificate"]


def test_secrets_for_where_no_cert_manager_is(tmp_path: Path) -> None:
    done = Stack.at(tmp_path).run(
        *("mesh", "secrets", "--namespace", NAMESPACE, "--trust-domain", DOMAIN, "--for", "1h")
    )
    assert done.returncode == 0, done.stderr
    found = {each["metadata"]["name"]: each for each in yaml.safe_load_all(done.stdout)}
    assert set(found) == {
        f"mesh-{name}" for name in ("edge", *kubernetes.WATCHERS, *kubernetes.PORTS)
    }
    for key, value in found["mesh-order"]["data"].items():
        (tmp_path / key).write_bytes(base64.b64decode(value))
    assert certificates.expiry(tmp_path)
    openssl = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.crt"), str(tmp_path / "tls.crt")]
    assert subprocess.run(openssl, capture_output=True, timeout=30).returncode == 0
