"""What happened in an incident and when, from evidence alone.

A row is `known` when it is the evidence's own time: a command was sent, a request failed, an alert
fired. It is `inferred` when it is worked out, such as an SLI's recovery out of a window's average.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from prove.incident import objectives, record, sli, views
from prove.incident.objectives import Objective, Objectives
from prove.incident.record import Incident
from prove.incident.tables import Tables

TIMELINE = "timeline.json"
"""Of an incident's directory."""
Source = Literal["known", "inferred"]
EvidenceKind = Literal["query", "trace", "log", "command", "ledger", "page"]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Evidence(_Form):
    """What a row rests on.

    `ref` is where it is kept: a line of a file of the record, or of the bundle. `ask` is how to ask
    for it again: a command, a query, a trace's id.
    """

    kind: EvidenceKind
    ref: str
    ask: str


class Row(_Form):
    """Something that happened."""

    at_unix_us: int
    event: str
    """Of which kind: `injection`, `first-failure`, `alert-firing` …"""
    what: str
    source: Source
    evidence: Evidence


class Timeline(_Form):
    """`timeline.json`."""

    format: Literal["prove-timeline/1"] = "prove-timeline/1"
    id: str
    zero_unix_us: int
    """What offsets count from: the injection, else the begin of the run."""
    rows: list[Row]

    def first(self, event: str) -> Row | None:
        """The earliest row of that kind."""
        return next((row for row in self.rows if row.event == event), None)


@dataclass(frozen=True)
class Burn:
    """A time in which an SLI was worse than promised, by the windows that ended in it; Unix times.

    `ended_s` None: it still was when the record ends.
    """

    objective: Objective
    began_s: float
    ended_s: float | None
    worst: float


def build(directory: Path) -> Timeline:
    """The timeline of a record; raises UserError for one that can't be read."""
    incident = record.read(directory)
    zero_us = incident.injected_unix_us or incident.started_unix_us
    pages = list(record.lines(directory / record.PAGES, record.Page))
    rows = [
        *_begin_and_end(incident),
        *_actions(incident),
        *_alerts(directory, incident, pages),
        *_pages(incident, pages),
    ]
    promised = objectives.read(directory)
    kept = sli.Kept.of(directory)
    if promised is not None:
        rows += _recoveries(incident, promised, kept)
    if incident.injected_unix_us is not None:
        answers = views.tables(directory)
        rows += _requests(answers, incident.injected_unix_us)
        rows += _logs(answers, incident.injected_unix_us)
    # Of what is simultaneous to the microsecond, causes come first: so they were listed.
    return Timeline(
        id=incident.id, zero_unix_us=zero_us, rows=sorted(rows, key=lambda row: row.at_unix_us)
    )


def write(directory: Path) -> Timeline:
    """Build it, and keep it in the record; raises UserError."""
    built = build(directory)
    record.write(directory / TIMELINE, built)
    return built


def burns(promised: Objectives, kept: sli.Kept, since_s: float) -> list[Burn]:
    """For each SLI that was worse than promised after that time: from when until when."""
    found = []
    for objective in promised.slos:
        points = [(at_s, value) for at_s, value in kept.points(objective.id) if at_s >= since_s]
        bad = [(at_s, value) for at_s, value in points if value > objective.budget]
        if not bad:
            continue
        last_s = bad[-1][0]
        after = [at_s for at_s, _ in points if at_s > last_s]
        found.append(
            Burn(
                objective,
                began_s=bad[0][0],
                ended_s=after[0] if after else None,
                worst=max(value for _, value in bad),
            )
        )
    return found


def moment(unix_us: int) -> str:
    """`20:15:03.120`, UTC."""
    return f"{datetime.fromtimestamp(unix_us / 1e6, UTC):%H:%M:%S.%f}"[:-3]


def offset(unix_us: int, zero_us: int) -> str:
    """`+12.3 s`."""
    return f"{(unix_us - zero_us) / 1e6:+.1f} s"


