"""promtool runs what `provectl slo` makes: the tests it writes, and its committed rules.

The tests written by `slo test` feed stand-in counters. Here the committed rules meet series as the
services send them, so that the queries are tested too; live they are by `provectl verify slos`.
"""

import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from prove.cli import app
from prove.slo import rules, windows
from prove.slo.spec import SLO
from prove.slo.windows import AlertWindows, Pair
from prove.tools import ensure, repository_root

OBSERVABILITY = repository_root() / "observability"
ALERTS = sorted((OBSERVABILITY / "alerts").glob("*.rules.yaml"))
DRILL = OBSERVABILITY / "slos" / "windows" / "drill.yaml"
SPEC = """\
version: prometheus/v1
service: shop
slos:
  - name: errors
    objective: 99
    sli:
      events:
        error_query: sum(rate(bad_total[{{.window}}]))
        total_query: sum(rate(all_total[{{.window}}]))
    alerting: {name: ShopErrors}
  - name: availability
    objective: 90
    sli:
      raw:
        error_ratio_query: 1 - avg(avg_over_time(up[{{.window}}]))
    alerting:
      name: ShopDown
      ticket_alert: {disable: true}
"""
HEALTHY_MIN = 180
"""Long enough for the slow page condition not to precede the quick one."""
PAGES_MIN = 9
"""A total outage at 99%: 14.4 x 1% x 60 min = 8.64 min, at the next evaluation."""


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    binary = ensure("prometheus")["promtool"]
    return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=240)


def slo_test(path: Path, *options: str) -> Result:
    path.write_text(SPEC)
    return CliRunner().invoke(app, ["slo", "test", str(path), "--windows", str(DRILL), *options])


def test_alerts_fire_when_predicted_and_not_otherwise(tmp_path: Path) -> None:
    result = slo_test(tmp_path / "shop.yaml")

    assert result.exit_code == 0, result.output
    assert result.stdout == "shop-errors: holds (17 cases)\nshop-availability: holds (6 cases)\n"


CONDITIONS = {"14.4x": 0, "6x": 1, "3x": 2, "1x": 3}
"""Which of the drill's pairs has the factor."""


@pytest.mark.parametrize("factor", CONDITIONS)
@pytest.mark.parametrize(
    ("change", "word"), [(Fraction(104, 100), "just over"), (Fraction(96, 100), "just under")]
)
def test_a_wrong_threshold_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: str, change: Fraction, word: str
) -> None:
    """One threshold of the generator off by a twenty-fifth, too high or too low."""
    right, broken = rules._threshold, windows.parse(DRILL.read_text(), "").all_pairs
    broken_pair = broken[CONDITIONS[factor]]

    def wrong(slo: SLO, pair: Pair) -> Fraction:
        return right(slo, pair) * (change if pair == broken_pair else 1)

    monkeypatch.setattr(rules, "_threshold", wrong)
    case = f"{word} {factor}"
    result = slo_test(tmp_path / "shop.yaml", "--only", case)

    assert result.exit_code == 1
    assert "shop-errors: does not hold (1 case)" in result.stdout
    assert case in result.stderr


@pytest.mark.parametrize(
    ("part", "broken", "case"),
    [
        # Without the short window an alert goes on long after the fault.
        (r"(rate5s\{[^}]*\}) > 0\.144", r"\1 > -1", "page: total outage"),
        (r">= 3", ">= 0", "page: low traffic"),
        (r">= 3", ">= 4", "page: low traffic"),
        (r"\* 60$", "* 90", "page: low traffic"),
        (r"absent\(", "0 < -absent(", "ticket: no data"),
        (r"for: 10s", "for: 30s", "ticket: no data"),
    ],
)
def test_what_else_breaks_in_the_rules_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, broken: str, case: str
) -> None:
    right = rules.build

    def wrong(slos: list[SLO], windows: AlertWindows, **others: Any) -> str:
        changed, count = re.subn(part, broken, right(slos, windows, **others), flags=re.MULTILINE)
        assert count or "shop-errors" not in changed
        return changed

    monkeypatch.setattr(rules, "build", wrong)
    result = slo_test(tmp_path / "shop.yaml", "--only", case)

    assert result.exit_code == 1
    assert case in result.stderr


