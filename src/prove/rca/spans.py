"""Spans as trees: whose child each is, what it did by itself, and whom it asked."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from prove.rca.bundle import INCIDENT

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trees:
    """`spans`, a row each, sorted by parent and start, so that children lie side by side.

    Columns: window, trace (number, one in each window), span_id, service, instance, op (number of
    service and name), parent (row, -1 for none), start_ns, end_ns, own_ms (time not covered by
    children), callee (the service that a client span asked, null for other spans), callee_op (of
    its only child, else -1), torn (its parent is not there, but that of others of its trace),
    failed, hurt (one below it failed: what it does is a consequence), shadowed (when it ended, the
    latest call to somebody whom its process asks had failed).
    `ops` has a row for each op, in order: service, name.
    """

    spans: pl.DataFrame
    ops: pl.DataFrame
    trace_ids: pl.Series

    @cached_property
    def traces(self) -> dict[int, int]:
        """How many there are in each window."""
        counted = self.spans.group_by("window").agg(pl.col("trace").n_unique())
        return dict(counted.iter_rows())


def grow(table: pl.DataFrame) -> Trees:
    """The trees of a bundle's spans (bundle.SPANS and window).

    A span whose parent isn't there is a root: traces may be sampled or torn.
    """
    traces = table.select("window", "trace_id").unique(maintain_order=True).with_row_index("trace")
    ops = table.select("service", "name").unique(maintain_order=True).with_row_index("op")
    spans = (
        table.join(traces, on=["window", "trace_id"], how="left", maintain_order="left")
        .filter(pl.struct("trace", "span_id").is_first_distinct())
        .join(ops, on=["service", "name"], how="left", maintain_order="left")
        .with_row_index("at")
    )
    parents = spans.select("trace", pl.col("span_id").alias("parent_span_id"), up="at")
    ids = ["trace", "parent_span_id"]
    found = spans.select(ids).join(parents, on=ids, how="left", maintain_order="left")["up"]
    spans = spans.drop("at", "trace_id", "name").with_columns(found)
    torn = pl.col("up").is_null() & pl.col("parent_span_id").is_not_null()
    # The only root of a trace may well have a parent where nobody looks: at the client.
    several = pl.col("up").is_null().sum().over("trace") > 1
    spans = spans.with_columns((torn & several).alias("torn"))
    up = spans["up"].fill_null(-1).cast(pl.Int64).to_numpy().copy()
    rows = np.arange(len(up))
    up[up == rows] = -1
    start = spans["start_unix_nano"].to_numpy()
    order = np.lexsort((start, up))
    at = np.empty_like(order)
    at[order] = rows
    spans = spans[order]
    parent = up[order]
    parent = np.where(parent >= 0, at[parent], -1)
    start = spans["start_unix_nano"].to_numpy().copy()
    end = np.maximum(spans["end_unix_nano"].to_numpy(), start)
    service = ops["service"].rank("dense").to_numpy().astype(np.int64)[spans["op"]]
    start, end = _in_one_clock(spans, parent, start, end, service)
    covered = _covered(parent, start, end)
    leaf = np.ones(len(parent), dtype=bool)
    leaf[parent[parent >= 0]] = False
    own = end - start - np.where(leaf, _accompanied(parent, start, end, leaf), covered)
    callee, callee_op = _asked(parent, service, spans["op"].to_numpy().astype(np.int64))
    named = spans["service"].gather(np.maximum(callee, 0))
    asked = pl.select(pl.when(pl.Series(callee >= 0)).then(named)).to_series()
    spans = spans.select(
        "window",
        pl.col("trace").cast(pl.Int64),
        "span_id",
        "service",
        "instance",
        pl.col("op").cast(pl.Int64),
        pl.Series("parent", parent),
        pl.Series("start_ns", start),
        pl.Series("end_ns", end),
        pl.Series("own_ms", own / 1e6),
        pl.coalesce("peer", asked).alias("callee"),
        pl.Series("callee_op", callee_op),
        "torn",
        (pl.col("status").str.to_lowercase() == "error").fill_null(value=False).alias("failed"),
    )
    spans = _usual_callees(spans, leaf)
    hurt = _above(parent, spans["failed"].to_numpy())
    spans = spans.with_columns(pl.Series("hurt", hurt))
    spans = spans.with_columns(_shadowed(spans).alias("shadowed"))
    return Trees(spans, ops.select("service", "name"), traces["trace_id"])


def _covered(parent: Ints, start: Ints, end: Ints) -> Ints:
    """Of each span, the nanoseconds that at least one child covers (the union, clipped to it).

    So neither children at the same time count twice nor what an asynchronous child does later.
    """
    covered = np.zeros(len(parent), dtype=np.int64)
    first = int(np.searchsorted(parent, 0))
    of = parent[first:]
    if not len(of):
        return covered
    length = end[of] - start[of]
    begin = np.clip(start[first:] - start[of], 0, length)
    finish = np.clip(end[first:] - start[of], 0, length)
    # A running maximum for each family: families are lifted above each other.
    step = int(length.max()) + 1
    begins = np.r_[True, of[1:] != of[:-1]]
    family = np.cumsum(begins) - 1
    unit = max(1, step * (int(family[-1]) + 1) // 2**62 + 1)
    lift = family * (step // unit + 1)
    seen = np.maximum.accumulate(finish // unit + lift)
    before = np.r_[0, (seen[:-1] - lift[1:]) * unit]
    adds = np.maximum(0, finish - np.maximum(begin, np.maximum(before, 0)))
    covered[of[begins]] = np.add.reduceat(adds, np.flatnonzero(begins))
    return covered


def _accompanied(parent: Ints, start: Ints, end: Ints, leaf: npt.NDArray[np.bool_]) -> Ints:
    """Of each leaf, the nanoseconds that siblings which started after it cover.

    Reactive frameworks lose the context, and a call becomes its caller's sibling: of two siblings
    that run at once the later one is at work, the earlier, as long as it has no child, waits.
    """
    covered = np.zeros(len(parent), dtype=np.int64)
    at = np.flatnonzero(leaf & (parent >= 0))
    reach = start[at].copy()
    for ahead in range(1, len(parent)):
        other = at + ahead
        going = other < len(parent)
        at, other, reach = at[going], other[going], reach[going]
        going = (parent[other] == parent[at]) & (start[other] < end[at]) & (reach < end[at])
        at, other, reach = at[going], other[going], reach[going]
        if not len(at):
            break
        until = np.minimum(end[other], end[at])
        covered[at] += np.maximum(0, until - np.maximum(start[other], reach))
        reach = np.maximum(reach, until)
    return covered


def _asked(parent: Ints, service: Ints, op: Ints) -> tuple[Ints, Ints]:
    """Of each client span, a row of the service that it asked (else -1), and its child's op.

    A client span is one inside its service all of whose children are in one other service.
    """
    callee = np.full(len(parent), -1, dtype=np.int64)
    callee_op = np.full(len(parent), -1, dtype=np.int64)
    first = int(np.searchsorted(parent, 0))
    of = parent[first:]
    if not len(of):
        return callee, callee_op
    begins = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    mothers = of[begins]
    least = np.minimum.reduceat(service[first:], begins)
    most = np.maximum.reduceat(service[first:], begins)
    above = parent[mothers]
    inside = (above >= 0) & (service[above] == service[mothers])
    is_client = inside & (least == most) & (least != service[mothers])
    callee[mothers[is_client]] = first + begins[is_client]
    ops = op[first:]
    alike = np.minimum.reduceat(ops, begins) == np.maximum.reduceat(ops, begins)
    only = is_client & alike
    callee_op[mothers[only]] = ops[begins[only]]
    return callee, callee_op


def _shadowed(spans: pl.DataFrame) -> pl.Series:
    """Whether, when a span ended, its process had last seen a call to one of its callees fail.

    It may then do without that callee, or without its request, and no failed span shows it.
    """
    shadowed = pl.Series([False], dtype=pl.Boolean).new_from_index(0, spans.height)
    failed = pl.col("failed") & pl.col("callee").is_not_null()
    if not spans.select(failed.any()).item():
        return shadowed
    ends = spans.select(
        "window",
        "service",
        pl.col("instance").fill_null(""),
        "end_ns",
        "callee",
        "failed",
        pl.int_range(pl.len()).alias("at"),
    ).sort("end_ns", maintain_order=True)
    calls = ends.filter(pl.col("callee").is_not_null() & (pl.col("callee") != pl.col("service")))
    calls = calls.filter(pl.col("failed").any().over("callee"))
    by = ["window", "service", "instance"]
    for _, some in calls.group_by("callee", maintain_order=True):
        found = ends.join_asof(
            some.select(*by, "end_ns", pl.col("failed").alias("last")),
            on="end_ns",
            by=by,
            strategy="backward",
            check_sortedness=False,
        ).sort("at")
        shadowed = shadowed | found["last"].fill_null(value=False)
    return shadowed


def _above(parent: Ints, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which spans have a chosen one below them, at any depth."""
    above = np.zeros(len(parent), dtype=bool)
    up = parent[chosen]
    while len(up := np.unique(up[up >= 0])):
        up = up[~above[up]]
        above[up] = True
        up = parent[up]
    return above