def _begin_and_end(incident: Incident) -> Iterator[Row]:
    for event, at_us, what in (
        ("load-on", incident.started_unix_us, "load is put on the shop"),
        ("end", incident.ended_unix_us, "the record ends"),
    ):
        yield Row(
            at_unix_us=at_us,
            event=event,
            what=what,
            source="known",
            evidence=Evidence(
                kind="command",
                ref=f"{record.INCIDENT}#{'started' if event == 'load-on' else 'ended'}_unix_us",
                ask=f"provectl incident run {incident.scenario} --seed {incident.seed}",
            ),
        )


def _actions(incident: Incident) -> Iterator[Row]:
    names = {"inject": "injection", "rollback": "rollback"}
    for number, action in enumerate(incident.actions):
        answer = "no answer" if action.status is None else str(action.status)
        outcome = answer if action.ok else f"{answer}: {action.detail or 'it failed'}"
        yield Row(
            at_unix_us=action.at_unix_us,
            event=names[action.phase],
            what=f"{names[action.phase]}: {action.name} ({outcome})",
            source="known",
            evidence=Evidence(
                kind="command",
                ref=f"{record.INCIDENT}#actions[{number}]",
                ask=f"{action.method} {action.url}",
            ),
        )


def _requests(answers: Tables, injected_us: int) -> Iterator[Row]:
    """The first and the last request of each sort that went wrong after the injection.

    Some are always slow, or unsettled: they are told where they became clearly more.
    """
    for kind in ("checkout", "read"):
        for event, condition, told in (
            ("failure", views.FAILED, "fails"),
            ("slow", views.SLOW, f"takes over {views.SLOW_MS} ms"),
            ("unsettled", views.UNSETTLED, "is taken but not confirmed"),
        ):
            rows = answers.ask(
                "SELECT line, done_unix_us, method, route, status, latency_ms, trace_id"  # noqa: S608
                f" FROM requests WHERE {condition} AND kind = '{kind}'"
                f" AND done_unix_us >= {injected_us} ORDER BY done_unix_us"
            )
            if not rows or (
                event != "failure" and not _more(answers, kind, condition, injected_us)
            ):
                continue
            yield _request(f"first-{event}", f"first {kind} that {told}", rows[0])
            if len(rows) > 1:
                yield _request(f"last-{event}", f"last {kind} that {told}", rows[-1])


def _more(answers: Tables, kind: str, condition: str, injected_us: int) -> bool:
    """Whether such requests were clearly more of all after the injection than before."""
    ((after, before),) = answers.ask(
        f"SELECT coalesce(avg(({condition})::INT) FILTER (done_unix_us >= {injected_us}), 0),"  # noqa: S608
        f" coalesce(avg(({condition})::INT) FILTER (done_unix_us < {injected_us}), 0)"
        f" FROM requests WHERE kind = '{kind}'"
    )
    return float(after) > max(views.NOTABLE, 2 * float(before))


def _request(event: str, what: str, found: tuple[object, ...]) -> Row:
    line, done_us, method, route, status, latency_ms, trace_id = found
    told = f"status {status}" if status else "no answer"
    return Row(
        at_unix_us=int(str(done_us)),
        event=event,
        what=f"{what}: {method} {route}, {told} after {float(str(latency_ms)):,.0f} ms",
        source="known",
        evidence=Evidence(
            kind="ledger",
            ref=f"{record.LEDGER}:{line}",
            ask=f"provectl trace {trace_id}" if trace_id else f"sed -n {line}p {record.LEDGER}",
        ),
    )


def _logs(answers: Tables, injected_us: int) -> Iterator[Row]:
    """The first error that each service logged after the injection."""
    rows = answers.ask(
        "SELECT service, min(time_unix_nano), arg_min(body, time_unix_nano),"  # noqa: S608
        " arg_min(trace_id, time_unix_nano), count(*)"
        f" FROM logs WHERE {views.ERROR_LOG} AND time_unix_nano >= {injected_us * 1000}"
        " GROUP BY service ORDER BY 2"
    )
    for service, at_ns, body, trace_id, count in rows:
        text = " ".join(str(body).split())
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        yield Row(
            at_unix_us=int(at_ns) // 1000,
            event="first-error-log",
            what=f"{service} logs its first error of {count:,}: {shown}",
            source="known",
            evidence=Evidence(
                kind="log",
                ref=f"{record.BUNDLE}/logs.parquet, time_unix_nano = {at_ns}",
                ask=f"provectl logs --trace {trace_id}"
                if trace_id
                else f"provectl logs {str(service).removesuffix('-service')}",
            ),
        )


