"""Envoy's configuration, made from the edges: a proxy before each service, one at the edge (pure).

The form is Envoy's `Bootstrap` (https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api). A proxy
has inbound doors, which speak mTLS and let in whom the edges name; and outbound doors, which speak
plain HTTP to what is beside the proxy and carry its requests along an edge. What is told here:

- Nothing is tried again, whatever headers ask for it.
- `x-envoy-expected-rq-timeout-ms` passes unchanged: it is the services' (docs/reference/http.md).
- Expired or foreign certificates are refused, also on resumed sessions: there are none.
- Refusals are problem+json, like the services' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prove.mesh.edges import Edge, Mesh, Requests, identity

Json = dict[str, Any]

TLS_CERT, TLS_KEY, CA = "tls.crt", "tls.key", "ca.crt"
"""Files of an identity: the keys of a Secret as cert-manager fills it."""
READY = "/ready"
HEALTH = ("/livez", "/readyz", "/startupz")
_OTLP = "otlp"
_APP = "app"
_TYPE = "type.googleapis.com/envoy."
_MANAGER = "envoy.filters.network.http_connection_manager"
_RETRY_HEADERS = (
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-hedge-on-per-try-timeout",
)
_IDLE_S = 30
"""Kept connections to services, who keep them for 75 s and more: never closed when just in use."""


@dataclass(frozen=True)
class Address:
    """Where something listens."""

    host: str
    port: int


@dataclass(frozen=True)
class Inbound:
    """The door of a service in the mesh, and where the service is behind it."""

    service: str
    listen: Address
    app: Address


@dataclass(frozen=True)
class Outbound:
    """A plain door: requests go on along the first edge that has them, of `callers` in turn.

    `called`: to that workload alone. Without `by_path` every request goes along the one edge there
    is, and the called judges; with it, what no edge has is not found. `outside`: the clients are
    not ours, so what they say of themselves in headers isn't taken over.
    """

    name: str
    listen: Address
    callers: tuple[str, ...]
    called: str | None = None
    by_path: bool = False
    outside: bool = False


@dataclass(frozen=True)
class Proxy:
    """One Envoy. `upstreams`: by edge, where the called's inbound doors are.

    `certificates`: the directory of an identity's files, by workload. `connection_age_s`: how long
    a connection between proxies lives, and so how long an expired certificate may go unnoticed.
    """

    name: str
    upstreams: Mapping[str, Sequence[Address]]
    certificates: Mapping[str, str]
    ready: Address
    otlp: Address
    admin_socket: str
    inbound: tuple[Inbound, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    sds_directory: str = "."
    domain: str = "prove.local"
    namespace: str = "prove"
    connection_age_s: float = 300
    flush_s: float = 5
    instance: str | None = "1"
    """Tells those of one name apart in telemetry; None: `OTEL_RESOURCE_ATTRIBUTES` does."""
    resolve: bool = False
    """Whether upstreams are names of DNS, each with all instances behind it."""

    @property
    def service_name(self) -> str:
        """What it calls itself in traces and metrics."""
        return self.name if self.name == "edge" else f"{self.name}-proxy"

    def identity(self, workload: str) -> str:
        """The SPIFFE ID of a workload in this proxy's mesh."""
        return identity(workload, self.domain, self.namespace)


def secrets(proxy: Proxy) -> dict[str, Json]:
    """What SDS is told, by file name: where an identity's files are, read again on a change."""
    found = {}
    for workload, directory in proxy.certificates.items():
        watched = {"path": directory}
        certificate = {
            "certificate_chain": {"filename": f"{directory}/{TLS_CERT}"},
            "private_key": {"filename": f"{directory}/{TLS_KEY}"},
            "watched_directory": watched,
        }
        authority = {
            "trusted_ca": {"filename": f"{directory}/{CA}"},
            "watched_directory": watched,
        }
        found[_sds_file(workload)] = _secret(workload, tls_certificate=certificate)
        found[_sds_file(f"{workload}-ca")] = _secret(f"{workload}-ca", validation_context=authority)
    return found


