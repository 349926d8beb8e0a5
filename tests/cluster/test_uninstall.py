"""Last of all, by conftest.py: `helm uninstall` leaves nothing but data and the namespace."""

from tests.cluster.lab.kubectl import eventually
from tests.cluster.shop import NAMESPACE, RELEASE, Shop

BUILT_IN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def test_uninstall_leaves_nothing(shop: Shop) -> None:
    kinds = shop.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    passing = ("events", "metrics.k8s.io", "persistentvolumeclaims", "cilium.io", "controllerrev")
    asked = ",".join(kind for kind in kinds if not any(word in kind for word in passing))
    shop.helm("uninstall", RELEASE, "--wait", "--timeout=180s")

    def left() -> set[str]:
        names = shop.kubectl("get", asked, "-n", NAMESPACE, "-o", "name", "--ignore-not-found")
        return set(names.split()) - BUILT_IN

    def only_the_built_in() -> bool:
        assert left() == set()
        return True

    eventually("nothing is left in the namespace", only_the_built_in)
    everywhere = shop.kubectl(
        "get",
        "clusterroles,clusterrolebindings",
        "-l",
        "app.kubernetes.io/part-of=prove",
        "-o",
        "name",
    )
    assert everywhere == ""