SAMPLED_US = 5_000_000
"""How much later than it was an alert's change may have been seen."""
_SHOWN = 90
"""Characters of a log record."""


def _alerts(directory: Path, incident: Incident, pages: Sequence[record.Page]) -> Iterator[Row]:
    """Changes of alerts from the injection on: those before it are not of this incident."""
    since_us = incident.injected_unix_us or incident.started_unix_us
    changes = record.lines(directory / record.ALERTS, record.AlertChange)
    for number, change in enumerate(changes, start=1):
        if change.at_unix_us < since_us:
            continue
        state = change.state if change.state != "resolved" else "firing"
        told_us = _fired(change, pages)
        yield Row(
            at_unix_us=told_us or change.at_unix_us,
            event=f"alert-{change.state}",
            what=f"{change.severity or 'alert'} {change.alertname} is"
            f"{'' if told_us else ' seen'} {change.state}",
            source="known" if told_us else "inferred",
            evidence=Evidence(
                kind="query",
                ref=f"{record.ALERTS}:{number}",
                ask=f'ALERTS{{alertname="{change.alertname}", alertstate="{state}"}}',
            ),
        )


def _fired(change: record.AlertChange, pages: Sequence[record.Page]) -> int | None:
    """When by the alert itself, where the pager was told; a change is seen at the next sample."""
    if change.state != "firing":
        return None
    alert = (change.alertname, change.severity, "firing")
    starts = (
        round(datetime.fromisoformat(page.starts_at).timestamp() * 1e6)
        for page in pages
        if (page.alert, page.severity, page.status) == alert
    )
    # It may have fired and ended just before.
    return max((at for at in starts if 0 <= change.at_unix_us - at < SAMPLED_US), default=None)


def _pages(incident: Incident, pages: Sequence[record.Page]) -> Iterator[Row]:
    since_us = incident.injected_unix_us or incident.started_unix_us
    for number, page in enumerate(pages, start=1):
        if page.received_at_unix_us < since_us:
            continue
        news = "received" if page.status == "firing" else "resolved"
        yield Row(
            at_unix_us=page.received_at_unix_us,
            event=f"{page.severity or 'notice'}-{news}",
            what=f"{page.severity or 'notice'} {page.alert} {news} at the pager",
            source="known",
            evidence=Evidence(
                kind="page",
                ref=f"{record.PAGES}:{number}",
                ask=f"provectl alerts {page.alert}",
            ),
        )


def _recoveries(incident: Incident, promised: Objectives, kept: sli.Kept) -> Iterator[Row]:
    since_us = incident.injected_unix_us
    if since_us is None:
        return
    for burn in burns(promised, kept, since_us / 1e6):
        objective = burn.objective
        evidence: Callable[[float], Evidence] = _asked(objective, kept)
        yield Row(
            at_unix_us=round(burn.began_s * 1e6),
            event="sli-bad",
            what=f"SLI {objective.id} is seen worse than promised",
            source="inferred",
            evidence=evidence(burn.began_s),
        )
        if burn.ended_s is not None:
            yield Row(
                at_unix_us=round(burn.ended_s * 1e6),
                event="sli-recovered",
                what=f"SLI {objective.id} is seen recovered "
                f"(its window looks back {promised.shortest_s} s)",
                source="inferred",
                evidence=evidence(burn.ended_s),
            )


def _asked(objective: Objective, kept: sli.Kept) -> Callable[[float], Evidence]:
    line = kept.line(objective.id)

    def at(moment_s: float) -> Evidence:
        return Evidence(
            kind="query",
            ref=f"{sli.SLI}:{line}",
            ask=f"{objective.recorded} > {objective.budget:g} @ {moment_s:.0f}",
        )

    return at


def lines(timeline: Timeline, rows: Iterable[Row] | None = None) -> list[tuple[str, ...]]:
    """For a table: offset, time, what, source, evidence."""
    return [
        (
            offset(row.at_unix_us, timeline.zero_unix_us),
            moment(row.at_unix_us),
            row.what,
            row.source,
            row.evidence.ref,
        )
        for row in (timeline.rows if rows is None else rows)
    ]
