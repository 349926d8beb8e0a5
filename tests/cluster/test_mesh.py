"""The mesh on a real cluster: Envoy before each service, and an edge, as the chart puts them there.

A release of its own, small, that comes and goes with this module. Its proxies are asked at their
doors, and from beside them. Istio's objects: test_manifests.py.
"""

import base64
import json
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography import x509

from prove.mesh import certificates, edges, envoy, kubernetes
from prove.mesh.certificates import Authority
from prove.tools import ensure
from tests.cluster import toys
from tests.cluster.conftest import Figures, Ground
from tests.cluster.lab.kubectl import eventually
from tests.cluster.shop import (
    ERRORS,
    PORTS,
    RELEASE,
    SERVICES,
    HelmError,
    Shop,
    lab_values,
    merged,
    peers,
)
from tests.support.stack import Stack

NAMESPACE, CLIENTS = "prove-test-mesh", "prove-test-mesh-clients"
DOMAIN = "cluster.local"
PROXIES = ("edge", *SERVICES)
IMAGES = (
    *("product-service", "order-service", "payment-service", "acquirer", "postgresql"),
    *("envoy", "otelcol", "jaeger", "canary"),  # the canary's is also that of `helm test`
)
OF_PRODUCT = "cluster.edge-product."
EJECTIONS = f"{OF_PRODUCT}outlier_detection.ejections_enforced_total"
PRODUCTS, ORDERS, PAYMENTS = "/api/v1/products", "/api/v1/orders", "/api/v1/payments"
_SOCKET = "/tmp/admin.sock"  # noqa: S108 - in a container
_ADMIN = """
import http.client, socket, sys
connection = http.client.HTTPConnection("admin")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", sys.argv[2])
print(connection.getresponse().read().decode())
"""
"""A request to a proxy's admin interface, which is a socket in its container."""


