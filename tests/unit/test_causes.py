"""promtool runs every rule of causes: silent before its threshold, firing past it, never a page."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from prove.tools import ensure, repository_root

RULES = repository_root() / "observability" / "alerts" / "causes.rules.yaml"
HOUR_MIN = 60


@dataclass(frozen=True)
class Case:
    """Series of one sample a minute; the minutes at which the alert must be silent, and fire.

    `labels` are those a firing alert has besides its rule's own.
    """

    alert: str
    series: dict[str, str]
    silent_min: tuple[int, ...]
    firing_min: tuple[int, ...]
    labels: dict[str, str]


ORDER = 'service_name="order-service", service_instance_id="order-1"'
JAEGER = "exporter='otlp_grpc/jaeger'"
PAYMENT = "prove_peer='payment-service'"
PRODUCT = 'service_name="product-service", service_instance_id="product-1"'
ROOT = 'mountpoint="/", device="vda"'
CPU = "process_cpu_time_seconds_total"
ALIVE = {
    f'{CPU}{{service_name="{name}-service", service_instance_id="{name}-0"}}': "0+1x120"
    for name in ("product", "order", "payment")
} | {'otelcol_process_uptime_seconds_total{service_name="otelcol-prove"}': "0+60x120"}

CASES = {
    "a Python process on all of its core": Case(
        "ServiceSaturated",
        # 30 s of CPU a minute, then 57
        {f"{CPU}{{{PRODUCT}, type='user'}}": "0+30x20 600+57x40"},
        silent_min=(20, 28),
        firing_min=(40,),
        labels={"service_name": "product-service", "service_instance_id": "product-1"},
    ),
    "a Go process on all of two cores": Case(
        "ServiceSaturated",
        {
            f"{CPU}{{{ORDER}, cpu_mode='user'}}": "0+57x20 1140+114x40",
            f"go_processor_limit{{{ORDER}}}": "2x60",
        },
        silent_min=(20, 28),
        firing_min=(40,),
        labels={"service_name": "order-service", "service_instance_id": "order-1"},
    ),
    "a breaker that opens and tries again": Case(
        "PeerBreakerOpen",
        {f"prove_peer_breaker_state{{{ORDER}, {PAYMENT}}}": "0x9 1 2 1 2 1 2 0x9"},
        silent_min=(9, 11, 20),
        firing_min=(13, 15),
        labels={"service_name": "order-service", "prove_peer": "payment-service"},
    ),
    "one process after the other": Case(
        "ServiceCrashLooping",
        {
            f"{CPU}{{service_name='order-service', service_instance_id='order-{n}'}}": (
                f"_x{2 * n} 1 2 _x100"
            )
            for n in range(20, 24)
        },
        silent_min=(41, 45),
        firing_min=(47, 48),
        labels={"service_name": "order-service"},
    ),
    "orders resumed late": Case(
        "OrderRecoverySlow",
        {
            "prove_order_recovery_duration_seconds_bucket{le='30'}": "0+10x20 200x40",
            "prove_order_recovery_duration_seconds_bucket{le='60'}": "0+10x20 200+10x40",
            "prove_order_recovery_duration_seconds_bucket{le='+Inf'}": "0+10x20 200+10x40",
        },
        silent_min=(20, 24),
        firing_min=(30,),
        labels={},
    ),
    "an exporter that fails": Case(
        "TelemetryDropped",
        {
            f"otelcol_exporter_send_failed_spans_total{{{JAEGER}}}": "0x20 10+10x30",
            f"otelcol_exporter_enqueue_failed_spans_total{{{JAEGER}}}": "0x50",
            "otelcol_exporter_send_failed_log_records_total{exporter='otlp_http/logs'}": "0x50",
        },
        silent_min=(20, 24),
        firing_min=(30,),
        labels={"exporter": "otlp_grpc/jaeger"},
    ),
    "a queue that is full": Case(
        "TelemetryDropped",
        {
            f"otelcol_exporter_send_failed_spans_total{{{JAEGER}}}": "0x50",
            f"otelcol_exporter_enqueue_failed_spans_total{{{JAEGER}}}": ("0x20 10+10x30"),
        },
        silent_min=(20, 24),
        firing_min=(30,),
        labels={"exporter": "otlp_grpc/jaeger"},
    ),
    "a service that is silent": Case(
        "TelemetryAbsent",
        {name: values for name, values in ALIVE.items() if "payment" not in name}
        | {f'{CPU}{{service_name="payment-service"}}': "0+1x20"},
        silent_min=(20, 28),
        firing_min=(32,),
        labels={"service_name": "payment-service"},
    ),
    "a Collector that is silent": Case(
        "TelemetryAbsent",
        {name: values for name, values in ALIVE.items() if "otelcol" not in name},
        silent_min=(4,),
        firing_min=(11,),
        labels={"service_name": "otelcol-prove"},
    ),
    "a disk that fills up": Case(
        "DiskFullSoon",
        {
            # 1000 of 10000 bytes free for an hour; then 5 a minute go, and 240 minutes are 1200
            f"system_filesystem_usage_bytes{{{ROOT}, state='free'}}": "1000x60 1000-5x140",
            f"system_filesystem_usage_bytes{{{ROOT}, state='used'}}": "9000x60 9000+5x140",
        },
        silent_min=(60, 80),
        firing_min=(150, 190),
        labels={"mountpoint": "/", "device": "vda"},
    ),
    "a certificate of its last fortnight": Case(
        "CertificateExpiresSoon",
        {
            "probe_ssl_earliest_cert_expiry{instance='https://shop'}": (
                f"{14 * 86400 + HOUR_MIN * 60}x120"
            )
        },
        silent_min=(59,),
        firing_min=(61,),
        labels={"instance": "https://shop"},
    ),
    "a certificate of the mesh that isn't renewed": Case(
        "MeshCertificateExpiresSoon",
        {
            f"envoy_{where}_ssl_certificate_expiration_unix_time_seconds"
            f"{{envoy_tls_certificate='{name}'}}": f"{hours * 3600}x120"
            for where, name, hours in (
                ("listener", "payment", 7),
                ("cluster", "payment", 7),
                ("cluster", "edge", 24),
            )
        },
        silent_min=(59,),
        firing_min=(61,),
        labels={"envoy_tls_certificate": "payment"},
    ),
}
QUIET = {
    "much space, filling fast": {
        f"system_filesystem_usage_bytes{{{ROOT}, state='free'}}": "9000-30x120",
        f"system_filesystem_usage_bytes{{{ROOT}, state='used'}}": "1000+30x120",
    },
    "two workers of a service replaced": {
        f"{CPU}{{service_name='product-service', service_instance_id='product-{n}'}}": values
        for n, values in enumerate(("0+1x30", "0+1x32", "_x30 0+1x60", "_x32 0+1x60"))
    },
    "a breaker that opened once": {f"prove_peer_breaker_state{{{ORDER}, {PAYMENT}}}": "0x9 1 0x90"},
    "all is well": ALIVE,
}


def rules() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def run(directory: Path, series: dict[str, str], checks: list[dict[str, Any]]) -> str:
    """What promtool says against it; empty when all checks hold."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": each} for name, each in series.items()],
        "promql_expr_test": checks,
    }
    file = directory / "test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [test]})
    )
    promtool = ensure("prometheus")["promtool"]
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, timeout=400
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def fires(alert: str, minute: int, labels: dict[str, str] | None) -> dict[str, Any]:
    """Whether exactly this alert fires, with exactly these labels; None: it doesn't."""
    expected = []
    if labels is not None:
        every = {"alertname": alert, "alertstate": "firing", **rules()[alert]["labels"], **labels}
        shown = ", ".join(f'{name}="{value}"' for name, value in sorted(every.items()))
        expected = [{"labels": f"ALERTS{{{shown}}}", "value": 1}]
    return {
        "expr": f'ALERTS{{alertname="{alert}", alertstate="firing"}}',
        "eval_time": f"{minute}m",
        "exp_samples": expected,
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_cause_is_told_in_time_and_not_before(case: Case, tmp_path: Path) -> None:
    checks = [fires(case.alert, minute, None) for minute in case.silent_min]
    checks += [fires(case.alert, minute, case.labels) for minute in case.firing_min]

    assert run(tmp_path, case.series, checks) == ""


def test_all_that_is_lost_on_one_way_is_counted(tmp_path: Path) -> None:
    series = {
        f"otelcol_exporter_{how}_failed_{what}_total{{{JAEGER}}}": "0+60x40"
        for how, what in (("send", "spans"), ("enqueue", "spans"), ("send", "log_records"))
    }
    value = {"labels": '{exporter="otlp_grpc/jaeger"}', "value": 3}
    check = {"expr": rules()["TelemetryDropped"]["expr"], "eval_time": "30m"}

    assert run(tmp_path, series, [{**check, "exp_samples": [value]}]) == ""


@pytest.mark.parametrize("series", QUIET.values(), ids=QUIET)
def test_what_is_no_cause_is_not_told(series: dict[str, str], tmp_path: Path) -> None:
    others = set(rules()) - ({"TelemetryAbsent"} if series is not ALIVE else set())
    checks = [fires(alert, minute, None) for alert in others for minute in (35, 60, 100)]

    assert run(tmp_path, series, checks) == ""


def test_every_cause_has_a_case() -> None:
    assert {case.alert for case in CASES.values()} == set(rules())


@pytest.mark.parametrize("alert", rules())
def test_a_cause_is_a_ticket_that_says_what_it_means_and_where_to_look(alert: str) -> None:
    rule = rules()[alert]

    assert rule["labels"]["severity"] == "ticket"
    assert rule["labels"]["kind"] == "cause"
    assert "sloth_severity" not in rule["labels"]  # by which notifications page
    assert "$value" in rule["annotations"]["summary"] or alert == "TelemetryAbsent"
    assert rule["annotations"]["impact"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{alert}.md"
    assert "from=now-6h&to=now" in rule["annotations"]["dashboard_url"]
