"""Log lines as templates: what a program says, without what it says it of."""

import polars as pl

from prove.rca.spans import Trees

_VALUE = r"[^\s\[\](){}<>,;|\"'=]*\d[^\s\[\](){}<>,;|\"']*"
"""A word with a digit: a number, a time, an id."""
_VALUES = r"\*(?:,? \*)+"
"""However many there are."""
LONGEST = 200
"""Characters of a line that are looked at; what comes after is data, as a rule."""
MOST = 5000
"""Distinct masked lines of a service that are clustered; those after stand for themselves."""


def templates(logs: pl.DataFrame) -> pl.DataFrame:
    """The lines (bundle.LOGS) with `template`, its text; values are masked, and alike lines joined.

    By Drain (He et al., ICWS 2017), for each service by itself, in order of time.
    """
    masked = pl.col("body").str.slice(0, 4 * LONGEST).str.replace_all(_VALUE, "*")
    masked = masked.str.replace_all(_VALUES, "*")
    logs = logs.with_columns(masked.str.slice(0, LONGEST).alias("masked"))
    distinct = logs.select("service", "masked").unique(maintain_order=True)
    found = []
    for (service,), lines in distinct.group_by("service", maintain_order=True):
        texts = lines["masked"].to_list()
        found.append(
            pl.DataFrame({"service": service, "masked": texts, "template": _clustered(texts)})
        )
    if not found:
        return logs.with_columns(pl.lit(None, dtype=pl.String).alias("template")).drop("masked")
    return logs.join(
        pl.concat(found), on=["service", "masked"], how="left", maintain_order="left"
    ).drop("masked")


def of_spans(logs: pl.DataFrame, trees: Trees) -> pl.DataFrame:
    """Those lines that tell their span: row (of the span in `trees`), template (text)."""
    spans = trees.spans.with_row_index("row").select(
        pl.col("row").cast(pl.Int64), "window", "trace", "span_id"
    )
    traces = trees.trace_ids.to_frame().with_row_index("trace")
    traces = traces.with_columns(pl.col("trace").cast(pl.Int64))
    return (
        logs.drop_nulls(["trace_id", "span_id"])
        .join(traces, on="trace_id", how="inner")
        .join(spans, on=["window", "trace", "span_id"], how="inner")
        .sort("row", "time_unix_nano", maintain_order=True)
        .select("row", "template")
    )


def _clustered(texts: list[str]) -> list[str]:
    from drain3.drain import Drain

    drain = Drain(param_str="*")
    ids = [drain.add_log_message(text)[0].cluster_id for text in texts[:MOST]]
    told = {each.cluster_id: each.get_template() for each in drain.clusters}
    return [told[each] for each in ids] + texts[MOST:]
