"""The worked examples show what their pages say."""

import dataclasses
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prove import otlp
from prove.cli import app
from prove.examples import EXAMPLES, by_trace
from prove.tracetree import Span

DIRECTORY = Path(__file__).resolve().parents[2] / "observability" / "traces"


def traces(name: str) -> list[list[Span]]:
    return by_trace(otlp.read(DIRECTORY / f"{name}.json"))


def test_every_example_has_its_two_files_and_no_file_is_left_over() -> None:
    files = {file.name for file in DIRECTORY.iterdir()}
    assert files == {"README.md", *(f"{n}.{kind}" for n in EXAMPLES for kind in ("json", "md"))}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_recording_shows_it_and_only_it(name: str) -> None:
    found = traces(name)
    assert [other for other, example in EXAMPLES.items() if example.shows(found)] == [name]
    services = {span.service for spans in found for span in spans}
    assert services == {"order-service", "product-service", "payment-service"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_broken_recording_does_not_show_it(name: str) -> None:
    found = traces(name)
    untold = [
        [dataclasses.replace(span, attributes={}, events=(), links=()) for span in spans]
        for spans in found
    ]
    assert not EXAMPLES[name].shows([])
    assert not EXAMPLES[name].shows(untold)


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_page_names_what_is_there(name: str) -> None:
    """In the first column: span names, with `…` for their ends, and event names."""
    spans = [span for found in traces(name) for span in found]
    there = {span.name for span in spans} | {e.name for span in spans for e in span.events}
    page = (DIRECTORY / f"{name}.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")][1:]
    named = [each for row in rows for each in re.findall(r"`([^`]+)`", row)]
    assert named
    for each in named:
        assert any(found == each or found.startswith(each.removesuffix("…")) for found in there)


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_pages_command_shows_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DIRECTORY.parents[1])
    page = (DIRECTORY / f"{name}.md").read_text()
    (command,) = re.findall(r"^\.venv/bin/provectl (.+)$", page, re.MULTILINE)
    shown = CliRunner().invoke(app, command.split())
    assert shown.exit_code == 0, shown.output
    spans = [span for found in traces(name) for span in found]
    assert shown.output.count("trace ") >= len(traces(name))
    assert all(len(line) <= 100 for line in shown.output.splitlines())
    assert ("! " in shown.output) == any(span.failed for span in spans)


def test_one_charge_whatever_happens() -> None:
    for name in EXAMPLES:
        spans = [span for found in traces(name) for span in found]
        assert len([span for span in spans if span.name == "POST /v1/charges"]) == 1