def bootstrap(proxy: Proxy, mesh: Mesh) -> Json:
    """What the proxy is started with; raises LookupError for a door that no edge leads through."""
    edges = _carried(proxy, mesh)
    listeners = [_inbound(proxy, mesh, door) for door in proxy.inbound]
    listeners += [_outbound(proxy, mesh, door) for door in proxy.outbound]
    clusters = [_upstream(proxy, mesh, edge) for edge in edges]
    clusters += [_app(door) for door in proxy.inbound]
    return {
        "node": {"id": proxy.service_name, "cluster": "prove"},
        "admin": {"address": {"pipe": {"path": proxy.admin_socket, "mode": 0o600}}},
        "application_log_config": {"log_format": {"json_format": _LOG}},
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {"tracing.opentelemetry.flush_interval_ms": 500},
                }
            ]
        },
        "overload_manager": {"resource_monitors": [_CONNECTIONS]},
        "stats_flush_interval": _seconds(proxy.flush_s),
        "stats_config": {"stats_matcher": {"inclusion_list": {"patterns": _STATS}}},
        "stats_sinks": [_sink(proxy)],
        "static_resources": {
            "listeners": [*listeners, _ready(proxy)],
            "clusters": [*clusters, _collector(proxy)],
        },
    }


_LOG = {
    "ts": "%Y-%m-%dT%H:%M:%S.%fZ",
    "level": "%l",
    "event": "%j",
    "logger": "%n",
}
_STATS = [
    {"safe_regex": {"regex": pattern}}
    for pattern in (
        r"cluster\..*\.upstream_(rq_[2345]xx|rq_total|rq_timeout|rq_pending_overflow|rq_retry"
        r"|cx_active|cx_total|cx_connect_fail|cx_overflow)",
        r"cluster\..*\.outlier_detection\.ejections_(active|enforced_total)",
        r"cluster\..*\.ssl\.(handshake|connection_error|fail_verify_.*|certificate\..*)",
        r"listener\..*\.ssl\.(handshake|connection_error|fail_verify_.*|certificate\..*)",
        r"listener\..*\.downstream_cx_active",
        r"http\..*\.(downstream_rq_[2345]xx|rbac\.(allowed|denied))",
        r".*\.client_ssl_socket_factory\.ssl_context_update_by_sds",
        r".*\.server_ssl_socket_factory\.ssl_context_update_by_sds",
        r"server\.(live|uptime|memory_physical_size|days_until_first_cert_expiring)",
    )
]


def _carried(proxy: Proxy, mesh: Mesh) -> list[Edge]:
    """The edges along which it sends requests."""
    found: dict[str, Edge] = {}
    for door in proxy.outbound:
        for edge in _of_door(door, mesh):
            found[edge.name] = edge
    return list(found.values())


def _of_door(door: Outbound, mesh: Mesh) -> list[Edge]:
    found = [
        edge
        for caller in door.callers
        for edge in mesh.edges
        if edge.caller == caller and door.called in (None, edge.called)
    ]
    if not found:
        raise LookupError(f"{door.name}: no edge leads from {', '.join(door.callers)}")
    return found


# -- doors


def _inbound(proxy: Proxy, mesh: Mesh, door: Inbound) -> Json:
    callers = [proxy.identity(edge.caller) for edge in mesh.into(door.service)]
    policies = {edge.name: _policy(proxy, edge) for edge in mesh.into(door.service)}
    rbac = _typed(
        "envoy.filters.http.rbac",
        "extensions.filters.http.rbac.v3.RBAC",
        rules={"action": "ALLOW", "policies": policies},
    )
    route = {
        "match": {"prefix": "/"},
        # Callers bound it; here it would only cut what they still wait for.
        "route": {"cluster": f"{_APP}-{door.service}", "timeout": "0s"},
        "decorator": {"operation": f"{door.service} in", "propagate": False},
    }
    manager = _manager(
        proxy,
        f"in-{door.service}",
        [_quiet(path, f"{_APP}-{door.service}") for path in HEALTH] + [route],
        filters=[rbac],
        more={
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"uri": True},
            **_OURS,
        },
    )
    tls = _typed(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
        common_tls_context=_tls(proxy, door.service, callers),
    )
    return _listener(f"in-{door.service}", door.listen, manager, "INBOUND", tls)


