"""Envoy's configuration for the chart: a sidecar in each pod of the shop, and the edge.

As text with marks for what the chart knows: `__DOMAIN__`, `__NAMESPACE__`. Where the parts of a pod
find each other is here and in `charts/prove/templates/_mesh.tpl`; a test holds them together.
"""

import json
from base64 import b64encode
from datetime import datetime

import yaml

from prove.mesh import edges, envoy
from prove.mesh.certificates import Authority
from prove.mesh.edges import Mesh
from prove.mesh.envoy import Address, Inbound, Outbound, Proxy

DOMAIN, NAMESPACE = "__DOMAIN__", "__NAMESPACE__"
PORTS = {"product": 8001, "order": 8002, "payment": 8003}
"""Of the services, where their proxies listen now."""
BEHIND = 10_000
"""So much higher, on the pod's loopback, a service listens behind its proxy."""
EDGE_PORT = 8000
HEALTH_PORT = 15021
CALLS = 15_000
"""So much higher than its own port another service is called at, on the pod's loopback."""
WATCHERS = ("canary", "blackbox", "test-order")
"""They have no proxy: what one of them may ask passes the edge's doors for them as the first's."""
EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 - of a pod

BOOTSTRAP = "envoy.json"


def files() -> dict[str, str]:
    """Text by `PROXY/FILE`."""
    table = edges.load()
    made: dict[str, str] = {}
    for proxy in (_edge(table), *(_sidecar(table, service) for service in PORTS)):
        content = {BOOTSTRAP: envoy.bootstrap(proxy, table), **envoy.secrets(proxy)}
        for name, document in content.items():
            made[f"{proxy.name}/{name}"] = json.dumps(document, indent=1) + "\n"
    return made


def secrets(authority: Authority, namespace: str, domain: str, until: datetime) -> str:
    """The Secrets of all identities, as YAML."""
    made = []
    for name in ("edge", *WATCHERS, *PORTS):
        pair = authority.issue(edges.identity(name, domain, namespace), until)
        files = {
            envoy.TLS_CERT: pair.certificate,
            envoy.TLS_KEY: pair.key,
            envoy.CA: authority.pem,
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"mesh-{name}", "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {key: b64encode(value).decode() for key, value in files.items()},
        }
        made.append(yaml.safe_dump(secret, sort_keys=False))
    return "---\n".join(made)


def _sidecar(table: Mesh, service: str) -> Proxy:
    port = PORTS[service]
    outbound = tuple(
        Outbound(
            edge.name,
            Address(LOOPBACK, CALLS + PORTS[edge.called]),
            (service,),
            edge.called,
        )
        for edge in table.edges
        if edge.caller == service
    )
    inbound = Inbound(service, Address(EVERYWHERE, port), Address(LOOPBACK, BEHIND + port))
    return _proxy(table, service, (service,), inbound=(inbound,), outbound=outbound)


def _edge(table: Mesh) -> Proxy:
    """Customers' door, and one by service for who watches; the network policies say who that is."""
    doors = [
        Outbound("shop", Address(EVERYWHERE, EDGE_PORT), ("edge",), by_path=True, outside=True)
    ]
    for service, port in PORTS.items():
        callers = tuple(
            caller
            for caller in WATCHERS
            if any((edge.caller, edge.called) == (caller, service) for edge in table.edges)
        )
        doors.append(Outbound(service, Address(EVERYWHERE, port), callers, service, by_path=True))
    return _proxy(table, "edge", ("edge", *WATCHERS), outbound=tuple(doors))


def _proxy(
    table: Mesh,
    name: str,
    own: tuple[str, ...],
    *,
    inbound: tuple[Inbound, ...] = (),
    outbound: tuple[Outbound, ...] = (),
) -> Proxy:
    return Proxy(
        name=name,
        # Of a headless Service: each pod by itself, or none could be left alone.
        upstreams={
            edge.name: [Address(f"{edge.called}-pods", PORTS[edge.called])] for edge in table.edges
        },
        certificates={each: f"/etc/mesh/{each}" for each in own},
        ready=Address(EVERYWHERE, HEALTH_PORT),
        otlp=Address("collector", 4317),
        admin_socket="/tmp/admin.sock",  # noqa: S108 - a volume of the pod's own
        inbound=inbound,
        outbound=outbound,
        sds_directory="/etc/envoy",
        domain=DOMAIN,
        namespace=NAMESPACE,
        resolve=True,
        instance=None,
    )
