"""Log lines as templates: what a program says, without what it says it of."""

import polars as pl

from prove.rca.spans import Trees

_WORD = r"[^\s\[\](){}<>,;|\"'=]"
_VALUES = (
    rf"{_WORD}*\d[^\s\[\](){{}}<>,;|\"']*",  # a word with a digit: a number, a time, an id
    rf"=\s?{_WORD}+",  # what a name is set to
    rf"([\[({{])\s?{_WORD}+(?:,\s?{_WORD}+)+",  # an enumeration in brackets, however long
)
LONGEST = 200
"""Characters of a line that are looked at; what comes after is data, as a rule."""


def templates(logs: pl.DataFrame) -> pl.DataFrame:
    """The lines (bundle.LOGS) with `template`: the line, its values masked."""
    masked = pl.col("body").str.slice(0, 4 * LONGEST)
    for pattern, by in zip(_VALUES, ("*", "=*", "${1}*"), strict=True):
        masked = masked.str.replace_all(pattern, by)
    return logs.with_columns(masked.str.slice(0, LONGEST).alias("template"))


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
