"""Port-forwards to the shop on a cluster, as processes that a stack's supervisor looks after."""

import base64
import json
import os

from prove.kubernetes.context import Context
from prove.mesh.kubernetes import BEHIND
from prove.stack.settings import StackSettings
from prove.stack.spec import Group, ProcessSpec

_TARGETS: tuple[tuple[str, str, int, str, Group], ...] = (
    ("product", "service/product", 8001, "/livez", "shop"),
    ("order", "service/order", 8002, "/livez", "shop"),
    ("payment", "service/payment", 8003, "/livez", "shop"),
    ("acquirer", "service/acquirer", 8004, "/healthz", "shop"),
    ("prometheus", "service/prometheus", 9090, "/-/ready", "observability"),
    ("alertmanager", "service/alertmanager", 9093, "/-/ready", "observability"),
    ("jaeger", "service/jaeger", 16686, "/", "observability"),
    ("victorialogs", "service/victorialogs", 9428, "/health", "observability"),
)


def specs(settings: StackSettings, context: Context) -> list[ProcessSpec]:
    """A process for each Service that is there, on the port where a laptop's stack has it.

    In the mesh it leads past the proxy of a service, which would ask for a certificate.
    """
    there = {
        item["metadata"]["name"]
        for item in context.get("services", "-n", context.namespace)["items"]
    }
    return [
        ProcessSpec(
            name=name,
            argv=(
                *(str(context.kubectl_binary), "--context", context.name),
                *("-n", context.namespace, "port-forward", "--address", "127.0.0.1"),
                *_ways_in(name, target, settings.ports[name], port, meshed=f"{name}-pods" in there),
            ),
            ready_url=settings.url(settings.ports[name]) + path,
            ports=(settings.ports[name],),
            group=group,
            # A forward that ends with its pod is begun anew by the supervisor.
            stop_timeout_s=3,
        )
        for name, target, port, path, group in _TARGETS
        if name in there
    ]


def _ways_in(name: str, target: str, here: int, port: int, *, meshed: bool) -> tuple[str, str]:
    """What `kubectl port-forward` is told."""
    if meshed:
        return f"deployment/{name}", f"{here}:{BEHIND + port}"
    return target, f"{here}:{port}"


def keep_token(settings: StackSettings, context: Context, secret: str = "prove") -> None:  # noqa: S107
    """Write the release's admin token to where the stack's is, for its owner alone."""
    text = context.kubectl("get", "secret", secret, "-n", context.namespace, "-o", "json")
    token = base64.b64decode(json.loads(text)["data"]["admin-token"])
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.admin_token_file.unlink(missing_ok=True)
    descriptor = os.open(settings.admin_token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token + b"\n")
