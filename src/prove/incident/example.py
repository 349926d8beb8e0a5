"""One request that went wrong, as its trace: what a reader can follow from end to end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prove import tracetree
from prove.incident import views
from prove.incident.impact import Citations, Impact, Way
from prove.incident.tables import Tables
from prove.tracetree import Span

_WAYS: dict[Way, tuple[str, str]] = {
    "failed": ("failed", views.FAILED),
    "slow": ("was slow", views.SLOW),
    "unsettled": ("was not confirmed", views.UNSETTLED),
    "refused": ("was refused", "outcome = 'refused'"),
}
MOST_SPANS = 40
"""Of a trace that is shown; the first of them."""


@dataclass(frozen=True)
class Example:
    """`lines` are a tree of spans; `torn`: of some the parent is not there."""

    told: str
    torn: bool
    lines: Sequence[str]
    cited: str


def find(impact: Impact, answers: Tables, cite: Citations) -> Example | None:
    """The first request of the gravest sort that left spans; None: none has.

    Only of sorts that were clearly more than before: some are always slow.
    """
    window = impact.window
    start_us, end_us = (round(each * 1e6) for each in (window.start_unix_s, window.end_unix_s))
    for way, (what, condition) in _WAYS.items():
        kinds = [f"'{each.kind}'" for each in impact.requests if way in each.hurt]
        if not kinds:
            continue
        rows = answers.ask(
            "SELECT trace_id, kind, status, latency_ms FROM requests"  # noqa: S608
            f" SEMI JOIN spans USING (trace_id) WHERE {condition} AND kind IN ({', '.join(kinds)})"
            f" AND done_unix_us >= {start_us} AND done_unix_us < {end_us}"
            " ORDER BY done_unix_us LIMIT 1"
        )
        if not rows:  # what leaves no span is better told by its absence than by something milder
            return None
        return _shown(what, rows[0], answers, cite)
    return None


def _shown(what: str, row: tuple[Any, ...], answers: Tables, cite: Citations) -> Example:
    trace_id, kind, status, latency_ms = row
    ask = (
        "SELECT span_id, parent_span_id, service, name, start_unix_nano, end_unix_nano, status"  # noqa: S608
        f" FROM spans WHERE trace_id = '{trace_id}' ORDER BY start_unix_nano, span_id"
    )
    spans = [_span(row) for row in answers.ask(ask)]
    known = {span.span_id for span in spans}
    cited = cite.add("bundle", "the spans of that trace", ask)
    answer = f"status {status}" if status else "no answer"
    return Example(
        told=f"The first {kind} that {what}: {answer} after {latency_ms:,.0f} ms, trace {trace_id}",
        torn=sum(span.parent_id not in known for span in spans) > 1,
        lines=tracetree.render(spans[:MOST_SPANS]),
        cited=cited,
    )


def _span(row: Sequence[object]) -> Span:
    span_id, parent_id, service, name, start_ns, end_ns, status = row
    start, end = int(str(start_ns)), int(str(end_ns))
    return Span(
        span_id=str(span_id),
        parent_id=None if parent_id is None else str(parent_id),
        service=str(service),
        name=str(name),
        start_us=start // 1000,
        duration_us=max(0, end - start) // 1000,
        failed=status == "error",
    )
