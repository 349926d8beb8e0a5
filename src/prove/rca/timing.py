"""Where time is lost: what spans do by themselves, and what lies between two services."""

import math

import numpy as np
import polars as pl

from prove.rca import structure
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL
from prove.rca.spans import Floats, Trees

FEW = 5
"""A median of fewer spans than these says little: that window isn't asked."""

LEAST_MS = 0.01
"""Of spans that last no time; clocks are no finer."""

ITEMS = ["service", "op", "callee", "callee_op"]


def lost(trees: Trees) -> pl.DataFrame:
    """A row for each kind of work: an op inside a service, or a client op and what it asks.

    before_ms, local_ms, after_ms: median own time, of n_ spans; healthy_ms: of those before the
    nearest to after; loss_ms: how much more, in each trace of the incident; traces: how many of
    those have such work; lasted_ms: the median length of healthy ones that do; bits: see
    `divergence`; shift: in [-1, 1], the chance that a span of the incident took longer than a
    healthy one, less that of the contrary (Cliff's delta, from Mann and Whitney's U).
    """
    spans, traces = trees.spans.filter(~pl.col("hurt")), max(1, trees.traces.get(INCIDENT, 0))
    lasted = (pl.col("end_ns").max() - pl.col("start_ns").min()) / 1e6
    ranked = spans.with_columns(lasted.over("trace").alias("lasted_ms"))
    ranked = ranked.select(*ITEMS, "window", "trace", "own_ms", "lasted_ms").with_columns(
        pl.col("own_ms").rank("average").over(ITEMS[1:]).alias("rank"),
        (pl.col("own_ms") + LEAST_MS).log().alias("log"),
    )

    def of(window: int, what: str) -> list[pl.Expr]:
        chosen = pl.col("own_ms").filter(pl.col("window") == window)
        return [chosen.len().alias(f"n_{what}"), chosen.median().alias(f"{what}_ms")]

    during = pl.col("window") == INCIDENT
    items = ranked.group_by(ITEMS).agg(
        *of(BASELINE, "before"),
        *of(LOCAL, "local"),
        *of(INCIDENT, "after"),
        pl.col("rank").filter(during).mean().alias("mean_rank"),
        pl.col("trace").filter(during).n_unique().alias("traces"),
        pl.col("lasted_ms").filter(~during).median(),
        pl.col("log").filter(~during).quantile(0.25).alias("low"),
        pl.col("log").filter(~during).quantile(0.75).alias("high"),
    )
    items = items.filter((pl.col("n_after") > 0) & (pl.col("n_before") + pl.col("n_local") > 0))
    few = FEW
    known = [
        pl.when((pl.col(f"n_{each}") >= few) | (pl.col(f"n_{other}") < few)).then(f"{each}_ms")
        for each, other in (("before", "local"), ("local", "before"))
    ]
    healthy = pl.col("n_before") + pl.col("n_local")
    nearest = pl.col("after_ms").clip(pl.min_horizontal(*known), pl.max_horizontal(*known))
    items = items.with_columns(nearest.alias("healthy_ms"))
    bits = _bits(items)
    return items.with_columns(
        pl.Series("bits", bits),
        ((pl.col("after_ms") - pl.col("healthy_ms")) * pl.col("n_after") / traces).alias("loss_ms"),
        (2 * (pl.col("mean_rank") - (pl.col("n_after") + 1) / 2) / healthy - 1).alias("shift"),
    ).drop("mean_rank", "low", "high")


def _bits(items: pl.DataFrame) -> Floats:
    """Information of a median's shift, in spreads of the healthy times on a logarithmic scale.

    As of two Cauchy distributions whose medians differ by d half interquartile ranges: their
    divergence is log(1 + d^2/4) (Chyzak and Nielsen, 2019). d is lessened by the 95% error of the
    difference. The spread of few spans leans on what is usual.
    """
    n = (items["n_before"] + items["n_local"]).to_numpy().astype(np.float64)
    after = items["n_after"].to_numpy().astype(np.float64)
    half = ((items["high"] - items["low"]) / 2).to_numpy().astype(np.float64)
    usual = float(np.average(half, weights=n)) if n.sum() else 0.0
    half = np.sqrt((n * half**2 + FEW * usual**2) / (n + FEW)) + 1e-9
    log = [np.log(items[each].to_numpy().astype(np.float64) + LEAST_MS) for each in _SIDES]
    return divergence((log[1] - log[0]) / half, n, after)


_SIDES = ("healthy_ms", "after_ms")


def divergence(shift: Floats, n_before: Floats, n_after: Floats) -> Floats:
    """Bits of a shift, in half interquartile ranges, of medians of so many observations.

    No more than those of one in n_before + 1: what so few healthy ones can't tell isn't told.
    """
    error = structure.Z * math.pi / 2 * np.sqrt(1 / n_before + 1 / n_after)
    sure = np.maximum(0.0, np.abs(shift) - error)
    return np.minimum(np.log2(1 + sure**2 / 4), np.log2(n_before + 1))
