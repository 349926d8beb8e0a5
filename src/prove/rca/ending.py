"""Whether an incident is over: its symptom in the last part of its window, against the rest.

Looked at, in this order, the first that the incident shows against the healthy time: the alert's
metric; what fails (of the sort of request that fails most) and what is slow, where the incident is
felt; the first cause's first evidence. Each is a share of requests (or values) that are hurt. What
their intervals don't tell isn't told.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from prove.rca import structure
from prove.rca.blame import Row
from prove.rca.bundle import INCIDENT, Bundle
from prove.rca.model import Ending
from prove.rca.spans import Trees

LAST = 1 / 4
"""Of the window, at its end."""
MORE = 2
"""Times as many as in health: who is refused asks again."""


@dataclass(frozen=True)
class _Measure:
    """`rows`: at_s, during, hurt (0 to 1), an observation each. `of`: what they are."""

    of: str
    hurt: str
    rows: pl.DataFrame
    step_s: float = 0.0
    """Between two values, where they come at a pace."""


def tell(
    bundle: Bundle, trees: Trees, symptom: str | None, first: Row | None, lines: pl.DataFrame
) -> Ending:
    """Of an incident; `first` is the row of evidence that counts most against the first cause."""
    window = bundle.incident
    for each in _measures(bundle, trees, symptom, first, lines):
        last_s = max(LAST * window.seconds, each.step_s)
        late = pl.col("during") & (pl.col("at_s") >= window.end_unix_s - last_s)
        healthy, early, end, whole = (
            _counted(each.rows.filter(part))
            for part in (~pl.col("during"), pl.col("during") & ~late, late, pl.col("during"))
        )
        if not (healthy[1] and whole[1]) or _ends(*whole)[0] <= _ends(*healthy)[1]:
            continue
        early_s = window.seconds - last_s
        less = early_s > 0 and end[0] / last_s < early[0] / early_s
        told = _told(each, last_s, healthy, early, end, less=less)
        before_s = bundle.baseline_seconds
        times = whole[1] / window.seconds / (healthy[1] / before_s) if before_s > 0 else 1.0
        if times < MORE:
            return told
        more = (
            f" There are {times:,.0f} times as many a second as in health, repeated ones included."
        )
        return dataclasses.replace(told, sentence=told.sentence + more)
    return Ending("not known", "Whether it is over can't be told: no symptom stands out.")


def _told(
    each: _Measure,
    last_s: float,
    healthy: tuple[float, int],
    early: tuple[float, int],
    end: tuple[float, int],
    *,
    less: bool,
) -> Ending:
    """`less`: fewer are hurt a second at the end; a share falls also where more is asked."""
    seconds = f"the last {last_s:,.0f} s of the window"
    if not end[1]:
        return Ending(
            "not known",
            f"Whether it is over can't be told: in {seconds} there are no {each.of}; before that"
            f" {_share(early)} {each.hurt}, {_share(healthy)} in health.",
        )
    share = (
        f"in {seconds} {_share(end)} of {each.of} {each.hurt},"
        f" {_share(early)} earlier in the incident, {_share(healthy)} in health"
    )
    if _ends(*end)[0] > _ends(*healthy)[1]:
        wanes = less and early[1] and _ends(*end)[1] < _ends(*early)[0]
        told = "It wanes, but is not over" if wanes else "It is not over"
        return Ending("goes on", f"{told} when the window ends: {share}.")
    if early[1] and _ends(*end)[1] < _ends(*early)[0]:
        return Ending("over", f"It is over by the end of the window: {share}.")
    return Ending("not known", f"Whether it is over can't be told from so few: {share}.")


def _share(counted: tuple[float, int]) -> str:
    k, n = counted
    return f"{k / n:.0%} (of {n:,})" if n else "none is known"


def _counted(rows: pl.DataFrame) -> tuple[float, int]:
    return float(rows["hurt"].sum()), rows.height


def _ends(k: float, n: int) -> tuple[float, float]:
    if not n:
        return 0.0, 1.0
    low, high = structure.wilson(np.array([k]), np.array([float(n)]))
    return float(low[0]), float(high[0])


def _measures(
    bundle: Bundle, trees: Trees, symptom: str | None, first: Row | None, lines: pl.DataFrame
) -> Iterator[_Measure]:
    alert = bundle.alert
    if alert is not None:
        yield from _metric(bundle, alert.service, alert.metric, None)
    if symptom is not None and not trees.spans.is_empty():
        asked = _entries(trees, symptom)
        if not asked.is_empty():
            hurt = asked.with_columns(pl.col("failed").cast(pl.Float64).alias("hurt"))
            fails = list(_fails(trees, hurt, symptom))
            slow = list(_slow(asked, f"requests at {symptom}", "asked_ms", ["op"]))
            about_time = alert is not None and alert.signal == "latency"
            yield from (slow + fails if about_time else fails + slow)
    if first is None:
        return
    if "metric" in first:
        yield from _metric(bundle, first["service"], first["metric"], first.get("instance"))
    elif "side" in first:
        yield from _time(trees, first)
    elif first["kind"] != "silence":
        yield _event(trees, first, lines)


def _entries(trees: Trees, service: str) -> pl.DataFrame:
    """Spans at which requests come into a service."""
    mine = trees.spans.filter(pl.col("service") == service)
    callers = trees.spans["service"].gather(mine["parent"].clip(0))
    comes = (mine["parent"] < 0) | (callers != service)
    length = (pl.col("end_ns") - pl.col("start_ns")) / 1e6
    return mine.filter(comes).with_columns(length.alias("asked_ms"))


def _fails(trees: Trees, hurt: pl.DataFrame, service: str) -> Iterator[_Measure]:
    """Of the sort of request that fails most often: among others its share would look small."""
    failed = hurt.filter("failed", pl.col("window") == INCIDENT)
    if failed.is_empty():
        return
    most = failed.group_by("op").agg(pl.col("trace").n_unique().alias("n"))
    op = int(most.sort(["n", "op"], descending=[True, False])["op"][0])
    of = f"requests `{trees.ops['name'][op]}` at {service}"
    yield _Measure(of, "fail", _by_trace(hurt.filter(pl.col("op") == op)))


def _slow(spans: pl.DataFrame, of: str, column: str, by: list[str]) -> Iterator[_Measure]:
    """Who is nearer to the incident's median than to the healthy one, where that rose."""
    log = (pl.col(column) + 0.01).log()
    during = pl.col("window") == INCIDENT
    before, after = (log.filter(part).median().over(by) for part in (~during, during))
    rows = spans.with_columns(before.alias("before"), after.alias("after"))
    rows = rows.filter(pl.col("after") > pl.col("before")).with_columns(
        (log > (pl.col("before") + pl.col("after")) / 2).cast(pl.Float64).alias("hurt")
    )
    if rows.is_empty():
        return
    hurt = "are slow (nearer to the incident's median than to the healthy one)"
    if rows.select(pl.struct(by).n_unique()).item() == 1:
        middle_ms = math.exp((rows["before"][0] + rows["after"][0]) / 2)
        hurt = f"take more than {middle_ms:,.3g} ms"
    yield _Measure(of, hurt, _by_trace(rows))


