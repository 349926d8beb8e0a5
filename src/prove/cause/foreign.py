"""Spans from elsewhere as a bundle: OTLP JSON (one document, or one a line) or Jaeger JSON.

Jaeger's own form is what its API and its page's "download" give: `{"data": [{traceID, spans,
processes}]}`. When the incident was such a file doesn't say; it has to be told.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from prove import otlp, spanrows
from prove.errors import UserError
from prove.rca import bundle
from prove.rca.bundle import Bundle, Window
from prove.spanrows import Row

ONSET_S = 120.0
"""An alert comes after what it is about: so long before it belongs to no window."""


def read(
    file: Path, *, start_s: float | None, end_s: float | None, alert_s: float | None
) -> Bundle:
    """The file's spans, those before the incident as its baseline.

    Unix seconds: either when it began (and ended: else the last span), or when its alert came.
    Raises UserError for another form, and when it isn't told when the incident was.
    """
    found = list(_rows(file))
    if not found:
        raise UserError(f"{file} holds no spans")
    begins_s = min(row["start_unix_nano"] for row in found) / 1e9
    ends_s = max(row["end_unix_nano"] for row in found) / 1e9
    if start_s is None and alert_s is None:
        raise UserError(
            f"{file} doesn't say when the incident was: give --from (and --to) or --alert; its "
            f"spans are of {stamp(begins_s)} to {stamp(ends_s)}"
        )
    healthy_until_s = start_s if start_s is not None else max(begins_s, (alert_s or 0) - ONSET_S)
    # Without the begin, the time before the alert is neither healthy for sure nor surely broken.
    window = Window(start_s if start_s is not None else alert_s or 0, end_s or ends_s)
    if window.seconds <= 0 or window.start_unix_s > ends_s or window.end_unix_s < begins_s:
        raise UserError(
            f"no span of {file} is of the incident: they are of {stamp(begins_s)} to "
            f"{stamp(ends_s)}"
        )
    healthy = Window(begins_s, healthy_until_s) if healthy_until_s > begins_s else None
    return of_rows(file.stem, found, window, healthy)


def of_rows(
    name: str, spans: Iterable[Row], incident: Window, baseline: Window | None, **more: Any
) -> Bundle:
    """A bundle in memory; a trace is the baseline's when all of it lies in there.

    `spans` have the columns of `bundle.SPANS`; what was sent twice counts once.
    """
    table = pl.DataFrame(list(spans), schema=dict(bundle.SPANS), orient="row")
    table = table.unique(["trace_id", "span_id"], keep="first", maintain_order=True)
    healthy = table.clear()
    if baseline is not None:
        of = table.group_by("trace_id").agg(
            pl.col("start_unix_nano").min().alias("from"),
            pl.col("end_unix_nano").max().alias("until"),
        )
        of = of.filter(
            (pl.col("from") >= baseline.start_unix_s * 1e9)
            & (pl.col("until") <= baseline.end_unix_s * 1e9)
        )
        healthy = table.join(of.select("trace_id"), on="trace_id", how="semi")
        table = table.join(of.select("trace_id"), on="trace_id", how="anti")
    services = sorted({*table["service"].unique(), *healthy["service"].unique()})
    return Bundle(
        id=name,
        incident=incident,
        baseline=baseline,
        services=tuple(services),
        spans=bundle.place_spans(table, healthy, incident, None),
        **more,
    )


def stamp(unix_s: float) -> str:
    """As --from takes it."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def moment(text: str, option: str) -> float:
    """Unix seconds of `2026-11-29T20:15:00Z` (UTC unless told) or `1796000000`.

    Raises UserError naming `option`.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{option} wants a time such as 2026-11-29T20:15:00Z or Unix seconds (got {text!r})"
        ) from None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


def _rows(file: Path) -> Iterator[Row]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"{file} cannot be read: {why}") from None
    try:
        for document in _documents(text):
            if "resourceSpans" in document:
                for resource, span in otlp.with_resources(document):
                    yield spanrows.of_otlp(resource, span)
            else:
                for trace in document["data"]:
                    yield from spanrows.of_jaeger(trace)
    except otlp.NOT_OTLP:
        raise UserError(
            f"{file} holds no spans in a form that is known: OTLP JSON (resourceSpans …, one "
            "document or one a line), or Jaeger's JSON (data: [{traceID, spans, processes}])"
        ) from None


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """One, or one a line as the Collector's file exporter writes them."""
    try:
        yield json.loads(text)
    except ValueError:
        for line in text.splitlines():
            if line.strip():
                yield json.loads(line)
