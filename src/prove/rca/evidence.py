"""What was seen, told in sentences with their numbers, and how to see it again."""

import math
from collections import deque
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from typing import Any

import polars as pl

from prove.rca.blame import Blame, Row, is_failure
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle
from prove.rca.model import Evidence, Kind, Signal
from prove.rca.spans import Trees
from prove.rca.structure import NOTHING
from prove.units import count

SLOW_TOO, SHIFTED, MOST_OF_IT = 0.05, 0.1, 0.75
"""Of what is lost outside, and of Cliff's delta, and of its operations: what a lack of processor
time makes of a process."""
MOST_SHARED = 100
"""Times as long: no processor is shared by more, and who takes longer waits for something else."""
BESIDE, RISEN = 2, 1.5
"""Metrics, where they aren't what is gone by, and how many times as much they are."""
FAR = 1000
"""Spreads: a metric that never changed has none to count by."""
NEGLIGIBLE = 0.02
"""Of the bits of the signal that counts most."""
SEVERAL = 2
"""Requests that are held: of a service that hangs few are seen to end."""
MOST = 3
"""Items of evidence of a signal, and traces of an item."""
LONGEST = 90
"""Characters of a log template in a sentence."""


class Teller:
    """Of one incident."""

    def __init__(
        self,
        trees: Trees,
        templates: Sequence[str] = (),
        severe: Set[int] = frozenset(),
        measured: Set[str] = frozenset(),
    ) -> None:
        """`measured`: services that have metrics."""
        self._trees = trees
        self._templates, self._severe = templates, severe
        self._services = trees.ops["service"].to_list()
        self._names = trees.ops["name"].to_list()
        rows = pl.int_range(pl.len()).alias("row")
        self._during = trees.spans.with_columns(rows).filter(pl.col("window") == INCIDENT)
        self._measured = measured
        self._seen = frozenset(self._services)

    def seen_by(self, service: str) -> tuple[str, ...]:
        """Those whose calls to a service are all that is seen of it; () where it is seen itself."""
        if service in self._seen or service in self._measured or self._trees.spans.is_empty():
            return ()
        asking = self._trees.spans.filter(pl.col("callee") == service)["service"]
        return tuple(asking.unique().sort().to_list())

    def tell(self, service: str, found: Mapping[str, Blame]) -> tuple[Evidence, ...]:
        """The evidence against a service: of the signals that count, that which counts most first.

        Failures come before the rest where they count at least half as much: a reader can act upon
        them.
        """
        told: list[tuple[bool, float, float, Evidence]] = []
        most = max((blame.bits for blame in found.values()), default=0.0)
        for signal, blame in found.items():
            if blame.bits <= NEGLIGIBLE * most:
                continue
            tell = {"time": self._time, "structure": self._behaviour, "metrics": self._metric}
            seen: set[str] = set()
            in_order = signal == "structure"
            for row in _telling(blame.rows) if in_order else blame.rows:
                item = tell[signal](service, row)
                if item.sentence not in seen:
                    seen.add(item.sentence)
                    late = item.signal != "errors" or blame.bits < most / 2
                    place = 0.0 if in_order else -round(item.bits, 9)
                    told.append((late, -blame.bits, place, item))
                if len(seen) == MOST:
                    break
        told.sort(key=lambda each: each[:3])
        return tuple(item for *_, item in told)

    def beside(self, service: str, changes: pl.DataFrame) -> tuple[Evidence, ...]:
        """Metrics of a service that changed by more than chance among so many series do.

        They are no evidence of their own where there are spans: a caller that waits has more
        threads, too. But who looks at the service next sees them. Those that fall, as traffic does,
        are left out.
        """
        if changes.is_empty():
            return ()
        more, by = pl.col("after"), pl.col("healthy")
        mine = changes.filter(
            (pl.col("service") == service)
            & (pl.col("bits") > math.log2(changes.height + 1) / 2)
            & (more > RISEN * by)
            & (by >= 0)
        ).sort(more / by, "metric", descending=[True, False])
        return tuple(self._metric(service, row) for row in mine.head(BESIDE).to_dicts())

    def kind(
        self, service: str, found: Mapping[str, Blame], items: pl.DataFrame, alerted: str = ""
    ) -> Kind:
        """What sort of fault the evidence looks like; of metrics, what the alert was about.

        `items`: timing.lost's.
        """
        if not found:
            return "unknown"
        signal = max(found, key=lambda each: found[each].bits)
        rows = found[signal].rows
        if found[signal].bits <= 0 or not rows:
            return "unknown"
        if signal == "time":
            return self._slowness(service, rows, items)
        if signal == "structure":
            telling = [row for row in rows if row["bits"] >= rows[0]["bits"] / 2]
            failing = any(is_failure(row, self._severe) for row in telling)
            return "errors" if failing else "omission"
        return _ALERTED.get(alerted, "resource")

    def instance(self, service: str, found: Mapping[str, Blame]) -> str | None:
        """The only one, or the one that is slower than the others by far."""
        rows = {
            row["instance"] for blame in found.values() for row in blame.rows if row.get("instance")
        }
        known = self._instances.get(service) or rows
        if len(known) == 1:
            return str(next(iter(known)))
        blame = found.get("time")
        inside = [row for row in blame.rows if row["side"] == "inside"] if blame else []
        if not inside:
            return None
        of = pl.col("service") == service, pl.col("op") == inside[0]["op"]
        slow = (
            self._during.filter(*of)
            .drop_nulls("instance")
            .group_by("instance")
            .agg(pl.col("own_ms").median())
            .sort("own_ms", "instance", descending=True)
        )
        if slow.height > 1 and slow["own_ms"][0] >= 2 * slow["own_ms"][1:].median():  # type: ignore[operator]
            return str(slow["instance"][0])
        return None

    @cached_property
    def _instances(self) -> dict[str, set[str]]:
        """Of each service, those that are seen in the incident."""
        found: dict[str, set[str]] = {}
        for service, instance in self._during.select("service", "instance").unique().iter_rows():
            if instance is not None:
                found.setdefault(service, set()).add(instance)
        return found

    def _slowness(self, service: str, rows: list[Row], items: pl.DataFrame) -> Kind:
        """A processor that is lacking slows all that a process does; what else there is, some."""
        lost = {"inside": 0.0, "asked": 0.0, "asks": 0.0}
        for row in rows:  # by what is known of it, too: all of a busy machine is a little slower
            lost[row["side"]] += row["loss_ms"] * row["bits"]
        outside = lost["asked"] + lost["asks"]
        if lost["inside"] < outside:
            # The network, or a process that gets to nothing in time: then it is slow inside, too,
            # or its own calls wait, whomever they ask.
            late = lost["inside"] >= SLOW_TOO * outside or lost["asks"] > lost["asked"]
            return "cpu" if late else "network"
        mine = items.filter((pl.col("service") == service) & pl.col("callee").is_null())
        times = max(row["after_ms"] / max(row["healthy_ms"], 1e-3) for row in rows)
        if times > MOST_SHARED:
            return "latency"
        slower = mine.filter(pl.col("shift") > SHIFTED).height
        return "cpu" if mine.height > 1 and slower >= MOST_OF_IT * mine.height else "latency"

    def _time(self, service: str, row: Row) -> Evidence:
        name, where = self._names[row["op"]], self._services[row["op"]]
        before, after = row["healthy_ms"], row["after_ms"]
        numbers = (
            f"{ms(after)} now, {ms(before)} before"
            f" ({_times(before, after) or 'from nothing'}; medians of"
            f" {count(row['n_after'], 'span')} and of {row['n_before'] + row['n_local']:,})"
        )
        callee = row["callee"]
        if row["side"] == "inside":
            told = f"`{name}` of {service} takes by itself {numbers}"
        elif self.seen_by(callee):
            told = f"calls of {where} to {callee} (`{name}`) take {numbers}"
        elif row["side"] == "asked":
            told = (
                f"calls of {where} to {service} (`{name}`) spend {numbers} on the way to {service}"
                " and back, or waiting to be served by it"
            )
        else:
            told = f"calls of {service} to {callee} (`{name}`) spend {numbers} outside of {callee}"
        chosen = self._during.filter(pl.col("op") == row["op"])
        if row["callee"] is not None:
            chosen = chosen.filter(pl.col("callee") == row["callee"])
        slowest = chosen.sort("own_ms", descending=True)["trace"]
        return Evidence(
            "time",
            f"{told}.",
            name,
            before,
            after,
            "ms",
            row["bits"],
            self._ids(slowest),
            self._time_query(row),
            where,
            asks=callee or "",
        )

    def _behaviour(self, service: str, row: Row) -> Evidence:
        name, where = self._names[row["op"]], self._services[row["op"]]
        told = f"`{name}` of {where} {self._does(row)}"
        share = (
            f"{percent(row['rate'])} of the time now ({count(row['n_after'], 'trace')}),"
            f" {percent(row['healthy'])} before ({row['n_before']:,})"
        )
        called = where != service and row["kind"] == "failure"
        whose = "" if where == service or called else f", and so do other callers of {service}"
        signal: Signal = "logs" if row["kind"] in ("log", "then") else "structure"
        if row["kind"] in ("failure", "silence"):
            signal = "errors"
        if row["kind"] == "silence":
            return self._silence(where, row)
        chosen = self._during.filter(pl.col("op") == row["op"])
        if row["kind"] in ("child", "again", "next") and row["event"] != NOTHING:
            mothers = self._trees.spans.filter(pl.col("op") == row["event"])["parent"]
            at = pl.int_range(pl.len()).is_in(mothers.implode())
            rows = self._trees.spans.with_columns(at.alias("has")).filter(
                (pl.col("window") == INCIDENT) & (pl.col("op") == row["op"])
            )
            chosen = rows.filter(pl.col("has") == (row["rate"] > row["healthy"]))
        elif row["kind"] == "failure":
            chosen = chosen.filter("failed")
        answered = held_ms = None
        if called:
            told = f"calls of {where} to {service} (`{name}`) fail"
            if not self.seen_by(service):
                answered, held_ms = self._answered(chosen, service), self._held_ms.get(service)
            whose += _answers(service, answered, held_ms)
        template = self._template(row)
        return Evidence(
            signal,
            f"{told} {share}{whose}.",
            name,
            row["healthy"],
            row["rate"],
            "share of spans",
            row["bits"],
            self._ids(self._usual_first(chosen)["trace"]),
            self._event_query(row),
            where,
            asks=service if called else "",
            template=template,
            answered=answered,
            held_ms=held_ms,
        )

    def _answered(self, calls: pl.DataFrame, service: str) -> float | None:
        """Of calls the share of which a service has a span."""
        below = self._trees.spans.filter(pl.col("service") == service)["parent"]
        return calls.select(pl.col("row").is_in(below.implode()).mean()).item()  # type: ignore[no-any-return]

    @cached_property
    def _held_ms(self) -> dict[str, float]:
        """How long a service was at calls that it hadn't done when they failed (median).

        By how long both lasted: so it doesn't matter whose clock is right.
        """
        lasted = (pl.col("end_ns") - pl.col("start_ns")) / 1e6
        asked = self._during.filter("failed").select("row", "callee", lasted.alias("asked_ms"))
        own = self._during.select("parent", "service", lasted.alias("own_ms"))
        held = asked.join(
            own, left_on=["row", "callee"], right_on=["parent", "service"], how="inner"
        ).filter(pl.col("own_ms") > pl.col("asked_ms"))
        of = held.group_by("callee").agg(pl.col("own_ms").median(), pl.len().alias("n"))
        return dict(of.filter(pl.col("n") >= SEVERAL).select("callee", "own_ms").iter_rows())

    @cached_property
    def _usual(self) -> pl.DataFrame:
        """Of each trace how many of its sort there are in health: trace, usual."""
        roots = self._trees.spans.filter(pl.col("parent") < 0)
        usual = roots.filter(pl.col("window") != INCIDENT).group_by("op").len("usual")
        of = roots.join(usual, on="op", how="left").group_by("trace")
        return of.agg(pl.col("usual").max())

    def _usual_first(self, spans: pl.DataFrame) -> pl.DataFrame:
        """Those of the sort of request first that there are most of in health: customers' own."""
        return spans.join(self._usual, on="trace", how="left", maintain_order="left").sort(
            "usual", descending=True, nulls_last=True, maintain_order=True
        )

    def _template(self, row: Row) -> str:
        """The line whose coming or going is told: that before it, where nothing follows."""
        if row["kind"] not in ("log", "then"):
            return ""
        return self._templates[row["after"] if row["event"] == NOTHING else row["event"]]

    def _silence(self, service: str, row: Row) -> Evidence:
        return Evidence(
            "errors",
            f"For {percent(row['rate'])} of the time {service} begins nothing, while requests that"
            " don't need it are served; its longest pause before was"
            f" {ms(row['pause_s'] * 1000)}.",
            self._names[row["op"]],
            row["healthy"],
            row["rate"],
            "share of time",
            row["bits"],
            (),
            _pauses_query(service),
            service,
        )

    def _does(self, row: Row) -> str:
        if row["kind"] == "failure":
            return "fails, and nothing below it does,"
        if row["kind"] == "log":
            level = " as an error" if row["event"] in self._severe else ""
            return f"logs{level} “{_cut(self._templates[row['event']])}”"
        if row["kind"] == "then":
            after = _cut(self._templates[row["after"]])
            if row["event"] == NOTHING:
                return f"logs nothing more after “{after}”"
            return f"after “{after}” logs “{_cut(self._templates[row['event']])}”"
        if row["kind"] == "next" and row["event"] == NOTHING:
            return f"asks nothing more after `{self._names[row['after']]}`"
        child = self._names[row["event"]]
        of = self._services[row["event"]]
        called = f"`{child}`" if of == self._services[row["op"]] else f"`{child}` of {of}"
        if row["kind"] == "next":
            return f"goes on from `{self._names[row['after']]}` to {called}"
        return f"calls {called}" + (" more than once" if row["kind"] == "again" else "")

    def _metric(self, service: str, row: Row) -> Evidence:
        away = abs(row["shift"])
        far = "" if away > FAR else f"; {away:,.3g} times its usual spread away"
        of = f" ({row['instance']})" if row.get("instance") else ""
        now, before = row["after"], row["healthy"]
        times = _times(before, now, "as much")
        return Evidence(
            "metrics",
            f"`{row['metric']}` of {service}{of} is {number(now)} now (mean), {number(before)}"
            f" before (median){f': {times}' if times else ''}{far}.",
            row["metric"],
            row["healthy"],
            row["after"],
            "",
            row["bits"],
            (),
            "SELECT part, count(*) AS n, median(value), avg(value) FROM rca_metrics WHERE service ="  # noqa: S608
            f" {_text(service)} AND metric = {_text(row['metric'])} AND instance IS NOT DISTINCT"
            f" FROM {_text(row.get('instance'))} GROUP BY part ORDER BY part",
            service,
            row.get("instance"),
        )

    def _ids(self, traces: pl.Series) -> tuple[str, ...]:
        first = traces.unique(maintain_order=True).head(MOST)
        return tuple(str(self._trees.trace_ids[int(each)]) for each in first)

    def _op(self, op: int, of: str = "") -> str:
        """That a row of rca_spans is of an operation, in SQL."""
        return f"{of}service = {_text(self._services[op])} AND {of}name = {_text(self._names[op])}"

    def _time_query(self, row: Row) -> str:
        asked = "asks IS NULL"
        if row["callee"] is not None:
            answer = None if row["callee_op"] < 0 else self._names[row["callee_op"]]
            asked = f"asks = {_text(row['callee'])} AND asks_for IS NOT DISTINCT FROM "
            asked += _text(answer)
        return (
            "SELECT part, count(*) AS spans, median(own_ms) AS own_ms FROM rca_spans WHERE"  # noqa: S608
            f" {self._op(row['op'])} AND {asked} AND NOT failed_below GROUP BY part ORDER BY part"
        )

    def _event_query(self, row: Row) -> str:
        """Of each part's traces, the share of such spans that have the event."""
        mine, kind, event = self._op(row["op"], "s."), row["kind"], row["event"]
        free = "NOT s.failed_below AND NOT s.failed AND NOT s.gave_up"
        if kind == "failure":
            free = "NOT s.failed_below AND (NOT s.gave_up OR s.asks IS NOT NULL)"
            return _shares("s.failed", f"rca_spans s WHERE {mine} AND {free}")
        inner = "c.part = s.part AND c.trace_id = s.trace_id"
        if kind in ("child", "again"):
            more = 1 if kind == "again" else 0
            has = (
                f"(SELECT count(*) > {more} FROM rca_spans c WHERE {inner}"  # noqa: S608
                f" AND c.parent_span_id = s.span_id AND {self._op(event, 'c.')})"
            )
            return _shares(has, f"rca_spans s WHERE {mine} AND {free}")
        if kind == "log":
            line = f"c.template = {_text(self._templates[event])}"
            has = (
                f"EXISTS (SELECT 1 FROM rca_logs c WHERE {inner}"  # noqa: S608
                f" AND c.span_id = s.span_id AND {line})"
            )
            return _shares(has, f"rca_spans s WHERE {mine} AND {free}")
        if kind == "next":
            what = "c.service || ' ' || c.name"
            order, table, key = "start_unix_nano", "rca_spans", "parent_span_id"
            names = [
                None if each == NOTHING else f"{self._services[each]} {self._names[each]}"
                for each in (row["after"], event)
            ]
        else:
            what, order, table, key = "c.template", "time_unix_nano", "rca_logs", "span_id"
            names = [
                None if each == NOTHING else self._templates[each] for each in (row["after"], event)
            ]
        follows = (
            f"SELECT s.part, s.trace_id, {what} AS this, lead({what}) OVER (PARTITION BY s.part,"  # noqa: S608
            f" s.trace_id, s.span_id ORDER BY c.{order}) AS next FROM rca_spans s JOIN {table} c ON"
            f" {inner} AND c.{key} = s.span_id WHERE {mine} AND {free}"
        )
        return _shares(
            f"s.next IS NOT DISTINCT FROM {_text(names[1])}",
            f"({follows}) s WHERE s.this = {_text(names[0])}",
        )


