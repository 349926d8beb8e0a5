"""`k8s/` is accepted by a real API server, object by object, as `kubectl apply -k` sends it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from prove.tools import repository_root
from tests.cluster.lab import Kubectl
from tests.cluster.lab.kubectl import RefusedError

K8S = repository_root() / "k8s"
NAMESPACE = "prove"  # what the manifests say
DRY = ("--server-side", "--dry-run=server", "--force-conflicts")


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
    all_of_it_passes(kubectl, part)


def all_of_it_passes(kubectl: Kubectl, part: str) -> None:
    """A dry run of a directory, on the server."""
    applied = kubectl("apply", *DRY, "-k", str(K8S / part)).splitlines()
    files = "\n".join(path.read_text() for path in (K8S / part).glob("*.yaml"))
    kinds = files.count("\nkind: ") - files.count("\nkind: Kustomization")
    assert len(applied) == kinds


@pytest.fixture(scope="module")
def istio(kubectl: Kubectl) -> Iterator[None]:
    """Istio's own definitions of its kinds, of the Go module that tools/istio pins."""
    if kubectl("get", "crd", "virtualservices.networking.istio.io", "--ignore-not-found"):
        yield
        return
    done = subprocess.run(
        ["go", "mod", "download", "-json", "istio.io/api"],
        cwd=repository_root() / "tools" / "istio",
        capture_output=True,
        text=True,
        check=True,
    )
    directory = Path(json.loads(done.stdout)["Dir"])
    definitions = directory / "kubernetes" / "customresourcedefinitions.gen.yaml"
    kubectl.apply(definitions)
    kubectl("wait", "--for=condition=Established", "-f", str(definitions), "--timeout=60s")
    yield
    kubectl("delete", "-f", str(definitions))


@pytest.mark.usefixtures("namespace", "istio")
def test_istios_objects_pass_it_with_istios_own_definitions(kubectl: Kubectl) -> None:
    all_of_it_passes(kubectl, "mesh")


@pytest.mark.usefixtures("namespace", "istio")
@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("mode: STRICT", "mode: STRONG", "Unsupported value"),
        ("attempts: 0", "atempts: 0", "atempts"),
        ("maxConnections: 256", 'maxConnections: "many"', "maxConnections"),
    ],
)
def test_what_is_none_of_istios_is_refused(
    kubectl: Kubectl, right: str, wrong: str, says: str
) -> None:
    text = (K8S / "mesh" / "istio.yaml").read_text()
    assert right in text
    with pytest.raises(RefusedError, match=says):
        kubectl("apply", *DRY, "-n", NAMESPACE, "-f", "-", stdin=text.replace(right, wrong))
