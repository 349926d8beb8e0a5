"""Two traces of a bundle to look at side by side, and what is worth drawing over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from prove.rca.analysis import SEVERE
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle
from prove.rca.model import Cause, Series
from prove.tracetree import Span

HEALTHY = (BASELINE, LOCAL)
MOST_SERIES = 4
LEAST = 3
"""Values in either window, or there is nothing to compare."""
OWN = "median of "
MOST_LINES = 8
_RANKS = dict.fromkeys(SEVERE, 0) | {"ERROR": 1, "WARN": 2, "WARNING": 2, "INFO": 3}


@dataclass(frozen=True)
class Line:
    """Of a log, so long after the request's begin."""

    after_ms: float
    service: str
    severity: str
    body: str


@dataclass(frozen=True)
class Example:
    """One request of the incident, and a healthy one that begins in the same way, if there is."""

    hurt: list[Span]
    healthy: list[Span]
    lines: list[Line]
    """Of the hurt one."""

    @property
    def given_up(self) -> bool:
        """Whether something began only after who asked for it had ended."""
        ends = {span.span_id: span.end_us for span in self.hurt}
        return any(
            span.start_us > ends.get(span.parent_id or "", span.start_us) for span in self.hurt
        )


def find(bundle: Bundle, cause: Cause | None) -> Example | None:
    """Of the evidence's own trace ids the first that has spans; else the longest of the incident.

    The healthy one is that of median length; None: the incident has no spans.
    """
    during = bundle.spans.filter(pl.col("window") == INCIDENT)
    if during.is_empty():
        return None
    told = [trace for each in (cause.evidence if cause else ()) for trace in each.trace_ids]
    known = set(during.filter(pl.col("trace_id").is_in(told))["trace_id"])
    chosen = next((trace for trace in told if trace in known), None)
    if chosen is None:
        mine = during.filter(pl.col("service") == cause.service) if cause else during
        if mine.is_empty():
            mine = during
        of = during.join(mine.select("trace_id").unique(), on="trace_id", how="semi")
        # Failed ones first: they may well be shorter.
        order = of.group_by("trace_id").agg(
            (pl.col("status") == "error").any().fill_null(value=False).alias("failed"),
            (pl.col("end_unix_nano").max() - pl.col("start_unix_nano").min()).alias("lasted"),
        )
        order = order.sort(["failed", "lasted", "trace_id"], descending=[True, True, False])
        chosen = str(order["trace_id"][0])
    hurt = _spans(during.filter(pl.col("trace_id") == chosen))
    return Example(hurt, _healthy(bundle, hurt), _lines(bundle, hurt))