def _telling(rows: Sequence[Row]) -> list[Row]:
    """Rows of behaviour as a reader wants them: failures that count come first.

    Of these those first of which there are most when all is well: what is asked then is asked by
    customers, and what cleans up after a failure isn't. Of calls that change by one share in one
    operation, as the branch does that has them, one is told.
    """
    least = rows[0]["bits"] / 4 if rows else 0.0

    def place(row: Row) -> tuple[bool, float, float]:
        fails = row["kind"] == "failure" and row["bits"] >= least
        return not fails, -row["rate"] * row["n_before"] if fails else 0.0, -row["bits"]

    told: dict[Any, Row] = {}
    for at, row in enumerate(sorted(rows, key=place)):
        share = round(min(row["rate"], 1 - row["rate"]), 2)
        called = row["kind"] in ("child", "again", "next") and (row["op"], row["n_after"], share)
        told.setdefault(called or at, row)
    return list(told.values())


def reached(answered: float | None) -> bool | None:
    """Whether most of the calls that fail reach who is called; None: that isn't known."""
    return None if answered is None else answered >= 1 / 2


def _answers(service: str, answered: float | None, held_ms: float | None) -> str:
    """What it tells of failed calls that who is called has spans of them, or hasn't."""
    if held_ms is not None:
        return (
            f"; at some of them {service} is for {ms(held_ms)} (median), when their caller has long"
            " given up: it hangs, or waits for something"
        )
    if answered is None:
        return ""
    if not reached(answered):
        return (
            f"; {percent(1 - answered)} of the failed ones have no span of {service}: they don't"
            " reach it, or it hangs or ends before it answers"
        )
    return (
        f"; {service} has spans of {percent(answered)} of the failed ones, and they don't fail: it"
        " refuses, or its answer is lost or late"
    )


