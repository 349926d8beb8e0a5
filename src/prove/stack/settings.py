"""Settings of the local stack: where it lives and which ports it takes (`PROVE_*`)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from service_kit.ports import claim

from prove.errors import UserError
from prove.stack.links import LINKS, Link

Port = Annotated[int, Field(ge=1, le=65535)]
PREFIX = "PROVE_"
MESHED = ("product", "order", "payment")
"""The services that have a proxy in a mesh."""
GRAFANA_PORT = 3000
"""Where Grafana is by default: none of the stack's processes, but links of alerts lead there."""
MESH_PORTS = frozenset(
    {
        "edge",
        "issuer",
        "edge_health",
        "order_product_edge",
        "order_payment_edge",
        *(f"{each}_{what}" for each in MESHED for what in ("door", "app", "proxy_health")),
    }
)


class StackSettings(BaseSettings):
    """Read from `PROVE_*`; `PROVE_PORT_OFFSET` moves every port that isn't set by itself.

    So `PROVE_HOME=.prove-b PROVE_PORT_OFFSET=1000 provectl up` is a second stack beside the first.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore"
    )

    home: Path = Path(".prove")
    port_offset: int = Field(default=0, ge=0, le=45000)

    product_port: Port = 8001
    order_port: Port = 8002
    payment_port: Port = 8003
    acquirer_port: Port = 8004
    otlp_grpc_port: Port = 4317
    otlp_http_port: Port = 4318
    collector_health_port: Port = 13133
    prometheus_port: Port = 9090
    jaeger_port: Port = 16686
    jaeger_otlp_port: Port = 14317
    jaeger_admin_port: Port = 14269
    victorialogs_port: Port = 9428
    alertmanager_port: Port = 9093
    blackbox_port: Port = 9115
    canary_port: Port = 9116

    injector_port: Port = 8005
    """From here on: of a drill alone, but for the database's."""
    toxiproxy_port: Port = 8474
    order_product_link_port: Port = 8011
    order_payment_link_port: Port = 8012
    payment_acquirer_link_port: Port = 8013
    product_database_link_port: Port = 8014
    order_database_link_port: Port = 8015
    payment_database_link_port: Port = 8016
    database_port: Port = 15432

    edge_port: Port = 8000
    """From here on: of a mesh alone. Where customers come in, to all services by their paths."""
    product_door_port: Port = 8021
    """Where proxies speak mTLS for a service, and below where it is itself then."""
    order_door_port: Port = 8022
    payment_door_port: Port = 8023
    product_app_port: Port = 8031
    order_app_port: Port = 8032
    payment_app_port: Port = 8033
    order_product_edge_port: Port = 8041
    """Where the Order Service's proxy takes what is for another."""
    order_payment_edge_port: Port = 8042
    edge_health_port: Port = 8050
    product_proxy_health_port: Port = 8051
    order_proxy_health_port: Port = 8052
    payment_proxy_health_port: Port = 8053
    issuer_port: Port = 8054

    mesh: bool = False
    """Whether all that services and their customers ask passes through Envoy, between services by
    mTLS."""
    profile: Literal["standard", "drill"] = "standard"
    """`drill`: the windows of alerts are a sixtieth, everything is asked every second, and there is
    an injector of faults."""
    disk_mb: int = Field(default=0, ge=0, le=4096)
    """Size of the disk, in memory, that each service's SQLite file gets for itself; 0: none."""
    alert_webhook_url: str = ""
    """Where every notification is posted to as well; empty: nothing leaves the machine."""
    alert_receivers_file: str = ""
    """Alertmanager's own `receivers`, as in `observability/alertmanager/receivers/`."""
    runbooks_url: str = ""
    """Where alerts of SLOs link to, `{alert}` filled in; empty: the repository's pages."""
    dashboard_url: str = ""
    """Likewise, `{id}` filled in; empty: what `provectl grafana` shows."""

    database: Literal["sqlite", "postgres"] = "sqlite"
    """`postgres`: a server of the stack's own, with a database for each service."""
    product_database_url: str = ""
    """Empty: as `database` says, one SQLite file in `data_dir`; so for `order_` and `payment_`."""
    order_database_url: str = ""
    payment_database_url: str = ""

    metrics_max_mb: int = Field(default=1024, ge=64)
    """On disk; when they are more, Prometheus drops the oldest."""
    ready_timeout_s: float = Field(default=60, gt=0)
    restart_delay_min_s: float = Field(default=0.25, gt=0)
    restart_delay_max_s: float = Field(default=15, gt=0)
    log_max_bytes: int = Field(default=16 * 1024 * 1024, ge=4096)
    log_backups: int = Field(default=2, ge=1, le=99)

    @model_validator(mode="before")
    @classmethod
    def _move_ports(cls, values: dict[str, Any]) -> dict[str, Any]:
        try:
            offset = int(values.get("port_offset", 0))
        except ValueError:
            return values  # the field's own validation names it
        moved = {name: cls.model_fields[name].default + offset for name in port_fields()}
        return moved | values

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        taken: dict[int, str] = {}
        for name in port_fields():
            other = taken.setdefault(port := getattr(self, name), name)
            if other != name:
                raise ValueError(
                    f"{PREFIX}{other.upper()} and {PREFIX}{name.upper()} are both {port}; "
                    "give each its own port"
                )
        return self

    @property
    def data_dir(self) -> Path:
        """Databases and stores."""
        return self.home / "data"

    @property
    def logs_dir(self) -> Path:
        """One log a process, rotated."""
        return self.home / "logs"

    @property
    def run_dir(self) -> Path:
        """State of the running stack; of no use once it is down."""
        return self.home / "run"

    @property
    def config_dir(self) -> Path:
        """What the observability servers are told, written anew at every start."""
        return self.run_dir / "config"

    @property
    def admin_token_file(self) -> Path:
        """The bearer token of admin and fault endpoints, made per install."""
        return self.home / "admin-token"

    @property
    def grafana_port(self) -> int:
        """Where a Grafana for this stack is expected."""
        return GRAFANA_PORT + self.port_offset

    def url(self, port: int) -> str:
        """The loopback address of a port of this stack."""
        return f"http://127.0.0.1:{port}"

    @property
    def ports(self) -> dict[str, int]:
        """Every port by its name: `product`, `otlp_http` …"""
        return {name.removesuffix("_port"): getattr(self, name) for name in port_fields()}

    @property
    def used_ports(self) -> dict[str, int]:
        """Those of `ports` that such a stack listens on."""
        unused = set()
        if self.profile != "drill":
            unused |= {"injector", "toxiproxy", *map(link_port, LINKS)}
        if self.database != "postgres":
            unused.add("database")
        if not self.mesh:
            unused |= MESH_PORTS
        return {name: port for name, port in self.ports.items() if name not in unused}

    def app_port(self, service: str) -> int:
        """Where a service itself listens; in a mesh that is behind its proxy."""
        return self.ports[f"{service}_app" if self.mesh else service]

    def door_port(self, service: str) -> int:
        """Where other services reach it."""
        return self.ports[f"{service}_door" if self.mesh else service]

    @property
    def pages_file(self) -> Path:
        """What the inbox of a drill was told of alerts, as JSON lines."""
        return self.data_dir / "pages.jsonl"

    def environment(self) -> dict[str, str]:
        """The variables that make another process mean this stack."""
        values = self.model_dump(mode="json", exclude={"port_offset"})
        return {f"{PREFIX}{name.upper()}": str(value) for name, value in values.items()}

    def port_variable(self, port: int) -> str:
        """The variable that moves `port`, for messages."""
        for name in port_fields():
            if getattr(self, name) == port:
                return f"{PREFIX}{name.upper()}"
        return f"{PREFIX}PORT_OFFSET"


def on_free_ports(home: Path) -> StackSettings:
    """Settings of a stack in `home` that is in nobody's way."""
    fields = port_fields()
    return StackSettings.model_validate(
        {"home": home, **dict(zip(fields, claim(len(fields)), strict=True))}
    )


def default_ports() -> dict[str, int]:
    """Every port by its name, as it is where nothing is set."""
    return {
        name.removesuffix("_port"): StackSettings.model_fields[name].default
        for name in port_fields()
    }


def link_port(link: Link) -> str:
    """The name of a link's port: `order_product_link`."""
    return f"{link.replace('-', '_')}_link"


def port_fields() -> list[str]:
    """Names of the port settings."""
    return [name for name in StackSettings.model_fields if name.endswith("_port")]


def load() -> StackSettings:
    """Settings from the environment; raises UserError naming the first bad variable."""
    try:
        return StackSettings()
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise UserError(first["msg"].removeprefix("Value error, ")) from None
        variable = f"{PREFIX}{'_'.join(map(str, first['loc'])).upper()}"
        raise UserError(f"{variable}: {first['msg']} (got {str(first['input'])!r})") from None
