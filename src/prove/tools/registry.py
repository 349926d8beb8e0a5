"""What there is to build, as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Binary:
    """One executable of a program.

    `package` is its Go main package; `version_args` make it print its version; `path_names` are
    the names it goes by in other distributions, looked for on PATH.
    """

    name: str
    package: str
    version_args: tuple[str, ...] = ("--version",)
    path_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A Go module of this repository and the binaries built from it.

    `version` is the pinned upstream version without its `v`; None for our own programs, which are
    never taken from PATH. `stamp` is the Go variable that gets the version at link time, for
    programs that don't know it by themselves; `stamps` are further ones with their values.
    `components` are the names a Collector found on PATH must list to be fitting. `on_demand`: no
    part of the stack, so built only by what needs it.
    """

    name: str
    directory: str
    binaries: tuple[Binary, ...]
    version: str | None = None
    tags: tuple[str, ...] = ()
    stamp: str | None = None
    stamps: tuple[str, ...] = ()
    components: frozenset[str] = frozenset()
    on_demand: bool = False

    @property
    def build_flags(self) -> tuple[str, ...]:
        """Flags of `go build`: small, reproducible, from go.sum alone."""
        version = (f"{self.stamp}={self.version}",) if self.stamp else ()
        link = " ".join(("-s -w", *(f"-X {setting}" for setting in (*version, *self.stamps))))
        tags = (f"-tags={','.join(self.tags)}",) if self.tags else ()
        return ("-mod=readonly", "-trimpath", *tags, f"-ldflags={link}")


# Go's linker can't read a version from a module that is built from outside its repository.
_KUBERNETES_VERSION = tuple(
    f"{package}.{variable}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for variable, value in (("gitVersion", "v1.34.4"), ("gitMajor", "1"), ("gitMinor", "34"))
)

