"""`k8s/` is accepted by a real API server, object by object, as `kubectl apply -k` sends it."""

from collections.abc import Iterator

import pytest

from prove.tools import repository_root
from tests.cluster.lab import Kubectl

K8S = repository_root() / "k8s"
NAMESPACE = "prove"  # what the manifests say


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[None]:
    """The namespace the objects are for: a dry run makes none."""
    if kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
        yield
        return
    kubectl("create", "namespace", NAMESPACE)
    yield
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("part", ["base", "monitoring", "autoscaling", "policies"])
def test_every_object_passes_a_dry_run_on_the_server(kubectl: Kubectl, part: str) -> None:
    how = ("--server-side", "--dry-run=server", "--force-conflicts")
    applied = kubectl("apply", *how, "-k", str(K8S / part)).splitlines()
    files = "\n".join(path.read_text() for path in (K8S / part).glob("*.yaml"))
    kinds = files.count("\nkind: ") - files.count("\nkind: Kustomization")
    assert len(applied) == kinds
