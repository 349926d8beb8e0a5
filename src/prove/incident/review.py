"""A post-incident review out of a record: Markdown, and one HTML page that needs nothing else.

What data can say is said and cited; what only people can is left to them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from prove import templates
from prove.errors import UserError
from prove.incident import (
    bundle,
    example,
    findings,
    impact,
    objectives,
    record,
    reviewplots,
    sli,
    timeline,
    views,
)
from prove.incident.findings import Found
from prove.rca.model import Analysis

MARKDOWN, PAGE, DRAWING = "review.md", "review.html", "review.svg"
CANDIDATES, EVIDENCE = 2, 3
"""Of the analysis, and of each of them."""
TOLD_BUDGET = 0.0001
"""A smaller share of a budget is not told by itself."""
_MARK = re.compile("\N{LEFT WHITE LENTICULAR BRACKET}(\\d+)\N{RIGHT WHITE LENTICULAR BRACKET}")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Review:
    """All that the templates tell; sentences hold marks of citations and `code`."""

    found: Found
    directory: str
    cards: findings.Cards
    severity: tuple[str, str]
    requests: list[tuple[str, str, str]]
    """What, by the clients' ledger, by the servers."""
    purchases: list[tuple[str, str]]
    budgets: list[tuple[str, str, str]]
    detection: list[str]
    facts: list[str]
    traces_say: list[str]
    """What `prove.rca` makes of the bundle: hypotheses."""
    example: example.Example | None
    contributing: list[str]
    well: list[str]
    badly: list[str]
    luckily: list[str]
    unknown: list[str]
    rows: list[tuple[str, str, str, str, str]]
    """Of the timeline: offset, time, what, source, evidence."""
    truths: Sequence[record.Truth]
    draw: Callable[[], str]

    @cached_property
    def drawing(self) -> str:
        """An SVG."""
        return self.draw()


def make(directory: Path) -> Review:
    """Read a record and find out what it says; raises UserError for one that can't be read."""
    from prove.cause import recorded

    incident = record.read(directory)
    promised, kept = objectives.read(directory), sli.Kept.of(directory)
    answers = views.tables(directory)
    cite = impact.Citations()
    told = timeline.build(directory)
    analysis = recorded.of(directory)
    cost = shown = None
    if incident.windows is not None:
        cost = impact.measure(incident.windows, answers, kept, promised, cite)
        shown = example.find(cost, answers, cite)
    found = Found(
        incident=incident,
        timeline=told,
        impact=cost,
        analysis=analysis,
        promised=promised,
        kept=kept,
        missing=_missing(directory, kept),
        cite=cite,
    )
    since_s = told.zero_unix_us / 1e6
    burns = timeline.burns(promised, kept, since_s) if promised else []
    return Review(
        found=found,
        directory=str(directory),
        cards=findings.cards(found),
        severity=findings.severity(found),
        requests=_requests(found),
        purchases=_purchases(found),
        budgets=_budgets(found),
        detection=findings.detection(found),
        facts=findings.facts(found),
        traces_say=_traces_say(analysis, cite),
        example=shown,
        contributing=findings.contributing(found),
        well=findings.well(found),
        badly=findings.badly(found),
        luckily=findings.luckily(found),
        unknown=findings.unknown(found),
        rows=[
            (*line[:4], f"{row.evidence.kind}: {row.evidence.ref}")  # type: ignore[misc]
            for line, row in zip(timeline.lines(told), told.rows, strict=True)
        ],
        truths=_truths(directory),
        draw=lambda: reviewplots.draw(
            incident, told, burns, answers, kept, promised, cost.hit_s if cost else ()
        ),
    )


def write(review: Review, out: Path) -> list[Path]:
    """The page, the Markdown and the drawing that this shows; raises UserError."""
    texts = {PAGE: html(review), MARKDOWN: markdown(review), DRAWING: _standalone(review.drawing)}
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = out / name
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise UserError(f"{out} cannot be written to: {error.strerror}") from None
    return written


