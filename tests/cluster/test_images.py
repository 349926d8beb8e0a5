"""The image that no part of the chart runs: provectl's."""

import json

from prove import images
from prove.tools import repository_root
from tests.cluster import toys
from tests.cluster.conftest import Figures, Ground
from tests.cluster.lab.kubectl import Kubectl, eventually
from tests.cluster.lab.shopimages import REGISTRY

NAMESPACE = "prove-image"
SPEC = repository_root() / "observability" / "slos" / "checkout.yaml"


def test_provectl_runs_without_root_or_a_disk_to_write_on(
    ground: Ground, kubectl: Kubectl, figures: Figures
) -> None:
    ground.needs_lab("provectl's image is brought in by hand")
    archive = ground.load("provectl")["provectl"]
    image = images.IMAGES["provectl"]
    pod = toys.pod(
        "provectl",
        *("slo", "explain", f"/slos/{SPEC.name}", "--json"),
        image=image.reference(REGISTRY),
        volumeMounts=[{"name": "slos", "mountPath": "/slos"}],
    )
    pod["spec"] |= {
        "restartPolicy": "Never",
        "volumes": [{"name": "slos", "configMap": {"name": "slos"}}],
    }
    kubectl.make_namespace(toys.namespace(NAMESPACE))
    try:
        kubectl("create", "configmap", "slos", "-n", NAMESPACE, f"--from-file={SPEC}")
        kubectl.apply(pod, namespace=NAMESPACE)

        def ended() -> str | None:
            phase = kubectl.get("pod", "provectl", NAMESPACE)["status"]["phase"]
            return phase if phase in ("Succeeded", "Failed") else None

        phase = eventually("provectl has ended", ended)
        said = kubectl("logs", "-n", NAMESPACE, "provectl")
        assert phase == "Succeeded", said
        assert json.loads(said)
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
    figures.record("provectl_image", mb=round(archive.stat().st_size / 1e6))
