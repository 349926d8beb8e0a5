"""Every alert has a runbook, and no runbook is of no alert; what they tell to type exists."""

import re

import pytest
import typer
import yaml
from typer.core import TyperGroup

from prove.cli import app
from prove.tools import repository_root
from tests.support import runbooks
from tests.support.runbooks import DIRECTORY, SECTIONS

ROOT = repository_root()
PAGES = runbooks.pages()
ALERTS = [
    rule
    for path in sorted((ROOT / "observability" / "alerts").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert set(PAGES) == {rule["alert"] for rule in ALERTS}


def test_alerts_lead_to_their_runbooks() -> None:
    for rule in ALERTS:
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


@pytest.mark.parametrize("name", PAGES)
def test_a_runbook_has_all_its_sections(name: str) -> None:
    page = PAGES[name]
    assert page.read_text().startswith(f"# {name}\n")
    found = runbooks.sections(page)
    assert tuple(found) == SECTIONS
    assert all(text.strip() for text in found.values())
    assert runbooks.commands(found["Diagnosis"])
    assert runbooks.promql(found["Diagnosis"])


@pytest.mark.parametrize("name", [*PAGES, "README"])
def test_its_commands_exist_with_their_options(name: str) -> None:
    for arguments in runbooks.provectl((DIRECTORY / f"{name}.md").read_text()):
        parse(arguments)


def parse(arguments: list[str]) -> None:
    """Raises where there is no such subcommand, no such option, or a value is missing."""
    command = typer.main.get_command(app)
    parent = None
    while isinstance(command, TyperGroup) and arguments:
        context = typer.Context(command, parent, info_name=command.name)
        name, found, arguments = command.resolve_command(context, arguments)
        assert found, f"there is no command {name}"
        command, parent = found, context
    if not isinstance(command, TyperGroup):
        command.make_context(command.name, arguments, parent)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["logz"], "UsageError"),
        (["slo", "reports"], "UsageError"),
        (["logs", "--nonsense"], "NoSuchOption"),
        (["traces", "find"], "MissingParameter"),
        (["logs", "-n", "many"], "BadParameter"),
    ],
)
def test_a_command_that_does_not_exist_would_be_found(arguments: list[str], kind: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - Typer brings a click of its own
        parse(arguments)
    assert type(raised.value).__name__ == kind


@pytest.mark.parametrize("name", [*PAGES, "README"])
def test_the_settings_it_names_are_documented(name: str) -> None:
    reference = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    named = re.findall(r"`([A-Z]+_[A-Z_]+)`", (DIRECTORY / f"{name}.md").read_text())
    assert not [each for each in named if each not in reference]