def html(review: Review) -> str:
    """Everything that comes from the record is escaped; only the drawing is our own."""
    environment = _environment(autoescape=True)
    environment.filters["cited"] = _cited_html
    drawing = Markup(review.drawing)  # noqa: S704 - made by us
    return environment.get_template("review.html.j2").render(
        review=review, drawing=drawing, period=_period(review)
    )


def markdown(review: Review) -> str:
    """The same without colours; the drawing is a file beside it."""
    environment = _environment(autoescape=False)
    environment.filters |= {"cited": _cited_markdown, "cell": _cell}
    return environment.get_template("review.md.j2").render(
        review=review, drawing=DRAWING, period=_period(review)
    )


def plain(text: str) -> str:
    """A sentence without marks."""
    return _MARK.sub("", text)


def figures(review: Review) -> dict[str, Any]:
    """What an incident cost, for JSON; None where it isn't known."""
    cost = review.found.impact
    if cost is None:
        return {}
    of = cost.purchases
    requests = {
        f"{each.kind}s": {
            "sent": each.sent,
            "failed": each.bad,
            "unanswered": each.unanswered,
            "slow": each.slow,
            "unsettled": each.unsettled,
            "refused": each.refused,
            "failed_at_the_servers": seen.failed,
            "unseen_by_the_servers": seen.unseen,
        }
        for each, seen in zip(cost.requests, cost.seen, strict=True)
    }
    return {
        **requests,
        "purchases": {
            "begun": of.begun,
            "lost": of.lost,
            "delayed": of.delayed,
            "unsettled": of.unsettled,
            "refused_beyond_usual": of.turned_away,
            "saved_by_retries": of.saved,
            "at_risk_minor": of.at_risk_minor,
        },
        "budget_burned": {each.objective.id: each.burned for each in cost.budgets},
    }


def _period(review: Review) -> str:
    promised = review.found.promised
    return findings.period(promised.period_s) if promised else ""


def _environment(*, autoescape: bool) -> Environment:
    environment = templates.environment("incident", autoescape=autoescape)
    environment.filters |= {"day": findings.day, "moment": timeline.moment}
    return environment


def _cited_html(text: str) -> Markup:
    told = _CODE.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(_MARK.sub(r'<a class="cite" href="#e\1">E\1</a>', told))  # noqa: S704 - escaped


def _cited_markdown(text: str) -> str:
    return _MARK.sub(r" [[E\1](#e\1)]", text)


def _cell(text: str) -> str:
    """A text that doesn't end its table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def _standalone(drawing: str) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n{drawing}'


def _missing(directory: Path, kept: sli.Kept) -> list[str]:
    found = bundle.read(directory)
    missing = list(found.missing) if found else ["the bundle of spans, metrics and logs"]
    if not kept:
        missing.append("what the servers measured (sli.jsonl)")
    return missing


def _traces_say(analysis: Analysis | None, cite: impact.Citations) -> list[str]:
    """The answer of the analysis, and its evidence, a sentence each; the truth isn't looked at."""
    from prove.cause import advice, text

    if analysis is None:
        return []
    mark = cite.add("record", "root cause analysis of the bundle", "bundle/, by provectl rca")
    told = [f"{advice.headline(analysis)}{mark}."]
    if analysis.causes and not analysis.abstained and len(analysis.causes[0].path) > 1:
        told.append(f"From the symptom to it: {' → '.join(analysis.causes[0].path)}{mark}.")
    for cause in text.candidates(analysis)[:CANDIDATES]:
        for each in cause.evidence[:EVIDENCE]:
            cited = cite.add("bundle", each.subject, each.query) if each.query else mark
            told.append(f"Against {cause.service}: {each.sentence}{cited}")
    return told


def _truths(directory: Path) -> Sequence[record.Truth]:
    path = directory / record.TRUTH
    return record.read_document(path, record.Truths).scenarios if path.exists() else ()