def path(symptom: str | None, cause: str, callees: Mapping[str, set[str]]) -> tuple[str, ...]:
    """The shortest way along calls from the symptom to the cause; the cause alone without one."""
    if symptom is None or symptom == cause:
        return (cause,)
    came: dict[str, str] = {symptom: ""}
    waiting = deque([symptom])
    while waiting:
        at = waiting.popleft()
        for each in sorted(callees.get(at, ())):
            if each not in came:
                came[each] = at
                waiting.append(each)
    if cause not in came:
        return (cause,)
    way = [cause]
    while came[way[-1]]:
        way.append(came[way[-1]])
    return tuple(reversed(way))


def lacking(bundle: Bundle, trees: Trees) -> tuple[str, ...]:
    """What there was none of, a sentence each."""
    lacks = []
    windows = trees.traces
    for name, table in (
        ("spans", bundle.spans),
        ("metrics", bundle.metrics),
        ("logs", bundle.logs),
    ):
        if table.is_empty():
            lacks.append(f"There are no {name}.")
        elif not set(table["window"].unique()) & {BASELINE, LOCAL}:
            lacks.append(f"There are no {name} of a healthy time.")
    torn = trees.spans.filter(pl.col("torn"))
    if not torn.is_empty():
        share = torn.height / trees.spans.height
        lacks.append(f"The parents of {torn.height:,} spans ({share:.1%}) aren't there.")
    if windows.get(INCIDENT, 0) and windows[INCIDENT] < FEW_TRACES:
        lacks.append(f"The incident has {windows[INCIDENT]} traces only.")
    return tuple(lacks)


