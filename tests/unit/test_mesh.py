"""The mesh without an Envoy: the table of edges, what is made of it, certificates, their issuer."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pydantic import ValidationError

from prove.mesh import certificates, edges, envoy
from prove.mesh.certificates import Authority
from prove.mesh.edges import Mesh
from prove.mesh.issuer import LIFETIME, RENEWED_WITH, Issuer
from prove.stack import mesh as stack_mesh
from prove.stack.settings import StackSettings

EDGE: dict[str, Any] = {
    "caller": "order",
    "called": "payment",
    "timeout_s": 1,
    "allow": [{"methods": ["POST"], "paths": ["/api/v1/payments"]}],
}


def table(*some: dict[str, Any]) -> Mesh:
    document = edges.load().model_dump()
    return Mesh.model_validate(document | {"edges": list(some)})


@pytest.mark.parametrize(
    ("some", "says"),
    [
        ([EDGE | {"caller": "nobody"}], "there is no workload 'nobody'"),
        ([EDGE, EDGE], "order-payment: written twice"),
        ([EDGE | {"allow": []}], "at least 1 item"),
        ([EDGE | {"allow": [{"methods": ["GIVE"], "paths": ["/"]}]}], "Input should be 'GET'"),
        ([EDGE | {"allow": [{"methods": ["GET"], "paths": ["*"]}]}], "should match pattern"),
        ([EDGE | {"retries": 2}], "Extra inputs are not permitted"),
    ],
)
def test_a_table_that_cannot_be_is_refused(some: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        table(*some)


def settings(home: Path, **more: Any) -> StackSettings:
    return StackSettings.model_validate({"home": home, "mesh": True, **more})


def parts(value: object) -> Iterator[dict[str, Any]]:
    """Every mapping in a document."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from parts(each)
    elif isinstance(value, list):
        for each in value:
            yield from parts(each)


def test_no_route_of_any_proxy_is_tried_again_and_each_has_a_limit(tmp_path: Path) -> None:
    for proxy in stack_mesh.proxies(settings(tmp_path)).values():
        document = envoy.bootstrap(proxy, edges.load())
        routes = [each for each in parts(document) if {"match", "route"} <= each.keys()]
        assert routes
        for route in routes:
            assert "retry_policy" not in route["route"]
            inbound = route["route"]["cluster"].startswith("app-")
            assert inbound or route["route"]["timeout"] != "0s"


def test_in_a_drill_what_services_ask_each_other_passes_its_links(tmp_path: Path) -> None:
    drill = settings(tmp_path, profile="drill")
    proxies = stack_mesh.proxies(drill)
    (address,) = proxies["orderproxy"].upstreams["order-payment"]
    assert address.port == drill.order_payment_link_port
    (address,) = proxies["edge"].upstreams["edge-order"]
    assert address.port == drill.order_door_port


def test_without_a_mesh_its_ports_are_not_used(tmp_path: Path) -> None:
    plain = StackSettings.model_validate({"home": tmp_path})
    assert not {"edge", "product_app", "payment_door", "issuer"} & set(plain.used_ports)
    assert {"edge", "product_app", "payment_door", "issuer"} < set(settings(tmp_path).used_ports)
    assert (plain.app_port("order"), plain.door_port("order")) == (8002, 8002)


# -- certificates


def test_a_certificate_says_who_and_nothing_else(tmp_path: Path) -> None:
    authority = Authority.at(tmp_path / "ca")
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    pair = authority.issue("spiffe://prove.local/ns/prove/sa/order", until)
    found = x509.load_pem_x509_certificate(pair.certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://prove.local/ns/prove/sa/order"]
    assert len(list(names.value)) == 1
    assert not found.subject.rdns
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert found.not_valid_after_utc == until
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem))


def test_an_authority_stays_and_its_key_is_its_owners_alone(tmp_path: Path) -> None:
    made = Authority.at(tmp_path / "ca")
    assert Authority.at(tmp_path / "ca").pem == made.pem
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700


def test_files_are_changed_together_and_old_ones_go(tmp_path: Path) -> None:
    authority = Authority.at(tmp_path / "ca")
    directory = tmp_path / "order"
    seen = set()
    for _ in range(4):
        pair = authority.issue("spiffe://a/b", datetime.now(UTC) + timedelta(hours=1))
        certificates.store(directory, pair, authority.pem)
        assert (directory / envoy.TLS_CERT).read_bytes() == pair.certificate
        assert (directory / envoy.TLS_KEY).read_bytes() == pair.key
        seen.add((directory / "..data").readlink())
    assert len(seen) == 4
    assert len(list(directory.glob("..[0-9]*"))) == 2


# -- the issuer


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    (tmp_path / "run" / "mesh").mkdir(parents=True)
    own = settings(tmp_path)
    return Issuer(own, Authority.at(stack_mesh.certificates_dir(own) / "ca"))


def left(issuer: Issuer, workload: str = "payment") -> timedelta:
    expiry = certificates.expiry(stack_mesh.certificates_dir(issuer.settings) / workload)
    assert expiry
    return expiry - datetime.now(UTC)


def of(issuer: Issuer, workload: str = "payment") -> bytes:
    directory = stack_mesh.certificates_dir(issuer.settings) / workload
    return (directory / envoy.TLS_CERT).read_bytes()


def test_everyone_gets_a_certificate_once(issuer: Issuer) -> None:
    issuer.keep()
    first = of(issuer)
    issuer.keep()
    assert of(issuer) == first
    assert all(left(issuer, name) > RENEWED_WITH for name in stack_mesh.identities())


@pytest.mark.parametrize(
    ("rest", "renewed"), [(timedelta(minutes=5), False), (-timedelta(minutes=5), True)]
)
def test_it_is_renewed_at_the_half_of_its_life(
    issuer: Issuer, rest: timedelta, renewed: bool
) -> None:
    issuer.keep()
    pair = issuer.authority.issue("spiffe://x/y", datetime.now(UTC) + RENEWED_WITH + rest)
    directory = stack_mesh.certificates_dir(issuer.settings) / "payment"
    certificates.store(directory, pair, issuer.authority.pem)
    issuer.keep()
    assert (of(issuer) != pair.certificate) is renewed


def test_certificates_of_an_authority_before_this_one_are_replaced(issuer: Issuer) -> None:
    other = Authority(certificates.new_authority())
    pair = other.issue("spiffe://x/y", datetime.now(UTC) + LIFETIME)
    directory = stack_mesh.certificates_dir(issuer.settings) / "payment"
    certificates.store(directory, pair, other.pem)
    issuer.keep()
    assert (directory / envoy.CA).read_bytes() == issuer.authority.pem


def test_a_doomed_certificate_expires_when_it_is_to_and_is_renewed_afterwards(
    issuer: Issuer,
) -> None:
    issuer.keep()
    home = issuer.settings.home
    stack_mesh.doom(home, "payment", (datetime.now(UTC) + timedelta(minutes=1)).timestamp())
    issuer.keep()
    doomed = of(issuer)
    assert left(issuer) < timedelta(minutes=2)
    issuer.keep()
    assert of(issuer) == doomed
    assert left(issuer, "order") > RENEWED_WITH
    stack_mesh.doomed_file(home, "payment").unlink()
    issuer.keep()
    assert left(issuer) > RENEWED_WITH