def _outbound(proxy: Proxy, mesh: Mesh, door: Outbound) -> Json:
    edges = _of_door(door, mesh)
    if door.by_path:
        routes = [
            _route(edge, match)
            for edge in edges
            for allowed in edge.allow
            for match in _to(allowed)
        ]
    else:
        routes = [_route(edges[0], {"prefix": "/"})]
    # Where customers come in nobody asks how a service is.
    probed = door.by_path and door.called is not None and not door.outside
    quiet = [_quiet(path, edges[-1].name) for path in HEALTH] if probed else []
    more: Json = {"forward_client_cert_details": "SANITIZE"}
    if door.by_path:
        more |= _SHORT_LIVED
    if door.outside:
        more["use_remote_address"] = True
    else:
        more |= _OURS
    manager = _manager(proxy, f"out-{door.name}", quiet + routes, more=more)
    return _listener(f"out-{door.name}", door.listen, manager, "OUTBOUND")


def _ready(proxy: Proxy) -> Json:
    """A door for whoever starts the proxy, and for probes of what is behind it."""
    routes: list[Json] = [
        {
            "match": {"path": READY},
            "direct_response": {"status": 200, "body": {"inline_string": "ready\n"}},
        }
    ]
    routes += [_quiet(path, f"{_APP}-{door.service}") for door in proxy.inbound for path in HEALTH]
    manager = _typed(
        _MANAGER,
        f"{_FILTERS_NETWORK}.HttpConnectionManager",
        stat_prefix="ready",
        route_config=_routes("ready", routes),
        http_filters=[_ROUTER],
    )
    return _listener("ready", proxy.ready, manager, "UNSPECIFIED")


def _listener(
    name: str, listen: Address, manager: Json, direction: str, tls: Json | None = None
) -> Json:
    chain: Json = {"filters": [manager]}
    if tls:
        chain["transport_socket"] = tls
    return {
        "name": name,
        "stat_prefix": name,
        "address": _address(listen),
        "traffic_direction": direction,
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [chain],
    }


_FILTERS_NETWORK = "extensions.filters.network.http_connection_manager.v3"


def _manager(
    proxy: Proxy,
    name: str,
    routes: list[Json],
    filters: Sequence[Json] = (),
    more: Json | None = None,
) -> Json:
    no_retries = _typed(
        "envoy.http.early_header_mutation.header_mutation",
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[{"remove": header} for header in _RETRY_HEADERS],
    )
    return _typed(
        _MANAGER,
        f"{_FILTERS_NETWORK}.HttpConnectionManager",
        stat_prefix=name,
        server_header_transformation="PASS_THROUGH",
        # The services number requests.
        generate_request_id=False,
        preserve_external_request_id=True,
        request_id_extension=_REQUEST_ID,
        # What is judged here is what the service will see.
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        early_header_mutation_extensions=[no_retries],
        tracing=_tracing(proxy),
        route_config=_routes(name, routes),
        http_filters=[*filters, _ROUTER],
        local_reply_config={"body_format": _PROBLEM},
        access_log=[_ACCESS_LOG],
        **({"common_http_protocol_options": {"idle_timeout": "300s"}} | (more or {})),
    )


# Of who comes in by the edge, which ends without waiting for what is under way: 15 s after a
# Service has dropped it, nobody may begin anything on a connection that was kept.
_SHORT_LIVED: Json = {
    "common_http_protocol_options": {"idle_timeout": "5s", "max_connection_duration": "10s"},
    # By an answer that says so, rather than between two requests.
    "http1_safe_max_connection_duration": True,
}


_PROBLEM = {
    "json_format": {
        "type": "about:blank",
        "title": "Answered by the mesh",
        "status": "%RESPONSE_CODE%",
        "detail": "%LOCAL_REPLY_BODY%",
        "trace_id": "%TRACE_ID%",
    },
    "content_type": "application/problem+json",
}

