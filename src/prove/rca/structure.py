"""What requests do: which calls a span makes, where it ends, what it logs, whether it fails.

An event is something that a span of an op may have: a child of some op (`child`), more than one of
it (`again`), a child that is its last (`ending`), a failure that no child explains (`failure`), a
line of some template in the log (`log`).
"""

import numpy as np
import polars as pl

from prove.rca.bundle import BASELINE, INCIDENT, LOCAL
from prove.rca.spans import Floats, Trees

EVENT = ["op", "kind", "event"]
Z = 1.96
"""Of the intervals: 95%."""


def events(trees: Trees, lines: pl.DataFrame) -> pl.DataFrame:
    """How often an op's spans have each event: columns op, kind, event, and rates before and after.

    `lines` are those of spans: row (of the span), template (number). Rates are of spans, counted by
    trace (what the spans of one trace have in common is one observation). change: the incident's
    rate less the healthy one; bits: see `surprise`, the healthy windows' own differences allowed.
    """
    spans = trees.spans.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    seen = _seen(spans, lines)
    per_trace = spans.group_by("window", "trace", "op").agg(pl.len().alias("spans"))
    totals = per_trace.group_by("op").agg(
        (pl.col("window") == window).sum().alias(f"n_{name}") for window, name in _WINDOWS
    )
    shares = (
        seen.group_by("window", "trace", *EVENT)
        .agg(pl.len().alias("having"))
        .join(per_trace, on=["window", "trace", "op"], how="left")
        .with_columns((pl.col("having") / pl.col("spans")).alias("share"))
    )
    counted = shares.group_by(EVENT).agg(
        pl.col("share").filter(pl.col("window") == window).sum().alias(f"k_{name}")
        for window, name in _WINDOWS
    )
    counted = counted.join(totals, on="op", how="left")
    counted = counted.filter((pl.col("n_after") > 0) & (pl.col("n_before") + pl.col("n_local") > 0))
    k = {name: counted[f"k_{name}"].to_numpy().astype(np.float64) for _, name in _WINDOWS}
    n = {name: counted[f"n_{name}"].to_numpy().astype(np.float64) for _, name in _WINDOWS}
    spread = dispersion(k["before"], n["before"], k["local"], n["local"])
    healthy_k, healthy_n = k["before"] + k["local"], n["before"] + n["local"]
    change = k["after"] / n["after"] - healthy_k / healthy_n
    bits = surprise(healthy_k, healthy_n, k["after"], n["after"], spread)
    return counted.with_columns(
        pl.Series("healthy", healthy_k / healthy_n),
        pl.Series("rate", k["after"] / n["after"]),
        pl.Series("change", change),
        pl.Series("bits", bits),
    )


_WINDOWS = ((BASELINE, "before"), (LOCAL, "local"), (INCIDENT, "after"))


def _seen(spans: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """A row for each span and event that it has: window, trace, row, op, kind, event."""
    of = spans.select("row", "window", "trace", mother_op="op")
    children = spans.filter(pl.col("parent") >= 0).select(
        pl.col("parent").alias("row"), pl.col("op").alias("event"), "failed"
    )
    kinds = children.group_by("row", "event", maintain_order=True).agg(pl.len().alias("times"))
    child = kinds.select("row", "event", kind=pl.lit("child"))
    again = kinds.filter(pl.col("times") > 1).select("row", "event", kind=pl.lit("again"))
    ending = children.group_by("row", maintain_order=True).agg(pl.col("event").last())
    failing = children.filter("failed").select("row").unique()
    failure = spans.filter("failed").join(failing, on="row", how="anti")
    found = pl.concat(
        [
            child,
            again,
            ending.select("row", "event", kind=pl.lit("ending")),
            failure.select("row", pl.lit(0, dtype=pl.Int64).alias("event"), kind=pl.lit("failure")),
            lines.select("row", pl.col("template").alias("event"), kind=pl.lit("log")).unique(),
        ]
    )
    return found.join(of, on="row", how="inner").rename({"mother_op": "op"})


def dispersion(k: Floats, n: Floats, k_other: Floats, n_other: Floats) -> Floats:
    """How much more two healthy windows differ than chance makes them: at least 1.

    The deviance of their being one, on one degree of freedom (the estimate of a quasi-likelihood).
    """
    return np.maximum(1.0, _deviance(k, n) + _deviance(k_other, n_other) - _deviance_of_both(
        k, n, k_other, n_other
    ))


def _deviance(k: Floats, n: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        some = np.where(k > 0, k * np.log(k / n), 0.0)
        none = np.where(n - k > 1e-9, (n - k) * np.log((n - k) / n), 0.0)
    return np.asarray(2 * (some + none), dtype=np.float64)


def _deviance_of_both(k: Floats, n: Floats, k_other: Floats, n_other: Floats) -> Floats:
    return _deviance(k + k_other, n + n_other)


def surprise(
    k_before: Floats, n_before: Floats, k_after: Floats, n_after: Floats, spread: Floats | float
) -> Floats:
    """How many bits of information an observation has for there being another rate than before.

    The Kullback-Leibler divergence of the incident's rate from the healthy one, at those ends of
    their 95% intervals (Wilson's) that are nearest to each other; none where they overlap. What was
    never seen and is now seen always says most, the more the longer it wasn't. `spread` divides the
    numbers of observations.
    """
    low_before, high_before = wilson(k_before / spread, n_before / spread)
    low_after, high_after = wilson(k_after / spread, n_after / spread)
    q = np.clip(np.where(low_after > high_before, high_before, low_before), 1e-9, 1 - 1e-9)
    p = np.clip(np.where(low_after > high_before, low_after, high_after), 1e-9, 1 - 1e-9)
    apart = (low_after > high_before) | (high_after < low_before)
    bits = p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))
    return np.where(apart, bits, 0.0)


def wilson(k: Floats, n: Floats) -> tuple[Floats, Floats]:
    """The 95% interval of a rate, k of n."""
    p, z2 = k / n, Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * np.sqrt(np.maximum(0, p * (1 - p) / n + z2 / (4 * n * n)))
    return middle - half, middle + half
