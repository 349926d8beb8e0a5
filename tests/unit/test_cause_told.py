"""How an analysis is told: as text, as JSON, as a page that needs nothing else."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from prove.cause import advice, drawings, examples, page, text
from prove.rca.model import Abstention, Cause, Evidence
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
    told = text.lines(causes.analysis(causes=many, notes=("note " * 60,)))
    assert max(map(len, told)) <= text.WIDTH
    assert not [line for line in told if line != line.rstrip()]


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
    steps = advice.of(first)
    assert len(steps) == 3
    assert any("checkout" in step for step in steps)
    assert "{" not in "".join(steps)


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
    found = read(page.html(causes.analysis(), causes.bundle(), "provectl incident query x"))
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
        "SELECT * FROM spans WHERE name = 'POST /api/v1/payments' LIMIT 10",
        causes.HURT,
        "There are no logs.",
        "provectl incident query x",
    ):
        assert needed in told


def test_what_comes_from_telemetry_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    item = Evidence("errors", f"`{evil}` fails", evil, 0.0, 1.0, evil, 1.0, (evil,), evil)
    of = causes.analysis(
        incident=evil, causes=(Cause(evil, evil, "errors", 1.0, 0.9, (item,), (evil, evil)),)
    )
    assert "<script" not in page.html(of, causes.bundle())


def test_the_same_analysis_gives_the_same_page() -> None:
    one, other = (page.html(causes.analysis(), causes.bundle()) for _ in range(2))
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


def test_what_changed_most_is_drawn() -> None:
    found = examples.series(causes.bundle(), causes.analysis().causes)
    failing = next(each for each in found if each.name.endswith(": failed"))
    before = [
        value
        for at, value in zip(failing.times_unix_s, failing.values, strict=True)
        if at < causes.BEGIN_S
    ]
    assert set(before) == {0.0}
    assert max(failing.values) > 40


def golden() -> str:
    """Both ways that an answer can be."""
    parts = (causes.analysis(), causes.abstaining(alert=None))
    return "\n----\n".join("\n".join(text.lines(each)) for each in parts) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(golden(), encoding="utf-8")
