"""The registry says what go.mod pins, and what our own modules are made of."""

import re
from pathlib import Path

import pytest

from prove.tools import SERVICES, TOOLS, Program, repository_root
from prove.tools.builder import SOURCE_SUFFIXES, fits, required_go

ROOT = repository_root()


def pins(program: Program) -> dict[str, str]:
    text = (ROOT / program.directory / "go.mod").read_text()
    return dict(re.findall(r"^(?:require)?\s+(\S+) v(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("otelcol", "go.opentelemetry.io/collector/otelcol"),
        ("jaeger", "github.com/jaegertracing/jaeger"),
        ("victorialogs", "github.com/VictoriaMetrics/VictoriaLogs"),
        ("toxiproxy", "github.com/Shopify/toxiproxy/v2"),
        ("alertmanager", "github.com/prometheus/alertmanager"),
        ("blackbox_exporter", "github.com/prometheus/blackbox_exporter"),
        ("k6", "go.k6.io/k6"),
        ("kind", "sigs.k8s.io/kind"),
        ("terraform", "github.com/hashicorp/terraform"),
        ("tflint", "github.com/terraform-linters/tflint"),
        ("terraform-docs", "github.com/terraform-docs/terraform-docs"),
        ("helm", "helm.sh/helm/v4"),
        ("kube_state_metrics", "k8s.io/kube-state-metrics/v2"),
        ("kubectl", "k8s.io/kubernetes"),
        ("kubernetes", "k8s.io/kubernetes"),
        ("metrics_server", "sigs.k8s.io/metrics-server"),
        ("coredns", "github.com/coredns/coredns"),
        ("cilium", "github.com/cilium/cilium"),
    ],
)
def test_a_tool_has_the_version_its_go_mod_pins(name: str, module: str) -> None:
    tool = TOOLS[name]
    assert tool.version == pins(tool)[module]


def test_kubernetes_is_told_the_version_it_was_built_from() -> None:
    # Helm and kubectl compare it; the linker can't know it outside Kubernetes' own repository.
    version = TOOLS["kubernetes"].version
    assert version is not None
    major, minor, _ = version.split(".")
    for name in ("kubernetes", "kubectl"):
        stamps = TOOLS[name].stamps
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            assert f"{package}.gitVersion=v{version}" in stamps
            assert f"{package}.gitMajor={major}" in stamps
            assert f"{package}.gitMinor={minor}" in stamps


def test_manifests_are_checked_by_the_kubernetes_its_go_mod_pins() -> None:
    # Of Kubernetes 1.31.14 the module k8s.io/api is v0.31.14.
    assert TOOLS["manifests"].version == "1" + pins(TOOLS["manifests"])["k8s.io/api"].removeprefix(
        "0"
    )


def test_prometheus_has_the_version_its_go_mod_pins() -> None:
    # As a Go module Prometheus 3.16.0 is v0.316.0.
    version = TOOLS["prometheus"].version
    assert version is not None
    major, minor, patch = version.split(".")
    pinned = pins(TOOLS["prometheus"])["github.com/prometheus/prometheus"]
    assert pinned == f"0.{major}{int(minor):02}.{patch}"


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_is_pinned_by_checksums(name: str) -> None:
    module = ROOT / TOOLS[name].directory
    assert " h1:" in (module / "go.sum").read_text()
    assert re.fullmatch(r"1\.\d+(\.\d+)?", required_go(TOOLS[name]))


def test_the_readme_asks_for_a_go_that_builds_everything() -> None:
    needed = {required_go(program) for program in (TOOLS | SERVICES).values()}
    newest = max(needed, key=lambda version: [int(part) for part in version.split(".")])
    assert f"Go {newest} or newer" in (ROOT / "README.md").read_text()


def test_the_generated_collector_is_of_its_builder_file() -> None:
    module = ROOT / TOOLS["otelcol"].directory
    wanted = re.findall(r"gomod: (\S+) v(\S+)", (module / "builder.yaml").read_text())
    sources = (module / "components.go").read_text() + (module / "main.go").read_text()
    for path, version in wanted:
        assert pins(TOOLS["otelcol"])[path] == version
        assert f'"{path} v{version}"' in sources


def embedded(directory: Path, patterns: list[str]) -> list[Path]:
    matches = [match for pattern in patterns for match in directory.glob(pattern)]
    inside = [file for match in matches if match.is_dir() for file in match.rglob("*")]
    return [file for file in matches + inside if file.is_file()]


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_a_service_embeds_is_in_its_hash(name: str) -> None:
    for source in (ROOT / SERVICES[name].directory).rglob("*.go"):
        for patterns in re.findall(r"^//go:embed (.+)$", source.read_text(), re.MULTILINE):
            for file in embedded(source.parent, patterns.split()):
                assert file.suffix in SOURCE_SUFFIXES, f"{source} embeds {file}"


@pytest.mark.parametrize(
    ("found", "fitting"),
    [
        ("3.16.0", True),
        ("3.16.4", True),
        ("3.20.1", True),
        ("3.16.0-rc.1", True),
        ("3.9.0", False),
        ("2.55.1", False),
        ("4.0.0", False),
    ],
)
def test_a_version_fits_from_the_pinned_minor_to_the_next_major(found: str, fitting: bool) -> None:
    assert fits(found, "3.16.0") is fitting