def _usual_callees(spans: pl.DataFrame, leaf: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """A client span without an answer's span asked whom its op always asks while all is well."""
    usual = (
        spans.filter(pl.col("window") != INCIDENT)
        .group_by("op")
        .agg(
            pl.col("callee").drop_nulls().first().alias("usual"),
            pl.col("callee").drop_nulls().n_unique().alias("kinds"),
            pl.col("callee").is_not_null().mean().alias("share"),
        )
        .filter((pl.col("kinds") == 1) & (pl.col("share") > 0.5))
    )
    return (
        spans.join(usual.select("op", "usual"), on="op", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.Series(leaf) & pl.col("callee").is_null())
            .then("usual")
            .otherwise("callee")
            .alias("callee")
        )
        .drop("usual")
    )


def _in_one_clock(
    spans: pl.DataFrame, parent: Ints, start: Ints, end: Ints, service: Ints
) -> tuple[Ints, Ints]:
    """Shift spans of a process whose clock differs from its caller's.

    A child can't start before its parent. Where, between two instances, most do, or most start
    after the parent's end, the child's clock is set so that it lies in the middle of its parent,
    on average (as Jaeger does a span at a time). Offsets add up along the path.
    """
    crosses = (parent >= 0) & (service != service[parent])
    at = np.flatnonzero(crosses)
    if not len(at):
        return start, end
    up = parent[at]
    named = spans["instance"].fill_null("").cast(pl.Categorical).to_physical()
    number = named.cast(pl.Int64).to_numpy()
    instance = service * (int(number.max()) + 1) + number
    pairs = pl.DataFrame(
        {
            "caller": instance[up],
            "callee": instance[at],
            "early": start[at] < start[up],
            "late": start[at] > end[up],
            "offset": (start[at] + end[at]) // 2 - (start[up] + end[up]) // 2,
        }
    )
    skewed = (
        pairs.group_by("caller", "callee")
        .agg(
            ((pl.col("early").mean() > 0.5) | (pl.col("late").mean() > 0.5)).alias("is"),
            pl.col("offset").median().cast(pl.Int64),
        )
        .filter("is")
    )
    if skewed.is_empty():
        return start, end
    found = pairs.join(skewed, on=["caller", "callee"], how="left", maintain_order="left")
    shift = np.zeros(len(parent), dtype=np.int64)
    shift[at] = found["offset_right"].fill_null(0).to_numpy()
    total = shift.copy()
    above = parent.copy()
    for _ in range(_DEEPEST):  # along the path, all spans a level at a time
        has = above >= 0
        if not has.any():
            break
        total[has] += shift[above[has]]
        above[has] = parent[above[has]]
    return start - total, end - total


_DEEPEST = 200
"""Levels; a trace whose parents go round in a circle ends here, too."""
