"""An analysis as text of 100 columns at most, and as JSON."""

import math
import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from prove.cause import advice
from prove.cause.asked import Source
from prove.rca.bundle import Window
from prove.rca.model import Analysis, Cause, Evidence
from prove.units import count

WIDTH = 100
SHOWN, SHOWN_EVIDENCE, SHOWN_TRACES = 5, 4, 2
"""Candidates, evidence of the first, and trace ids of that."""
NEGLIGIBLE = 0.01
"""Of the first's score: who has less is not shown to people."""
ARROW = " -> "
LONG_S = 2 * 3600
"""From here on hours say more than seconds."""


CONFIDENCE = (
    "Confidence: how often an answer with evidence this clear is right, by labelled incidents."
)


def lines(analysis: Analysis, source: Source | None = None) -> list[str]:
    """What a person on call wants to read, the answer first."""
    return [line for part in _parts(analysis, source) for line in part]


def document(analysis: Analysis, source: Source | None = None) -> dict[str, Any]:
    """All of it, for machines; `reason` is null where a cause is named."""
    told = asdict(analysis)
    told["abstained"] = analysis.abstained is not None
    told["reason"] = asdict(analysis.abstained) if analysis.abstained else None
    told["headline"] = advice.headline(analysis)
    told["next"] = [each.plain for each in advice.steps(analysis, source)]
    for cause, of in zip(analysis.causes, told["causes"], strict=True):
        for each, item in zip(cause.evidence, of["evidence"], strict=True):
            item["ask"] = [asked for _, asked in source.numbers(each)] if source else []
    told["ranking"] = analysis.ranking
    return _finite(told)  # type: ignore[no-any-return]


def candidates(analysis: Analysis) -> list[Cause]:
    """Those that something speaks for, the likeliest first."""
    least = NEGLIGIBLE * max((cause.score for cause in analysis.causes), default=0.0)
    return [cause for cause in analysis.causes if cause.score > 0 and cause.score >= least]


def _parts(analysis: Analysis, source: Source | None) -> Iterator[list[str]]:
    yield _wrapped(f"{analysis.incident}: ", advice.headline(analysis), "  ")
    yield ["", *_about(analysis)]
    shown = candidates(analysis)[:SHOWN]
    alike = 2 if analysis.abstained else 1
    for number, cause in enumerate(shown, start=1):
        yield ["", *_cause(number, cause, SHOWN_EVIDENCE if number <= alike else 1)]
    if (rest := len(analysis.causes) - len(shown)) > 0:
        yield ["", f"and {count(rest, 'other')} with less or nothing against them (--json has all)"]
    yield ["", "What to do next"]
    for step in advice.steps(analysis, source):
        yield _wrapped("  - ", step.text)
        yield [line for each in step.commands for line in _command("    $ ", each)]
    if shown and not analysis.abstained:
        yield ["", CONFIDENCE]
    if analysis.notes:
        yield ["", "Notes"]
        yield [line for note in analysis.notes for line in _wrapped("  - ", note)]


def _about(analysis: Analysis) -> list[str]:
    rows = []
    if analysis.alert is not None:
        what = analysis.alert.metric or analysis.alert.signal or "an alert"
        rows.append(f"alert      {what} of {analysis.alert.service}")
    elif analysis.symptom:
        rows.append(f"felt in    {analysis.symptom}")
    against = ", without a healthy time to compare with"
    if analysis.baseline is not None:
        against = f", against {length(analysis.baseline.seconds)} of health"
    rows.append(f"incident   {span(analysis.window)}{against}")
    rows.append(f"over?      {analysis.ending.sentence}")
    if analysis.causes and not analysis.abstained and len(analysis.causes[0].path) > 1:
        rows += _wrapped("path       ", ARROW.join(analysis.causes[0].path))
    return [line for row in rows for line in _wrapped("", row, " " * 11)]


def _cause(number: int, cause: Cause, most: int) -> list[str]:
    where = f"  {cause.instance}" if cause.instance else advice.sent_nothing(cause)
    head = f"{number}. {cause.service}  {cause.kind}  {advice.percent(cause.confidence)}"
    told = _wrapped("", f"{head}{where}", "   ")
    for each in cause.evidence[:most]:
        told += _wrapped("   - ", each.sentence)
        told += _wrapped("     ", _traces(each)) if each.trace_ids else []
    if not cause.evidence:
        told += ["   - nothing speaks for it by itself"]
    if (more := len(cause.evidence) - most) > 0:
        told.append(f"     and {more} more like it")
    return told


def _traces(each: Evidence) -> str:
    more = len(each.trace_ids) - SHOWN_TRACES
    shown = ", ".join(each.trace_ids[:SHOWN_TRACES])
    return f"trace {shown}" + (f" and {more} more" if more > 0 else "")


def span(window: Window) -> str:
    """`2026-11-29 20:15:00 to 20:16:10 UTC (70 s)`."""
    begin, end = (
        datetime.fromtimestamp(each, UTC) for each in (window.start_unix_s, window.end_unix_s)
    )
    until = f"{end:%H:%M:%S}" if end.date() == begin.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    return f"{begin:%Y-%m-%d %H:%M:%S} to {until} UTC ({length(window.seconds)})"


def length(seconds: float) -> str:
    """`70 s`, `49 h`."""
    return f"{seconds:,.0f} s" if seconds < LONG_S else f"{seconds / 3600:,.0f} h"


def _wrapped(first: str, text: str, indent: str | None = None) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()) if first else text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first) if indent is None else indent,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def _command(first: str, asked: str) -> list[str]:
    """On several lines that can be pasted together, where one is too long and can be broken.

    Within single quotes a line ends as it is, which SQL, PromQL and jq take for a space.
    """
    told, quote = [first], ""
    for word in asked.split(" "):
        started = bool(told[-1].strip()) and told[-1] != first
        if started and len(told[-1]) + 1 + len(word) > WIDTH - 2:
            told[-1] += "" if quote == "'" else " \\"
            told.append(" " * (len(first) + 2) + word)
        else:
            told[-1] += f" {word}" if started else word
        for sign in re.findall(r"\\.|['\"]", word):
            if sign in ("'", '"') and quote in ("", sign):
                quote = "" if quote else sign
    return told


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
