"""Which metrics changed, whatever they are called and measured in."""

import math

import numpy as np
import polars as pl

from prove.rca.bundle import BASELINE, INCIDENT, LOCAL
from prove.rca.timing import divergence

SERIES = ["service", "instance", "metric"]
TAIL = math.tan(0.45 * math.pi)
"""Half interquartile ranges from a Cauchy's median to its 95th percentile."""
LEAST = 1e-4
"""Of a metric's size: as finely as it is told, where it never changes."""


def changes(metrics: pl.DataFrame) -> pl.DataFrame:
    """A row for each series of both times: what it was, is, and how much that says.

    healthy: the healthy window's median that is nearest to after, the incident's mean; spread: half
    the interquartile range of healthy values, at least what their tails show; bits: see
    timing.divergence; sign: of the change.
    """
    value = pl.col("value")

    def of(window: int) -> pl.Expr:
        return value.filter(pl.col("window") == window)

    healthy = value.filter(pl.col("window") != INCIDENT)
    found = metrics.group_by(SERIES).agg(
        of(BASELINE).median().alias("before"),
        of(LOCAL).median().alias("local"),
        of(INCIDENT).mean().alias("after"),
        healthy.len().alias("n"),
        of(INCIDENT).len().alias("n_after"),
        healthy.median().abs().alias("size"),
        ((healthy.quantile(0.75) - healthy.quantile(0.25)) / 2).alias("half"),
        ((healthy.quantile(0.95) - healthy.quantile(0.05)) / 2 / TAIL).alias("tail"),
    )
    found = found.filter((pl.col("n") > 0) & (pl.col("n_after") > 0))
    spread = pl.max_horizontal("half", "tail", LEAST * pl.col("size"))
    nearest = pl.col("after").clip(
        pl.min_horizontal("before", "local"), pl.max_horizontal("before", "local")
    )
    found = found.with_columns(
        nearest.alias("healthy"), pl.max_horizontal(spread, pl.lit(1e-12)).alias("spread")
    )
    shift = ((found["after"] - found["healthy"]) / found["spread"]).to_numpy()
    n, after = (found[each].to_numpy().astype(np.float64) for each in ("n", "n_after"))
    return found.with_columns(
        pl.Series("bits", divergence(shift, n, after)),
        pl.Series("sign", np.sign(shift)),
        pl.Series("shift", shift),
    ).drop("size", "half", "tail")