def _requests(found: Found) -> list[tuple[str, str, str]]:
    if found.impact is None:
        return []
    rows = []
    for of, seen in zip(found.impact.requests, found.impact.seen, strict=True):
        servers = "not known"
        if seen.answered is not None and seen.failed is not None:
            mark = seen.cited["answered"]
            rows_of_servers = (f"{seen.answered:,.0f}{mark}", f"{seen.failed:,.0f}{mark}")
        else:
            rows_of_servers = (servers, servers)
        unseen = (
            "-" if seen.unseen is None else f"{seen.unseen:,} left no span{seen.cited['unseen']}"
        )
        rows += [
            (f"{of.kind}s", f"{of.sent:,} sent{of.cited}", f"{rows_of_servers[0]} answered"),
            (
                f"{of.kind}s that failed",
                f"{of.bad:,} ({of.bad_share:.2%}){of.cited}",
                f"{rows_of_servers[1]} as 5xx",
            ),
        ]
        if of.unanswered or seen.unseen:
            rows.append(("… of these without any answer", f"{of.unanswered:,}{of.cited}", unseen))
        rows.append(
            (
                f"{of.kind}s over {views.SLOW_MS} ms",
                f"{of.slow:,} ({of.slow_share:.2%}){of.cited}",
                _worst(found, of.kind),
            )
        )
        if of.unsettled:
            told = f"{of.unsettled:,}{of.cited}"
            rows.append((f"{of.kind}s taken, not confirmed (202)", told, "-"))
        if of.refused or of.before.refused:
            told = (
                f"{of.refused:,} ({of.refused_share:.2%}; {of.before.refused:.2%} before)"
                f"{of.cited}{of.cited_before}"
            )
            rows.append((f"{of.kind}s refused (4xx)", told, "-"))
    return rows


def _worst(found: Found, kind: record.Kind) -> str:
    """The greatest bad share of the SLI of latency."""
    slo = {"checkout": "checkout-latency", "read": "product-reads-latency"}[kind]
    for of in found.impact.budgets if found.impact else ():
        if of.objective.id == slo and of.worst is not None:
            return f"{of.worst:.1%} at the worst moment{of.cited}"
    return "not known"


def _purchases(found: Found) -> list[tuple[str, str]]:
    if found.impact is None:
        return []
    of = found.impact.purchases
    money = findings.sums(found.impact)
    return [
        ("purchases begun", f"{of.begun:,}{of.cited['begun']}"),
        ("lost: the last attempt failed", f"{of.lost:,}{of.cited['lost']}"),
        (
            f"delayed: confirmed after more than {views.SLOW_MS} ms, retries included",
            f"{of.delayed:,}{of.cited['delayed']}",
        ),
        ("unsettled when the record ends", f"{of.unsettled:,}{of.cited['unsettled']}"),
        ("tried again by their customers", f"{of.retried:,}{of.cited['retried']}"),
        ("… and saved by it", f"{of.saved:,}{of.cited['saved']}"),
        (
            f"refused in the end; more than the usual {of.refused_before:.1%}",
            f"{of.refused:,}; {of.turned_away:,}{of.cited['refused']}{of.cited['refused_before']}",
        ),
        (
            "money at risk: of the lost, the unsettled, and those refused beyond the usual share",
            f"{money}{findings.money_cited(of)}",
        ),
    ]


def _budgets(found: Found) -> list[tuple[str, str, str]]:
    """Of those that something burned, the most first; the others are one line."""
    budgets = sorted(
        found.impact.budgets if found.impact else (), key=lambda each: -(each.burned or 0)
    )
    rows = []
    others = []
    for of in budgets:
        if of.burned is None or max(of.burned, of.by_clients or 0) >= TOLD_BUDGET:
            name = f"{of.objective.id} ({of.objective.percent:g}%)"
            rows.append((name, *findings.told_budget(of)))
        else:
            others.append(of)
    if others:
        marks = "".join(of.cited for of in others)
        rows.append((f"the other {len(others)} SLOs", f"less than 0.01% each{marks}", "-"))
    return rows