_REQUEST_ID = {
    "typed_config": {
        "@type": f"{_TYPE}extensions.request_id.uuid.v3.UuidRequestIdConfig",
        "pack_trace_reason": False,
        "use_request_id_for_trace_sampling": False,
    }
}
_OURS: Json = {
    # Whoever gets here is one of ours: how long they still wait isn't taken off their requests.
    "use_remote_address": True,
    "skip_xff_append": True,
    "internal_address_config": {
        "cidr_ranges": [
            {"address_prefix": "0.0.0.0", "prefix_len": 0},  # noqa: S104 - all there are
            {"address_prefix": "::", "prefix_len": 0},
        ]
    },
}
_ACCESS_LOG = {
    "name": "envoy.access_loggers.stdout",
    # What the proxy answered itself.
    "filter": {
        "or_filter": {
            "filters": [
                {"response_flag_filter": {}},
                {
                    "status_code_filter": {
                        "comparison": {
                            "op": "EQ",
                            "value": {"default_value": 403, "runtime_key": "none"},
                        }
                    }
                },
            ]
        }
    },
    "typed_config": {
        "@type": f"{_TYPE}extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {
            "json_format": {
                "ts": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
                "level": "warning",
                "event": "not_passed_on",
                "status": "%RESPONSE_CODE%",
                "method": "%REQ(:METHOD)%",
                "path": "%PATH(NQ)%",
                "peer": "%DOWNSTREAM_PEER_URI_SAN%",
                "why": "%RESPONSE_CODE_DETAILS%",
                "flags": "%RESPONSE_FLAGS%",
                "trace_id": "%TRACE_ID%",
            }
        },
    },
}


def _routes(name: str, routes: list[Json]) -> Json:
    host = {"name": name, "domains": ["*"], "routes": routes}
    return {
        "name": name,
        "virtual_hosts": [host],
        "request_headers_to_remove": ["x-envoy-internal"],
    }


def _route(edge: Edge, match: Json) -> Json:
    return {
        "match": match,
        "route": {"cluster": edge.name, "timeout": _seconds(edge.timeout_s)},
        "decorator": {"operation": f"{edge.caller} to {edge.called}", "propagate": False},
    }


def _quiet(path: str, cluster: str) -> Json:
    """A route without spans: probes of health are no traffic."""
    nothing = {"numerator": 0}
    return {
        "match": {"path": path},
        "route": {"cluster": cluster, "timeout": "10s"},
        "tracing": {
            "client_sampling": nothing,
            "random_sampling": nothing,
            "overall_sampling": nothing,
        },
    }


# -- who may what


def _to(allowed: Requests) -> list[Json]:
    """As matches of routes."""
    pattern = "|".join(allowed.methods)
    method = {"name": ":method", "string_match": {"safe_regex": {"regex": pattern}}}
    return [{**_path(path), "headers": [method]} for path in allowed.paths]


def _path(path: str) -> Json:
    return {"prefix": path[:-1]} if path.endswith("*") else {"path": path}


def _policy(proxy: Proxy, edge: Edge) -> Json:
    """As a policy of the RBAC filter."""
    caller = {"exact": proxy.identity(edge.caller)}
    return {
        "permissions": [_permission(allowed) for allowed in edge.allow],
        "principals": [{"authenticated": {"principal_name": caller}}],
    }


def _permission(allowed: Requests) -> Json:
    methods = [
        {"header": {"name": ":method", "string_match": {"exact": method}}}
        for method in allowed.methods
    ]
    paths = [
        {"url_path": {"path": {"prefix": path[:-1]} if path.endswith("*") else {"exact": path}}}
        for path in allowed.paths
    ]
    both = [{"or_rules": {"rules": methods}}, {"or_rules": {"rules": paths}}]
    return {"and_rules": {"rules": both}}


# -- where to


def _upstream(proxy: Proxy, mesh: Mesh, edge: Edge) -> Json:
    limits, eject = mesh.limits, mesh.limits.eject
    tls = _typed(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        max_session_keys=0,
        common_tls_context=_tls(proxy, edge.caller, [proxy.identity(edge.called)]),
    )
    return {
        **_cluster(
            edge.name,
            proxy.upstreams[edge.name],
            {
                "idle_timeout": f"{_IDLE_S}s",
                "max_connection_duration": _seconds(proxy.connection_age_s),
            },
            resolve=proxy.resolve,
        ),
        "connect_timeout": _seconds(limits.connect_timeout_s),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": limits.connections,
                    "max_pending_requests": limits.waiting,
                    "max_requests": limits.connections,
                    "max_retries": 0,
                }
            ]
        },
        "outlier_detection": {
            "consecutive_5xx": eject.consecutive_5xx,
            "enforcing_consecutive_5xx": 100,
            "interval": _seconds(eject.interval_s),
            "base_ejection_time": _seconds(eject.for_s),
            "max_ejection_percent": eject.at_most_percent,
            "enforcing_success_rate": 0,
        },
        "transport_socket": tls,
    }