@dataclass
class Mesh:
    """The shop behind its proxies, and who signs their certificates."""

    shop: Shop
    stack: Stack
    directory: Path

    @property
    def authority(self) -> Authority:
        """As `provectl mesh secrets` keeps it."""
        return Authority.at(self.directory)

    def certify(self, lifetime: str) -> set[int]:
        """New certificates for all, as docs/how-to/mesh.md has it; their numbers."""
        done = self.stack.run(
            *("mesh", "secrets", "--namespace", NAMESPACE, "--trust-domain", DOMAIN),
            *("--authority", str(self.directory), "--for", lifetime),
        )
        assert done.returncode == 0, done.stderr
        self.shop.kubectl("apply", "-f", "-", stdin=done.stdout)
        pems = [
            base64.b64decode(secret["data"][envoy.TLS_CERT])
            for secret in yaml.safe_load_all(done.stdout)
        ]
        return {x509.load_pem_x509_certificate(pem).serial_number for pem in pems}

    def beside(self, proxy: str, *command: str) -> str:
        """What a program prints that runs in the container of an Envoy."""
        (pod,) = self.shop.ready_pods(proxy)
        name = pod["metadata"]["name"]
        return self.shop.kubectl.exec(NAMESPACE, name, *command, container="proxy")

    def admin(self, proxy: str, path: str) -> str:
        """An answer of its admin interface."""
        return self.beside(proxy, "python3", "-c", _ADMIN, _SOCKET, path)

    def shown(self, proxy: str) -> set[int]:
        """Numbers of the certificates that it shows now."""
        told = json.loads(self.admin(proxy, "/certs"))["certificates"]
        chains = [each for certificate in told for each in certificate.get("cert_chain", [])]
        return {int(each["serial_number"], 16) for each in chains}

    def connections(self) -> dict[str, int]:
        """How many were made along each edge by which orders go."""
        found = {}
        for proxy in ("edge", "order"):
            for line in self.admin(proxy, "/stats?filter=ssl.handshake$").splitlines():
                name, _, count = line.partition(": ")
                if name.startswith(f"cluster.{proxy}-"):
                    found[name] = int(count)
        return found

    @contextmanager
    def door(
        self, service: str, workload: str | None, authority: Authority | None = None
    ) -> Iterator[httpx.Client]:
        """A client at the door of a service's proxy, with `workload`'s certificate or none."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.check_hostname = False
        if workload is not None:
            name = edges.identity(workload, DOMAIN, NAMESPACE)
            until = datetime.now(UTC) + timedelta(hours=1)
            pair = (authority or self.authority).issue(name, until)
            with tempfile.NamedTemporaryFile() as file:
                file.write(pair.certificate + pair.key)
                file.flush()
                context.load_cert_chain(file.name)
        with (
            self.shop.forward(f"deployment/{service}", PORTS[service]) as port,
            httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False, timeout=30
            ) as client,
        ):
            yield client


@pytest.fixture(scope="module")
def mesh(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Installed from nothing, with certificates for two hours, goods, and customers at the edge."""
    ground.needs_lab("its Envoy has Python beside it")
    ground.load(*IMAGES)
    light = {"resources": {"requests": {"cpu": "10m"}}}
    one = {**light, "autoscaling": {"enabled": False}, "replicas": 1}
    parts = ("prometheus", "alertmanager", "blackbox", "canary", "victorialogs", "kubeStateMetrics")
    values = merged(
        lab_values("prove.local"),
        {
            **dict.fromkeys(SERVICES, one),
            **dict.fromkeys(("acquirer", "postgresql", "collector", "jaeger"), light),
            **{part: {"enabled": False} for part in parts},
            "persistence": {"enabled": False},
            "networkPolicy": {"clients": peers(CLIENTS)},
            "mesh": {
                "mode": "envoy",
                "trustDomain": DOMAIN,
                "envoy": {
                    **light,
                    "image": {"repository": "prove/envoy", "tag": "lab"},
                    "edgeReplicas": 1,
                    # CoreDNS of the lab: 5 s, and 5 s until proxies ask anew.
                    "preStopSeconds": 12,
                },
            },
        },
    )
    shop = Shop(ground.kubectl, ensure("helm")["helm"], values, NAMESPACE, CLIENTS, meshed=True)
    home = tmp_path_factory.mktemp("mesh")
    found = Mesh(shop, Stack.at(home / "home"), home / "ca")
    shop.make_namespaces()
    try:
        found.certify("2h")
        try:
            shop.deploy()
        except HelmError as error:
            pytest.fail(f"{error}\n{shop.kubectl.describe(NAMESPACE)}", pytrace=False)
        shop.stock()
        shop.kubectl.apply(toys.pod("outsider", "wait"), namespace=CLIENTS)
        shop.start_customers(rate=2)
        yield found
    finally:
        shop.remove_namespaces()


def test_an_order_is_one_trace_through_edge_and_sidecars(mesh: Mesh, figures: Figures) -> None:
    trace = mesh.shop.order("LAB-001")
    kinds = {f"{name}-{kind}" for name in SERVICES for kind in ("service", "proxy")}
    with mesh.shop.forward("service/jaeger", 16686) as port:

        def complete() -> Any:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/traces/{trace}", timeout=30)
            assert answer.status_code == 200
            (found,) = answer.json()["data"]
            names = {process["serviceName"] for process in found["processes"].values()}
            assert names == {"edge", *kinds}
            ids = {span["spanID"] for span in found["spans"]}
            parents = [each["spanID"] for span in found["spans"] for each in span["references"]]
            assert sum(parent not in ids for parent in parents) == 1  # the customer's own
            return found

        found = eventually("the trace is complete", complete)
    pods = {pod["metadata"]["name"] for pod in mesh.shop.kubectl.pods(NAMESPACE)}
    for process in found["processes"].values():
        tags = {tag["key"]: tag["value"] for tag in process["tags"]}
        assert tags["k8s.pod.name"] in pods, process["serviceName"]
    figures.record("mesh_trace", spans=len(found["spans"]), services=len(kinds) + 1)


