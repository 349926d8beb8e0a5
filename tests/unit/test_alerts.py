"""What alerts say, all of them; and `provectl alerts`, which adds traces of what went wrong."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from prove.cli import app
from prove.clients.alertmanager import Alert, Alertmanager
from prove.clients.prometheus import Exemplar, Prometheus
from prove.errors import UserError
from prove.slo import exemplars
from prove.slo.exemplars import Histogram
from prove.tools import repository_root

ALERTS = repository_root() / "observability" / "alerts"
RULES = [
    rule
    for path in sorted(ALERTS.glob("*.rules.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
FIRED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# That something is missing is the value; 1 would say nothing.
VALUELESS = {"TelemetryAbsent"}
# There can be no traces of it.
TRACELESS = {
    "TelemetryAbsent",
    "TelemetryDropped",
    "DiskFullSoon",
    "CertificateExpiresSoon",
    "MeshCertificateExpiresSoon",
}


def identity(rule: dict[str, Any]) -> str:
    return " ".join((rule["alert"], rule["labels"].get("sloth_severity", "cause")))


@pytest.mark.parametrize("rule", [each for each in RULES if "alert" in each], ids=identity)
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_look(rule: dict[str, Any]) -> None:
    name, said = rule["alert"], rule["annotations"]
    no_data = name.endswith("NoData")
    of_an_slo = "sloth_id" in rule["labels"]

    assert said["title"].startswith(f"({rule['labels'].get('sloth_severity', 'ticket')}) ")
    assert said["summary"]
    assert ("$value" in said["summary"]) is not (no_data or name in VALUELESS)
    assert said["impact"]
    assert ("budget_left" in said) is (of_an_slo and not no_data)
    assert said["runbook_url"] == f"docs/runbooks/{name}.md"
    dashboard = urlsplit(said["dashboard_url"])
    assert dashboard.path.startswith("/d/")
    assert parse_qs(dashboard.query).items() >= {"from": ["now-6h"], "to": ["now"]}.items()
    assert ("traces_url" in said) is not (no_data or name in TRACELESS)
    if "traces_url" in said:
        traces = urlsplit(said["traces_url"])
        assert (traces.port, traces.path) == (16686, "/api/traces")
        assert parse_qs(traces.query)["service"]


def test_the_exceptions_are_alerts_and_documented() -> None:
    names = {rule["alert"] for rule in RULES if "alert" in rule}
    assert names >= TRACELESS | VALUELESS
    reference = (repository_root() / "docs" / "reference" / "alerts.md").read_text()
    assert "missing data, telemetry, disk, certificates" in " ".join(reference.split())


LATENCY = "http_server_request_duration_seconds"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (
            f'sum(rate({LATENCY}_count{{a="b", code=~"5.."}}[5m])) * 300',
            [Histogram(f'{LATENCY}_bucket{{a="b", code=~"5.."}}', 0)],
        ),
        (
            f'sum(rate({LATENCY}_count{{a="b"}}[5m])) -'
            f' sum(rate({LATENCY}_bucket{{a="b", le="0.5"}}[5m]))',
            [Histogram(f'{LATENCY}_bucket{{a="b"}}', 0.5)],
        ),
        (
            f'sum(rate({LATENCY}_bucket{{le="+Inf"}}[5m]) - rate({LATENCY}_bucket{{le="2"}}[5m]))',
            [Histogram(f"{LATENCY}_bucket{{}}", 2)],
        ),
        ('sum(rate(errors_total{a="b"}[5m]))', []),
    ],
)
def test_a_query_of_bad_events_tells_which_observations_are_bad(
    query: str, found: list[Histogram]
) -> None:
    assert list(exemplars.histograms(query)) == found


def prometheus() -> Prometheus:
    """With the committed rules, and exemplars of every histogram: 0.1 s, the newest, to 0.9 s."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/rules":
            recording = [
                {"name": rule["record"], "labels": rule["labels"], "query": rule["expr"]}
                for rule in RULES
                if "record" in rule
            ]
            return httpx.Response(200, json={"data": {"groups": [{"rules": recording}]}})
        of = [
            {
                "labels": {"trace_id": f"{n:032}", "span_id": "1"},
                "value": str(n / 10),
                "timestamp": FIRED.timestamp() - n,
            }
            for n in range(1, 10)
        ]
        of.append({"labels": {}, "value": "9", "timestamp": FIRED.timestamp()})
        series = {"__name__": request.url.params["query"].partition("{")[0]}
        data = [{"seriesLabels": series, "exemplars": of}]
        return httpx.Response(200, json={"data": data})

    return Prometheus("http://127.0.0.1:9090", httpx.MockTransport(answer))


def test_bad_events_are_the_newest_of_the_slos_own_histogram() -> None:
    queries = exemplars.queries(prometheus())
    slow = exemplars.of_bad_events(prometheus(), queries["checkout-latency"], 0, 1)
    failed = exemplars.of_bad_events(prometheus(), queries["checkout-errors"], 0, 1)

    assert "checkout-availability" not in queries  # a ratio of probes
    assert [each.value for each in slow] == [0.6, 0.7, 0.8]
    assert [each.value for each in failed] == [0.1, 0.2, 0.3]


def firing(name: str, slo: str, severity: str) -> Alert:
    return Alert.model_validate(
        {
            "labels": {"alertname": name, "sloth_id": slo, "sloth_severity": severity},
            "annotations": {"summary": "bad"},
            "startsAt": FIRED,
            "status": {"silencedBy": [], "inhibitedBy": []},
        }
    )


@pytest.fixture
def fired(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    alerts = [
        firing("CheckoutSlow", "checkout-latency", "page"),
        firing("CheckoutUnavailable", "checkout-availability", "page"),
        firing("PaymentsSlowNoData", "payments-latency", "ticket"),
    ]
    monkeypatch.setattr(Alertmanager, "alerts", lambda *_: alerts)


def shown(*arguments: str) -> tuple[str, str]:
    result = CliRunner().invoke(app, ["alerts", *arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout, result.stderr


def test_alerts_of_slos_come_with_traces_of_bad_events(
    fired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    def of_bad_events(_: Prometheus, query: str, start_s: float, __: float) -> list[Exemplar]:
        asked.append((query, start_s))
        return [Exemplar({}, {"trace_id": trace}, 0.7, FIRED.timestamp())]

    queries = {"checkout-latency": "slow", "payments-latency": "slow as well"}
    monkeypatch.setattr(exemplars, "queries", lambda _: queries)
    monkeypatch.setattr(exemplars, "of_bad_events", of_bad_events)

    text, _ = shown()
    assert text.splitlines()[-2:] == [
        "CheckoutSlow, for example:",
        f"  03:04:05 UTC  `provectl trace {trace}`",
    ]
    assert max(map(len, text.splitlines())) <= 100
    assert asked == [("slow", FIRED.timestamp() - 3600)]
    found = json.loads(shown("--json")[0])["alerts"]
    assert [each["traces"] for each in found] == [[trace], [], []]


def test_without_prometheus_alerts_are_shown_without_traces(
    fired: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Prometheus) -> dict[str, str]:
        raise UserError("it does not answer")

    monkeypatch.setattr(exemplars, "queries", refuse)
    text, note = shown("--json")

    assert len(json.loads(text)["alerts"]) == 3
    assert note == "note: no traces are shown: it does not answer\n"