def _app(door: Inbound) -> Json:
    return {
        **_cluster(f"{_APP}-{door.service}", [door.app], {"idle_timeout": f"{_IDLE_S}s"}),
        "connect_timeout": "1s",
    }


def _collector(proxy: Proxy) -> Json:
    return {
        **_cluster(_OTLP, [proxy.otlp], {}, protocol="http2", resolve=proxy.resolve),
        "connect_timeout": "1s",
    }


def _cluster(
    name: str,
    addresses: Sequence[Address],
    common: Json,
    *,
    protocol: str = "http",
    resolve: bool = False,
) -> Json:
    options = {
        "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": common,
        "explicit_http_config": {f"{protocol}_protocol_options": {}},
    }
    endpoints = [{"endpoint": {"address": _address(address)}} for address in addresses]
    return {
        "name": name,
        "type": "STRICT_DNS" if resolve else "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options
        },
    }


# -- identities


def _tls(proxy: Proxy, workload: str, peers: Sequence[str]) -> Json:
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificate_sds_secret_configs": [_sds(proxy, workload)],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"exact": peer}} for peer in peers
                ]
            },
            "validation_context_sds_secret_config": _sds(proxy, f"{workload}-ca"),
        },
    }


def _sds(proxy: Proxy, name: str) -> Json:
    path = {"path": f"{proxy.sds_directory}/{_sds_file(name)}"}
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": path}}


def _sds_file(name: str) -> str:
    return f"sds-{name}.json"


def _secret(name: str, **what: Json) -> Json:
    secret = {"@type": f"{_TYPE}extensions.transport_sockets.tls.v3.Secret", "name": name, **what}
    return {"resources": [secret]}


# -- telemetry


def _tracing(proxy: Proxy) -> Json:
    """Into the trace of the request; one span for each pass through a proxy."""
    tracer = _typed(
        "envoy.tracers.opentelemetry",
        "config.trace.v3.OpenTelemetryConfig",
        grpc_service=_grpc(),
        service_name=proxy.service_name,
        resource_detectors=_resource(proxy),
    )
    return {"provider": tracer, "random_sampling": {"value": 100}}


def _sink(proxy: Proxy) -> Json:
    """Its figures go where all others go, so nobody has to ask its admin interface."""
    return _typed(
        "envoy.stat_sinks.open_telemetry",
        "extensions.stat_sinks.open_telemetry.v3.SinkConfig",
        grpc_service=_grpc(),
        resource_detectors=_resource(proxy),
        prefix="envoy",
    )


def _resource(proxy: Proxy) -> list[Json]:
    detectors = "envoy.tracers.opentelemetry.resource_detectors"
    form = "extensions.tracers.opentelemetry.resource_detectors.v3"
    attributes = {"service.name": proxy.service_name, "service.namespace": "prove"}
    if proxy.instance is not None:
        attributes["service.instance.id"] = f"{proxy.service_name}-{proxy.instance}"
    static = f"{form}.StaticConfigResourceDetectorConfig"
    found = [_typed(f"{detectors}.static_config", static, attributes=attributes)]
    if proxy.instance is None:
        environment = f"{form}.EnvironmentResourceDetectorConfig"
        found.append(_typed(f"{detectors}.environment", environment))
    return found


def _grpc() -> Json:
    return {"envoy_grpc": {"cluster_name": _OTLP}, "timeout": "1s"}


# -- Envoy's spelling


def _typed(name: str, of: str, **fields: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_TYPE}{of}", **fields}}


_CONNECTIONS = _typed(
    "envoy.resource_monitors.global_downstream_max_connections",
    "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
    max_active_downstream_connections=4096,
)
_ROUTER = _typed(
    "envoy.filters.http.router",
    "extensions.filters.http.router.v3.Router",
    suppress_envoy_headers=True,
)


def _address(address: Address) -> Json:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _seconds(value: float) -> str:
    return f"{value:g}s"
