"""What a drill stack has beside a standard one: a proxy on its links, and the injector."""

import sys
from collections.abc import Mapping
from pathlib import Path

from prove.stack import databases, disks, toxiproxy
from prove.stack.links import HOST, LINKS, Route
from prove.stack.settings import MESHED, StackSettings, link_port
from prove.stack.spec import ProcessSpec

INJECTOR = "injector"


def is_drill(settings: StackSettings) -> bool:
    """Whether there are such things."""
    return settings.profile == "drill"


def routes(settings: StackSettings) -> dict[str, Route]:
    """By link; there is none to a database that is a file, and none at all without a drill."""
    if not is_drill(settings):
        return {}
    ports = settings.ports
    found: dict[str, Route] = {}
    for link in LINKS:
        caller, called = link.split("-")
        meshed = called in MESHED and caller in MESHED
        upstream: str | None = f"{HOST}:{settings.door_port(called) if meshed else ports[called]}"
        if called == databases.NAME:
            upstream = databases.address(databases.url(settings, caller))
        if upstream:
            found[link] = Route(ports[link_port(link)], upstream)
    return found


def peer_url(settings: StackSettings, caller: str, called: str) -> str:
    """Where a process calls another."""
    if settings.mesh and caller in MESHED and called in MESHED:
        return settings.url(settings.ports[f"{caller}_{called}_edge"])
    for link, route in routes(settings).items():
        if link == f"{caller}-{called}":
            return settings.url(route.port)
    return settings.url(settings.ports[called])


def database_url(settings: StackSettings, service: str) -> str:
    """Where a service calls its database."""
    direct = databases.url(settings, service)
    for link, route in routes(settings).items():
        if link == f"{service}-{databases.NAME}":
            return databases.moved(direct, route.listen)
    return direct


def processes(settings: StackSettings, binaries: Mapping[str, Path]) -> list[ProcessSpec]:
    """Specs of the proxy and of the injector."""
    argv = (str(binaries[toxiproxy.PROGRAM]),)
    proxy = toxiproxy.process(argv, settings.toxiproxy_port, _config(settings), routes(settings))
    return [proxy, injector(settings, needs=(toxiproxy.NAME,))]


def configure(settings: StackSettings) -> None:
    """Write what the proxy reads when it starts."""
    toxiproxy.configure(_config(settings), routes(settings))


def disk(settings: StackSettings, process: str) -> Path | None:
    """Where the disk that may be filled is; None for a process that has no database file there."""
    if process not in disks.SERVICES or not databases.url(settings, process).startswith("sqlite"):
        return None
    return disks.directory(settings, process)


def injector(settings: StackSettings, needs: tuple[str, ...]) -> ProcessSpec:
    """The spec of the injector."""
    port = settings.injector_port
    return ProcessSpec(
        name=INJECTOR,
        argv=(sys.executable, "-m", "prove.injector"),
        env=settings.environment(),
        ready_url=f"{settings.url(port)}/readyz",
        ports=(port,),
        group="observability",
        needs=needs,
    )


def _config(settings: StackSettings) -> Path:
    return settings.run_dir / "toxiproxy.json"
