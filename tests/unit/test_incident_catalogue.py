"""The catalogue is whole, and what is wrong with a scenario is told by file, line and field."""

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import click.testing
import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.errors import UserError
from prove.incident import catalogue, lint, schema
from prove.incident.catalogue import Entry

GIVEN = catalogue.directory() / "order-release-errors.yaml"


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    return catalogue.load()


def changed(tmp_path: Path, old: str, new: str, name: str = "changed.yaml") -> Path:
    """A copy of a good scenario with one change."""
    text = GIVEN.read_text()
    assert old in text
    path = tmp_path / name
    path.write_text(text.replace(old, new, 1))
    return path


def problems(path: Path) -> list[str]:
    try:
        return lint.check(catalogue.read(path), catalogue.objectives("drill"))
    except UserError as error:
        return str(error).splitlines()


def test_there_are_two_dozen_scenarios_and_some_of_each_family(entries: dict[str, Entry]) -> None:
    assert len(entries) >= 24
    families = Counter(entry.prove.family for entry in entries.values())
    assert set(families) == set(get_args(schema.Family))
    assert min(families.values()) >= 4


def test_nothing_is_wrong_with_any(entries: dict[str, Entry]) -> None:
    objectives = catalogue.objectives("drill")
    found = [problem for entry in entries.values() for problem in lint.check(entry, objectives)]
    assert not found + lint.check_together(entries.values())


def test_the_schema_is_up_to_date() -> None:
    # `provectl incident schema > incidents/scenario.schema.json`
    kept = json.loads((catalogue.directory() / catalogue.SCHEMA).read_text())
    assert kept == schema.json_schema()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # chaostoolkit's
@pytest.mark.parametrize("path", catalogue.files(), ids=lambda path: path.stem)
def test_chaos_toolkit_takes_it_for_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import chaostoolkit.cli

    monkeypatch.setenv("PROVE_ADMIN_TOKEN", "none")
    arguments = ["--no-version-check", "--no-log-file", "validate", str(path)]
    told = click.testing.CliRunner().invoke(chaostoolkit.cli.cli, arguments)
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("title: Half", "titel: Half", "changed.yaml:3: titel: is not a field of this form"),
        ("family: change", "family: chance", "extensions[0].family: Input should be"),
        ("bad: 0.5", "bad: 1.5", "expect.pages[0].bad: Input should be less than or equal to 1"),
        ("bad: 0.5", "bad: 0.05", "expect.pages[0].bad: at this share there is never a page"),
        ("slo: checkout-errors", "slo: checkout-error", "pages[0].slo: there is no such SLO"),
        ("rate: 0.5", "rate: 2", "method[0].provider.arguments.params.rate: Input should be"),
        ("type: error", "type: errors", "method[0].provider.arguments"),
        ("status: 500", "state: 500", "arguments.params.state: Extra inputs are not permitted"),
        ("ttl_s: 120", "ttl_s: 20", "arguments.ttl_s: must be at least"),
        ("Bearer ${token}", "Bearer 1234", 'must have `Authorization: "Bearer ${token}"`'),
        ("application/json", "text/plain", "must have `Content-Type: application/json`"),
        ("url: ${order_url}/faults/", "url: http://a/faults/", "must begin with a URL of the"),
        ("method: DELETE", "method: GET", "must be undone by a rollback"),
        ("key: PROVE_ORDER_URL", "key: PROVE_URL", "configuration.order_url.key: must be"),
        ("works: true", "works: false", "must have one that works and one that looks right"),
        ("service: order-service", "service: orders", "truth.service: must be one of"),
        ("seen:", "sean:", "is not a field of this form"),
    ],
)
def test_what_is_wrong_is_told_by_file_line_and_field(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    if old == "seen:":
        path = changed(tmp_path, "customers:", "sean: []\n      customers:")
    else:
        path = changed(tmp_path, old, new)
    found = "\n".join(problems(path))
    assert told in found
    assert "changed.yaml:" in found


def test_a_fault_that_nothing_would_show_is_no_scenario(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    text = (catalogue.directory() / "prometheus-down.yaml").read_text()
    begin, end = text.index("      customers:"), text.index("    truth:")
    path.write_text(text[:begin] + text[end:])
    assert "`seen` or `customers` must show that the fault took place" in problems(path)[0]


def test_two_scenarios_must_not_share_a_lease(tmp_path: Path) -> None:
    path = changed(tmp_path, "title: Half", "title: The half", name="other.yaml")
    found = lint.check_together([catalogue.read(GIVEN), catalogue.read(path)])
    assert "order-release-errors has a lease called order-release-errors, too" in found[0]


def test_an_unknown_name_is_told_with_those_like_it() -> None:
    with pytest.raises(UserError, match=r"no scenario 'payment-hung'; there are payment-hang"):
        catalogue.find("payment-hung")
    with pytest.raises(UserError, match="the same scenario twice"):
        catalogue.chosen(["order-down+order-down"])


def test_several_at_once_are_one_run() -> None:
    runs = catalogue.chosen(["order-down", "product-down+prometheus-down", "order-down"])
    assert [[entry.name for entry in run] for run in runs] == [
        ["order-down"],
        ["product-down", "prometheus-down"],
    ]


def test_the_commands() -> None:
    told = CliRunner().invoke(app, ["incident", "list", "--json"])
    listed = json.loads(told.stdout)["scenarios"]
    assert {each["name"] for each in listed} == {path.stem for path in catalogue.files()}
    assert "order-down" in CliRunner().invoke(app, ["incident", "list"]).stdout

    shown = CliRunner().invoke(app, ["incident", "show", "acquirer-slow"]).stdout
    assert "page CheckoutSlow: 43.2 s" in shown
    assert "Root cause" not in shown
    told = CliRunner().invoke(app, ["incident", "show", "acquirer-slow", "--truth"])
    assert "Root cause" in told.stdout

    linted = CliRunner().invoke(app, ["incident", "lint"])
    assert linted.exit_code == 0, linted.stderr
    told = CliRunner().invoke(app, ["incident", "schema"])
    assert json.loads(told.stdout) == schema.json_schema()


def test_lint_says_what_is_wrong_and_fails(tmp_path: Path) -> None:
    path = changed(tmp_path, "family: change", "family: chance")
    told = CliRunner().invoke(app, ["incident", "lint", str(path)])
    assert told.exit_code == 1
    assert f"{path}:" in told.stderr
