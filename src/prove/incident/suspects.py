"""Where spans say that an incident came from: hypotheses, each with the question that found it.

Three signs, each against the incident's own baseline: where failures begin (a failed span below
which none failed; the earliest first, for what is a consequence comes later), where time is lost (a
span's own time, without what it waited for), and who fell silent. They point at a place; why it
happened there spans don't say.
"""

import math
from dataclasses import dataclass
from typing import Literal

from prove.incident.impact import Citations
from prove.incident.record import Window, Windows
from prove.incident.tables import Tables

MOST = 3
"""Hypotheses of a sign."""
NOTABLE_MS = 5.0
SILENT_S, SILENT_TIMES = 2.0, 4
"""Silent is who made no span for so long, and so many times the longest pause before."""


@dataclass(frozen=True)
class Suspect:
    """A place and what speaks for it."""

    sign: Literal["failures", "time", "silence"]
    service: str
    since_s: float
    """Seconds after the injection; of what has no time of its own, infinite."""
    told: str
    cited: str


def find(windows: Windows, answers: Tables, cite: Citations) -> list[Suspect]:
    """The most suspicious places, the earliest first; none without spans of both times."""
    sizes = answers.ask(
        "SELECT (FROM spans SELECT count(*)), (FROM baseline_spans SELECT count(*))"
    )
    if not all(sizes[0]):
        return []
    start_ns = round(windows.incident.start_unix_s * 1e9)
    during_s = windows.incident.end_unix_s - windows.incident.start_unix_s
    before_s = windows.baseline.end_unix_s - windows.baseline.start_unix_s
    found = [
        *_failures(answers, cite, start_ns, during_s, before_s),
        *_silences(windows, answers, cite),
        *_times(answers, cite, start_ns),
    ]
    return sorted(found, key=lambda each: each.since_s)


def _failures(
    answers: Tables, cite: Citations, start_ns: int, during_s: float, before_s: float
) -> list[Suspect]:
    def begins(name: str, source: str, since: int) -> str:
        return (
            f"{name} AS (SELECT f.service, f.name, count(*) AS n,"  # noqa: S608
            f" min(f.end_unix_nano) AS first_ns FROM {source} f"
            f" ANTI JOIN (FROM {source} WHERE status = 'error') c"
            " ON c.trace_id = f.trace_id AND c.parent_span_id = f.span_id"
            f" WHERE f.status = 'error' AND f.start_unix_nano >= {since} GROUP BY ALL)"
        )

    sql = (
        f"WITH {begins('during', 'spans', start_ns)}, {begins('before', 'baseline_spans', 0)}"  # noqa: S608
        f" SELECT service, name, during.n, coalesce(before.n, 0),"
        f" (during.first_ns - {start_ns}) / 1e9 AS first_s FROM during"
        " LEFT JOIN before USING (service, name)"
        f" WHERE during.n / {during_s} > 2 * coalesce(before.n, 0) / {before_s}"
        f" ORDER BY first_s, service, name LIMIT {MOST}"
    )
    found = answers.ask(sql)
    if not found:
        return []
    cited = cite.add("bundle", "failed spans below which no span failed, against the baseline", sql)
    return [
        Suspect(
            "failures",
            service,
            first_s,
            f"failures begin in {service}, `{name}`, {first_s:.1f} s after the injection: {count:,}"
            f" of its spans failed with no failed span below them, {before:,} in the baseline",
            cited,
        )
        for service, name, count, before, first_s in found
    ]


def _times(answers: Tables, cite: Citations, start_ns: int) -> list[Suspect]:
    def own(name: str, source: str, since: int) -> str:
        return (
            f"{name} AS (SELECT s.service, s.name, s.span_id, any_value(s.trace_id) AS trace_id,"  # noqa: S608
            " greatest(0, any_value(s.end_unix_nano - s.start_unix_nano)"
            " - coalesce(sum(c.end_unix_nano - c.start_unix_nano), 0)) / 1e6 AS own_ms"
            f" FROM {source} s LEFT JOIN {source} c"
            " ON c.trace_id = s.trace_id AND c.parent_span_id = s.span_id"
            f" WHERE s.start_unix_nano >= {since} GROUP BY s.service, s.name, s.span_id)"
        )

    sql = (
        f"WITH {own('during', 'spans', start_ns)}, {own('before', 'baseline_spans', 0)},"  # noqa: S608
        " d AS (SELECT service, name, avg(own_ms) AS ms, count(*) AS n FROM during GROUP BY ALL),"
        " b AS (SELECT service, name, avg(own_ms) AS ms FROM before GROUP BY ALL)"
        " SELECT service, name, d.ms, b.ms, d.n FROM d JOIN b USING (service, name)"
        f" WHERE d.ms - b.ms > {NOTABLE_MS} AND d.ms > 1.5 * b.ms"
        f" ORDER BY (d.ms - b.ms) * d.n DESC, service, name LIMIT {MOST}"
    )
    found = answers.ask(sql)
    if not found:
        return []
    cited = cite.add("bundle", "own time of spans, by name, against the baseline", sql)
    return [
        Suspect(
            "time",
            service,
            math.inf,
            f"time is lost in {service}, `{name}`: {ms:,.1f} ms by itself on average, {before:,.1f}"
            f" ms in the baseline ({count:,} spans). Of a span that asks another process, the"
            " network and the other side's queue are part of it",
            cited,
        )
        for service, name, ms, before, count in found
    ]


def _silences(windows: Windows, answers: Tables, cite: Citations) -> list[Suspect]:
    def longest(name: str, source: str, window: Window) -> str:
        start_ns, end_ns = (round(each * 1e9) for each in (window.start_unix_s, window.end_unix_s))
        return (
            f"{name} AS (SELECT service, max(pause) / 1e9 AS s,"  # noqa: S608
            f" (arg_max(ns, pause) - {start_ns}) / 1e9 AS since_s FROM (SELECT service, ns,"
            " lead(ns) OVER (PARTITION BY service ORDER BY ns) - ns AS pause FROM"
            f" (SELECT service, start_unix_nano AS ns FROM {source}"
            f" WHERE start_unix_nano >= {start_ns} UNION ALL"
            f" SELECT DISTINCT service, unnest([{start_ns}, {end_ns}]) FROM baseline_spans))"
            " GROUP BY service)"
        )

    sql = (
        f"WITH {longest('during', 'spans', windows.incident)},"  # noqa: S608
        f" {longest('before', 'baseline_spans', windows.baseline)}"
        " SELECT service, during.s, during.since_s, before.s FROM during"
        " JOIN before USING (service)"
        f" WHERE during.s > greatest({SILENT_S}, {SILENT_TIMES} * before.s)"
        f" ORDER BY during.since_s, service LIMIT {MOST}"
    )
    found = answers.ask(sql)
    if not found:
        return []
    cited = cite.add("bundle", "the longest time without a span, against the baseline", sql)
    return [
        Suspect(
            "silence",
            service,
            since_s,
            f"{service} fell silent {since_s:.1f} s after the injection: no span of it for"
            f" {lasted_s:.1f} s, {before_s:.1f} s at most in the baseline. It was down, hung, was"
            " not reached, or its telemetry was lost",
            cited,
        )
        for service, lasted_s, since_s, before_s in found
    ]
