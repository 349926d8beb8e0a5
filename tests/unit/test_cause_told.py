"""How an analysis is told: as text, as JSON, as a page that needs nothing else."""

import base64
import json
import math
import re
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

from prove.cause import advice, asked, drawings, examples, foreign, page, text
from prove.rca.bundle import BASELINE, INCIDENT, LOGS
from prove.rca.model import Abstention, Cause, Ending, Evidence
from prove.tracetree import Span
from tests.support import causes

GOLDEN = Path(__file__).with_name("test_cause_told.txt")
VOID = {"meta", "img", "br", "link", "input", "hr"}


class _Page(HTMLParser):
    """Notes what isn't closed, and what is fetched."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.wrong: list[str] = []
        self.images: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        for name in ("src", "href", "action", "srcset"):
            if (to := given.get(name)) and not to.startswith(("#", "data:image/svg+xml;base64,")):
                self.wrong.append(f"{tag} {name}={to[:80]}")
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.wrong.append(tag)
        if tag == "img":
            self.images.append(given["src"] or "")
            assert given.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.wrong.append(f"</{tag}> within {self.open[-3:]}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(html: str) -> _Page:
    found = _Page()
    found.feed(html)
    found.close()
    return found


def test_text_is_as_it_was() -> None:
    """`python -m tests.unit.test_cause_told` writes the file anew."""
    assert golden() == GOLDEN.read_text(encoding="utf-8")


def test_no_line_is_wider_than_a_terminal() -> None:
    long = Evidence("time", "word " * 80, "x", 1.0, 2.0, "ms", 3.0, ("f" * 32,) * 5)
    many = tuple(
        Cause(f"{'service' * 8}-{at}", "i" * 40, "network", 9.0, 0.1, (long,) * 6, ("a" * 30,) * 9)
        for at in range(9)
    )
    of = causes.analysis(causes=many, notes=("note " * 60,))
    told = text.lines(of, asked.Kept("some/bundle"))
    assert max(map(len, told)) <= text.WIDTH
    assert not [line for line in told if line != line.rstrip()]


def test_a_healthy_time_of_days_is_told_in_hours() -> None:
    assert text.length(941) == "941 s"
    assert text.length(176_400) == "49 h"


def test_json_says_all_and_whether_it_abstains() -> None:
    told = json.loads(json.dumps(text.document(causes.analysis()), allow_nan=False))
    assert told["abstained"] is False
    assert told["reason"] is None
    assert told["ranking"] == ["payment-service", "order-service", "product-service"]
    assert told["causes"][0]["evidence"][0]["trace_ids"][0] == causes.HURT
    told = text.document(causes.abstaining())
    assert told["abstained"] is True
    assert told["reason"]["reason"] == "load only"


@pytest.mark.parametrize("kind", sorted(advice.MEANING))
def test_every_kind_has_something_to_do_next(kind: str) -> None:
    first = Cause("checkout", None, kind, 1.0, 0.9)  # type: ignore[arg-type]
    told = [step.plain for step in advice.of(first, causes.analysis())]
    assert [each.partition(":")[0] for each in told] == [
        "Confirm",
        "Mitigate, if it goes on still",
        "Ask",
    ]
    assert any("checkout" in each for each in told)
    assert "{" not in "".join(told)


def test_steps_follow_from_the_evidence_and_say_what_to_run() -> None:
    of = causes.analysis()
    steps = advice.steps(of, asked.Kept("some/bundle"))
    confirm, beside, mitigate, _ = steps
    assert "the failed `POST /api/v1/payments` of payment-service (52% now, 0% before)" in (
        confirm.text
    )
    assert "its log lines may say why" in confirm.text
    assert confirm.commands[0].endswith(f"trace {causes.HURT} --in some/bundle`".strip("`"))
    assert "`threads` of payment-1: 60 now, 12 before" in beside.text
    assert "rca_metrics" not in "".join(beside.commands)  # that one has no query
    assert "docs/runbooks/CheckoutErrors.md" in mitigate.text
    assert Path("docs/runbooks/CheckoutErrors.md").is_file()


@pytest.mark.parametrize(
    ("state", "begins"),
    [
        ("goes on", "Mitigate, if it goes on still: "),
        ("over", "It is over: mitigate if it comes back: "),
        ("not known", "See whether it goes on; if so, mitigate: "),
    ],
)
def test_whether_it_is_over_is_told_and_decides_what_to_do(state: str, begins: str) -> None:
    of = causes.analysis(ending=Ending(state, "So it ends."))  # type: ignore[arg-type]
    assert [step for step in advice.steps(of) if step.text.startswith(begins)]
    assert "over?      So it ends." in text.lines(of)
    assert "So it ends." in " ".join(read(page.html(of, causes.bundle())).words)


def test_who_sends_no_telemetry_is_told_by_whom_it_is_seen() -> None:
    item = Evidence(
        *("errors", "they fail.", "POST /v1/charges", 0.06, 1.0, "share of spans", 2.0, ("t",)),
        service="payment-service",
        asks="acquirer",
    )
    dark = Cause("acquirer", None, "network", 1.0, 0.8, (item,), seen_by=("payment-service",))
    of = causes.analysis(causes=(dark,))
    assert advice.headline(of).startswith("acquirer: calls to it fail; it, or the way to it, ")
    seen = "acquirer, which sends no telemetry; seen through payment-service's calls to it"
    assert seen in " ".join(read(page.html(of, causes.bundle())).words)
    line = "acquirer  network  80%, which sends no telemetry; seen through payment-service's calls"
    assert line in "\n".join(text.lines(of))
    told = " ".join(step.plain for step in advice.steps(of))
    assert "tell whoever runs acquirer" in told
    assert "It is payment-service if its calls to others do so, too." in told


@pytest.mark.parametrize(
    ("answered", "held_ms", "meaning", "step"),
    [
        (
            0.02,
            None,
            "calls don't reach it, or it hangs or ends before it answers",
            "see whether payment-1 runs",
        ),
        (0.98, None, "calls to it fail, though it is reached", "see what payment-1 answers"),
        (
            0.1,
            30_000.0,
            "it hangs: calls to it fail, and it is still at them when nobody waits any more",
            "see first what payment-1 waits for",
        ),
        (None, None, "it fails", "if payment-service or its configuration changed lately"),
    ],
)
def test_whether_failed_calls_reach_it_decides_what_to_do(
    answered: float | None, held_ms: float | None, meaning: str, step: str
) -> None:
    first = causes.analysis().causes[0]
    failing = replace(
        first.evidence[0], service="order-service", answered=answered, held_ms=held_ms
    )
    of = causes.analysis(causes=(replace(first, evidence=(failing,)),))
    assert f": {meaning} (errors)" in advice.headline(of)
    assert step in " ".join(each.plain for each in advice.steps(of))


def test_who_is_silent_is_not_told_to_fail() -> None:
    silent = Evidence("errors", "For 90% …", "serve", 0.0, 0.9, "share of time", 3.0, service="pay")
    of = causes.analysis(causes=(Cause("pay", None, "errors", 3.0, 0.9, (silent,)),))
    assert "pay: calls don't reach it, or it hangs or ends before it answers" in advice.headline(of)
    assert "see whether pay runs" in " ".join(each.plain for each in advice.steps(of))


def _words(command: str) -> list[str]:
    """What a shell makes of it; white space within a word doesn't count."""
    count = f"show() {{ for each; do echo $each; done; }}\nshow {command}"
    done = subprocess.run(["bash", "-fc", count], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_command_on_several_lines_is_the_same_command() -> None:
    many = " AND ".join(["y = 1"] * 30)
    sql = f"SELECT a, \\\"b\\\" FROM t WHERE x = 'it''s' AND {many}"  # noqa: S608
    blanks = "a b " * 60
    for command in (f'provectl query x "{sql}"', f"curl -sG http://x 'query={blanks}' --end"):
        lines = text._command("    $ ", command)
        assert len(lines) > 1
        assert max(map(len, lines)) <= text.WIDTH
        pasted = "\n".join(lines).replace("    $ ", "", 1)
        assert _words(pasted) == _words(command)


@pytest.mark.parametrize(
    "reason",
    ["no fault visible", "load only", "two candidates can't be told apart", "no data"],
)
def test_who_abstains_says_why_and_what_to_look_at(reason: str) -> None:
    why = Abstention(reason, "So it is.")  # type: ignore[arg-type]
    told = "\n".join(text.lines(causes.analysis(abstained=why, confidence=0.0)))
    assert f"No cause is named: {reason}. So it is." in told
    assert told.partition("What to do next")[2].count("  - ") >= 3
    told = " ".join(read(page.html(causes.analysis(abstained=why), causes.bundle())).words)
    assert f"No cause is named: {reason}" in told


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    found = read(page.html(causes.analysis(), causes.bundle(), asked.Kept("some/bundle")))
    assert not found.wrong
    assert not found.open
    assert len(found.ids) == len(set(found.ids))
    assert len(found.images) == 3  # call graph, before and after, two requests
    for image in found.images:
        svg = base64.b64decode(image.partition("base64,")[2])
        root = ElementTree.fromstring(svg)  # noqa: S314 - made by us
        assert root.tag.endswith("svg")
        assert not re.search(rb'href="http', svg)
    told = " ".join(found.words)
    for needed in (
        "payment-service (instance payment-1): it fails (errors), confidence 93%",
        "What to do next",
        "FROM rca_spans WHERE name = 'POST /api/v1/payments' GROUP BY part",
        "incident query some/bundle",
        f"trace {causes.HURT} --in some/bundle",
        "as learnt from 80 labelled incidents",
        "There are no logs.",
    ):
        assert needed in told


def test_what_comes_from_telemetry_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    item = Evidence("errors", f"`{evil}` fails", evil, 0.0, 1.0, evil, 1.0, (evil,), evil)
    of = causes.analysis(
        incident=evil, causes=(Cause(evil, evil, "errors", 1.0, 0.9, (item,), (evil, evil)),)
    )
    assert "<script" not in page.html(of, causes.bundle(), asked.Kept(evil))


def test_the_same_analysis_gives_the_same_page() -> None:
    one, other = (page.html(causes.analysis(seconds=at), causes.bundle()) for at in (0.1, 0.2))
    assert one == other


def test_a_bundle_without_spans_has_a_page_too() -> None:
    from prove.rca.bundle import Bundle

    found = read(page.html(causes.analysis(calls=()), Bundle("x", causes.INCIDENT)))
    assert not found.wrong
    assert not found.images


def test_callers_are_above_whom_they_call_also_in_a_circle() -> None:
    calls = {("a", "b"), ("b", "c"), ("c", "a"), ("a", "c"), ("d", "d")}
    places = drawings.layers(calls, ["a", "b", "c", "d"])
    assert [places[name][1] for name in "abcd"] == [0, 1, 2, 0]
    assert len(set(places.values())) == 4


def test_the_example_is_of_the_evidence_and_its_twin_is_healthy() -> None:
    found = examples.find(causes.bundle(), causes.analysis().causes[0])
    assert found is not None
    assert {span.trace_id for span in found.hurt} == {causes.HURT}
    assert any(span.failed for span in found.hurt)
    assert found.healthy
    assert not any(span.failed for span in found.healthy)
    assert max(span.end_us for span in found.healthy) < causes.BEGIN_S * 1e6


def test_what_the_example_logged_is_shown_the_most_severe_of_many_lines() -> None:
    begin_ns = next(
        row["start_unix_nano"] for row in causes.rows() if row["trace_id"] == causes.HURT
    )
    logged = [
        (begin_ns + at * 1_000_000, "order-service", None, level, f"line <{at}>", causes.HURT, "")
        for at, level in enumerate(["INFO"] * 9 + ["ERROR"])
    ]
    table = pl.DataFrame(
        [(*row, INCIDENT) for row in logged],
        schema={**LOGS, "window": pl.Int8},
        orient="row",
    )
    bundle = replace(causes.bundle(), logs=table)
    found = examples.find(bundle, causes.analysis().causes[0])
    assert found is not None
    assert [line.body for line in found.lines] == [f"line <{at}>" for at in (*range(7), 9)]
    assert found.lines[-1] == examples.Line(9.0, "order-service", "ERROR", "line <9>")
    words = " ".join(read(page.html(causes.analysis(), bundle)).words)
    assert "What the hurt one logged" in words
    assert "line <9>" in words


@pytest.mark.parametrize("given_up", [True, False])
def test_what_began_after_the_caller_had_given_up_is_told(given_up: bool) -> None:
    late_ns = 200_000_000 if given_up else 0
    rows = [
        row
        | {
            "start_unix_nano": row["start_unix_nano"] + late_ns,
            "end_unix_nano": row["end_unix_nano"] + late_ns,
        }
        if row["service"] == "payment-service"
        else row
        for row in causes.rows()
    ]
    bundle = foreign.of_rows("made-up", rows, causes.INCIDENT, causes.HEALTHY)
    words = " ".join(read(page.html(causes.analysis(), bundle)).words)
    assert ("until the caller had given up" in words) == given_up


def test_of_many_spans_those_of_the_cause_are_drawn_with_those_above_them() -> None:
    def span(number: int, parent: int | None, service: str) -> Span:
        of = None if parent is None else f"s{parent}"
        return Span(f"s{number}", of, service, f"op {number}", number, 10_000 - number)

    many = [span(0, None, "front")]
    many += [span(at, 0, f"other-{at}") for at in range(1, 60)]
    many += [span(60, 59, "cause")]
    first = Cause("cause", None, "latency", 1.0, 0.9)
    rows = drawings._rows(many, first)
    labels = [label.split()[0] for label, *_ in rows]
    assert len(rows) == drawings.MOST_ROWS
    assert labels[0] == "front"
    assert labels[-2:] == ["other-59", "cause"]
    assert [mine for _, mine, *_ in rows] == [each == "cause" for each in labels]


def test_a_row_of_many_services_goes_on_in_the_next() -> None:
    names = [f"leaf-{at}" for at in range(2 * drawings.MOST_IN_ROW)]
    places = drawings.layers({("top", name) for name in names}, ["top", *names])
    rows = Counter(row for _, row in places.values())
    assert rows[0] == 1
    assert max(rows.values()) <= drawings.MOST_IN_ROW


def test_what_changed_most_is_drawn() -> None:
    found = examples.series(causes.bundle(), causes.analysis().causes)
    failing = next(each for each in found if each.name.endswith(": failed"))
    before = [
        value
        for at, value in zip(failing.times_unix_s, failing.values, strict=True)
        if at < causes.BEGIN_S
    ]
    assert set(before) == {0.0}
    assert 40 < max(failing.values) <= 100


def test_a_service_that_falls_silent_has_no_spans_a_second_and_a_hole_in_its_median() -> None:
    bundle = causes.bundle()
    silent = (pl.col("service") == "payment-service") & (
        (pl.col("start_unix_nano") / 1e9).is_between(causes.BEGIN_S + 5, causes.BEGIN_S + 30)
    )
    bundle = replace(bundle, spans=bundle.spans.filter(~silent))
    found = {each.name: each for each in examples.series(bundle, causes.analysis().causes)}
    asked = found["POST /api/v1/payments"]
    values = dict(zip(asked.times_unix_s, asked.values, strict=True))
    assert values[causes.BEGIN_S + 10] == 0
    assert values[causes.BEGIN_S + 35] == 10
    points = [(float(at), 1.0) for at in (1, 2, 3, 9, 10)]
    assert [math.isnan(value) for _, value in drawings._broken(points, 1.0)] == [
        *(False, False, False),
        *(True, False, False),
    ]


def test_a_request_that_lasts_into_the_incident_is_drawn_once() -> None:
    bundle = causes.bundle()
    last = pl.col("start_unix_nano") > (causes.BEGIN_S - 3) * 1e9
    healthy = bundle.spans.filter((pl.col("window") == BASELINE) & last)
    twice = healthy.with_columns(
        pl.lit(INCIDENT, dtype=pl.Int8).alias("window"), pl.lit("error").alias("status")
    )
    both = replace(bundle, spans=pl.concat([bundle.spans, twice]))
    found = examples.series(both, causes.analysis().causes)
    failing = next(each for each in found if each.name.endswith(": failed"))
    assert len(set(failing.times_unix_s)) == len(failing.times_unix_s)
    assert max(failing.values) <= 100


def golden() -> str:
    """Both ways that an answer can be."""
    parts = (causes.analysis(), causes.abstaining(alert=None))
    kept = asked.Kept("some/bundle")
    return "\n----\n".join("\n".join(text.lines(each, kept)) for each in parts) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden(), encoding="utf-8")