def test_plain_text_is_refused(mesh: Mesh) -> None:
    """From a pod that the network policies let in, and the edge answers; at payment's own door."""
    where = f"{NAMESPACE}.svc.cluster.local"
    urls = [f"http://edge.{where}:{kubernetes.EDGE_PORT}{PRODUCTS}?limit=1"]
    urls += [f"http://{name}.{where}:{PORTS[name]}{PRODUCTS}" for name in ("product", "order")]

    def refused() -> bool:
        answers = mesh.shop.kubectl.exec(CLIENTS, "outsider", "/toy", "get", *urls).splitlines()
        assert answers[0].startswith("200 "), answers
        for answer in answers[1:]:
            assert answer.startswith("error: "), answers
            assert "Timeout" not in answer, "it was the network that refused"
        return True

    eventually("the edge answers, the services don't", refused)
    with (
        mesh.shop.forward("deployment/payment", PORTS["payment"]) as port,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        httpx.get(f"http://127.0.0.1:{port}{PAYMENTS}", timeout=30)


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_pod_lets_nobody_in_but_by_its_proxy(mesh: Mesh, proxy: str) -> None:
    """What listens in the pod, by the kernel's own table; the admin interface is none of them."""
    doors = {kubernetes.HEALTH_PORT}
    doors |= {8000, 8001, 8002, 8003} if proxy == "edge" else {PORTS[proxy]}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in mesh.beside(proxy, "cat", f"/proc/net/{table}").splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            address, port = local.split(":")
            if state == "0A" and address != "0100007F":
                listening.add(int(port, 16))
    assert listening == doors
    assert mesh.beside(proxy, "stat", "-c", "%a", _SOCKET).strip() == "600"


@pytest.mark.parametrize(
    ("service", "workload", "foreign"),
    [
        ("product", "payment", False),
        ("order", "payment", False),
        ("payment", "edge", False),
        ("payment", None, False),
        ("payment", "order", True),
    ],
)
def test_who_has_no_edge_to_a_service_is_refused_by_its_proxy(
    mesh: Mesh, service: str, workload: str | None, foreign: bool
) -> None:
    other = Authority(certificates.new_authority()) if foreign else None

    def told_so() -> bool:
        with (
            mesh.door(service, workload, other) as client,
            pytest.raises(httpx.TransportError) as refusal,
        ):
            client.get(PRODUCTS)
        return "alert" in str(refusal.value).lower()

    eventually("it is by TLS that it is refused", told_so)


@pytest.mark.parametrize(
    ("service", "workload", "method", "path", "may"),
    [
        ("product", "edge", "GET", PRODUCTS, True),
        ("product", "edge", "POST", PRODUCTS, False),
        ("product", "edge", "GET", "/faults", False),
        ("product", "order", "GET", PRODUCTS, False),
        ("product", "order", "POST", "/api/v1/reservations", True),
        ("payment", "order", "GET", f"{PAYMENTS}?order_id=probe", False),
        ("payment", "blackbox", "POST", PAYMENTS, False),
        ("order", "canary", "DELETE", ORDERS, False),
    ],
)
def test_who_is_let_in_may_do_what_the_edges_say(
    mesh: Mesh, service: str, workload: str, method: str, path: str, may: bool
) -> None:
    with mesh.door(service, workload) as client:
        answer = client.request(method, path, json={} if method == "POST" else None)
    assert (answer.status_code == 403) == (not may), answer.text
    if not may:
        assert answer.json()["title"] == "Answered by the mesh"


def test_who_has_no_proxy_comes_in_by_the_edge(mesh: Mesh) -> None:
    mesh.shop.helm("test", RELEASE, "--timeout=180s")


def test_certificates_rotate_under_orders_and_none_fails(mesh: Mesh, figures: Figures) -> None:
    measured: dict[str, Any] = {"proxies": len(PROXIES), "read_after_seconds": []}
    with mesh.shop.watched(measured):
        for lifetime in ("3h", "4h"):
            new = mesh.certify(lifetime)
            began = time.monotonic()

            def read(new: set[int] = new) -> bool:
                shown = [mesh.shown(proxy) for proxy in PROXIES]
                return all(found and found <= new for found in shown)

            # Kubelet looks at a pod's Secrets about once a minute.
            eventually("every proxy shows its new certificate", read, seconds=240)
            measured["read_after_seconds"].append(round(time.monotonic() - began))
            before = mesh.connections()
            assert len(before) >= 4, before
            # Connections live for five minutes; with more orders at once there are new ones sooner.
            crowd(mesh.shop, 10)

            def made(before: dict[str, int] = before) -> bool:
                return all(count > before[edge] for edge, count in mesh.connections().items())

            eventually("connections are made with them", made, seconds=360)
            crowd(mesh.shop, 2)
    measured["orders"] = mesh.shop.assert_no_order_lost()
    figures.record("mesh_rotation", **measured)


def crowd(shop: Shop, per_second: int) -> None:
    """So many orders a second, and as many who only look at goods."""
    for what in ("rate", "browse"):
        shop.customers(what, str(per_second))


@pytest.mark.parametrize("part", PROXIES)
def test_a_rolling_update_fails_no_request(mesh: Mesh, figures: Figures, part: str) -> None:
    """Proxies find pods by name, so they learn later than a Service that one is on its way out."""
    measured: dict[str, Any] = {}
    shop = mesh.shop
    with shop.watched(measured):
        shop.kubectl("rollout", "restart", "-n", NAMESPACE, f"deployment/{part}")
        shop.kubectl.rolled_out(NAMESPACE, f"deployment/{part}")
        selector = f"app.kubernetes.io/name={part}"
        eventually(
            "the old pod is gone",
            lambda: len(shop.kubectl.all("pods", NAMESPACE, selector)) == 1,
        )
    figures.record(f"mesh_rollout_{part}", **measured)


def test_one_of_three_that_always_fails_is_left_alone(mesh: Mesh, figures: Figures) -> None:
    shop = mesh.shop
    crowd(shop, 0)
    shop.kubectl("scale", "-n", NAMESPACE, "deployment/product", "--replicas=3")
    try:
        shop.kubectl.rolled_out(NAMESPACE, "deployment/product")
        # The youngest is the one that goes when there are fewer again.
        pods = sorted(
            shop.ready_pods("product"), key=lambda pod: pod["metadata"]["creationTimestamp"]
        )
        bad = pods[-1]["metadata"]["name"]

        def known() -> bool:
            told = mesh.admin("edge", "/clusters").splitlines()
            return (
                sum(line.startswith("edge-product::") and "::healthy" in line for line in told) == 3
            )

        eventually("the edge knows all three", known)
        with shop.forward(f"pod/{bad}", kubernetes.BEHIND + PORTS["product"]) as port:
            httpx.put(
                f"http://127.0.0.1:{port}/faults/bad",
                json={
                    "type": "error",
                    "params": {"rate": 1, "status": 500},
                    "ttl_s": 600,
                    "match": {"route": PRODUCTS},
                },
                headers={"Authorization": f"Bearer {shop.secret('admin-token')}"},
                timeout=30,
            ).raise_for_status()
        with shop.forward(*shop.door("product")) as port:
            statuses = asked(port, f"{PRODUCTS}?limit=1", 4500, workers=3)
        failed = sum(status != 200 for status in statuses)
        assert failed  # it was asked
        known_of = mesh.admin("edge", f"/stats?filter={OF_PRODUCT}(membership|outlier_detection)")
        assert failed / len(statuses) < ERRORS, f"{Counter(statuses)}\n{known_of}"
        figures.record("mesh_ejection", requests=len(statuses), failed=failed, replicas=3)
        ejections = mesh.admin("edge", f"/stats?filter={EJECTIONS}").strip()
        assert int(ejections.rpartition(": ")[2]) >= 1
    finally:
        shop.kubectl("scale", "-n", NAMESPACE, "deployment/product", "--replicas=1")
        crowd(shop, 2)


def asked(port: int, path: str, count: int, workers: int = 2) -> list[int]:
    """The statuses of so many requests, by clients that keep their connections and don't hurry.

    As fast as can be, they would take two cores from the kubelet's probes, and so the ready pods.
    """

    def some(number: int) -> list[int]:
        found = []
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for _ in range(number):
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                found.append(answer.status)
                time.sleep(0.06)
        return found

    with ThreadPoolExecutor(workers) as pool:
        return [
            status for share in pool.map(some, [count // workers] * workers) for status in share
        ]