@pytest.mark.parametrize("path", ALERTS, ids=lambda path: path.stem)
def test_promtool_takes_the_committed_rules(path: Path) -> None:
    done = promtool("check", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr


def _series(name: str, labels: str, good: int, bad: int) -> dict[str, str]:
    """A counter or gauge: so much a minute (or so high) in health, and after."""
    if name.endswith(("_count", "_bucket")):
        values = f"1000+{good}x{HEALTHY_MIN} {1000 + good * HEALTHY_MIN + bad}+{bad}x60"
    else:
        values = f"{good}x{HEALTHY_MIN} {bad}x60"
    return {"series": f"{name}{{{labels}}}", "values": values}


def _requests(service: str, method: str, route: str) -> list[dict[str, str]]:
    """First all are fast and fine; then half fail at once and half are slow."""
    name = "http_server_request_duration_seconds"
    own = f'service_name="{service}", http_request_method="{method}", http_route="{route}"'
    good, bad = (f'{own}, http_response_status_code="{code}"' for code in (409, 503))
    return [
        _series(f"{name}_count", good, 100, 50),
        _series(f"{name}_bucket", f'{good}, le="0.5"', 100, 0),
        _series(f"{name}_bucket", f'{good}, le="+Inf"', 100, 50),
        _series(f"{name}_count", bad, 0, 50),
        _series(f"{name}_bucket", f'{bad}, le="0.5"', 0, 50),
    ]


# Minutes until each alert pages, at 99% and 95%.
ERRORS_MIN = 18  # 8.64 min / 50%
# Of the hour's requests that are no errors, 100 a minute before and 50 since, over 72% are slow:
SLOW_MIN = 51  # 50 t > 72% (100 (60 - t) + 50 t)
COMMITTED = {
    "checkout": {
        "CheckoutUnavailable": PAGES_MIN,
        "CheckoutErrors": ERRORS_MIN,
        "CheckoutSlow": SLOW_MIN,
        "OrdersStuck": PAGES_MIN,
    },
    "product-reads": {
        "ProductReadsUnavailable": PAGES_MIN,
        "ProductReadsErrors": ERRORS_MIN,
        "ProductReadsSlow": SLOW_MIN,
    },
    "payments": {
        "PaymentsUnavailable": PAGES_MIN,
        "PaymentsErrors": ERRORS_MIN,
        "PaymentsSlow": SLOW_MIN,
    },
}
REQUESTS = {
    "checkout": ("order-service", "POST", "/api/v1/orders"),
    "product-reads": ("product-service", "GET", "/api/v1/products/{sku}"),
    "payments": ("payment-service", "POST", "/api/v1/payments"),
}


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_alerts_see_what_the_services_send(name: str, tmp_path: Path) -> None:
    series = [
        *_requests(*REQUESTS[name]),
        *_requests("other-service", *REQUESTS[name][1:]),
        _series("probe_success", f'probe="{name}"', 1, 0),
        _series("probe_success", 'probe="another"', 1, 1),
        _series("prove_orders_unfinished_oldest_seconds", "", 5, 61),
    ]
    checks = []
    for alert, pages_min in COMMITTED[name].items():
        asked = f'count(ALERTS{{alertname="{alert}", sloth_severity="page"}}) or vector(0)'
        for after_min, firing in ((0, 0), (pages_min - 2, 0), (pages_min + 1, 1)):
            checks.append(
                {
                    "expr": asked,
                    "eval_time": f"{HEALTHY_MIN + after_min}m",
                    "exp_samples": [{"labels": "{}", "value": firing}],
                }
            )
    no_data = 'count(ALERTS{alertname=~".*NoData"}) or vector(0)'
    none = {"expr": no_data, "eval_time": "200m", "exp_samples": [{"labels": "{}", "value": 0}]}
    path = tmp_path / "test.yaml"
    content = {
        "rule_files": [str(OBSERVABILITY / "alerts" / f"{name}.rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [*checks, none]}],
    }
    path.write_text(yaml.safe_dump(content))

    done = promtool("test", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_tells_how_bad_it_is_what_it_means_and_where_to_look(tmp_path: Path) -> None:
    rules_file = OBSERVABILITY / "alerts" / "checkout.rules.yaml"

    def firing(severity: str, bad: str) -> dict[str, object]:
        return {
            "exp_labels": {
                "sloth_severity": severity,
                "sloth_id": "checkout-availability",
                "sloth_service": "checkout",
                "sloth_slo": "availability",
                "team": "orders",
            },
            "exp_annotations": {
                "title": f"({severity}) checkout availability: the error budget burns too fast",
                "summary": f"checkout availability: {bad} of events are bad, 1% may be",
                "impact": "Customers can't place orders; every minute of it is lost revenue.",
                # 28 of 211 minutes' averages were bad, 13 times what may be
                "budget_left": "-1227% of 30d",
                "runbook_url": "docs/runbooks/CheckoutUnavailable.md",
                "dashboard_url": "http://127.0.0.1:3000/d/slo/slo"
                "?var-slo=checkout-availability&from=now-6h&to=now",
                "traces_url": "http://127.0.0.1:16686/api/traces?service=order-service"
                "&operation=POST%20/api/v1/orders&tag=error:true&limit=20",
            },
        }

    alert = {
        "eval_time": f"{HEALTHY_MIN + 30}m",
        "alertname": "CheckoutUnavailable",
        "exp_alerts": [firing("page", "100%"), firing("ticket", "25%")],
    }
    series = [_series("probe_success", 'probe="checkout"', 1, 0)]
    path = tmp_path / "test.yaml"
    content = {
        "rule_files": [str(rules_file)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": [alert]}],
    }
    path.write_text(yaml.safe_dump(content))

    done = promtool("test", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr
