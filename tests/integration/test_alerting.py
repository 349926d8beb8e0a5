"""A real Alertmanager with the stack's configuration tells a real webhook; and the stack's own."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from service_kit.testing import PATIENT_S, status_of, wait_until

from prove.stack import configs, observability, state
from prove.stack.settings import StackSettings, on_free_ports
from prove.tools import ensure, repository_root
from tests.support.stack import Stack

SOURCE = repository_root() / "observability"
WEBHOOK, SLACK = "/webhook", "/slack"
GROUP_WAIT = "4s"
"""Long enough for two alerts that were posted at once to be told at once."""

PAYMENTS = {"sloth_id": "payments-errors", "sloth_service": "payments", "team": "payments"}
CHECKOUT = {"sloth_id": "checkout-errors", "sloth_service": "checkout", "team": "orders"}
LATENCY = {"sloth_id": "checkout-latency", "sloth_service": "checkout", "team": "orders"}
CAUSE = {"severity": "ticket", "kind": "cause", "team": "orders"}
PAGE, TICKET = {"sloth_severity": "page"}, {"sloth_severity": "ticket"}


@dataclass
class Alerting:
    """Alertmanager, and what it has posted, by path: bodies in the order of their arrival."""

    stack: Stack
    posted: dict[str, list[Any]] = field(default_factory=lambda: {WEBHOOK: [], SLACK: []})

    def fire(self, *alerts: tuple[str, dict[str, str]], **annotations: str) -> None:
        """As Prometheus does it: by name and labels, several at once."""
        self._post(alerts, {"annotations": annotations})

    def heal(self, *alerts: tuple[str, dict[str, str]]) -> None:
        """As Prometheus does it: the alerts have ended."""
        self._post(alerts, {"endsAt": datetime.now(UTC).isoformat()})

    def _post(self, alerts: Sequence[tuple[str, dict[str, str]]], same: dict[str, Any]) -> None:
        url = f"{self.stack.url('alertmanager')}/api/v2/alerts"
        body = [{"labels": {"alertname": name, **labels}, **same} for name, labels in alerts]
        answer = httpx.post(url, json=body, timeout=PATIENT_S)
        assert answer.status_code == 200, answer.text

    def told(self, receiver: str) -> list[dict[str, list[str]]]:
        """Of each notification to a receiver the alerts by their status."""
        notifications = [body for body in self.posted[WEBHOOK] if body["receiver"] == receiver]
        return [
            {
                status: sorted(
                    alert["labels"]["alertname"]
                    for alert in body["alerts"]
                    if alert["status"] == status
                )
                for status in ("firing", "resolved")
            }
            for body in notifications
        ]

    def wait_for(self, receiver: str, what: dict[str, list[str]]) -> None:
        """Until a notification says exactly this."""
        wanted = {"firing": [], "resolved": [], **what}
        wait_until(lambda: wanted in self.told(receiver), what=f"{receiver} to be told {wanted}")

    def shown(self) -> dict[str, str]:
        """What `provectl alerts` says of each alert that isn't a page."""
        answer = self.stack.run("alerts", "--json", "sloth_severity!=page")
        assert answer.returncode == 0, answer.stderr
        return {each["name"]: each["state"] for each in json.loads(answer.stdout)["alerts"]}


@pytest.fixture
def alerting(tmp_path: Path) -> Iterator[Alerting]:
    """Alertmanager as the stack runs it, but for its patience, with the template for Slack."""
    settings = on_free_ports(tmp_path / "home")
    bodies = Alerting(Stack(settings))
    with _receiving(bodies.posted) as url:
        own = tmp_path / "receivers"
        own.mkdir()
        template = (SOURCE / "alertmanager" / "receivers" / "slack.yaml").read_text()
        (own / "slack.yaml").write_text(template)
        (own / "slack-url").write_text(url + SLACK)
        told = StackSettings.model_validate(
            {
                **settings.model_dump(),
                "alert_webhook_url": url + WEBHOOK,
                "alert_receivers_file": str(own / "slack.yaml"),
            }
        )
        configs.write(told, SOURCE)
        _hasten(told.config_dir / configs.ALERTMANAGER)
        binaries = ensure(*observability.TOOLS)
        (spec,) = (
            spec for spec in observability.processes(told, binaries) if spec.name == "alertmanager"
        )
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(spec.argv, stdout=log, stderr=log)
        try:
            wait_until(lambda: status_of(spec.ready_url) == 200, what="Alertmanager is ready")
            yield bodies
        finally:
            process.terminate()
            process.wait()


