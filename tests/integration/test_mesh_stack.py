"""The shop in the mesh: one trace through edge and proxies, who may ask what, certificates."""

import json
import shutil
import socket
import ssl
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from prove.errors import UserError
from prove.mesh import envoy
from prove.stack import mesh as stack_mesh
from tests.support.stack import Stack

SERVICES = {
    f"{name}-{kind}" for name in ("product", "order", "payment") for kind in ("service", "proxy")
}
pytestmark = pytest.mark.xdist_group("mesh stack")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Stack]:
    try:
        stack_mesh.program()
    except UserError as error:
        pytest.skip(str(error))
    directory = Path(tempfile.mkdtemp(prefix="prove-mesh-"))
    made = Stack.at(directory / "home")
    stack = Stack(made.settings.model_copy(update={"mesh": True, "ready_timeout_s": 200}))
    done = stack.run("up", "--detach")
    try:
        assert done.returncode == 0, done.stderr
        assert f"edge      {stack.url('edge')}/api/v1/products" in done.stdout
        imported = stack.run("data", "import")
        assert imported.returncode == 0, imported.stderr
        yield stack
    finally:
        stack.run("down")
        shutil.rmtree(directory, ignore_errors=True)


def test_a_checkout_is_one_trace_through_edge_and_proxies(mesh: Stack) -> None:
    done = mesh.run("buy", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    trace_id = json.loads(done.stdout)["trace_id"]

    def complete() -> bool:
        answer = httpx.get(f"{mesh.url('jaeger')}/api/traces/{trace_id}", trust_env=False).json()
        (trace,) = answer["data"]
        names = {process["serviceName"] for process in trace["processes"].values()}
        ids = {span["spanID"] for span in trace["spans"]}
        parents = [each["spanID"] for span in trace["spans"] for each in span["references"]]
        roots = sum(parent not in ids for parent in parents)
        return names >= {"edge", *SERVICES} and roots == 1

    wait_until(complete, what="the spans of edge and proxies, all but the root with their parent")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/products?limit=1", 200),
        ("GET", "/api/v1/orders?customer_id=nobody", 200),
        ("POST", "/api/v1/products", 404),
        ("GET", "/api/v1/payments?order_id=probe", 404),
        ("GET", "/faults", 404),
        ("GET", "/readyz", 404),
    ],
)
def test_customers_get_what_is_for_them(mesh: Stack, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, mesh.url("edge") + path, trust_env=False, timeout=30)
    assert answer.status_code == status


def test_the_doors_between_services_take_no_plain_text(mesh: Stack) -> None:
    for name in ("product_door", "order_door", "payment_door"):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{mesh.url(name)}/readyz", trust_env=False)


def test_an_identity_may_only_take_its_edges(mesh: Stack) -> None:
    """The Order Service's may ask for payments, the edge's not even get in."""
    url = mesh.url("payment_door").replace("http", "https") + "/api/v1/payments"
    with client(mesh, "order") as order:
        assert order.get(url, params={"order_id": "probe"}).status_code == 403
        assert order.post(url, json={}).status_code in (400, 422)
    with client(mesh, "edge") as edge, pytest.raises(httpx.TransportError):
        edge.get(url)


def client(mesh: Stack, workload: str) -> httpx.Client:
    files = stack_mesh.certificates_dir(mesh.settings) / workload
    context = ssl.create_default_context(cafile=str(files / envoy.CA))
    context.check_hostname = False
    context.load_cert_chain(files / envoy.TLS_CERT, files / envoy.TLS_KEY)
    return httpx.Client(verify=context, trust_env=False, timeout=30)


def test_nobody_else_gets_to_the_admin_interfaces(mesh: Stack) -> None:
    sockets = [
        mesh.home / stack_mesh.admin_socket(name) for name in stack_mesh.proxies(mesh.settings)
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}


def test_prometheus_knows_until_when_certificates_hold(mesh: Stack) -> None:
    """By which the alert goes (tests/unit/test_causes.py)."""
    url = f"{mesh.url('prometheus')}/api/v1/query"

    def known() -> bool:
        found: set[str] = set()
        for of in ("listener", "cluster"):
            metric = f"envoy_{of}_ssl_certificate_expiration_unix_time_seconds"
            answer = httpx.get(url, params={"query": metric}, trust_env=False, timeout=PATIENT_S)
            series = answer.json()["data"]["result"]
            found |= {each["metric"]["envoy_tls_certificate"] for each in series}
        return found >= set(stack_mesh.identities())

    wait_until(known, what="the metric of every identity", timeout_s=120)


def test_a_certificate_that_is_not_renewed_is_refused_until_it_is(mesh: Stack) -> None:
    done = mesh.run("mesh", "certificates")
    assert done.returncode == 0, done.stdout + done.stderr
    door = mesh.settings.door_port("payment")
    stack_mesh.doom(mesh.home, "payment", time.time() - 1)
    try:
        wait_until(lambda: "expired" in refused(mesh, door), what="the end of the certificate")
        assert mesh.run("mesh", "certificates").returncode == 1
    finally:
        stack_mesh.doomed_file(mesh.home, "payment").unlink()
    wait_until(lambda: not refused(mesh, door), what="its renewal")
    assert mesh.run("buy").returncode == 0


def refused(mesh: Stack, port: int) -> str:
    """Why a caller refuses the certificate behind a port; '' when it takes it."""
    files = stack_mesh.certificates_dir(mesh.settings) / "order"
    context = ssl.create_default_context(cafile=str(files / envoy.CA))
    context.check_hostname = False
    context.load_cert_chain(files / envoy.TLS_CERT, files / envoy.TLS_KEY)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            context.wrap_socket(plain, do_handshake_on_connect=False) as encrypted,
        ):
            encrypted.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    return ""
