"""What requests do: which calls a span makes, in which order, what it logs, whether it fails.

An event is something that a span of an op may have: a child of some op (`child`), more than one of
it (`again`), a failure that no child explains (`failure`), a line of some template in the log
(`log`); or, after a child of some op, which child comes next, if any (`next`), and likewise after
a line of some template which line does (`then`). And of where requests come in: that none does
(`silence`).
"""

import numpy as np
import polars as pl

from prove.rca.bundle import BASELINE, INCIDENT, Bundle, Window
from prove.rca.spans import Floats, Trees

NOTHING = -1
KINDS = pl.Enum(["", "child", "again", "failure", "log", "next", "then", "silence"])
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
    cases, having = seen(spans, lines)
    cases = cases.with_columns((1 / pl.len()).over("trace", *CASE).alias("share"))
    totals = cases.group_by(CASE).agg(
        pl.col("trace").filter(pl.col("window") == window).n_unique().alias(f"n_{name}")
        for window, name in windows
    )
    counted = (
        having.select("kind", "event")
        .hstack(cases.select("window", *CASE, "share")[having["at"]])
        .group_by(EVENT)
        .agg(
            pl.col("share").filter(pl.col("window") == window).sum().alias(f"k_{name}")
            for window, name in windows
        )
        .join(totals, on=CASE, how="left")
        .filter((pl.col("n_after") > 0) & (pl.col("n_before") > 0))
    )
    more = (pl.col("n_after") / trees.traces.get(INCIDENT, 1)) / (
        pl.col("n_before") / trees.traces.get(against, 1)
    )
    # Of those that come more often more fail: who asks is no excuse, and who fails is asked again.
    fails = pl.col("kind") == "failure"
    return rated(
        counted.with_columns(
            pl.when(fails).then(more.clip(upper_bound=1)).otherwise(more).alias("more")
        )
    )


def silence(trees: Trees, bundle: Bundle, against: int) -> pl.DataFrame:
    """Of services where requests come in, how long they do nothing: rows as those of `events`.

    Of the incident's time the share in which no span of a service began for longer than ever in the
    healthy time, while requests that don't need it were served at half their usual rate or more.
    The healthy time's longest pause is the unit in which time is counted; pause_s tells it.
    """
    window = bundle.baseline if against == BASELINE else bundle.local
    rows = []
    if window is not None and window.seconds > 0 and bundle.incident.seconds > 0:
        spans = trees.spans.filter(pl.col("window").is_in([against, INCIDENT]))
        start_s = spans["start_ns"].to_numpy() / 1e9
        trace, op = spans["trace"].to_numpy(), spans["op"].to_numpy()
        during, is_root = (spans["window"] == INCIDENT).to_numpy(), spans["parent"].to_numpy() < 0
        for service in _entrances(spans.filter(pl.col("window") == against)):
            own = (spans["service"] == service).to_numpy()
            needs_it = np.zeros(len(trees.trace_ids), dtype=bool)
            needs_it[trace[own]] = True
            apart = ~needs_it[trace]
            if not apart.any():
                continue
            before, after = (
                [np.sort(start_s[some & when]) for some in (own, apart)]
                for when in (~during, during)
            )
            longest_s = float(_pauses(before[0], window)[1].max())
            begins, lengths = _pauses(after[0], bundle.incident)
            usual = len(before[1]) / window.seconds * lengths
            served = np.diff(np.searchsorted(after[1], [begins, begins + lengths]), axis=0)[0]
            alone = (served > 0) & (served >= usual / 2)
            silent_s = float(np.maximum(0.0, lengths - longest_s)[alone].sum())
            n_before, n_after = (
                max(1, int(each.seconds / longest_s)) for each in (window, bundle.incident)
            )
            k_after = min(silent_s / longest_s, n_after)
            most = int(np.bincount(op[own & is_root]).argmax())
            rows.append((most, k_after, n_before, n_after, longest_s))
    counted = pl.DataFrame(
        rows,
        schema={
            "op": pl.Int64,
            "k_after": pl.Float64,
            "n_before": pl.UInt32,
            "n_after": pl.UInt32,
            "pause_s": pl.Float64,
        },
        orient="row",
    ).filter(pl.col("k_after") > 0)
    return rated(
        counted.with_columns(
            _as("").alias("case"),
            pl.lit(NOTHING, dtype=pl.Int64).alias("after"),
            _as("silence").alias("kind"),
            pl.lit(NOTHING, dtype=pl.Int64).alias("event"),
            pl.lit(0.0).alias("k_before"),
            pl.lit(1.0).alias("more"),
        )
    )


