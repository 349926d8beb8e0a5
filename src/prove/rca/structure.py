"""What requests do: which calls a span makes, in which order, what it logs, whether it fails.

An event is something that a span of an op may have: a child of some op (`child`), more than one of
it (`again`), a failure that no child explains (`failure`), a line of some template in the log
(`log`); or, after a child of some op, which child comes next, if any (`next`), and likewise after
a line of some template which line does (`then`).
"""

import numpy as np
import polars as pl

from prove.rca.bundle import INCIDENT
from prove.rca.spans import Floats, Trees

NOTHING = -1
KINDS = pl.Enum(["", "child", "again", "failure", "log", "next", "then"])
CASE = ["op", "case", "after"]
EVENT = [*CASE, "kind", "event"]
Z = 1.28
"""Of the intervals: 80%."""


def events(trees: Trees, lines: pl.DataFrame, against: int) -> pl.DataFrame:
    """How often spans have each event: op, case, after, kind, event.

    case is `next` or `then` and after what comes before, `failure`, or empty; else after is -1.
    `lines` are those of spans, in order: row (of the span), template (number). Rates are of spans,
    counted by trace (what the spans of one trace have in common is one observation), against one
    healthy window. n_before, n_after: traces; healthy, rate; bits: see `surprise`.
    """
    spans = trees.spans.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    spans = spans.filter(pl.col("window").is_in([against, INCIDENT]))
    windows = ((against, "before"), (INCIDENT, "after"))
    traces = {window: max(1, n) for window, n in _traces(spans).items()}
    seen, cases = _seen(spans, lines)
    per_trace = cases.group_by("window", "trace", *CASE).agg(pl.len().alias("spans"))
    totals = per_trace.group_by(CASE).agg(
        (pl.col("window") == window).sum().alias(f"n_{name}") for window, name in windows
    )
    shares = (
        seen.group_by("window", "trace", *EVENT)
        .agg(pl.len().alias("having"))
        .join(per_trace, on=["window", "trace", *CASE], how="left")
        .with_columns((pl.col("having") / pl.col("spans")).alias("share"))
    )
    counted = (
        shares.group_by(EVENT)
        .agg(
            pl.col("share").filter(pl.col("window") == window).sum().alias(f"k_{name}")
            for window, name in windows
        )
        .join(totals, on=CASE, how="left")
        .filter((pl.col("n_after") > 0) & (pl.col("n_before") > 0))
    )
    more = (pl.col("n_after") / traces.get(INCIDENT, 1)) / (
        pl.col("n_before") / traces.get(against, 1)
    )
    return rated(counted.with_columns(more.alias("more")))


def rated(counted: pl.DataFrame) -> pl.DataFrame:
    """Rates and bits by counts: k_ of n_, before and after; more: see `surprise`."""
    k, k_after, n, n_after, more = (
        counted[each].to_numpy().astype(np.float64)
        for each in ("k_before", "k_after", "n_before", "n_after", "more")
    )
    return counted.with_columns(
        pl.Series("healthy", k / n),
        pl.Series("rate", k_after / n_after),
        pl.Series("bits", surprise(k, n, k_after, n_after, more)),
    )


def _traces(spans: pl.DataFrame) -> dict[int, int]:
    return dict(spans.group_by("window").agg(pl.col("trace").n_unique()).iter_rows())


def _seen(spans: pl.DataFrame, lines: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A row for each span and event that it has, and one for each span and case that it is.

    What a span does whose failure, or whose callees', explains it, is no event.
    """
    free = spans.filter(~pl.col("hurt"))
    of = free.select("row", "window", "trace", "op")
    free = free.filter(~pl.col("failed") & ~pl.col("shadowed")).select("row")
    children = spans.filter(pl.col("parent") >= 0).select(
        pl.col("parent").alias("row"), pl.col("op").alias("event")
    )
    plain = [_as("").alias("case"), pl.lit(NOTHING, dtype=pl.Int64).alias("after")]
    fails = [_as("failure").alias("case"), pl.lit(NOTHING, dtype=pl.Int64).alias("after")]
    kinds = children.group_by("row", "event").agg(pl.len().alias("times"))
    # A call can fail again, and again; else, who has seen a call fail gives up.
    may_fail = spans.filter(
        ~pl.col("hurt") & (~pl.col("shadowed") | pl.col("callee").is_not_null())
    )
    no_event = pl.lit(NOTHING, dtype=pl.Int64).alias("event")
    lines = lines.rename({"template": "event"})
    pairs = [_following(children, "next"), _following(lines, "then")]
    found = pl.concat(
        [
            kinds.select("row", *plain, "event", kind=_as("child")),
            kinds.filter(pl.col("times") > 1).select("row", *plain, "event", kind=_as("again")),
            lines.select("row", *plain, "event", kind=_as("log")).unique(),
            *(each.with_columns(kind=pl.col("case")) for each in pairs),
        ]
    ).join(free, on="row", how="semi")
    failure = may_fail.filter("failed").select("row", *fails, no_event, kind=_as("failure"))
    case = pl.concat([free.select("row", *plain), pl.concat(pairs).select("row", "case", "after")])
    case = pl.concat([case.join(free, on="row", how="semi"), may_fail.select("row", *fails)])
    found = pl.concat([found, failure])
    return found.join(of, on="row", how="inner"), of.join(case, on="row", how="inner")


def _as(kind: str) -> pl.Expr:
    return pl.lit(kind, dtype=KINDS)


def _following(events: pl.DataFrame, case: str) -> pl.DataFrame:
    """What comes after each of a span's events: row, case, after, event (NOTHING for the last)."""
    return events.select(
        "row",
        _as(case).alias("case"),
        pl.col("event").alias("after"),
        pl.col("event").shift(-1).over("row").fill_null(NOTHING).alias("event"),
    )


def surprise(
    k_before: Floats, n_before: Floats, k_after: Floats, n_after: Floats, more: Floats | float = 1.0
) -> Floats:
    """How many bits of information an observation has for there being another rate than before.

    The Kullback-Leibler divergence of the incident's rate from the healthy one, at those ends of
    their intervals (Wilson's) that are nearest to each other; none where they overlap. What was
    never seen and is now seen always says most, the more the longer it wasn't.

    `more` is how many times as often as before the case came up at all. Where it came up less often
    only some requests reach it, where more often there are others: which ones is the callers'
    doing, and rates that a choice among the requests can make are no news of what is chosen.
    """
    low_before, high_before = wilson(k_before, n_before)
    low_after, high_after = wilson(k_after, n_after)
    fewer, others = np.minimum(more, 1.0), np.maximum(more, 1.0)
    high_before = np.minimum(1.0, high_before / fewer)
    low_before = np.maximum(0.0, 1 - (1 - low_before) / fewer)
    high_before = (high_before + others - 1) / others
    low_before = low_before / others
    q = np.clip(np.where(low_after > high_before, high_before, low_before), 1e-9, 1 - 1e-9)
    p = np.clip(np.where(low_after > high_before, low_after, high_after), 1e-9, 1 - 1e-9)
    apart = (low_after > high_before) | (high_after < low_before)
    bits = p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))
    return np.where(apart, bits, 0.0)


def wilson(k: Floats, n: Floats) -> tuple[Floats, Floats]:
    """The interval of a rate, k of n."""
    p, z2 = k / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * np.sqrt(np.maximum(0, p * (1 - p) / n + z2 / (4 * n * n)))
    return middle - half, middle + half
