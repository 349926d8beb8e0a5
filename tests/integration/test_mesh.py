"""The mesh with real Envoys before small upstreams: who gets through, and what a bad one costs."""

import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from http.client import HTTPConnection

import httpx
import pytest
from service_kit.testing import wait_until

from prove.errors import UserError
from prove.mesh import edges
from prove.mesh.edges import Mesh
from prove.mesh.envoy import Address
from prove.stack import mesh as stack_mesh
from tests.support.mesh import SmallMesh, Upstream, small_mesh

PRODUCTS, RESERVATIONS = "/api/v1/products", "/api/v1/reservations"
NEVER = 1_000_000


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    try:
        stack_mesh.program()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def product() -> Iterator[tuple[SmallMesh, Upstream, str]]:
    """One service behind its proxy: the mesh, the service, the URL of its door."""
    with small_mesh() as mesh, Upstream().serving() as upstream:
        door = mesh.before("product", upstream)
        yield mesh, upstream, f"https://{door.host}:{door.port}"


Product = tuple[SmallMesh, Upstream, str]


def with_limits(**changed: object) -> Mesh:
    table = edges.load()
    eject = table.limits.eject.model_copy(update=changed)
    return table.model_copy(update={"limits": table.limits.model_copy(update={"eject": eject})})


# -- who gets in


def test_plain_text_is_refused(product: Product) -> None:
    _, upstream, url = product
    before = len(upstream.asked)
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https", "http") + PRODUCTS, trust_env=False)
    assert len(upstream.asked) == before


def test_a_client_without_a_certificate_is_refused(product: Product) -> None:
    mesh, _, url = product
    with mesh.client(None) as client, pytest.raises(httpx.TransportError):
        client.get(url + PRODUCTS)


def test_a_client_whose_identity_has_no_edge_is_refused(product: Product) -> None:
    mesh, upstream, url = product
    before = len(upstream.asked)
    with mesh.client("payment") as client, pytest.raises(httpx.TransportError):
        client.get(url + PRODUCTS)
    assert len(upstream.asked) == before
    refused = "listener.in-product.ssl.fail_verify_san"
    wait_until(lambda: mesh.stats("product")[refused], what="the refusal to be counted")