def _hasten(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    config["route"] |= {"group_wait": GROUP_WAIT, "group_interval": "1s"}
    file.write_text(yaml.safe_dump(config))


@contextmanager
def _receiving(posted: dict[str, list[Any]]) -> Iterator[str]:
    """A web server that keeps what is posted to it, by path; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted[self.path].append(json.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_pages_of_a_dependency_and_of_its_callers_are_one_notification(
    alerting: Alerting,
) -> None:
    both = ("PaymentsErrors", PAYMENTS | PAGE), ("CheckoutErrors", CHECKOUT | PAGE)
    alerting.fire(*both)

    alerting.wait_for("on-call", {"firing": ["CheckoutErrors", "PaymentsErrors"]})
    assert len(alerting.told("on-call")) == 1

    alerting.heal(*both)

    def all_resolved() -> bool:
        resolved = [name for each in alerting.told("on-call") for name in each["resolved"]]
        return sorted(resolved) == ["CheckoutErrors", "PaymentsErrors"]

    wait_until(all_resolved, what="on-call to be told that both are over")


def test_a_page_mutes_the_ticket_of_its_own_slo_and_nothing_else(alerting: Alerting) -> None:
    alerting.fire(
        ("CheckoutErrors", CHECKOUT | PAGE),
        ("CheckoutErrors", CHECKOUT | TICKET),
        ("CheckoutSlow", LATENCY | TICKET),
        ("PeerBreakerOpen", CAUSE),
    )

    alerting.wait_for("on-call", {"firing": ["CheckoutErrors"]})
    alerting.wait_for("orders", {"firing": ["CheckoutSlow", "PeerBreakerOpen"]})
    assert alerting.shown() == {
        "CheckoutErrors": "inhibited",
        "CheckoutSlow": "firing",
        "PeerBreakerOpen": "firing",
    }

    alerting.heal(("CheckoutErrors", CHECKOUT | PAGE))

    def ticket_is_told() -> bool:
        return any("CheckoutErrors" in each["firing"] for each in alerting.told("orders"))

    wait_until(ticket_is_told, what="the ticket to be told after the page")


def test_what_is_silenced_is_not_told_until_the_silence_is_over(alerting: Alerting) -> None:
    silenced = alerting.stack.run(
        "silence", "add", "CheckoutSlow", "team=orders", "--for", "1h", "--comment", "a test"
    )
    assert silenced.returncode == 0, silenced.stderr
    assert silenced.stdout.splitlines()[1] == "nothing it covers fires now"

    alerting.fire(("CheckoutSlow", LATENCY | TICKET), ("PeerBreakerOpen", CAUSE))
    alerting.wait_for("orders", {"firing": ["PeerBreakerOpen"]})
    assert alerting.shown() == {"CheckoutSlow": "silenced", "PeerBreakerOpen": "firing"}

    listed = json.loads(alerting.stack.run("silence", "list", "--json").stdout)["silences"]
    (silence,) = listed
    assert silence["comment"] == "a test"
    assert silence["matchers"] == ['alertname="CheckoutSlow"', 'team="orders"']

    over = alerting.stack.run("silence", "expire", silence["id"][:8])
    assert over.returncode == 0, over.stderr
    alerting.wait_for("orders", {"firing": ["CheckoutSlow", "PeerBreakerOpen"]})
    assert "There are no silences." in alerting.stack.run("silence", "list").stdout


def test_a_silence_says_what_it_covers_and_one_that_is_none_is_refused(
    alerting: Alerting,
) -> None:
    alerting.fire(("CheckoutSlow", LATENCY | TICKET))
    run: Callable[..., subprocess.CompletedProcess[str]] = alerting.stack.run

    added = json.loads(run("silence", "add", "team=~ord.*", "--comment", "why", "--json").stdout)
    assert added["alerts"] == ["CheckoutSlow"]
    for arguments, said in (
        (["add", "team=~(", "--comment", "x"], "Alertmanager refuses the silence"),
        (["add", "team=~.*", "--comment", "x"], "must not match the empty string"),
        (["add", "two words", "--comment", "x"], "a matcher is label=value"),
        (["add", "team=a", "--comment", "x", "--for", "soon"], "--for wants a duration"),
        (["expire", "ffffffff"], "no silence that holds begins with 'ffffffff'"),
        (["expire"], "name the silences to end, or give --all"),
    ):
        refused = run("silence", *arguments)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1

    ended = json.loads(run("silence", "expire", "--all", "--json").stdout)
    assert ended == {"expired": [added["id"]]}


def test_a_person_is_told_how_bad_it_is_what_it_means_and_where_to_look(
    alerting: Alerting,
) -> None:
    alerting.fire(
        ("CheckoutErrors", CHECKOUT | PAGE),
        title="(page) checkout errors: the error budget burns too fast",
        summary="checkout errors: 20% of events are bad, 1% may be",
        impact="Customers' orders fail.",
        budget_left="97% of 30d",
        runbook_url="docs/runbooks/CheckoutErrors.md",
        dashboard_url="http://127.0.0.1:3000/d/slo/slo?var-slo=checkout-errors&from=now-6h&to=now",
        traces_url="http://127.0.0.1:16686/api/traces?service=order-service&tag=error:true",
    )

    (message,) = wait_until(lambda: alerting.posted[SLACK], what="a message")
    (attachment,) = message["attachments"]
    assert message["channel"] == "#on-call"
    assert attachment["title"] == "1 firing: CheckoutErrors"
    lines = attachment["text"].strip().splitlines()
    first, summary, impact, budget, since, runbook, dashboard, traces = lines
    assert first == "FIRING (page) checkout errors: the error budget burns too fast"
    assert summary == "checkout errors: 20% of events are bad, 1% may be"
    assert impact == "impact: Customers' orders fail."
    assert budget == "budget left: 97% of 30d"
    started = datetime.strptime(since, "since: %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert runbook == "runbook: docs/runbooks/CheckoutErrors.md"
    link, _, times = dashboard.removeprefix("dashboard: ").rpartition("&from=")
    from_ms, _, to = times.partition("&to=")
    assert link == "http://127.0.0.1:3000/d/slo/slo?var-slo=checkout-errors"
    begins = datetime.fromtimestamp(int(from_ms) / 1000, UTC).replace(microsecond=0)
    assert (begins, to) == (started - timedelta(hours=1), "now")
    assert traces.startswith("traces: http://127.0.0.1:16686/api/traces?service=order-service")


def test_the_stack_has_loaded_every_rule_and_asks_everything(stack: Stack) -> None:
    def evaluated() -> list[dict[str, Any]] | None:
        answer = httpx.get(f"{stack.url('prometheus')}/api/v1/rules", timeout=PATIENT_S).json()
        groups: list[dict[str, Any]] = answer["data"]["groups"]
        every = [rule for group in groups for rule in group["rules"]]
        return groups if all(rule["health"] != "unknown" for rule in every) else None

    groups = wait_until(evaluated, what="every rule to have been evaluated", timeout_s=240)

    written = [
        group["name"]
        for file in (SOURCE / "alerts").glob("*.rules.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    assert sorted(group["name"] for group in groups) == sorted(written)
    for rule in (rule for group in groups for rule in group["rules"]):
        assert rule["health"] == "ok", (rule["name"], rule.get("lastError"))

    def all_up() -> set[str] | None:
        answer = httpx.get(f"{stack.url('prometheus')}/api/v1/targets", timeout=PATIENT_S).json()
        targets = answer["data"]["activeTargets"]
        up = all(target["health"] == "up" for target in targets)
        return {target["labels"]["job"] for target in targets} if up else None

    jobs = wait_until(all_up, what="every target to be up")
    assert jobs == {"blackbox", "canary", "alertmanager", "prometheus"}
    url = f"{stack.url('prometheus')}/api/v1/alertmanagers"
    known = httpx.get(url, timeout=PATIENT_S).json()["data"]
    (alertmanager,) = known["activeAlertmanagers"]
    assert alertmanager["url"].startswith(stack.url("alertmanager"))


def test_the_stack_tells_of_its_alerting(stack: Stack) -> None:
    rows = stack.ready()["processes"]
    ready = {row["name"] for row in rows if row["ready"]}
    assert {"alertmanager", "blackbox", "canary"} <= ready

    checks = json.loads(stack.run("doctor", "--json").stdout)["checks"]
    details = " ".join(check["detail"] for check in checks)
    for name in ("alertmanager", "blackbox", "canary"):
        assert f"{name}: in use by this stack" in details
    assert stack.run("alerts").returncode == 0


def test_a_slow_checkout_is_shown_below_the_alert_of_its_slo(stack: Stack) -> None:
    stack.run("data", "import")
    slow = json.loads(stack.run("buy", "--method", "tok_slow", "--json").stdout)
    trace = slow["trace_id"]
    now = datetime.now(UTC)
    alert = {"labels": {"alertname": "CheckoutSlow", **LATENCY, **PAGE}, "annotations": {}}

    def until(end: datetime) -> None:
        answer = httpx.post(
            f"{stack.url('alertmanager')}/api/v2/alerts",
            json=[{**alert, "startsAt": now.isoformat(), "endsAt": end.isoformat()}],
            timeout=PATIENT_S,
        )
        assert answer.status_code == 200, answer.text

    def shown() -> bool:
        found = json.loads(stack.run("alerts", "CheckoutSlow", "--json").stdout)["alerts"]
        return any(trace in each["traces"] for each in found)

    until(now + timedelta(minutes=5))
    try:
        wait_until(shown, what="the trace of the slow checkout below its alert")
        command = stack.run("alerts", "CheckoutSlow").stdout.splitlines()[-1].split("`")[1]
        assert command.startswith("provectl trace ") or "/provectl trace " in command
        assert stack.run("trace", trace).returncode == 0
    finally:
        until(datetime.now(UTC))


def test_a_stack_of_another_profile_is_not_taken_for_the_drill(stack: Stack) -> None:
    answer = stack.run("up", "--drill", "--detach")

    assert answer.returncode == 2
    assert "runs with the standard profile, not the drill one; stop it first" in answer.stderr


def test_a_stack_whose_receivers_are_wrong_is_not_started(tmp_path: Path) -> None:
    stack = Stack.at(tmp_path / "home")
    own = tmp_path / "receivers.yaml"
    own.write_text("receivers: [{name: boss}]")

    answer = stack.run("up", "--detach", env={"PROVE_ALERT_RECEIVERS_FILE": str(own)})

    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].startswith(f"provectl: {own}:1: receivers[0].name: ")
    assert state.load(stack.home) is None
    assert "Traceback" not in answer.stderr
