"""The servers that watch the shop, as processes of the local stack.

Everything listens on loopback, tells nobody about its use, and is bounded in memory: GOMEMLIMIT is
soft, so each server also has the setting that bounds what it keeps.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from prove.errors import UserError
from prove.stack import configs
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec
from prove.tools import repository_root

TOOLS = (
    "otelcol",
    "prometheus",
    "jaeger",
    "victorialogs",
    "alertmanager",
    "blackbox_exporter",
)
"""The tools whose binaries `processes` needs: `prove.tools.ensure(*TOOLS)`."""

HOST = "127.0.0.1"
UNUSED = f"{HOST}:0"
"""For listeners that can't be turned off: a port of the kernel's choice."""


def span_file(settings: StackSettings) -> Path:
    """The latest spans, as lines of OTLP JSON; rotated ones lie beside it, named by time."""
    return settings.data_dir / "spans" / "spans.jsonl"


def processes(settings: StackSettings, binaries: Mapping[str, Path]) -> list[ProcessSpec]:
    """Specs of the observability servers.

    The Collector starts after its stores and stops before them, so that what it holds gets there.
    Their configuration is `configure`d before they start; of the repository's files only the
    Collector's is used as it is, since it takes the addresses from its environment.

    `binaries` holds the path of each binary by its name. Raises UserError outside a checkout.
    """
    collector = _sources() / "collector" / "collector.yaml"
    return [
        _prometheus(settings, binaries["prometheus"]),
        _alertmanager(settings, binaries["alertmanager"]),
        _blackbox(settings, binaries["blackbox_exporter"]),
        _jaeger(settings, binaries["jaeger"]),
        _victorialogs(settings, binaries["victoria-logs"]),
        _collector(settings, binaries["otelcol-prove"], collector),
        _canary(settings),
    ]


def configure(settings: StackSettings, binaries: Mapping[str, Path]) -> None:
    """Write what the servers are told, before they are started.

    Raises UserError for receivers of alerts that can't be used, and outside a checkout.
    """
    configs.write(settings, _sources())
    if not settings.alert_receivers_file:
        return
    file = settings.config_dir / configs.ALERTMANAGER
    check: list[str | Path] = [binaries["amtool"], "check-config", file]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join((done.stdout.partition("FAILED: ")[2] or done.stderr).split())
        raise UserError(f"{settings.alert_receivers_file}: Alertmanager refuses it: {reason}")


def _sources() -> Path:
    return repository_root() / "observability"


def _prometheus(settings: StackSettings, binary: Path) -> ProcessSpec:
    port = settings.prometheus_port
    return ProcessSpec(
        name="prometheus",
        argv=(
            str(binary),
            f"--config.file={settings.config_dir / configs.PROMETHEUS}",
            f"--web.listen-address={HOST}:{port}",
            f"--web.external-url={settings.url(port)}",  # where an alert says it is from
            f"--storage.tsdb.path={settings.data_dir / 'prometheus'}",
            "--storage.tsdb.retention.time=31d",  # the period of the SLOs, where there is room
            f"--storage.tsdb.retention.size={settings.metrics_max_mb}MB",
            "--web.enable-otlp-receiver",
            # Without the second, a counter that is born at 1 never increases.
            "--enable-feature=exemplar-storage,created-timestamp-zero-ingestion",
            "--no-auto-gomemlimit",
            "--log.level=warn",
            "--log.format=json",
        ),
        env={"GOMEMLIMIT": "110MiB"},
        ready_url=f"{settings.url(port)}/-/ready",
        ports=(port,),
        group="observability",
    )


def _alertmanager(settings: StackSettings, binary: Path) -> ProcessSpec:
    port = settings.alertmanager_port
    return ProcessSpec(
        name="alertmanager",
        argv=(
            str(binary),
            f"--config.file={settings.config_dir / configs.ALERTMANAGER}",
            f"--web.listen-address={HOST}:{port}",
            f"--web.external-url={settings.url(port)}",
            f"--storage.path={settings.data_dir / 'alertmanager'}",
            "--cluster.listen-address=",  # alone: it listens for no peers
            "--data.retention=48h",
            "--alerts.per-alertname-limit=1000",
            "--log.level=warn",
            "--log.format=json",
        ),
        env={"GOMEMLIMIT": "40MiB"},
        ready_url=f"{settings.url(port)}/-/ready",
        ports=(port,),
        group="observability",
    )


def _blackbox(settings: StackSettings, binary: Path) -> ProcessSpec:
    port = settings.blackbox_port
    return ProcessSpec(
        name="blackbox",
        argv=(
            str(binary),
            f"--config.file={settings.config_dir / configs.BLACKBOX}",
            f"--web.listen-address={HOST}:{port}",
            "--timeout-offset=0.1",  # of a drill's scrape, which has a second
            "--history.limit=10",
            "--log.level=warn",
            "--log.format=json",
        ),
        env={"GOMEMLIMIT": "30MiB"},
        ready_url=f"{settings.url(port)}/-/healthy",
        ports=(port,),
        group="observability",
        needs=("product", "payment"),  # or every start would be an outage
    )


def _canary(settings: StackSettings) -> ProcessSpec:
    port = settings.canary_port
    interval_s, timeout_s = (1, 5) if settings.profile == "drill" else (15, 10)
    return ProcessSpec(
        name="canary",
        argv=(
            sys.executable,
            "-m",
            "prove.canary",
            f"--port={port}",
            f"--products={settings.url(settings.product_port)}",
            f"--orders={settings.url(settings.order_port)}",
            f"--interval={interval_s}",
            f"--timeout={timeout_s}",
        ),
        ready_url=f"{settings.url(port)}/-/ready",
        ports=(port,),
        group="observability",
        needs=("order",),
    )


def _jaeger(settings: StackSettings, binary: Path) -> ProcessSpec:
    otlp = f"{HOST}:{settings.jaeger_otlp_port}"
    return ProcessSpec(
        name="jaeger",
        argv=(
            str(binary),
            "--memory.max-traces=1500",
            f"--collector.otlp.grpc.host-port={otlp}",
            f"--collector.otlp.http.host-port={UNUSED}",
            f"--collector.grpc-server.host-port={UNUSED}",
            f"--collector.http-server.host-port={UNUSED}",
            f"--query.http-server.host-port={HOST}:{settings.jaeger_port}",
            f"--query.grpc-server.host-port={UNUSED}",
            f"--admin.http.host-port={HOST}:{settings.jaeger_admin_port}",
            # The agent of old clients; it wants a collector to talk to.
            f"--reporter.grpc.host-port={otlp}",
            f"--http-server.host-port={UNUSED}",
            f"--processor.jaeger-binary.server-host-port={UNUSED}",
            f"--processor.jaeger-compact.server-host-port={UNUSED}",
            f"--processor.zipkin-compact.server-host-port={UNUSED}",
            "--log-level=warn",
        ),
        # It would trace itself, to whatever listens on the default OTLP port.
        env={"GOMEMLIMIT": "180MiB", "OTEL_TRACES_SAMPLER": "always_off"},
        ready_url=settings.url(settings.jaeger_admin_port),
        ports=(settings.jaeger_port, settings.jaeger_otlp_port, settings.jaeger_admin_port),
        group="observability",
    )


def _victorialogs(settings: StackSettings, binary: Path) -> ProcessSpec:
    port = settings.victorialogs_port
    return ProcessSpec(
        name="victorialogs",
        argv=(
            str(binary),
            f"-httpListenAddr={HOST}:{port}",
            f"-storageDataPath={settings.data_dir / 'victorialogs'}",
            "-retentionPeriod=2d",
            "-retention.maxDiskSpaceUsageBytes=512MB",
            "-memory.allowedBytes=32MiB",
            "-loggerLevel=WARN",
            "-loggerFormat=json",
        ),
        env={"GOMEMLIMIT": "60MiB"},
        ready_url=f"{settings.url(port)}/health",
        ports=(port,),
        group="observability",
    )


def _collector(settings: StackSettings, binary: Path, config: Path) -> ProcessSpec:
    return ProcessSpec(
        name="collector",
        argv=(str(binary), f"--config={config}"),
        env={
            "GOMEMLIMIT": "110MiB",
            "COLLECTOR_OTLP_GRPC": f"{HOST}:{settings.otlp_grpc_port}",
            "COLLECTOR_OTLP_HTTP": f"{HOST}:{settings.otlp_http_port}",
            "COLLECTOR_HEALTH": f"{HOST}:{settings.collector_health_port}",
            "JAEGER_OTLP": f"{HOST}:{settings.jaeger_otlp_port}",
            "PROMETHEUS_URL": settings.url(settings.prometheus_port),
            "VICTORIALOGS_URL": settings.url(settings.victorialogs_port),
            "SPAN_FILE": str(span_file(settings)),
            "DEPLOYMENT_ENVIRONMENT": "local",
        },
        ready_url=settings.url(settings.collector_health_port),
        ports=(
            settings.otlp_grpc_port,
            settings.otlp_http_port,
            settings.collector_health_port,
        ),
        group="observability",
        needs=("prometheus", "jaeger", "victorialogs"),
    )
