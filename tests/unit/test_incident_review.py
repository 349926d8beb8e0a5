"""A review says what the record says, and no more."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prove.cause import asked, sources
from prove.cli import app
from prove.incident import impact, record, review, sli, views
from prove.text import WIDTH
from tests.support import incidents

BLAME = re.compile(
    r"\b(fault of|blame|mistake by|careless|negligen|should have known|guilty)", re.I
)


def test_its_figures_are_those_of_the_ledger(kept: Path) -> None:
    """Counted here by other means than in the review."""
    start_us, end_us = incidents.INJECTED_S * 1_000_000, incidents.END_S * 1_000_000
    entries = [each for each in incidents.entries() if start_us <= each.done_unix_us < end_us]
    checkouts = [each for each in entries if each.kind == "checkout"]
    bad = [each for each in checkouts if each.outcome in ("failed", "no-answer")]
    figures = review.figures(review.make(kept))
    assert figures["checkouts"]["sent"] == len(checkouts)
    assert figures["checkouts"]["failed"] == len(bad)
    assert figures["reads"]["sent"] == len(entries) - len(checkouts)
    by_key = {
        key: max(tries, key=lambda each: each.done_unix_us).outcome
        for key, tries in groupby(
            sorted(checkouts, key=lambda each: each.key), key=lambda each: each.key
        )
    }
    lost = sum(outcome in ("failed", "no-answer") for outcome in by_key.values())
    assert figures["purchases"]["begun"] == len(by_key)
    assert figures["purchases"]["lost"] == lost
    assert figures["purchases"]["at_risk_minor"] == lost * incidents.AMOUNT_MINOR


def test_what_the_servers_missed_is_beside_it(kept: Path) -> None:
    figures = review.figures(review.make(kept))["checkouts"]
    silent = sum(entry.outcome == "no-answer" for entry in incidents.entries())
    assert figures["unanswered"] == silent
    assert figures["unseen_by_the_servers"] == silent
    assert figures["failed_at_the_servers"] == pytest.approx(figures["failed"] - silent, abs=1)


def test_every_question_in_sql_can_be_asked_again(kept: Path) -> None:
    made = review.make(kept)
    answers = views.tables(kept)
    asked.add(answers, sources.of_record(kept))
    answers.seal()
    questions = [each for each in made.found.cite.found if each.ask.startswith(("SELECT", "WITH"))]
    assert len(questions) > 10
    for each in questions:
        answers.ask(each.ask)
    kinds = {each.kind for each in made.found.cite.found}
    assert kinds == {"ledger", "query", "bundle", "record"}


def test_every_mark_leads_to_its_question(kept: Path) -> None:
    made = review.make(kept)
    page, text = review.html(made), review.markdown(made)
    for told, link, anchor in (
        (page, r'href="#e(\d+)"', 'id="e{}"'),
        (text, r"\(#e(\d+)\)", '<a id="e{}">'),
    ):
        numbers = set(re.findall(link, told))
        assert len(numbers) > 20
        assert all(anchor.format(number) in told for number in numbers)
        assert "\N{LEFT WHITE LENTICULAR BRACKET}" not in told


def test_the_page_needs_nothing_else(kept: Path, tmp_path: Path) -> None:
    made = review.make(kept)
    page = review.html(made)
    assert "<svg" in page
    assert not re.search(r"""(?:src|href)=["']?(?!#)[^"'> ]*\.(?:js|css|png|svg)""", page)
    assert "<script" not in page
    assert not re.search(r"""\b(?:src|href)=["']https?:""", page)
    written = review.write(made, tmp_path / "out")
    assert [path.name for path in written] == ["review.html", "review.md", "review.svg"]


def test_it_says_what_broke_when_how_noticed_and_at_what_cost(kept: Path) -> None:
    cards = review.make(kept).cards
    assert "150 of 700 checkouts failed" in cards.broke
    assert "was in for 30.0 s" in cards.when
    assert "CheckoutErrors came 18.4 s after" in cards.noticed
    assert "150 purchases lost" in cards.cost
    assert "2,998.50 GBP at risk" in cards.cost


def test_hypotheses_come_from_spans_and_not_from_the_truth(kept: Path) -> None:
    (kept / record.TRUTH).unlink()
    made = review.make(kept)
    assert not made.truths
    headline, *evidence = map(review.plain, made.traces_say)
    assert headline.startswith("payment-service (instance payment-service-1): it fails (errors)")
    assert any(
        "`POST /api/v1/payments` of payment-service fails, and nothing below it does" in each
        for each in evidence
    )
    assert not any(each.startswith("Where it began") for each in made.unknown)
    assert "The scenario's own answer" not in review.markdown(made)


def test_one_request_that_failed_is_followed_from_end_to_end(kept: Path) -> None:
    made = review.make(kept)
    assert made.example is not None
    first = next(entry for entry in incidents.entries() if entry.outcome == "failed")
    assert first.trace_id in made.example.told
    assert [line for line in made.example.lines if "! POST /api/v1/payments" in line]


def test_the_words_are_blameless_and_people_have_their_part(kept: Path) -> None:
    text = review.markdown(review.make(kept))
    assert not BLAME.search(text)
    assert "| what follows | prevents, detects or mitigates | owner | due |" in text
    assert "## What is not known" in text


def test_what_comes_from_a_record_is_escaped(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path, title="<script>alert(1)</script>", description="a | b `c`")
    page = review.html(review.make(kept))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_same_record_gives_the_same_review(kept: Path) -> None:
    first, again = review.make(kept), review.make(kept)
    assert review.html(first) == review.html(again)
    assert review.markdown(first) == review.markdown(again)


@pytest.mark.parametrize("gone", [record.LEDGER, sli.SLI, "objectives.json", record.BUNDLE])
def test_what_is_missing_is_said(kept: Path, gone: str) -> None:
    path = kept / gone
    if path.is_dir():
        for file in path.rglob("*.parquet"):
            file.unlink()
        (path / "bundle.json").unlink()
    else:
        path.unlink()
    made = review.make(kept)
    assert review.html(made)
    told = " ".join(made.unknown) + " ".join(made.detection)
    assert re.search(r"ledger is empty|Missing|not known", told)


def test_a_run_without_an_injection_is_reviewed(tmp_path: Path) -> None:
    kept = incidents.write(
        tmp_path,
        windows=None,
        injected_unix_us=None,
        rolled_back_unix_us=None,
        actions=[],
        detections=[],
        verdict="aborted",
        why="no steady state",
    )
    made = review.make(kept)
    assert "nothing was injected" in made.cards.when
    assert "ended before its injection" in made.cards.broke
    assert not made.well
    assert any("no steady state" in each for each in made.unknown)
    assert review.html(made)


def test_a_quiet_incident_is_told_as_such(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path, detections=[])
    for name in (record.PAGES, record.ALERTS):
        (kept / name).unlink()
    made = review.make(kept)
    assert made.cards.noticed == "No page came; none should."
    assert made.detection[0] == "No alert was expected, and none came."


def test_of_a_run_that_was_cut_short_nobody_says_that_no_page_was_due(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path, detections=[], verdict="interrupted", why="it was stopped")
    for name in (record.PAGES, record.ALERTS):
        (kept / name).unlink()
    made = review.make(kept)
    told = "Not known: the run was interrupted before that was judged."
    assert made.cards.noticed == made.detection[0] == told


def test_by_its_scenario_the_latest_run_is_found_that_was_not_cut_short(tmp_path: Path) -> None:
    def kept(id_: str, verdict: str) -> Path:
        directory = tmp_path / record.DIRECTORY / id_
        directory.mkdir(parents=True)
        record.write(directory / record.INCIDENT, incidents.incident(id=id_, verdict=verdict))
        return directory

    first = kept("20260101T000000-down", "interrupted")
    assert record.find(tmp_path, "down") == first
    whole = kept("20260102T000000-down", "does not hold")
    last = kept("20260103T000000-down", "aborted")
    assert record.find(tmp_path, "down") == whole
    assert record.find(tmp_path, last.name) == last


def test_the_command_writes_into_the_record_or_elsewhere(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    runner = CliRunner()
    done = runner.invoke(app, ["review", incidents.SCENARIO])
    assert done.exit_code == 0, done.output
    told, _, files = done.output.partition(str(tmp_path))
    assert files
    assert max(map(len, told.splitlines())) <= WIDTH
    assert (kept / review.PAGE).exists()
    done = runner.invoke(app, ["review", str(kept), "-o", str(tmp_path / "out"), "--json"])
    told = json.loads(done.stdout)
    assert told["figures"]["purchases"]["lost"] == 150
    assert [Path(each).name for each in told["files"]] == ["review.html", "review.md", "review.svg"]
    done = runner.invoke(app, ["review", "nobody"])
    assert "there is no incident 'nobody'" in str(done.exception)


def test_a_line_that_was_being_written_is_left_out(kept: Path) -> None:
    ledger = kept / record.LEDGER
    whole = ledger.read_text()
    ledger.write_text(whole[:-40])
    count = views.tables(kept).value("SELECT count(*) FROM ledger")
    assert count == len(whole.splitlines()) - 1


@pytest.mark.parametrize(
    ("points", "rise"),
    [
        ([(0, 5), (10, 7), (20, 9)], 4),
        ([(0, 5), (10, 7), (20, 1), (30, 2)], 4),  # restarted: what it has counted since is new
        ([(10, 3), (20, 4)], 4),  # born within: it began at none
        ([], 0),
    ],
)
def test_a_counter_rises_by_what_was_counted(
    points: list[tuple[float, float]], rise: float
) -> None:
    assert sli.increase(points, 0, 30) == rise


def test_a_purchase_is_what_became_of_it_in_the_end(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path, with_bundle=False)
    base = next(incidents.entries())
    start_us = incidents.INJECTED_S * 1_000_000

    def entry(key: str, after_ms: int, **changes: object) -> record.Entry:
        at_us = start_us + after_ms * 1000
        given = {"key": key, "at_unix_us": at_us, "done_unix_us": at_us + 50_000, **changes}
        return base.model_copy(update=given)

    looked = {"method": "GET", "route": "/api/v1/orders/{id}"}
    lines = [
        entry("saved", 0, outcome="no-answer", status=0, amount_minor=None, final=False),
        entry("saved", 2_000, attempt=2),
        entry("taken", 0, outcome="unsettled", status=202, final=False),
        entry("taken", 3_000, attempt=2, **looked),
        entry("open", 0, outcome="unsettled", status=202, final=False),
        entry("lost", 0, outcome="failed", status=503, amount_minor=None, asked_minor=100),
        entry("declined", 0, outcome="refused", status=402),
    ]
    record.write_lines(kept / record.LEDGER, lines)
    windows = incidents.incident().windows
    assert windows is not None
    cost = impact.measure(windows, views.tables(kept), sli.Kept([]), None, impact.Citations())
    of = cost.purchases
    assert (of.begun, of.lost, of.delayed, of.unsettled) == (5, 1, 2, 1)
    assert (of.retried, of.saved) == (1, 1)
    assert (of.refused, of.turned_away) == (1, 0)  # one of five: as it may always be
    assert of.at_risk_minor == 100 + incidents.AMOUNT_MINOR
    refused = replace(of, begun=121, refused=69, refused_minor=69_000, begun_before=78)
    assert (refused.turned_away, refused.turned_away_minor) == (69, 69_000)
    assert refused.at_risk_minor == of.at_risk_minor + 69_000
    usual = replace(refused, refused_before=1 / 3)
    assert (usual.turned_away, usual.turned_away_minor) == (29, 29_000)
    assert cost.of("checkout").sent == 6  # a look is no checkout


@pytest.mark.parametrize(
    ("count", "of", "before", "before_of", "clear"),
    [
        (10, 378, 1 / 78, 78, False),  # 2.6% after 1.3%: by chance, one time in fifty
        (30, 378, 1 / 78, 78, True),
        (1, 20, 0.0, 0, False),  # nothing is known of before
        (2, 20_000, 0.0, 20_000, False),  # too few to tell of
        (69, 121, 4 / 78, 78, True),
        (3, 60, 0.0, 90, False),
        (6, 60, 0.0, 90, True),
    ],
)
def test_what_is_worse_than_before_is_told_from_chance(
    count: int, of: int, before: float, before_of: int, clear: bool
) -> None:
    assert impact.clearly_more(count, of, before, before_of) is clear


def test_what_is_heavy_is_loaded_only_where_it_is_used() -> None:
    """DuckDB and matplotlib take a second and 100 MiB; every other command starts without them."""
    told = subprocess.run(
        [sys.executable, "-c", "import sys, prove.cli; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"duckdb", "matplotlib", "numpy"} & set(told.stdout.split())
