"""Whether an incident is over when its window ends: said from the data, or not at all."""

from dataclasses import replace

import polars as pl
import pytest

from prove.rca import bundle
from prove.rca.analysis import analyse
from prove.rca.bundle import BASELINE, INCIDENT, Alert, Bundle
from prove.rca.model import Ending
from tests.support.rca import DURING, Shape, incident

WORK = Shape().work
SHAPES = {
    "failing": Shape(fails={"bank": 0.5}),
    "slow": Shape(work=WORK | {"bank": 90}),
    "answers early": Shape(skips={"pay": 0.6}),
}
LAST_S = DURING.end_unix_s - DURING.seconds / 4


def ending(found: Bundle) -> Ending:
    return analyse(found).ending


def late() -> pl.Expr:
    """Spans of traces that begin in the last quarter of the incident."""
    begun_s = pl.col("start_unix_nano").min().over("window", "trace_id") / 1e9
    return (pl.col("window") == INCIDENT) & (begun_s >= LAST_S)


@pytest.mark.parametrize("fault", SHAPES)
def test_what_is_still_there_at_the_end_goes_on(fault: str) -> None:
    told = ending(incident(SHAPES[fault]))

    assert told.state == "goes on", told
    assert told.sentence.startswith("It is not over when the window ends: in the last 15 s")


@pytest.mark.parametrize("fault", SHAPES)
def test_what_is_gone_by_the_end_is_over(fault: str) -> None:
    hurt, well = incident(SHAPES[fault]), incident(Shape())
    mended = pl.concat([hurt.spans.filter(~late()), well.spans.filter(late())])

    told = ending(replace(hurt, spans=mended))

    assert told.state == "over", told


def test_what_fails_less_than_before_but_still_does_wanes() -> None:
    few = incident(Shape(fails={"bank": 0.2}), count=1000)
    most = incident(Shape(fails={"bank": 0.9}), count=1000)
    spans = pl.concat([most.spans.filter(~late()), few.spans.filter(late())])

    told = ending(replace(most, spans=spans))

    assert told.state == "goes on"
    assert told.sentence.startswith("It wanes, but is not over")


def test_a_share_that_falls_as_more_is_asked_is_no_wane() -> None:
    """Nine in ten of few fail, then half of six times as many."""
    most = incident(Shape(fails={"bank": 0.9}), count=200)
    many = incident(Shape(fails={"bank": 0.5}), count=200, count_after=1200)
    spans = pl.concat([most.spans.filter(~late()), many.spans.filter(late())])

    told = ending(replace(most, spans=spans))

    assert told.state == "goes on"
    assert told.sentence.startswith("It is not over")
    assert told.sentence.endswith(
        "There are 2 times as many a second as in health, repeated ones included."
    )


def test_only_the_sort_of_request_that_fails_is_counted() -> None:
    """Others come in, too, and are well."""
    hurt = incident(SHAPES["failing"])
    well = [
        hurt.spans.filter(pl.col("parent_span_id").is_null()).with_columns(
            pl.format("look {}-{}", "trace_id", pl.lit(number)).alias("trace_id"),
            pl.lit("look").alias("name"),
            pl.lit("unset").alias("status"),
        )
        for number in range(5)
    ]

    told = ending(replace(hurt, spans=pl.concat([hurt.spans, *well])))

    assert told == ending(hurt)
    assert "requests `serve front` at front fail" in told.sentence


def test_where_nobody_asks_at_the_end_it_cannot_be_told() -> None:
    hurt = incident(SHAPES["failing"])

    told = ending(replace(hurt, spans=hurt.spans.filter(~late())))

    assert told.state == "not known"
    assert (
        "in the last 15 s of the window there are no requests `serve front` at front"
        in told.sentence
    )


def test_where_few_ask_at_the_end_it_cannot_be_told() -> None:
    hurt, well = incident(Shape(fails={"bank": 0.3})), incident(Shape())
    one = well.spans.filter(late() & (pl.col("trace_id") == "t2000-199"))
    assert not one.is_empty()

    told = ending(replace(hurt, spans=pl.concat([hurt.spans.filter(~late()), one])))

    assert told.state == "not known", told
    assert "can't be told from so few" in told.sentence


def test_where_nothing_is_wrong_nothing_can_end() -> None:
    assert ending(incident(Shape())).state == "not known"
    assert ending(Bundle(id="nothing", incident=DURING)).state == "not known"


@pytest.mark.parametrize(("last", "state"), [(180.0, "goes on"), (100.0, "over")])
def test_the_alerts_own_metric_is_looked_at_at_its_pace(last: float, state: str) -> None:
    """A value each 20 s: the last quarter of a minute may hold none."""
    rows = [(1000.0 + at, "front", None, "wait", 100.0 + at % 3) for at in range(50)]
    rows += [(2001.0 + at, "front", None, "wait", 180.0) for at in range(0, 39, 2)]
    rows += [(2041.0, "front", None, "wait", last)]
    table = pl.DataFrame(rows, schema=bundle.METRICS, orient="row").with_columns(
        pl.when(pl.col("time_unix_s") < 2000).then(BASELINE).otherwise(INCIDENT).alias("window")
    )
    every_20_s = pl.col("time_unix_s").is_in([2001.0, 2021.0, 2041.0])
    if state == "goes on":
        table = table.filter((pl.col("time_unix_s") < 2000) | every_20_s)
    else:
        at = pl.col("time_unix_s")
        table = table.with_columns(
            pl.when(at > 2040).then(2059.0).otherwise(at).alias("time_unix_s")
        )
    found = Bundle(
        "x",
        DURING,
        Alert("front", "latency", "wait"),
        metrics=table.cast({"window": pl.Int8}),
    )

    assert ending(found).state == state, ending(found)