TOOLS: dict[str, Program] = {
    tool.name: tool
    for tool in (
        Program(
            name="otelcol",
            directory="tools/otelcol",
            version="0.155.0",
            binaries=(Binary("otelcol-prove", ".", path_names=("otelcol-contrib", "otelcol")),),
            components=frozenset(
                {
                    *("otlp", "batch", "memory_limiter", "filter", "redaction", "resource"),
                    *("transform", "otlp_grpc", "otlp_http", "file", "health_check", "hostmetrics"),
                }
            ),
        ),
        Program(
            name="prometheus",
            directory="tools/prometheus",
            version="3.16.0",  # of the Go module v0.316.0
            # Without service discovery for every cloud: a minute of compiling instead of eight.
            tags=("remove_all_sd",),
            stamp="github.com/prometheus/common/version.Version",
            binaries=(
                Binary("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
                Binary("promtool", "github.com/prometheus/prometheus/cmd/promtool"),
            ),
        ),
        Program(
            name="alertmanager",
            directory="tools/alertmanager",
            version="0.31.1",
            stamp="github.com/prometheus/common/version.Version",
            binaries=(
                Binary("alertmanager", "github.com/prometheus/alertmanager/cmd/alertmanager"),
                Binary("amtool", "github.com/prometheus/alertmanager/cmd/amtool"),
            ),
        ),
        Program(
            name="blackbox_exporter",
            directory="tools/blackbox_exporter",
            version="0.28.0",
            stamp="github.com/prometheus/common/version.Version",
            binaries=(Binary("blackbox_exporter", "github.com/prometheus/blackbox_exporter"),),
        ),
        Program(
            name="jaeger",
            directory="tools/jaeger",
            version="1.62.0",
            stamp="github.com/jaegertracing/jaeger/pkg/version.latestVersion",
            binaries=(
                Binary(
                    "jaeger",
                    "github.com/jaegertracing/jaeger/cmd/all-in-one",
                    version_args=("version",),
                    path_names=("jaeger-all-in-one",),
                ),
            ),
        ),
        Program(
            name="victorialogs",
            directory="tools/victorialogs",
            version="1.51.1-0.20260624061259-dc94972a8708",
            stamp="github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version",
            binaries=(
                Binary(
                    "victoria-logs",
                    "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs",
                    path_names=("victoria-logs", "victoria-logs-prod"),
                ),
            ),
        ),
        Program(
            name="k6",
            directory="tools/k6",
            version="1.8.1",
            binaries=(Binary("k6", "go.k6.io/k6", version_args=("version",)),),
        ),
        Program(
            name="toxiproxy",
            directory="tools/toxiproxy",
            version="2.5.0",
            stamp="github.com/Shopify/toxiproxy/v2.Version",
            binaries=(
                Binary(
                    "toxiproxy-server",
                    "github.com/Shopify/toxiproxy/v2/cmd/server",
                    version_args=("-version",),
                ),
            ),
        ),
        Program(
            name="istio",  # ours: what Istio's types say of the chart's objects
            directory="tools/istio",
            binaries=(Binary("istio-check", "."),),
            on_demand=True,
        ),
        Program(
            name="manifests",  # our own, on Kubernetes' API and Pod Security
            directory="tools/manifests",
            version="1.31.14",
            stamp="main.version",
            binaries=(Binary("manifests", "."),),
            on_demand=True,
        ),
        Program(
            name="helm",
            directory="tools/helm",
            version="4.3.2",
            stamp="helm.sh/helm/v4/internal/version.version",
            binaries=(Binary("helm", "helm.sh/helm/v4/cmd/helm", version_args=("version",)),),
            on_demand=True,
        ),
        Program(
            name="prometheus_kubernetes",  # which finds nodes
            directory="tools/prometheus",
            version="3.16.0",
            tags=("remove_all_sd", "enable_kubernetes_sd"),
            stamp="github.com/prometheus/common/version.Version",
            binaries=(Binary("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),),
            on_demand=True,
        ),
        Program(
            name="kube_state_metrics",
            directory="tools/kube_state_metrics",
            version="2.15.0",  # the newest that the checksum database knows
            stamp="github.com/prometheus/common/version.Version",
            binaries=(Binary("kube-state-metrics", "k8s.io/kube-state-metrics/v2", ("version",)),),
            on_demand=True,
        ),
        Program(
            name="kubectl",
            directory="tools/kubernetes",
            version="1.34.4",
            stamps=_KUBERNETES_VERSION,
            binaries=(
                Binary(
                    "kubectl",
                    "k8s.io/kubernetes/cmd/kubectl",
                    version_args=("version", "--client"),
                ),
            ),
            on_demand=True,
        ),
        Program(
            name="kubernetes",
            directory="tools/kubernetes",
            version="1.34.4",
            stamps=_KUBERNETES_VERSION,
            binaries=tuple(
                Binary(name, f"k8s.io/kubernetes/cmd/{name}")
                for name in (
                    "kube-apiserver",
                    "kube-controller-manager",
                    "kube-scheduler",
                    "kubelet",
                    "kube-proxy",
                )
            ),
            on_demand=True,
        ),
        Program(
            name="metrics_server",
            directory="tools/kubernetes",  # shares what Kubernetes is made of
            version="0.8.0",
            stamps=("k8s.io/client-go/pkg/version.gitVersion=v0.8.0",),
            binaries=(Binary("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),),
            on_demand=True,
        ),
        Program(
            name="coredns",
            directory="tools/coredns",
            version="1.15.0",
            binaries=(Binary("coredns", ".", version_args=("-version",)),),
            on_demand=True,
        ),
        Program(
            name="cilium",
            directory="tools/cilium",
            version="1.20.2",
            stamps=("github.com/cilium/cilium/pkg/version.ciliumVersion=1.20.2",),
            binaries=(
                Binary("cilium-agent", "github.com/cilium/cilium/daemon"),
                Binary("cilium-cni", "github.com/cilium/cilium/plugins/cilium-cni", ("VERSION",)),
            ),
            on_demand=True,
        ),
        Program(
            name="kind",
            directory="tools/kind",
            version="0.33.0",
            binaries=(Binary("kind", "sigs.k8s.io/kind"),),
            on_demand=True,
        ),
        Program(
            name="terraform",
            directory="tools/terraform",
            version="1.11.4",
            stamps=("github.com/hashicorp/terraform/version.dev=no",),
            binaries=(Binary("terraform", "github.com/hashicorp/terraform"),),
            on_demand=True,
        ),
        Program(
            name="tflint",
            directory="tools/tflint",
            version="0.64.0",
            binaries=(Binary("tflint", "github.com/terraform-linters/tflint"),),
            on_demand=True,
        ),
        Program(
            name="terraform-docs",
            directory="tools/terraform-docs",
            version="0.22.0",
            binaries=(Binary("terraform-docs", "github.com/terraform-docs/terraform-docs"),),
            on_demand=True,
        ),
    )
}

SERVICES: dict[str, Program] = {
    service.name: service
    for service in (
        Program(
            name="order-service",
            directory="services/order-service",
            binaries=(Binary("order-service", "./cmd/order-service"),),
        ),
        Program(
            name="acquirer",
            directory="simulators/acquirer",
            binaries=(Binary("acquirer", "./cmd/acquirer"),),
        ),
    )
}


def of_the_stack() -> list[Program]:
    """The tools that `up` builds before it starts; the others are built when they are asked for."""
    return [tool for tool in TOOLS.values() if not tool.on_demand]