def test_a_client_of_another_authority_is_refused(product: Product) -> None:
    mesh, _, url = product
    with (
        small_mesh() as other,
        mesh.client("edge", authority=other.directory) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get(url + PRODUCTS)
    with mesh.client("edge") as client:
        assert client.get(url + PRODUCTS).status_code == 200


def test_an_expired_certificate_is_refused(product: Product) -> None:
    mesh, _, url = product
    mesh.certify("order", until=timedelta(minutes=-5))
    with mesh.client("order") as client, pytest.raises(httpx.TransportError):
        client.post(url + RESERVATIONS)
    mesh.certify("order")
    with mesh.client("order") as client:
        assert client.post(url + RESERVATIONS).status_code == 200


@pytest.mark.parametrize(
    ("caller", "method", "path", "status"),
    [
        ("edge", "GET", PRODUCTS, 200),
        ("edge", "GET", PRODUCTS + "/sku-1?fields=all", 200),
        ("edge", "POST", PRODUCTS, 403),
        ("edge", "GET", "/faults", 403),
        ("edge", "POST", RESERVATIONS, 403),
        ("edge", "GET", PRODUCTS + "/../faults", 403),
        ("edge", "GET", "/api/v1//products", 200),
        ("edge", "GET", PRODUCTS + "/%2e%2e/faults", 403),
        ("edge", "GET", PRODUCTS + "/..%2f..%2ffaults", 400),
        ("order", "POST", RESERVATIONS, 200),
        ("order", "POST", RESERVATIONS + "/one/commit", 200),
        ("order", "GET", PRODUCTS, 403),
        ("operator", "PUT", "/faults/one", 200),
    ],
)
def test_who_is_let_in_may_do_what_the_edges_say(
    product: Product, caller: str, method: str, path: str, status: int
) -> None:
    mesh, upstream, url = product
    before = len(upstream.asked)
    with mesh.client(caller) as client:
        # As it stands: httpx would take the dots out itself.
        request = client.build_request(method, url)
        request.url = request.url.copy_with(raw_path=path.encode())
        answer = client.send(request)
    assert answer.status_code == status
    assert len(upstream.asked) - before == (status == 200)
    if status == 403:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == 403


def test_the_admin_interface_is_its_owners_alone(product: Product) -> None:
    mesh, _, _ = product
    mode = (mesh.directory / "proxy-product" / "admin.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


# -- what passes


def send(address: Address, path: str, **options: object) -> httpx.Response:
    url = f"http://{address.host}:{address.port}{path}"
    return httpx.post(url, trust_env=False, timeout=60, **options)  # type: ignore[arg-type]


def test_nothing_is_tried_again_and_the_callers_time_passes_unchanged() -> None:
    with small_mesh() as mesh, Upstream(status=503).serving() as upstream:
        door = mesh.before("product", upstream)
        out = mesh.towards("order", "product", [door])
        headers = {
            "x-envoy-expected-rq-timeout-ms": "4321",
            "x-envoy-retry-on": "5xx",
            "x-envoy-max-retries": "3",
            "x-request-id": "mine",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        assert send(out, RESERVATIONS, headers=headers).status_code == 503
        ((_, path, heard),) = upstream.asked
        assert path == RESERVATIONS
        assert heard["x-envoy-expected-rq-timeout-ms"] == "4321"
        assert heard["x-request-id"] == "mine"
        assert heard["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
        assert heard["traceparent"].endswith("-01")
        assert "x-envoy-internal" not in heard


def test_a_service_that_does_not_answer_is_given_up() -> None:
    table = edges.load()
    soon = tuple(edge.model_copy(update={"timeout_s": 0.5}) for edge in table.edges)
    with (
        small_mesh(table.model_copy(update={"edges": soon})) as mesh,
        Upstream(hold=threading.Event()).serving() as upstream,
    ):
        out = mesh.towards("order", "product", [mesh.before("product", upstream)])
        answer = send(out, RESERVATIONS)
    assert answer.status_code == 504
    assert answer.json()["title"] == "Answered by the mesh"


def test_a_proxy_that_is_not_who_it_should_be_gets_no_requests() -> None:
    """The caller looks at the called's identity, too."""
    with small_mesh() as mesh, Upstream().serving() as upstream:
        door = mesh.before("payment", upstream)
        out = mesh.towards("order", "product", [door])
        assert send(out, RESERVATIONS).status_code == 503
        assert not upstream.asked


# -- under load


def statuses(address: Address, path: str, count: int, workers: int = 4) -> list[int]:
    """Of so many requests, sent by several clients at once."""

    def some(number: int) -> list[int]:
        connection = HTTPConnection(address.host, address.port, timeout=60)
        with closing(connection):
            return [_status(connection, path) for _ in range(number)]

    with ThreadPoolExecutor(workers) as pool:
        shares = pool.map(some, [count // workers] * workers)
    return [status for share in shares for status in share]


def _status(connection: HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def until(probe: Callable[..., bool], what: str) -> None:
    wait_until(probe, what=what, timeout_s=120)


def test_certificates_are_renewed_under_load_without_a_failed_request() -> None:
    with small_mesh() as mesh, Upstream().serving() as upstream:
        door = mesh.before("product", upstream)
        out = mesh.towards("edge", "product", [door])
        url = f"http://{out.host}:{out.port}{PRODUCTS}"
        found: list[int | str] = []
        stop = threading.Event()

        def customer() -> None:
            with httpx.Client(trust_env=False, timeout=60) as client:
                while not stop.is_set():
                    try:
                        found.append(client.get(url).status_code)
                    except httpx.HTTPError as error:
                        found.append(repr(error))

        customers = [threading.Thread(target=customer) for _ in range(3)]
        for each in customers:
            each.start()
        try:
            handshakes = "listener.in-product.ssl.handshake"
            for days in (2, 3, 4):
                for workload, proxy, kind in (
                    ("product", "product", "listener.in-product"),
                    ("edge", "to-product", "cluster.edge-product"),
                ):
                    expiry = f"{kind}.ssl.certificate.{workload}.expiration_unix_time_seconds"
                    was = mesh.stats(proxy)[expiry]
                    mesh.certify(workload, until=timedelta(days=days))
                    until(lambda p=proxy, e=expiry, w=was: mesh.stats(p)[e] > w, "it is read")
                # Connections live for a second here: some are made with it.
                before, served = mesh.stats("product")[handshakes], len(found)
                until(lambda b=before: mesh.stats("product")[handshakes] >= b + 2, "handshakes")
                until(lambda s=served: len(found) > s + 10, "requests")
        finally:
            stop.set()
            for each in customers:
                each.join()
        assert set(found) == {200}


def test_an_instance_that_always_fails_is_left_alone() -> None:
    """It costs five requests each time it is tried: here once, however slow the machine is."""
    with (
        small_mesh(with_limits(for_s=600)) as mesh,
        Upstream(status=500).serving() as bad,
        Upstream().serving() as good,
        Upstream().serving() as other,
    ):
        doors = [
            mesh.before("product", upstream, f"product{number}")
            for number, upstream in enumerate((bad, good, other))
        ]
        out = mesh.towards("edge", "product", doors)
        found = statuses(out, PRODUCTS, 1000, workers=2)
        failed = sum(status != 200 for status in found)
        assert failed / len(found) < 0.01
        assert failed  # it was there
        ejections = "cluster.edge-product.outlier_detection.ejections_enforced_total"
        assert mesh.stats("to-product")[ejections] >= 1


def test_without_ejection_it_would_be_seen() -> None:
    with (
        small_mesh(with_limits(consecutive_5xx=NEVER)) as mesh,
        Upstream(status=500).serving() as bad,
        Upstream().serving() as good,
    ):
        doors = [
            mesh.before("product", upstream, f"product{number}")
            for number, upstream in enumerate((bad, good))
        ]
        out = mesh.towards("edge", "product", doors)
        found = statuses(out, PRODUCTS, 80)
    assert 0.3 < sum(status == 500 for status in found) / len(found) < 0.7


def test_the_only_instance_is_never_left_alone() -> None:
    with small_mesh() as mesh, Upstream(status=500).serving() as upstream:
        out = mesh.towards("edge", "product", [mesh.before("product", upstream)])
        assert set(statuses(out, PRODUCTS, 40)) == {500}
        upstream.status = 200
        assert set(statuses(out, PRODUCTS, 8)) == {200}
