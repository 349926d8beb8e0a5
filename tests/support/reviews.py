"""What holds of every record that a run on a live stack leaves, and of its review."""

import re
from pathlib import Path

from prove.incident import bundle, record, review, timeline, views

TOLERANCE = 0.01
"""By how much a review's figures may differ from the ledger's."""


def check(directory: Path) -> None:
    """Raises AssertionError for a record that lacks something, or a review that differs from it."""
    incident = record.read(directory)
    assert incident.windows is not None, incident.why
    start_us, end_us = (
        round(each * 1_000_000)
        for each in (
            incident.windows.incident.start_unix_s,
            incident.windows.incident.end_unix_s,
        )
    )
    _check_timeline(directory, incident)
    _check_bundle(directory)
    made = review.make(directory)
    figures = review.figures(made)
    entries = [
        entry
        for entry in record.lines(directory / record.LEDGER, record.Entry)
        if start_us <= entry.done_unix_us < end_us
    ]
    for kind in ("checkout", "read"):
        mine = [
            entry
            for entry in entries
            if entry.kind == kind and (kind == "read" or entry.method == "POST")
        ]
        failed = [entry for entry in mine if entry.outcome in ("failed", "no-answer")]
        told = figures[f"{kind}s"]
        assert abs(told["sent"] - len(mine)) <= TOLERANCE * len(mine)
        assert abs(told["failed"] - len(failed)) <= TOLERANCE * len(failed)
    page = review.html(made)
    numbers = set(re.findall(r'href="#e(\d+)"', page))
    assert numbers
    assert all(f'id="e{number}"' in page for number in numbers)
    assert not re.search(r"""\b(?:src|href)=["']https?:""", page)


def _check_timeline(directory: Path, incident: record.Incident) -> None:
    built = timeline.build(directory)
    for event, phase in (("injection", "inject"), ("rollback", "rollback")):
        told = [row for row in built.rows if row.event == event]
        assert len(told) == sum(action.phase == phase for action in incident.actions)
    pages = {
        page.alert
        for page in record.lines(directory / record.PAGES, record.Page)
        if (page.severity, page.status) == ("page", "firing")
        and page.received_at_unix_us >= built.zero_unix_us
    }
    assert {row.what.split()[1] for row in built.rows if row.event == "page-received"} == pages
    for row in built.rows:
        name, _, line = row.evidence.ref.partition(":")
        if line.isdigit():
            assert int(line) <= len((directory / name).read_text().splitlines()), row


def _check_bundle(directory: Path) -> None:
    found = bundle.read(directory)
    assert found is not None
    assert set(found.signals) | {
        each.partition(":")[0].rpartition(" ")[2] for each in found.missing
    } >= set(bundle.COLUMNS)
    answers = views.tables(directory)
    assert answers.value("SELECT count(*) FROM spans WHERE contains(name, '/faults')") == 0
    assert answers.value("SELECT count(*) FROM logs WHERE contains(body, '/faults')") == 0
