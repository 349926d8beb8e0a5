"""What the stack tells Alertmanager and Prometheus, judged by their own tools; and its client."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml

from prove.clients.alertmanager import Alertmanager, Matcher
from prove.errors import UserError
from prove.stack import configs, observability
from prove.stack.settings import StackSettings
from prove.tools import ensure, repository_root

SOURCE = repository_root() / "observability"
RECEIVERS = sorted((SOURCE / "alertmanager" / "receivers").glob("*.yaml"))


def amtool(*arguments: str | Path) -> str:
    """Its output; fails when it does."""
    binary = ensure("alertmanager")["amtool"]
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def written(home: Path, **values: object) -> Path:
    """Where the configuration of a stack with these settings is."""
    settings = StackSettings.model_validate({"home": home, **values})
    configs.write(settings, SOURCE)
    return settings.config_dir


@pytest.mark.parametrize("profile", ["standard", "drill"])
def test_prometheus_and_alertmanager_take_their_configuration(profile: str, tmp_path: Path) -> None:
    config = written(tmp_path, profile=profile, alert_webhook_url="http://127.0.0.1:1/")

    amtool("check-config", config / configs.ALERTMANAGER)
    promtool = ensure("prometheus")["promtool"]
    done = subprocess.run(
        [promtool, "check", "config", config / configs.PROMETHEUS],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 rule files found" in done.stdout


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["sloth_severity=page", "team=orders"], "on-call"),
        (["sloth_severity=page", "team=payments"], "on-call"),
        (["sloth_severity=page", "team=somebody"], "on-call"),
        (["sloth_severity=ticket", "team=orders"], "orders"),
        (["sloth_severity=ticket", "team=payments"], "payments"),
        (["sloth_severity=ticket", "team=catalogue"], "catalogue"),
        (["severity=ticket", "kind=cause", "team=orders"], "orders"),
        (["severity=ticket", "kind=cause", "team=platform"], "platform"),
        (["alertname=Unheard"], "platform"),
    ],
)
def test_an_alert_goes_where_its_severity_and_team_say(labels: list[str], receiver: str) -> None:
    config = f"--config.file={SOURCE / 'alertmanager' / 'alertmanager.yml'}"

    amtool("config", "routes", "test", config, f"--verify.receivers={receiver}", *labels)


def test_every_alert_has_a_receiver_by_its_labels(tmp_path: Path) -> None:
    """A team that no route knows would have its tickets fall to the platform's."""
    config = yaml.safe_load((SOURCE / "alertmanager" / "alertmanager.yml").read_text())
    known = {each["name"] for each in config["receivers"]}
    for file in sorted((SOURCE / "alerts").glob("*.rules.yaml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            recorded = {
                rule["labels"]["team"] for rule in group["rules"] if "team" in rule["labels"]
            }
            assert recorded <= known
            for rule in group["rules"]:
                if rule.get("alert", "").endswith("NoData"):
                    assert rule["labels"]["team"] in known


@pytest.mark.parametrize("profile", ["standard", "drill"])
def test_addresses_are_those_of_the_stack(profile: str, tmp_path: Path) -> None:
    config = written(tmp_path, port_offset=1000, profile=profile)
    texts = {file: file.read_text() for file in config.rglob("*") if file.is_file()}

    prometheus = texts[config / configs.PROMETHEUS]
    assert "http://127.0.0.1:9001/api/v1/products?limit=1" in prometheus
    assert "127.0.0.1:10093" in prometheus
    assert "http://127.0.0.1:17686/" in texts[config / "alerts" / "checkout.rules.yaml"]
    for file in ("checkout.rules.yaml", configs.CAUSES):  # as `provectl grafana` listens
        assert "dashboard_url: http://127.0.0.1:4000/d/" in texts[config / "alerts" / file]
    for default in (3000, 8001, 8003, 9090, 9093, 9115, 9116, 16686):
        assert not [file for file, text in texts.items() if f"127.0.0.1:{default}" in text]


def test_the_drill_has_the_windows_of_the_drill(tmp_path: Path) -> None:
    standard, drill = (
        configs.render(StackSettings(home=tmp_path, profile=profile), SOURCE)
        for profile in ("standard", "drill")
    )

    assert standard["alerts/checkout.rules.yaml"] == (
        SOURCE / "alerts" / "checkout.rules.yaml"
    ).read_text(encoding="utf-8")
    assert "[5s]" in drill["alerts/checkout.rules.yaml"]
    assert "[5m]" not in drill["alerts/checkout.rules.yaml"]
    assert set(standard) == set(drill)
    assert yaml.safe_load(drill[configs.PROMETHEUS])["global"]["evaluation_interval"] == "1s"


def test_alerts_of_the_drill_lead_where_the_operator_says(tmp_path: Path) -> None:
    links = {"runbooks_url": "https://r/{alert}", "dashboard_url": "http://127.0.0.1:3000/{id}"}
    config = written(tmp_path, profile="drill", port_offset=1000, **links)
    text = (config / "alerts" / "checkout.rules.yaml").read_text()

    assert "runbook_url: https://r/CheckoutErrorsNoData\n" in text
    assert "dashboard_url: http://127.0.0.1:3000/checkout-errors\n" in text
    with pytest.raises(UserError, match="a link may use"):
        written(tmp_path, profile="drill", runbooks_url="{x}")


def test_what_is_of_no_use_any_more_is_not_left_behind(tmp_path: Path) -> None:
    config = written(tmp_path)
    (config / "alerts" / "gone.rules.yaml").touch()

    assert not (written(tmp_path) / "alerts" / "gone.rules.yaml").exists()


def test_by_default_nothing_leaves_the_machine(tmp_path: Path) -> None:
    config = yaml.safe_load((written(tmp_path) / configs.ALERTMANAGER).read_text())

    assert all(list(receiver) == ["name"] for receiver in config["receivers"])


@pytest.mark.parametrize("source", RECEIVERS, ids=lambda path: path.stem)
def test_alertmanager_takes_every_template_of_receivers(source: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    own = tmp_path / "own" / "receivers.yaml"
    own.write_text(source.read_text())
    secrets = {line.split(": ")[1] for line in own.read_text().splitlines() if "_file:" in line}
    for name in secrets:
        (own.parent / name).write_text("https://example.com/secret")

    config = written(tmp_path, alert_receivers_file=str(own)) / configs.ALERTMANAGER

    amtool("check-config", config)
    assert "https://example.com/secret" not in config.read_text()
    for name in secrets:
        assert str(own.parent / name) in config.read_text()


def test_the_inbox_of_a_drill_is_told_everything_beside_the_webhook(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/"
    file = written(tmp_path, profile="drill", alert_webhook_url=url) / configs.ALERTMANAGER
    inbox = {
        "url": "http://127.0.0.1:8005/pages",
        "http_config": {"authorization": {"credentials_file": f"{tmp_path}/admin-token"}},
    }
    for receiver in yaml.safe_load(file.read_text())["receivers"]:
        assert receiver["webhook_configs"] == [{"url": url}, inbox]


def test_a_webhook_is_told_everything_and_its_address_is_private(tmp_path: Path) -> None:
    url = "http://127.0.0.1:8000/hook?key=secret"
    file = written(tmp_path, alert_webhook_url=url) / configs.ALERTMANAGER

    config = yaml.safe_load(file.read_text())
    assert all(each["webhook_configs"] == [{"url": url}] for each in config["receivers"])
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("receivers: [{name: boss}]", ":1: receivers[0].name: nobody is called 'boss'; alerts go"),
        ("receivers: [{}]", ":1: receivers[0].name: is required"),
        ("route: {}", ":1: receivers: is required"),
        ("receivers:\n  - name: on-call\n   x: 1", ":3: "),
        ("", "must hold one document with receivers (found 0)"),
        (
            "receivers: [{name: on-call, slack_configs: [{api_url_file: slack-url}]}]",
            "api_url_file: ",
        ),
    ],
)
def test_receivers_that_cannot_be_used_are_one_sentence(
    text: str, told: str, tmp_path: Path
) -> None:
    own = tmp_path / "receivers.yaml"
    own.write_text(text)

    with pytest.raises(UserError) as caught:
        written(tmp_path / "home", alert_receivers_file=str(own))
    assert str(caught.value).startswith(str(own))
    assert told in str(caught.value)


def test_receivers_that_alertmanager_refuses_are_named_with_its_reason(tmp_path: Path) -> None:
    own = tmp_path / "receivers.yaml"
    own.write_text("receivers: [{name: on-call, slack_configs: [{colour: red}]}]")
    settings = StackSettings(home=tmp_path / "home", alert_receivers_file=str(own))

    with pytest.raises(UserError) as caught:
        observability.configure(settings, ensure("alertmanager"))
    assert str(caught.value).startswith(f"{own}: Alertmanager refuses it: ")
    assert "colour" in str(caught.value)


def test_a_file_of_receivers_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ALERT_RECEIVERS_FILE: .* can't be read: No such file"):
        written(tmp_path, alert_receivers_file=str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x/", "http://"])
def test_an_address_that_is_none_is_one_sentence(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PROVE_ALERT_WEBHOOK_URL: must be an address"):
        written(tmp_path, alert_webhook_url=url)


@pytest.mark.parametrize(
    ("text", "matcher"),
    [
        ("CheckoutSlow", 'alertname="CheckoutSlow"'),
        ("team=orders", 'team="orders"'),
        ('team="orders"', 'team="orders"'),
        ("team!=orders", 'team!="orders"'),
        ("team=~a|b", 'team=~"a|b"'),
        ("team!~.+", 'team!~".+"'),
        ("title=a=b", 'title="a=b"'),
        ('title=say "x"', r'title="say \"x\""'),
        ("team=", 'team=""'),
    ],
)
def test_matchers_are_written_as_in_alertmanager(text: str, matcher: str) -> None:
    assert str(Matcher.parse(text)) == matcher
    assert Matcher.parse(str(Matcher.parse("team=~x"))) == Matcher.parse("team=~x")


@pytest.mark.parametrize("text", ["", "=", "two words", "1=x", "a-b"])
def test_what_is_no_matcher_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a matcher is label=value"):
        Matcher.parse(text)


def answering(status: int, body: object) -> Alertmanager:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json=body)

    return Alertmanager("http://127.0.0.1:9093", httpx.MockTransport(answer))


def test_pages_come_before_tickets_and_what_is_muted_says_why() -> None:
    def alert(name: str, labels: dict[str, str], **status: list[str]) -> dict[str, object]:
        return {
            "labels": {"alertname": name, **labels},
            "annotations": {},
            "startsAt": "2026-01-02T03:04:05.000Z",
            "status": {"silencedBy": [], "inhibitedBy": [], "state": "active", **status},
        }

    found = answering(
        200,
        [
            alert("Cause", {"severity": "ticket"}, silencedBy=["1"]),
            alert("Slow", {"sloth_severity": "ticket"}, inhibitedBy=["2"]),
            alert("Slow", {"sloth_severity": "page"}),
        ],
    ).alerts()

    assert [(each.name, each.severity, each.state) for each in found] == [
        ("Slow", "page", "firing"),
        ("Cause", "ticket", "silenced"),
        ("Slow", "ticket", "inhibited"),
    ]
    assert found[0].starts_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_what_alertmanager_refuses_is_told_in_its_words() -> None:
    with pytest.raises(UserError, match=r"refuses the silence: .*bad matcher"):
        answering(400, "bad matcher").silence([], datetime.now(UTC), "me", "why")
    with pytest.raises(UserError, match="did not end silence 1"):
        answering(500, "no").expire("1")


def test_another_server_is_not_taken_for_alertmanager() -> None:
    with pytest.raises(UserError, match="is not the Alertmanager"):
        answering(200, json.loads('[{"labels": 1}]')).alerts()
