"""Small objects for the tests of the lab itself."""

from typing import Any

from tests.cluster.lab.cluster import TOY
from tests.cluster.lab.kubectl import Object

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def namespace(name: str) -> Object:
    """A namespace that admits only pods of the standard `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def pod_spec(*args: str, **container: Any) -> Object:
    """A pod of one toy that passes `restricted`."""
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": RESTRICTED,
        "containers": [
            {
                "name": "toy",
                "image": TOY,
                "imagePullPolicy": "IfNotPresent",
                "args": list(args),
                "securityContext": CONFINED,
                **container,
            }
        ],
    }


def pod(name: str, *args: str, **container: Any) -> Object:
    """One toy by itself, labelled app=NAME."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": pod_spec(*args, **container),
    }


def deployment(name: str, replicas: int | None, **container: Any) -> Object:
    """Toys that serve on 8080, with probes; `replicas` None under an autoscaler."""
    probes = {
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": 8080},
            "periodSeconds": 2,
            "failureThreshold": 2,
        },
    }
    spec: Object = {
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": pod_spec(**{**probes, **container}),
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": spec,
    }


def service(name: str) -> Object:
    """Port 80 to the toys labelled app=NAME."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
