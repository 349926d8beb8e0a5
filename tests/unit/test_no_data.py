"""promtool runs the alerts for missing data: a quiet shop has data, a silent one has none."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from prove.tools import ensure, repository_root

ALERTS = repository_root() / "observability" / "alerts"
COUNTER = "http_server_request_duration_seconds_count"
ROUTES = {
    "checkout": ("order-service", "POST", "/api/v1/orders"),
    "product-reads": ("product-service", "GET", "/api/v1/products/{sku}"),
    "payments": ("payment-service", "POST", "/api/v1/payments"),
}
HEARD_MIN = 30
# Minutes of silence: the window runs empty, then the alert waits. As docs/runbooks/README.md says.
TOLD_MIN = 15
GAUGE_TOLD_MIN = 20


def series(name: str, values: str) -> list[dict[str, str]]:
    service, method, route = ROUTES[name]
    labels = (
        f'service_name="{service}", http_request_method="{method}", http_route="{route}", '
        'http_response_status_code="200"'
    )
    return [
        {"series": f"{COUNTER}{{{labels}}}", "values": values},
        {"series": f'probe_success{{probe="{name}"}}', "values": values},
        {"series": "prove_orders_unfinished_oldest_seconds", "values": values},
    ]


def told(alert: str, minute: int, *, firing: bool) -> dict[str, Any]:
    fires = f'ALERTS{{alertname=~"{alert}", alertstate="firing"}}'
    return {
        "expr": f"count({fires}) or vector(0)",
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": "{}", "value": int(firing)}],
    }


def run(
    directory: Path, name: str, inputs: list[dict[str, str]], checks: list[dict[str, Any]]
) -> str:
    """What promtool says against it; empty when all checks hold."""
    test = {"interval": "1m", "input_series": inputs, "promql_expr_test": checks}
    file = directory / "test.yaml"
    content = {
        "rule_files": [str(ALERTS / f"{name}.rules.yaml")],
        "evaluation_interval": "30s",
        "tests": [test],
    }
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [ensure("prometheus")["promtool"], "test", "rules", file],
        capture_output=True,
        text=True,
        timeout=400,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("name", ROUTES)
def test_counters_that_stand_still_are_data(name: str, tmp_path: Path) -> None:
    checks = [told(".*NoData", minute, firing=False) for minute in (30, 60, 120)]

    assert run(tmp_path, name, series(name, "1x130"), checks) == ""


@pytest.mark.parametrize("name", ROUTES)
def test_series_that_end_are_told_when_the_runbooks_say(name: str, tmp_path: Path) -> None:
    text = (ALERTS / f"{name}.rules.yaml").read_text()
    alerts = [
        rule["alert"]
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if rule.get("alert", "").endswith("NoData")
    ]
    checks = []
    for alert in alerts:
        after_min = GAUGE_TOLD_MIN if alert == "OrdersStuckNoData" else TOLD_MIN
        checks += [
            told(alert, HEARD_MIN + after_min - 2, firing=False),
            told(alert, HEARD_MIN + after_min + 1, firing=True),
        ]

    assert checks
    assert run(tmp_path, name, series(name, f"1x{HEARD_MIN}"), checks) == ""
