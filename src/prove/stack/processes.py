"""What the local stack is made of: the shop's processes, and the servers that observe them."""

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from prove import tools
from prove.errors import UserError
from prove.stack import databases, drill, mesh, observability, toxiproxy
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec
from prove.tools import Progress

SHOP = ("product", "order", "payment", "acquirer")
GRACE_S = 20
LOOPBACK = "127.0.0.1,localhost"


def ensure_binaries(progress: Progress | None = None) -> dict[str, Path]:
    """Paths of all programs of the stack by name, building those that are missing.

    Raises UserError when Go is missing or a build fails.
    """
    binaries = tools.ensure(*observability.TOOLS, toxiproxy.NAME, progress=progress)
    for name in tools.SERVICES:
        binaries[name] = tools.ensure_service(name, progress)
    for name in ("product-service", "payment-service"):
        binaries[name] = Path(sys.executable).parent / name
        if not binaries[name].exists():
            raise UserError(f"{binaries[name]} is missing; run `make setup`")
    return binaries


def specs(settings: StackSettings, binaries: Mapping[str, Path]) -> list[ProcessSpec]:
    """Every process of the stack, in the order in which they are shown."""
    found = [*_shop(settings, binaries), *observability.processes(settings, binaries)]
    if databases.has_own_server(settings):
        found.insert(0, databases.process(settings))
    if drill.is_drill(settings):
        found += drill.processes(settings, binaries)
    if settings.mesh:
        found = mesh.joined(settings, found)
    return found


def prepare(settings: StackSettings, binaries: Mapping[str, Path]) -> None:
    """Write what the processes read when they start; raises UserError."""
    ensure_admin_token(settings)
    observability.configure(settings, binaries)
    databases.prepare(settings)
    if drill.is_drill(settings):
        drill.configure(settings)
    if settings.mesh:
        mesh.configure(settings)


def ensure_admin_token(settings: StackSettings) -> None:
    """Make the admin token of this install, readable by its owner alone, unless there is one."""
    try:
        descriptor = os.open(settings.admin_token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def _shop(settings: StackSettings, binaries: Mapping[str, Path]) -> list[ProcessSpec]:
    peers = {
        "PRODUCT_URL": drill.peer_url(settings, "order", "product"),
        "PAYMENT_URL": drill.peer_url(settings, "order", "payment"),
        "ACQUIRER_URL": drill.peer_url(settings, "payment", "acquirer"),
    }
    all_need = (
        *((databases.NAME,) if databases.has_own_server(settings) else ()),
        *((toxiproxy.NAME,) if drill.is_drill(settings) else ()),
    )
    common = {
        **peers,
        "HOST": "127.0.0.1",
        "ADMIN_TOKEN_FILE": str(settings.admin_token_file),
        "SHUTDOWN_GRACE_S": str(GRACE_S),
        "OTEL_EXPORTER_OTLP_ENDPOINT": settings.url(settings.otlp_http_port),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=local",
        # A person looks at the signals right after the request: ask for them within a second.
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
        # A proxy set for the machine is not for calls between these processes.
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }

    def service(
        name: str, port: int, needs: tuple[str, ...], *, health: str = "/readyz"
    ) -> ProcessSpec:
        short = name.removesuffix("-service")
        return ProcessSpec(
            name=short,
            argv=(str(binaries[name]), "serve"),
            env={
                **common,
                "PORT": str(port),
                "DATABASE_URL": drill.database_url(settings, short),
                "FAULTS_FILE": str(settings.data_dir / f"faults-{short}.json"),
            },
            ready_url=settings.url(port) + health,
            ports=(port,),
            group="shop",
            needs=(*needs, *all_need),
            stop_timeout_s=GRACE_S + 5,
        )

    return [
        service(
            "product-service",
            settings.app_port("product"),
            needs=("collector",),
        ),
        service(
            "payment-service",
            settings.app_port("payment"),
            needs=("collector", "acquirer"),
        ),
        service(
            "order-service",
            settings.app_port("order"),
            needs=("product", "payment"),
        ),
        service("acquirer", settings.acquirer_port, needs=(), health="/healthz"),
    ]