def _time(trees: Trees, row: Row) -> Iterator[_Measure]:
    spans = trees.spans.filter((pl.col("op") == row["op"]) & ~pl.col("hurt"))
    callee = row["callee"]
    spans = spans.filter(
        pl.col("callee").is_null() if callee is None else pl.col("callee") == callee
    )
    name = trees.ops["name"][row["op"]]
    where = trees.ops["service"][row["op"]]
    of = f"spans `{name}` of {where}" + (f" to {callee}" if callee else "")
    yield from _slow(spans, of, "own_ms", ["op"])


def _event(trees: Trees, row: Row, lines: pl.DataFrame) -> _Measure:
    spans = trees.spans.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    mine = spans.filter(pl.col("op") == row["op"])
    near = pl.concat([mine, spans.filter(pl.col("parent").is_in(mine["row"].implode()))])
    near = near.unique("row").sort("row")
    cases, events = structure.seen(near, lines.join(mine.select("row"), on="row", how="semi"))
    same = (
        (pl.col("op") == row["op"])
        & (pl.col("case") == row["case"])
        & (pl.col("after") == row["after"])
    )
    events = events.filter((pl.col("kind") == row["kind"]) & (pl.col("event") == row["event"]))
    having = cases[events["at"]].filter(same).group_by("row").agg(pl.len().alias("having"))
    every = cases.filter(same).group_by("row").agg(pl.len().alias("cases"))
    share = (pl.col("having").fill_null(0) / pl.col("cases")).clip(0, 1)
    rows = every.join(having, on="row", how="left").with_columns(share.alias("hurt"))
    if row["rate"] < row["healthy"]:
        rows = rows.with_columns((1 - pl.col("hurt")).alias("hurt"))
    told = rows.join(mine.select("row", "window", "trace", "start_ns"), on="row", how="inner")
    name, where = trees.ops["name"][row["op"]], trees.ops["service"][row["op"]]
    does = "fail" if row["kind"] == "failure" else "behave as the first evidence tells"
    return _Measure(f"spans `{name}` of {where}", does, _by_trace(told))


def _metric(bundle: Bundle, service: str, metric: str, instance: str | None) -> Iterator[_Measure]:
    rows = bundle.metrics.filter((pl.col("service") == service) & (pl.col("metric") == metric))
    if instance is not None:
        rows = rows.filter(pl.col("instance") == instance)
    during = pl.col("window") == INCIDENT
    now, before = rows.filter(during)["value"].mean(), rows.filter(~during)["value"].median()
    if now is None or before is None:
        return
    middle = (float(now) + float(before)) / 2  # type: ignore[arg-type]
    above = float(now) > float(before)  # type: ignore[arg-type]
    is_hurt = pl.col("value") > middle if above else pl.col("value") < middle
    yield _Measure(
        f"values of `{metric}` of {service}",
        f"are {'above' if above else 'below'} {middle:,.3g}",
        rows.select(
            pl.col("time_unix_s").alias("at_s"),
            during.alias("during"),
            is_hurt.cast(pl.Float64).alias("hurt"),
        ),
        step_s=rows.filter(during)["time_unix_s"].unique().sort().diff().median() or 0.0,  # type: ignore[arg-type]
    )


def _by_trace(rows: pl.DataFrame) -> pl.DataFrame:
    """What the spans of one trace have in common is one observation."""
    return (
        rows.group_by("trace")
        .agg(
            pl.col("window").first(),
            (pl.col("start_ns").min() / 1e9).alias("at_s"),
            pl.col("hurt").mean(),
        )
        .select("at_s", (pl.col("window") == INCIDENT).alias("during"), "hurt")
    )
