"""Rules ask for what is there: every series of causes and SLOs, in a real shop."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from service_kit.testing import wait_until

from prove.tools import repository_root
from tests.support.stack import Stack

OBSERVABILITY = repository_root() / "observability"
CAUSES = OBSERVABILITY / "alerts" / "causes.rules.yaml"
DEADLINE_S = 300
# What a healthy shop on this machine can't have, and why.
NOT_HERE = {
    "probe_ssl_earliest_cert_expiry": "nothing is behind TLS",
    **{
        f"envoy_{of}_ssl_certificate_expiration_unix_time_seconds": "no mesh: test_mesh_stack.py"
        for of in ("listener", "cluster")
    },
    **{
        f"otelcol_exporter_{how}_failed_{what}_total": "nothing is lost: test_telemetry_pipeline.py"
        for how in ("send", "enqueue")
        for what in ("spans", "metric_points", "log_records")
    },
}


@pytest.fixture(scope="module")
def busy(stack: Stack) -> Stack:
    """A stack in which an order was bought, and another had to be resumed."""
    imported = stack.run("data", "import")
    assert imported.returncode == 0, imported.stderr
    stack.buy()

    def was_resumed() -> bool:
        """The customer's time ends before the acquirer answers: if the order is begun in time."""
        done = stack.run("buy", "--method", "tok_slow", "--timeout", "1s")
        assert done.returncode in (0, 1), done.stderr
        return bool(metrics.labels("prove_order_recovery_duration_seconds_count"))

    metrics = Metrics(stack.url("prometheus"))
    wait_until(was_resumed, what="an order that is resumed", timeout_s=DEADLINE_S)
    return stack


class Metrics:
    """A Prometheus, asked what queries ask for and what there is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def selectors(self, query: str) -> Iterator[tuple[str, str]]:
        """Each series a query selects, as Prometheus itself reads it: its name, and all of it."""
        found = [self._get("/api/v1/parse_query", query=query)]
        while found:
            node = found.pop()
            if isinstance(node, list):
                found += node
            elif isinstance(node, dict):
                if node.get("type") in ("vectorSelector", "matrixSelector"):
                    matchers = (
                        f"{each['name']}{each['type']}{_quoted(each['value'])}"
                        for each in node["matchers"]
                    )
                    yield node["name"], "{" + ", ".join(matchers) + "}"
                found += node.values()

    def labels(self, selector: str) -> set[str]:
        """The labels of the series of the last hour; none: there are no such series."""
        return set(self._get("/api/v1/labels", **{"match[]": selector}))

    def _get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self._url}{path}", params=parameters, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(CAUSES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_series_of_a_cause_is_there_with_the_labels_told(
    rule: dict[str, Any], busy: Stack
) -> None:
    metrics = Metrics(busy.url("prometheus"))
    selectors = {whole for name, whole in metrics.selectors(rule["expr"]) if name not in NOT_HERE}
    missing: set[str] = set()

    def all_there() -> bool:
        missing.clear()
        missing.update(each for each in selectors if not metrics.labels(each))
        return not missing

    assert selectors or rule["alert"].endswith("CertificateExpiresSoon")
    wait_until(
        all_there,
        what=f"every series that {rule['alert']} asks for",
        timeout_s=DEADLINE_S,
    )
    told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    known = set().union(*map(metrics.labels, selectors), {"exporter"})  # of what is lost
    assert not selectors or told <= known


def test_slo_build_finds_every_histogram_of_the_repositorys_slos(
    busy: Stack, tmp_path: Path
) -> None:
    """Each has series, and a bucket that ends at the objective."""
    specs = sorted(map(str, (OBSERVABILITY / "slos").glob("*.yaml")))

    def all_live() -> bool:
        url = busy.url("prometheus")
        built = busy.run("slo", "build", *specs, "-o", str(tmp_path), "--live", url)
        assert built.returncode == 0, built.stderr
        return "has no live series" not in built.stderr

    wait_until(all_live, what="every histogram of an SLO to have live series", timeout_s=DEADLINE_S)
