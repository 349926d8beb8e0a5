"""The running stack's telemetry as a bundle: Jaeger, Prometheus and VictoriaLogs, by their APIs.

When it began is worked out as a person on call would: a page tells which SLO burns, and its SLI's
course when that began. What was done to the system is not looked at.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from prove.cause import foreign
from prove.cause.asked import Stores
from prove.clients.jaeger import Jaeger
from prove.clients.logs import LogStore
from prove.clients.prometheus import Prometheus
from prove.errors import UserError
from prove.incident import bundle as exported
from prove.incident import objectives, record, sli
from prove.incident.objectives import Objectives
from prove.incident.telemetry import begins
from prove.rca import bundle
from prove.rca.bundle import Alert, Bundle, Window
from prove.spanrows import Row
from prove.stack import observability, state
from prove.stack.hints import command
from prove.stack.settings import StackSettings
from prove.units import count

PAGES = 'ALERTS{alertstate="firing", sloth_severity="page"}'
GUARD_INTERVALS = 2
"""Of rule evaluation between health and incident: what is exported at the begin is of both."""
GUARD_S = 8.0
"""At least: a request that hangs is bad only once it has timed out, and its SLI as late."""
MOST_S = 300.0
"""Of an incident that is looked at, from its begin: later there is more of the same."""
HEALTHY_S = 300.0
"""Of health before it, at the most."""
QUIET_SHARE = 0.25
"""Of the time that is looked at where nothing pages: the last quarter against the rest."""
LATEST_S = 2.0
"""Until a span has arrived."""
TIMEOUT_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Live:
    """What was found, and what was lacking, a sentence each."""

    bundle: Bundle
    notes: tuple[str, ...]
    source: Stores


@dataclass(frozen=True)
class Page:
    """An alert that fires or did; Unix seconds. `ended_s` None: it still does."""

    labels: Mapping[str, str]
    fired_s: float
    ended_s: float | None


def read(settings: StackSettings, since_s: float, now_s: float | None = None) -> Live:
    """The stack's last `since_s` seconds around the latest page.

    Raises UserError when no stack runs, none of its stores answers, or a page has been firing for
    longer than that.
    """
    current = state.require(settings.home)
    promised = objectives.of_profile("drill" if current.profile == "drill" else "standard")
    until_s = (time.time() if now_s is None else now_s) - LATEST_S
    asked = Window(until_s - since_s, until_s)
    prometheus = Prometheus(settings.url(settings.prometheus_port), timeout_s=TIMEOUT_S)
    notes: list[str] = []
    nothing: list[Row] = []

    def had(what: str, ask: Callable[[], T], otherwise: T) -> T:
        try:
            return ask()
        except UserError as error:
            notes.append(f"No {what}: {error}.")
            return otherwise

    page = had("alerts", lambda: latest_page(prometheus, promised, asked), None)
    if page is None:
        window = Window(until_s - QUIET_SHARE * since_s, until_s)
        told = f"No page fires or fired in the last {since_s:,.0f} s"
        notes.append(f"{told}: the last {window.seconds:,.0f} s are compared with those before.")
    else:
        begun_s = onset(prometheus, promised, page, asked)
        last_s = min(page.ended_s or until_s, begun_s + MOST_S)
        window = Window(begun_s, max(last_s, min(until_s, page.fired_s)))
    healthy = healthy_before(window.start_unix_s, asked, promised, paged=page is not None)
    whole = record.Window(start_unix_s=healthy.start_unix_s, end_unix_s=window.end_unix_s)
    jaeger = Jaeger(settings.url(settings.jaeger_port), timeout_s=TIMEOUT_S)
    spans = had("spans in Jaeger", lambda: _of_jaeger(jaeger, whole), nothing)
    spans = spans + _of_files(spans, observability.span_file(settings), whole, notes)
    metrics = had(
        "metrics", lambda: list(exported.metric_rows(prometheus, promised, whole)), nothing
    )
    store = LogStore(settings.url(settings.victorialogs_port))
    logs = had("logs", lambda: list(exported.log_rows(store, whole)), nothing)
    if not (spans or metrics or logs):
        raise UserError(
            f"none of the stack's stores has anything of the last {since_s:,.0f} s: {notes[-1]}"
        )
    alert = exported.alert_of(page.labels) if page else None
    name = f"live-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(window.start_unix_s))}"
    found = foreign.of_rows(
        name,
        spans,
        window,
        healthy,
        alert=Alert(alert.service, alert.signal, alert.metric) if alert else None,
        metrics=_placed(metrics, bundle.METRICS, "time_unix_s", 1.0, window, healthy),
        logs=_placed(logs, bundle.LOGS, "time_unix_nano", 1e9, window, healthy),
    )
    if page is not None:
        ago = page.fired_s - window.start_unix_s
        notes.insert(
            0,
            f"{page.labels.get('alertname', 'A page')} fired at {foreign.stamp(page.fired_s)}"
            f" {_until(page)}; its SLI went bad {ago:,.0f} s before.",
        )
    return Live(found, tuple(notes), Stores(settings, promised, window, healthy))


def _until(page: Page) -> str:
    return "and fires still" if page.ended_s is None else f"until {foreign.stamp(page.ended_s)}"


def healthy_until(begun_s: float, promised: Objectives) -> float:
    """When health ended, of an incident whose SLI went bad then."""
    return begun_s - max(GUARD_INTERVALS * promised.interval_s, GUARD_S)


def healthy_before(begun_s: float, asked: Window, promised: Objectives, *, paged: bool) -> Window:
    """The healthy time that an incident is compared with.

    Raises UserError where so little was asked for that none is left, and says how much is needed.
    """
    end_s = healthy_until(begun_s, promised)
    guard_s = begun_s - end_s
    healthy = Window(max(asked.start_unix_s, end_s - HEALTHY_S), end_s)
    if healthy.seconds >= promised.interval_s:
        return healthy
    if paged:
        why = f"it began {asked.end_unix_s - begun_s:,.0f} s ago"
        needed_s = asked.end_unix_s - end_s + HEALTHY_S
    else:
        why = "where nothing pages, the last quarter is compared with the time before"
        needed_s = (guard_s + promised.interval_s) / (1 - QUIET_SHARE)
    enough = command(f"rca --live --since {math.ceil(needed_s / 60)}m")
    raise UserError(
        f"{why}, less {guard_s:.0f} s between them, and of {asked.seconds:,.0f} s that leaves no "
        f"healthy time: look back further, {enough}"
    )


def latest_page(prometheus: Prometheus, promised: Objectives, asked: Window) -> Page | None:
    """What fires since longest; where nothing does, what fired last. Raises UserError."""
    step_s = float(promised.interval_s)
    found = []
    for series in prometheus.range(PAGES, asked.start_unix_s, asked.end_unix_s, step_s):
        times = [at_s for at_s, _ in series.points]
        fired_s = begins(times, step_s)[-1]
        firing = asked.end_unix_s - times[-1] <= 2.5 * step_s
        found.append(Page(series.labels, fired_s, None if firing else times[-1]))
    firing_now = [page for page in found if page.ended_s is None]
    if firing_now:
        return min(firing_now, key=lambda page: page.fired_s)
    if not found:
        return None
    # Of those of the latest incident the first: they come one after another.
    last = max(page.fired_s for page in found)
    together = [page for page in found if (page.ended_s or last) >= last]
    return min(together, key=lambda page: page.fired_s)


def onset(prometheus: Prometheus, promised: Objectives, page: Page, asked: Window) -> float:
    """When what a page is about began. Raises UserError."""
    slo = promised.find(page.labels.get("sloth_id", ""))
    series = (
        prometheus.range(slo.recorded, asked.start_unix_s, page.fired_s, float(promised.interval_s))
        if slo
        else []
    )
    points = [point for each in series for point in each.points]
    return sli.went_bad(points, promised, slo.id if slo else "", page.fired_s)


def _of_jaeger(jaeger: Jaeger, window: record.Window) -> list[Row]:
    """The spans of every service that Jaeger knows, each trace once."""
    found: dict[tuple[str, str], Row] = {}
    for service in jaeger.services():
        for row in jaeger.rows(service, window.start_unix_s, window.end_unix_s):
            found.setdefault((row["trace_id"], row["span_id"]), row)
    return [row for row in found.values() if not exported.is_control(row["name"])]


def _of_files(
    known: Sequence[Row], file: Path, window: record.Window, notes: list[str]
) -> list[Row]:
    """What Jaeger, whose memory is bounded, has forgotten, and the Collector's files still have."""
    oldest_s = min((row["start_unix_nano"] for row in known), default=0) / 1e9
    if known and oldest_s <= window.start_unix_s + 1:
        return []
    have = {(row["trace_id"], row["span_id"]) for row in known}
    try:
        more = [
            row
            for row in exported.span_rows(file, window)
            if (row["trace_id"], row["span_id"]) not in have
        ]
    except UserError:
        return []
    if more:
        since = f"before {foreign.stamp(oldest_s)}" if known else "of that time"
        notes.append(
            f"Jaeger doesn't have all spans {since}: {count(len(more), 'span')} came from the"
            " Collector's files."
        )
    return more


def _placed(
    found: Iterable[Row],
    schema: Mapping[str, Any],
    time_column: str,
    per_s: float,
    window: Window,
    healthy: Window,
) -> pl.DataFrame:
    needed = [name for name in ("service", "metric", "value", "body") if name in schema]
    table = pl.DataFrame(list(found), schema=dict(schema), orient="row").drop_nulls(needed)
    at = pl.col(time_column) / per_s
    before = table.filter((at >= healthy.start_unix_s) & (at <= healthy.end_unix_s))
    return bundle.place(table, before, time_column, per_s, window, None)
