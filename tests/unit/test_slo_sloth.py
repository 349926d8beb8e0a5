"""Specs and windows from Sloth's own repository, unchanged, get the semantics Sloth documents."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from prove.slo import rules, spec, windows
from prove.slo.windows import WORKBOOK, AlertWindows
from prove.tools import ensure

HERE = Path(__file__).parent
SPECS = ("home_wifi", "raw_home_wifi", "kubernetes_apiserver")
CONDITION = re.compile(r"slo:sli_error:ratio_rate(\w+)\{[^}]*\} > ([0-9.]+)\)")

GOOD = "home-wifi-good-wifi-client-satisfaction"
RISK = "home-wifi-risk-wifi-client-satisfaction"
MEAN = "home-wifi-wifi-client-satisfaction"
AVAILABILITY = "k8s-apiserver-requests-availability"
LATENCY = "k8s-apiserver-requests-latency"

# In examples/_gen of Sloth v0.16.0: 14.4, 6, 3 and 1 times 1 - objective.
THIRTY_DAYS = {
    GOOD: ("0.72", "0.3", "0.15", "0.05"),
    RISK: ("0.0144", "0.006", "0.003", "0.001"),
    MEAN: ("0.72", "0.3", "0.15", "0.05"),
    AVAILABILITY: ("0.0144", "0.006", "0.003", "0.001"),
    LATENCY: ("0.144", "0.06", "0.03", "0.01"),
}
# Of examples/windows/7d.yaml: 13.44, 3.5, 1.4 and 0.98 times, since a week's budget is smaller.
SEVEN_DAYS = {
    GOOD: ("0.672", "0.175", "0.07", "0.049"),
    RISK: ("0.01344", "0.0035", "0.0014", "0.00098"),
    MEAN: ("0.672", "0.175", "0.07", "0.049"),
    AVAILABILITY: ("0.01344", "0.0035", "0.0014", "0.00098"),
    LATENCY: ("0.1344", "0.035", "0.014", "0.0098"),
}

WIFI = "unifipoller_client_satisfaction_ratio"
SECONDS = "apiserver_request_duration_seconds"
# Ten clients, of whom two are under 0.75 and one under 0.5; their mean is 0.8.
CLIENTS = ("0.4", "0.6", *["0.875"] * 8)
INPUT = {f'{WIFI}{{client="{n}"}}': f"{each}x400" for n, each in enumerate(CLIENTS)} | {
    'apiserver_request_total{code="200", verb="GET"}': "0+80x400",
    'apiserver_request_total{code="429", verb="GET"}': "0+15x400",
    'apiserver_request_total{code="503", verb="LIST"}': "0+5x400",
    f'{SECONDS}_count{{verb="GET"}}': "0+100x400",
    f'{SECONDS}_bucket{{verb="GET", le="0.4"}}': "0+70x400",
    f'{SECONDS}_bucket{{verb="GET", le="+Inf"}}': "0+100x400",
    f'{SECONDS}_count{{verb="WATCH"}}': "0+900x400",
    f'{SECONDS}_bucket{{verb="WATCH", le="0.4"}}': "0x400",
}
RATIOS = {GOOD: 0.2, RISK: 0.1, MEAN: 0.2, AVAILABILITY: 0.2, LATENCY: 0.3}


def seven_days() -> AlertWindows:
    return windows.parse((HERE / "test_slo_sloth_7d.yml").read_text(), "7d")


def built(name: str, looked_at: AlertWindows) -> str:
    slos = spec.parse((HERE / f"test_slo_sloth_{name}.yml").read_text(), name)
    return rules.build(slos, looked_at, source=name)


def groups(text: str) -> dict[str, list[dict[str, Any]]]:
    """The rules of each SLO by its id."""
    every = yaml.safe_load(text)["groups"]
    return {group["name"].removeprefix("slo-"): group["rules"] for group in every}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(
    ("looked_at", "thresholds"),
    [(WORKBOOK, THIRTY_DAYS), (seven_days(), SEVEN_DAYS)],
    ids=["30d", "7d"],
)
def test_windows_and_thresholds_are_sloths(
    name: str, looked_at: AlertWindows, thresholds: dict[str, tuple[str, ...]]
) -> None:
    for slo_id, made in groups(built(name, looked_at)).items():
        page, ticket = (
            rule for rule in made if "alert" in rule and not rule["alert"].endswith("NoData")
        )
        quick_page, slow_page, quick_ticket, slow_ticket = thresholds[slo_id]
        assert CONDITION.findall(page["expr"]) == [
            ("5m", quick_page),
            ("1h", quick_page),
            ("30m", slow_page),
            ("6h", slow_page),
        ]
        assert CONDITION.findall(ticket["expr"]) == [
            ("2h", quick_ticket),
            ("1d", quick_ticket),
            ("6h", slow_ticket),
            ("3d", slow_ticket),
        ]
        period = "30d" if looked_at is WORKBOOK else "1w"  # as Prometheus, and so Sloth, writes it
        recorded = {rule["record"] for rule in made if "record" in rule}
        assert f"slo:sli_error:ratio_rate{period}" in recorded


@pytest.mark.parametrize("name", SPECS)
def test_labels_are_those_of_the_spec(name: str) -> None:
    content = yaml.safe_load((HERE / f"test_slo_sloth_{name}.yml").read_text())
    for slo, made in zip(content["slos"], groups(built(name, WORKBOOK)).values(), strict=True):
        wanted = {**content["labels"], **slo.get("labels", {})}
        assert all(rule["labels"].items() >= wanted.items() for rule in made if "record" in rule)
        page, ticket, _ = (rule for rule in made if "alert" in rule)
        for rule, given in ((page, "page_alert"), (ticket, "ticket_alert")):
            assert rule["alert"] == slo["alerting"]["name"]
            assert rule["labels"].items() >= slo["alerting"][given]["labels"].items()
            assert rule["annotations"].items() >= slo["alerting"].get("annotations", {}).items()


@pytest.mark.parametrize("name", SPECS)
def test_error_ratios_are_what_the_queries_say(name: str, tmp_path: Path) -> None:
    text = built(name, WORKBOOK)
    (tmp_path / "rules.yaml").write_text(text)
    checks = [
        {
            "expr": f'round(sum(slo:sli_error:ratio_rate{window}{{sloth_id="{slo_id}"}}), 1e-4)',
            "eval_time": "390m",
            "exp_samples": [{"labels": "{}", "value": RATIOS[slo_id]}],
        }
        for slo_id in groups(text)
        for window in ("5m", "1h", "6h")
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": each} for name, each in INPUT.items()],
        "promql_expr_test": checks,
    }
    file = tmp_path / "test.yaml"
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(yaml.safe_dump(content))
    promtool = ensure("prometheus")["promtool"]

    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, timeout=400
    )

    assert done.returncode == 0, done.stdout + done.stderr