FEW_TRACES = 20
_ALERTED: Mapping[str, Kind] = {
    "latency": "latency",
    "errors": "errors",
    "availability": "errors",
}
"""Kinds by an alert's signal."""


def ms(value: float) -> str:
    """`83.7 ms`, `1.2 s`: three digits."""
    return f"{number(value)} ms" if abs(value) < 1000 else f"{number(value / 1000)} s"


def number(value: float) -> str:
    """Three digits, and all that are before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 or not value else f"{value:.2e}"


def percent(share: float) -> str:
    """Whole, but never 0% or 100% where that isn't so."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def _times(before: float, after: float, what: str = "as long") -> str:
    """`11 times as long`; '' where there is nothing to divide by."""
    if before <= 0 or after < 0:
        return ""
    times = after / before
    if times >= 10:
        return f"{times:,.0f} times {what}"
    return f"{times:.1f} times {what}" if times >= 0.1 else f"{times:.2g} times {what}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"…{text[-LONGEST:]}"


def _text(value: Any) -> str:
    """As SQL writes it."""
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


def _shares(has: str, rows: str) -> str:
    """SQL: of each part, how many traces, and the mean share of their rows that have something."""
    return (
        f"SELECT part, count(*) AS traces, avg(share) AS share FROM (SELECT s.part, s.trace_id,"  # noqa: S608
        f" avg(({has})::INT) AS share FROM {rows} GROUP BY s.part, s.trace_id)"
        " GROUP BY part ORDER BY part"
    )


def _pauses_query(service: str) -> str:
    return (
        "SELECT part, make_timestamp_ns(start_unix_nano) AS after, (lead(start_unix_nano) OVER"  # noqa: S608
        " (PARTITION BY part ORDER BY start_unix_nano) - start_unix_nano) / 1e9 AS pause_s FROM"
        f" rca_spans WHERE service = {_text(service)} ORDER BY pause_s DESC NULLS LAST LIMIT 10"
    )