def _entrances(spans: pl.DataFrame) -> list[str]:
    """Services that begin most of their traces: who is asked by others is silent as they are."""
    begun = pl.col("trace").filter(pl.col("parent") < 0).n_unique()
    share = spans.group_by("service").agg((begun / pl.col("trace").n_unique()).alias("share"))
    return share.filter(pl.col("share") > 1 / 2)["service"].sort().to_list()


def _pauses(times: Floats, window: Window) -> tuple[Floats, Floats]:
    """When nothing began, within a window: since when, and for how long."""
    edges = np.r_[window.start_unix_s, np.clip(times, window.start_unix_s, window.end_unix_s)]
    ends = np.r_[edges[1:], window.end_unix_s]
    return edges, ends - edges


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


def seen(spans: pl.DataFrame, lines: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The cases that spans are: row, window, trace, op, case, after; and the events that they have:
    at (the place of its case in the former), kind, event.

    What a span does whose failure, or whose callees', explains it, is no event.
    """
    free = spans.filter(~(pl.col("hurt") | pl.col("failed") | pl.col("shadowed")))
    # A call can fail again, and again; else, who has seen a call fail gives up.
    may_fail = spans.filter(
        ~pl.col("hurt") & (~pl.col("shadowed") | pl.col("callee").is_not_null())
    )
    may_fail = may_fail.filter(pl.col("failed").any().over("op"))
    children = spans.filter(pl.col("parent") >= 0).select(
        pl.col("parent").alias("row"), pl.col("op").alias("event")
    )
    lines = lines.rename({"template": "event"})
    children, lines = (_among(each, free["row"]) for each in (children, lines))
    pairs = pl.concat([_following(children, "next"), _following(lines, "then")])
    who = ["row", "window", "trace", "op"]
    nothing = pl.lit(NOTHING, dtype=pl.Int64)
    cases = [
        free.select(who).with_columns(_as("").alias("case"), nothing.alias("after")),
        free.select(who)[pairs["at"]].hstack(pairs.select("case", "after")),
        may_fail.select(*who, _as("failure").alias("case"), nothing.alias("after")),
    ]
    kinds = children.group_by("at", "event").agg(pl.len().alias("times"))
    place = pl.int_range(pl.len(), dtype=pl.Int64)
    having = [
        kinds.select("at", "event", kind=_as("child")),
        kinds.filter(pl.col("times") > 1).select("at", "event", kind=_as("again")),
        lines.select("at", "event", kind=_as("log")).unique(),
        pairs.select(place.alias("at") + free.height, "event", kind="case"),
        may_fail.select(
            (place + free.height + pairs.height).filter("failed").alias("at"),
            nothing.alias("event"),
            kind=_as("failure"),
        ),
    ]
    return pl.concat(cases), pl.concat(having)


def _among(events: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """Those of such rows, with `at`, their place among them."""
    of, known = events["row"].to_numpy(), rows.to_numpy()
    at = np.full(max(of.max(initial=0), known.max(initial=0)) + 1, NOTHING)
    at[known] = np.arange(len(known))
    return events.with_columns(pl.Series("at", at[of])).filter(pl.col("at") >= 0)


def _as(kind: str) -> pl.Expr:
    return pl.lit(kind, dtype=KINDS)


def _following(events: pl.DataFrame, case: str) -> pl.DataFrame:
    """What comes after each of a span's events: at, case, after, event (NOTHING for the last)."""
    # Sorted, for a shift over groups takes several times as long.
    last = (pl.col("at") != pl.col("at").shift(-1)).fill_null(value=True)
    return events.sort("at", maintain_order=True).select(
        "at",
        _as(case).alias("case"),
        pl.col("event").alias("after"),
        pl.when(last).then(NOTHING).otherwise(pl.col("event").shift(-1)).alias("event"),
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
