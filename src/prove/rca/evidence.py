"""What was seen, told in sentences with their numbers, and how to see it again."""

import math
from collections import deque
from collections.abc import Mapping, Sequence, Set
from typing import Any

import polars as pl

from prove.rca.blame import Blame, Row, is_failure
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle
from prove.rca.model import Evidence, Kind, Signal
from prove.rca.spans import Trees
from prove.rca.structure import NOTHING

SLOW_TOO, SHIFTED, MOST_OF_IT = 0.05, 0.1, 0.75
"""Of what is lost outside, and of Cliff's delta, and of its operations: what a lack of processor
time makes of a process."""
BESIDE, RISEN = 2, 1.5
"""Metrics, where they aren't what is gone by, and how many times as much they are."""
FAR = 1000
"""Spreads: a metric that never changed has none to count by."""
NEGLIGIBLE = 0.02
"""Of the bits of the signal that counts most."""
MOST = 3
"""Items of evidence of a signal, and traces of an item."""
LONGEST = 90
"""Characters of a log template in a sentence."""


class Teller:
    """Of one incident."""

    def __init__(
        self, trees: Trees, templates: Sequence[str] = (), severe: Set[int] = frozenset()
    ) -> None:
        self._trees = trees
        self._templates, self._severe = templates, severe
        self._services = trees.ops["service"].to_list()
        self._names = trees.ops["name"].to_list()
        self._during = trees.spans.filter(pl.col("window") == INCIDENT)

    def tell(self, service: str, found: Mapping[str, Blame]) -> tuple[Evidence, ...]:
        """The evidence against a service: of the signals that count, that which counts most first.

        Failures come before the rest where they count at least half as much: a reader can act upon
        them.
        """
        told: list[tuple[bool, float, Evidence]] = []
        most = max((blame.bits for blame in found.values()), default=0.0)
        for signal, blame in found.items():
            if blame.bits <= NEGLIGIBLE * most:
                continue
            tell = {"time": self._time, "structure": self._behaviour, "metrics": self._metric}
            seen: set[str] = set()
            for row in blame.rows:
                item = tell[signal](service, row)
                if item.sentence not in seen:
                    seen.add(item.sentence)
                    late = item.signal != "errors" or blame.bits < most / 2
                    told.append((late, blame.bits, item))
                if len(seen) == MOST:
                    break
        told.sort(key=lambda each: (each[0], -each[1], -round(each[2].bits, 9)))
        return tuple(item for _, _, item in told)

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
        spans = self._during.filter(pl.col("service") == service).drop_nulls("instance")
        rows = [
            row["instance"] for blame in found.values() for row in blame.rows if row.get("instance")
        ]
        known = spans["instance"].unique().to_list() or sorted(set(rows))
        if len(known) == 1:
            return str(known[0])
        blame = found.get("time")
        inside = [row for row in blame.rows if row["side"] == "inside"] if blame else []
        if not inside or spans.is_empty():
            return None
        slow = (
            spans.filter(pl.col("op") == inside[0]["op"])
            .group_by("instance")
            .agg(pl.col("own_ms").median())
            .sort("own_ms", "instance", descending=True)
        )
        if slow.height > 1 and slow["own_ms"][0] >= 2 * slow["own_ms"][1:].median():  # type: ignore[operator]
            return str(slow["instance"][0])
        return None

    def _slowness(self, service: str, rows: list[Row], items: pl.DataFrame) -> Kind:
        """A processor that is lacking slows all that a process does; what else there is, some."""
        lost = {"inside": 0.0, "asked": 0.0, "asks": 0.0}
        for row in rows:  # by what is known of it, too: all of a busy machine is a little slower
            lost[row["side"]] += row["loss_ms"] * row["bits"]
        outside = lost["asked"] + lost["asks"]
        if lost["inside"] < outside:
            # The network, or a process that gets to nothing in time: then it is slow inside, too.
            return "network" if lost["inside"] < SLOW_TOO * outside else "cpu"
        mine = items.filter((pl.col("service") == service) & pl.col("callee").is_null())
        slower = mine.filter(pl.col("shift") > SHIFTED).height
        return "cpu" if mine.height > 1 and slower >= MOST_OF_IT * mine.height else "latency"

    def _time(self, service: str, row: Row) -> Evidence:
        name = self._names[row["op"]]
        before, after = row["healthy_ms"], row["after_ms"]
        spans = (
            f"median of {row['n_after']:,} spans, before of {row['n_before'] + row['n_local']:,}"
        )
        numbers = f"{_ms(after)}, {_ms(before)} before ({spans})"
        if row["side"] == "inside":
            told = f"`{name}` of {service} itself takes {numbers}"
        elif row["side"] == "asked":
            told = (
                f"calls of {row['service']} to {service} (`{name}`) spend outside of its spans, on"
                f" the network or until they are served, {numbers}"
            )
        else:
            told = f"calls of {service} to {row['callee']} (`{name}`) wait {numbers}"
        chosen = self._during.filter(pl.col("op") == row["op"])
        if row["callee"] is not None:
            chosen = chosen.filter(pl.col("callee") == row["callee"])
        slowest = chosen.sort("own_ms", descending=True)["trace"]
        return Evidence(
            "time",
            f"{told}: {_ms(row['loss_ms'])} more in each request of the incident.",
            name,
            before,
            after,
            "ms",
            row["bits"],
            self._ids(slowest),
            self._spans_query(row["op"]),
        )

    def _behaviour(self, service: str, row: Row) -> Evidence:
        name, where = self._names[row["op"]], self._services[row["op"]]
        told = f"`{name}` of {where} {self._does(row)}"
        share = (
            f"{row['rate']:.0%} of the time (in {row['n_after']:,} traces), {row['healthy']:.0%}"
            f" before (in {row['n_before']:,})"
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
        if called:
            told = f"calls of {where} to {service} (`{name}`) fail"
        return Evidence(
            signal,
            f"{told} {share}{whose}.",
            name,
            row["healthy"],
            row["rate"],
            "share of spans",
            row["bits"],
            self._ids(chosen["trace"]),
            _logs_query(where) if signal == "logs" else self._spans_query(row["op"]),
        )

    def _silence(self, service: str, row: Row) -> Evidence:
        return Evidence(
            "errors",
            f"For {row['rate']:.0%} of the time {service} does nothing, while requests that don't"
            f" need it are served; its longest pause before was {_ms(row['pause_s'] * 1000)}.",
            self._names[row["op"]],
            row["healthy"],
            row["rate"],
            "share of time",
            row["bits"],
            (),
            self._spans_query(row["op"]),
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
        far = "" if away > FAR else f": {away:,.1f} times its usual spread away"
        of = f" ({row['instance']})" if row.get("instance") else ""
        return Evidence(
            "metrics",
            f"`{row['metric']}` of {service}{of} is {row['after']:,.4g}, {row['healthy']:,.4g} in"
            f" the healthy time{far}.",
            row["metric"],
            row["healthy"],
            row["after"],
            "",
            row["bits"],
            (),
            f"SELECT time_unix_s, value FROM metrics WHERE service = {_text(service)}"  # noqa: S608
            f" AND metric = {_text(row['metric'])} ORDER BY time_unix_s",
        )

    def _ids(self, traces: pl.Series) -> tuple[str, ...]:
        first = traces.unique(maintain_order=True).head(MOST)
        return tuple(str(self._trees.trace_ids[int(each)]) for each in first)

    def _spans_query(self, op: int) -> str:
        return (
            "SELECT trace_id, span_id, (end_unix_nano - start_unix_nano) / 1e6 AS ms FROM spans"  # noqa: S608
            f" WHERE service = {_text(self._services[op])} AND name = {_text(self._names[op])}"
            " ORDER BY ms DESC"
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


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if abs(value) >= 100 else f"{value:,.3g} ms"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"…{text[-LONGEST:]}"


def _text(value: Any) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _logs_query(service: str) -> str:
    return f"SELECT time_unix_nano, severity, body FROM logs WHERE service = {_text(service)}"  # noqa: S608