def _lines(bundle: Bundle, spans: Sequence[Span]) -> list[Line]:
    """What a request logged, in order; of many lines the most severe."""
    begin_us = min(span.start_us for span in spans)
    mine = bundle.logs.filter(
        (pl.col("trace_id") == spans[0].trace_id) & (pl.col("window") == INCIDENT)
    )
    severity = pl.col("severity").str.to_uppercase().fill_null("")
    rank = severity.replace_strict(_RANKS, default=len(_RANKS), return_dtype=pl.Int32)
    most = mine.with_columns(rank.alias("rank")).sort("rank", "time_unix_nano").head(MOST_LINES)
    return [
        Line(
            (row["time_unix_nano"] // 1000 - begin_us) / 1000,
            row["service"],
            row["severity"] or "",
            row["body"],
        )
        for row in most.sort("time_unix_nano").to_dicts()
    ]


def _healthy(bundle: Bundle, hurt: Sequence[Span]) -> list[Span]:
    first = min(hurt, key=lambda span: (span.parent_id is not None, span.start_us))
    before = bundle.spans.filter(pl.col("window").is_in(HEALTHY))
    alike = before.filter(
        (pl.col("service") == first.service)
        & (pl.col("name") == first.name)
        & pl.col("parent_span_id").is_null()
    )
    if alike.is_empty():
        alike = before.filter((pl.col("service") == first.service) & (pl.col("name") == first.name))
    if alike.is_empty():
        return []
    failed = before.filter(pl.col("status") == "error").select("trace_id").unique()
    well = alike.join(failed, on="trace_id", how="anti")
    alike = alike if well.is_empty() else well
    lasted = pl.col("end_unix_nano") - pl.col("start_unix_nano")
    alike = alike.with_columns(lasted.alias("lasted")).sort("lasted", "trace_id")
    middle = alike["lasted"][alike.height // 2]
    # Of those that do most of what the hurt one does, that of the most usual length.
    does = pl.DataFrame(
        sorted({(span.service, span.name) for span in hurt}), ["service", "name"], orient="row"
    )
    common = (
        before.join(alike.select("trace_id", "window"), on=["trace_id", "window"], how="semi")
        .join(does, on=["service", "name"], how="semi")
        .group_by("trace_id", "window")
        .agg(pl.struct("service", "name").n_unique().alias("common"))
    )
    best = (
        alike.join(common, on=["trace_id", "window"], how="left")
        .with_columns((pl.col("lasted") - middle).abs().alias("unusual"))
        .sort(["common", "unusual", "trace_id"], descending=[True, False, False], nulls_last=True)
        .row(0, named=True)
    )
    chosen = (pl.col("trace_id") == best["trace_id"]) & (pl.col("window") == best["window"])
    return _spans(before.filter(chosen))


def traces(bundle: Bundle, beginning: str) -> list[list[Span]]:
    """Those whose ids begin so."""
    mine = bundle.spans.filter(pl.col("trace_id").str.starts_with(beginning))
    return [_spans(rows) for _, rows in mine.group_by("trace_id", maintain_order=True)]


def _spans(rows: pl.DataFrame) -> list[Span]:
    """In the form that `tracetree` walks."""
    return [
        Span(
            span_id=row["span_id"],
            parent_id=row["parent_span_id"],
            service=row["service"],
            name=row["name"],
            start_us=row["start_unix_nano"] // 1000,
            duration_us=max(0, row["end_unix_nano"] - row["start_unix_nano"]) // 1000,
            failed=(row["status"] or "").lower() == "error",
            trace_id=row["trace_id"],
        )
        for row in rows.sort("start_unix_nano", "span_id").to_dicts()
    ]


def series(bundle: Bundle, causes: Sequence[Cause]) -> list[Series]:
    """Of the likeliest service: metrics and operations that changed most, evidence's own first.

    Times are Unix seconds, of healthy windows and of the incident alike.
    """
    if not causes:
        return []
    service = causes[0].service
    subjects = [each.subject for each in causes[0].evidence]
    calls = {
        (each.service, each.subject)
        for each in causes[0].evidence
        if each.signal != "metrics" and each.service not in ("", service)
    }
    found = [
        *_metrics(bundle, service),
        *_operations(bundle, service),
        *(one for caller, name in sorted(calls) for one in _operations(bundle, caller, name)),
    ]

    def named(name: str) -> int:
        plain = name.removeprefix(OWN).removesuffix(": failed")
        places = [at for at, subject in enumerate(subjects) if subject and plain in subject]
        return places[0] if places else len(subjects)

    found.sort(key=lambda each: (named(each[1].name), -each[0], each[1].name))
    return [each for _, each in found[:MOST_SERIES]]


def _metrics(bundle: Bundle, service: str) -> list[tuple[float, Series]]:
    """Summed over instances where there are several: how one looks is in the evidence."""
    mine = bundle.metrics.filter(pl.col("service") == service)
    return [
        (change, Series(service, str(name), "", times, values))
        for (name,), rows in mine.group_by("metric", maintain_order=True)
        if (change := _change(rows, "value")) is not None
        for times, values in (_points(rows, "time_unix_s", "value"),)
    ]


def _operations(
    bundle: Bundle, service: str, only: str | None = None
) -> list[tuple[float, Series]]:
    """Of each operation, a second at a time: median length, how many, and which share failed."""
    spans = bundle.spans.filter(pl.col("service") == service)
    if only is not None:
        spans = spans.filter(pl.col("name") == only)
    by = "" if only is None else f" by {service}"
    at = (pl.col("start_unix_nano") // 1_000_000_000).cast(pl.Float64).alias("at")
    mine = spans.select(
        "window",
        "name",
        at,
        ((pl.col("end_unix_nano") - pl.col("start_unix_nano")) / 1e6).alias("ms"),
        (pl.col("status").str.to_lowercase() == "error").fill_null(value=False).alias("failed"),
    )
    # Whole seconds, also those in which others go on and it is silent: then it has none.
    is_whole = pl.col("at") + 1 <= bundle.incident.end_unix_s
    seconds = bundle.spans.select(at, "window").unique().filter(is_whole)
    by_second = mine.group_by("name", "at", "window").agg(
        pl.col("ms").median(),
        pl.len().cast(pl.Float64).alias("n"),
        (100 * pl.col("failed").mean()).alias("failed"),
    )
    found = []
    for (name,), rows in by_second.sort("name", "at").group_by("name", maintain_order=True):
        every = seconds.join(rows, on=["at", "window"], how="left").with_columns(
            pl.col("n").fill_null(0.0)
        )
        for value, what, unit in (
            ("ms", f"{OWN}{name}{by}", "ms"),
            ("n", f"{name}{by}", "spans/s"),
            ("failed", f"{name}{by}: failed", "%"),
        ):
            of = every.drop_nulls(value).sort("at", "window")
            if value == "failed" and not of[value].sum():
                continue
            if (change := _change(of, value)) is not None:
                # A request that lasts into the incident is in both windows.
                once = of.unique("at", keep="last", maintain_order=True)
                found.append((change, Series(service, what, unit, *_points(once, "at", value))))
    return found


def _change(rows: pl.DataFrame, value: str) -> float | None:
    """The shift of the median in healthy interquartile ranges; None: too little is known."""
    during = rows.filter(pl.col("window") == INCIDENT)[value]
    before = rows.filter(pl.col("window") != INCIDENT)[value]
    if during.len() < LEAST or before.len() < LEAST:
        return None
    low, mid, high = (before.quantile(share) or 0.0 for share in (0.25, 0.5, 0.75))
    now = during.quantile(0.5) or 0.0
    return float(abs(now - mid) / (high - low + 0.05 * abs(mid) + 1e-9))


def _points(
    rows: pl.DataFrame, time: str, value: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    summed = rows.group_by(time).agg(pl.col(value).sum()).sort(time)
    return tuple(summed[time].to_list()), tuple(summed[value].to_list())
