"""A timeline has evidence for each row, and nothing without."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.errors import UserError
from prove.incident import record, timeline
from prove.text import WIDTH
from tests.support import incidents


def test_all_that_happened_is_told_in_order(kept: Path) -> None:
    built = timeline.build(kept)
    assert [row.event for row in built.rows] == [
        "load-on",
        "injection",
        "first-failure",
        "first-error-log",
        "sli-bad",
        "alert-firing",
        "page-received",
        "rollback",
        "last-failure",
        "sli-recovered",
        "alert-resolved",
        "page-resolved",
        "end",
    ]
    assert built.zero_unix_us == incidents.INJECTED_S * 1_000_000
    inferred = {row.event for row in built.rows if row.source == "inferred"}
    assert inferred == {"sli-bad", "sli-recovered", "alert-firing", "alert-resolved"}


def test_an_alert_fires_when_its_page_says_so(kept: Path) -> None:
    """Prometheus is asked for its alerts once a second: a change is seen too late."""
    before = timeline.build(kept).first("alert-firing")
    assert before is not None
    fired = before.at_unix_us - 700_000
    starts_at = datetime.fromtimestamp(fired / 1e6, UTC).isoformat()
    pages = [
        page.model_copy(update={"starts_at": starts_at})
        for page in record.lines(kept / record.PAGES, record.Page)
    ]
    record.write_lines(kept / record.PAGES, pages)

    firing = timeline.build(kept).first("alert-firing")

    assert firing is not None
    assert (firing.at_unix_us, firing.source) == (fired, "known")


def test_each_time_that_an_alert_fires_is_its_own(kept: Path) -> None:
    """Also soon after it ended; and the ticket of the same name is another alert."""
    first = next(record.lines(kept / record.PAGES, record.Page))
    (change,) = (
        each
        for each in record.lines(kept / record.ALERTS, record.AlertChange)
        if (each.state, each.severity) == ("firing", "page")
    )
    fired = [change.at_unix_us - 900_000, change.at_unix_us + 2_200_000]
    told = [datetime.fromtimestamp(at / 1e6, UTC).isoformat() for at in fired]
    again = change.model_copy(update={"at_unix_us": change.at_unix_us + 3_000_000})
    ticket = again.model_copy(update={"severity": "ticket"})
    record.write_lines(kept / record.ALERTS, [change, again, ticket])
    pages = [first.model_copy(update={"starts_at": at}) for at in told]
    record.write_lines(kept / record.PAGES, pages)

    built = timeline.build(kept)

    firing = [row for row in built.rows if row.event == "alert-firing"]
    assert [(row.at_unix_us, row.source, row.what.split()[0]) for row in firing] == [
        (fired[0], "known", "page"),
        (fired[1], "known", "page"),
        (ticket.at_unix_us, "inferred", "ticket"),
    ]


def test_evidence_leads_to_what_it_says(kept: Path) -> None:
    built = timeline.build(kept)
    first = built.first("first-failure")
    page = built.first("page-received")
    assert first is not None
    assert page is not None
    name, _, line = first.evidence.ref.partition(":")
    entry = record.Entry.model_validate_json((kept / name).read_text().splitlines()[int(line) - 1])
    assert (entry.done_unix_us, entry.outcome) == (first.at_unix_us, "failed")
    assert entry.trace_id in first.evidence.ask
    name, _, line = page.evidence.ref.partition(":")
    told = record.Page.model_validate_json((kept / name).read_text().splitlines()[int(line) - 1])
    assert (told.received_at_unix_us, told.status) == (page.at_unix_us, "firing")
    kinds = {row.evidence.kind for row in built.rows}
    assert kinds == {"command", "ledger", "log", "query", "page"}


def test_what_was_not_kept_is_not_told(kept: Path) -> None:
    for path in kept.rglob("*"):
        if path.is_file() and path.name != record.INCIDENT:
            path.unlink()
    events = [row.event for row in timeline.build(kept).rows]
    assert events == ["load-on", "injection", "rollback", "end"]


def test_a_run_that_injected_nothing_has_a_timeline(tmp_path: Path) -> None:
    kept = incidents.write(
        tmp_path,
        windows=None,
        injected_unix_us=None,
        rolled_back_unix_us=None,
        actions=[],
        verdict="aborted",
    )
    built = timeline.build(kept)
    assert built.zero_unix_us == incidents.START_S * 1_000_000
    assert built.first("injection") is None
    assert built.first("first-failure") is None


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"incident\.json cannot be read"):
        timeline.build(tmp_path)


def test_the_command_tells_it_as_a_table_and_as_json(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    runner = CliRunner()
    shown = runner.invoke(app, ["incident", "timeline", incidents.SCENARIO])
    assert shown.exit_code == 0, shown.output
    assert "+18.4 s" in shown.output
    lines = shown.output.splitlines()
    assert max(map(len, lines)) <= WIDTH
    words = {word for line in lines for word in line.split()}
    assert {"incident.json#started", "incident.json#actions[0]"} <= words  # nothing is torn
    told = runner.invoke(app, ["incident", "timeline", incidents.ID, "--json"])
    document = json.loads(told.stdout)
    assert document["format"] == "prove-timeline/1"
    assert all(row["evidence"]["ref"] and row["evidence"]["ask"] for row in document["rows"])
