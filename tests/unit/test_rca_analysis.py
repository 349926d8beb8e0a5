"""Made-up incidents: each fault is told from the others, and none is named where there is none."""

import random
from dataclasses import replace

import polars as pl
import pytest

from prove.rca import blame, bundle, evidence
from prove.rca.analysis import analyse
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Alert, Bundle
from prove.rca.model import Analysis
from tests.support.rca import BEFORE, DURING, Maker, Shape, incident, table, told_wrongly


def slower(**work: float) -> Shape:
    return Shape(work=Shape().work | work)


def farther(**wire: float) -> Shape:
    return Shape(wire=Shape().wire | wire)


FAULTS = {
    "slow inside": (slower(pay=60), "pay", {"latency", "cpu"}),
    "slow at the end": (slower(bank=90), "bank", {"latency", "cpu"}),
    "the way to it": (farther(bank=80), "bank", {"network"}),
    "the way to a caller": (farther(pay=80), "pay", {"network"}),
    "failing": (Shape(fails={"bank": 0.5}), "bank", {"errors"}),
    "failing in the middle": (Shape(fails={"pay": 0.5}), "pay", {"errors"}),
    "not reached": (Shape(unreached={"bank": 0.5}), "bank", {"errors"}),
    "hanging": (Shape(held={"bank": 0.5}), "bank", {"errors", "latency"}),
    "answers early": (Shape(skips={"pay": 0.6}), "pay", {"omission"}),
    "asks again": (Shape(tries=3), "pay", {"omission"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_where_it_is(fault: str) -> None:
    shape, service, kinds = FAULTS[fault]

    found = analyse(incident(shape))

    assert found.causes[0].service == service, told(found)
    assert found.causes[0].kind in kinds
    assert found.abstained is None
    assert found.causes[0].evidence
    assert found.causes[0].path[0] == "front"
    assert found.causes[0].path[-1] == service
    assert found.causes[0].instance == f"{service}-1"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("by_s", [-8.0, 8.0])
def test_it_is_found_though_it_began_at_another_time_than_is_told(fault: str, by_s: float) -> None:
    shape, service, kinds = FAULTS[fault]

    found = analyse(told_wrongly(shape, by_s))

    assert found.causes[0].service == service, told(found)
    assert found.causes[0].kind in kinds
    assert found.abstained is None


def test_who_reaches_nobody_is_at_fault_and_who_is_not_reached_is_told() -> None:
    found = analyse(incident(Shape(unreached={"cart": 0.5, "pay": 0.5})))
    assert found.causes[0].service == "front", told(found)

    found = analyse(incident(Shape(unreached={"cart": 0.5})))
    assert found.causes[0].service == "cart", told(found)
    first = found.causes[0].evidence[0]
    assert first.signal == "errors"
    assert first.sentence.startswith("calls of front to cart (`ask cart`) fail ")


def test_who_is_not_reached_is_told_from_who_is_and_whose_answers_are_lost() -> None:
    unreached, lost = (
        analyse(incident(shape)).causes[0]
        for shape in (Shape(unreached={"cart": 0.5}), Shape(lost={"cart": 0.5}))
    )
    assert (unreached.service, lost.service) == ("cart", "cart")
    assert unreached.evidence[0].answered == 0
    assert "100% of the failed ones have no span of cart" in unreached.evidence[0].sentence
    assert lost.evidence[0].answered == 1
    assert "cart has spans of 100% of the failed ones" in lost.evidence[0].sentence


def test_who_holds_what_nobody_waits_for_any_more_is_told_to_hang() -> None:
    held, lost = (
        analyse(incident(shape)).causes[0]
        for shape in (Shape(held={"cart": 0.5}), Shape(lost={"cart": 0.5}))
    )
    assert held.service == "cart"
    failing = next(item for item in held.evidence if item.signal == "errors")
    assert failing.held_ms == pytest.approx(30_000, rel=0.01)
    assert "at some of them cart is for 30 s (median)" in failing.sentence
    assert {item.held_ms for item in lost.evidence} == {None}


def test_calls_are_counted_also_where_nobody_answers() -> None:
    calls = {
        (call.caller, call.callee): call
        for call in analyse(incident(Shape(unreached={"cart": 1.0}))).calls
    }

    cart, pay = calls["front", "cart"], calls["front", "pay"]
    assert cart.rate_after == pay.rate_after == pytest.approx(200 / 60)
    assert (cart.failed_before, cart.failed_after, cart.gap_after_ms) == (0, 1, None)
    assert pay.failed_after == 0
    assert pay.gap_after_ms == pytest.approx(2, rel=0.2)


def test_what_is_told_of_one_candidate_is_not_told_of_the_next() -> None:
    quiet = Shape(silent=frozenset({"bank"}))
    found = analyse(incident(replace(quiet, work=quiet.work | {"bank": 200}), quiet))

    sentences = [each.sentence for cause in found.causes for each in cause.evidence]
    assert found.causes[0].service == "bank"
    assert len(sentences) == len(set(sentences))


def test_failures_that_customers_have_are_told_before_those_of_cleaning_up() -> None:
    def row(op: int, kind: str, bits: float, usual: int, rate: float = 0.9) -> blame.Row:
        of = {"case": "", "after": -1, "event": op, "n_after": 50, "n_before": usual}
        return {"op": op, "kind": kind, "bits": bits, "rate": rate, **of}

    cleaning, buying, faint = (
        row(0, "failure", 3, 30),
        row(1, "failure", 1, 99),
        row(2, "failure", 0.1, 999),
    )
    branch = [row(3, "child", 2, 80, 0.3), row(3, "again", 2, 80, 0.3), row(3, "next", 2, 80, 0.7)]
    told = evidence._telling([cleaning, *branch, buying, faint])
    assert told == [buying, cleaning, branch[0], faint]


def test_what_follows_from_a_failure_is_not_held_against_the_caller() -> None:
    """Where the bank fails pay asks it again, and front doesn't go on: neither is news."""
    found = analyse(incident(Shape(fails={"bank": 0.6}, tries=2), Shape()))

    assert found.causes[0].service == "bank", told(found)


def test_who_gives_up_after_failed_calls_is_not_at_fault() -> None:
    """Of six requests pay refuses five without asking: so far its own spans alone fail."""
    found = analyse(incident(Shape(unreached={"bank": 0.5}, gives_up=5)))

    assert found.causes[0].service == "bank", told(found)
    assert found.abstained is None
    assert found.causes[1].score < found.causes[0].score / 4

    found = analyse(incident(Shape(fails={"pay": 0.8})))
    assert found.causes[0].service == "pay", told(found)


def _with_reads(made: Bundle, until_s: float, reads_until_s: float) -> Bundle:
    """Requests end at a time, and so do other ones, which ask cart alone."""
    maker = Maker(seed=2)
    reads = []
    for window, place in ((BEFORE, BASELINE), (DURING, INCIDENT)):
        rows = maker.requests(300, window, Shape())
        mine = [row | {"parent_span_id": None} for row in rows if row["name"] == "serve cart"]
        mine = [row | {"trace_id": f"read-{row['trace_id']}"} for row in mine]
        reads.append(table(mine, place, lambda _row: True))
    begun_s = pl.col("start_unix_nano") / 1e9
    return replace(
        made,
        spans=pl.concat(
            [
                made.spans.filter(begun_s.min().over("window", "trace_id") < until_s),
                pl.concat(reads).filter(begun_s < reads_until_s),
            ]
        ),
    )


def test_who_falls_silent_while_others_work_is_named() -> None:
    found = analyse(_with_reads(incident(Shape()), DURING.start_unix_s + 30, DURING.end_unix_s))

    first = found.causes[0]
    assert (first.service, first.kind) == ("front", "errors"), told(found)
    assert found.abstained is None
    assert first.evidence[0].sentence.startswith("For 50% of the time front begins nothing")
    assert first.evidence[0].trace_ids == ()


def test_it_is_felt_where_requests_come_in_that_the_cause_has_part_in() -> None:
    """Not where most come in: those are reads of cart's."""
    until_s = DURING.end_unix_s
    found = analyse(_with_reads(incident(slower(pay=60)), until_s, until_s))

    assert (found.causes[0].service, found.symptom) == ("pay", "front"), told(found)
    assert found.causes[0].path == ("front", "pay")
    assert analyse(_with_reads(incident(slower(cart=60)), until_s, until_s)).symptom == "cart"


def test_where_all_fall_silent_telemetry_was_lost() -> None:
    half_s = DURING.start_unix_s + 30
    found = analyse(_with_reads(incident(Shape()), half_s, half_s))

    assert found.abstained is not None
    assert found.abstained.reason == "no fault visible"


def test_a_lack_of_processor_time_slows_all_that_a_process_does() -> None:
    def by_path(made: Bundle) -> pl.DataFrame:
        odd = pl.col("trace_id").str.contains("[13579]$")
        path = pl.when(odd).then(pl.lit(" a")).otherwise(pl.lit(" b"))
        name = pl.when(pl.col("name") == "serve pay").then(pl.col("name") + path)
        return made.spans.with_columns(name.otherwise(pl.col("name")).alias("name"))

    healthy, slow, stuck = (
        by_path(incident(shape)) for shape in (Shape(), slower(pay=60), slower(pay=5000))
    )
    odd = pl.col("trace_id").str.contains("[13579]$")
    some = pl.concat([healthy.filter(~odd), slow.filter(odd)])

    kinds = [
        analyse(replace(incident(Shape()), spans=spans)).causes[0].kind
        for spans in (slow, some, stuck)
    ]

    assert kinds == ["cpu", "latency", "latency"]  # no processor is shared by 500


def test_whose_calls_wait_whomever_they_ask_is_late_itself() -> None:
    found = analyse(incident(farther(cart=40, pay=40)))

    assert (found.causes[0].service, found.causes[0].kind) == ("front", "cpu"), told(found)


def test_few_failures_are_seen_where_something_pages_or_where_they_are_certain() -> None:
    few = Shape(fails={"pay": 0.15})
    paged = analyse(incident(few, count=100, alert=Alert("front", "errors", "errors")))
    unpaged = analyse(incident(few, count=100))
    many = analyse(incident(few, count=1000))

    assert paged.causes[0].service == unpaged.causes[0].service == "pay"
    assert paged.abstained is None
    assert unpaged.abstained is not None
    assert unpaged.abstained.reason == "no fault visible"
    assert many.abstained is None


def test_of_two_faults_both_come_first() -> None:
    found = analyse(incident(replace(slower(cart=80), fails={"bank": 0.5})))

    assert {each.service for each in found.causes[:2]} == {"cart", "bank"}, told(found)


def test_metrics_are_told_beside_spans_and_a_machine_is_no_service() -> None:
    rows = [
        (
            at,
            service,
            f"{service}-1",
            metric,
            value * (9 if at >= 2000 and service != "cart" else 1),
        )
        for at in (*range(1000, 1060), *range(2000, 2060))
        for service, metric, value in (
            ("pay", "threads", 10 + at % 3),
            ("cart", "threads", 10 + at % 3),
            ("machine", "load", 1 + at % 3),
        )
    ]
    metrics = pl.DataFrame(rows, schema=bundle.METRICS, orient="row").with_columns(
        pl.when(pl.col("time_unix_s") < 2000).then(BASELINE).otherwise(INCIDENT).alias("window")
    )
    alert = Alert("front", "errors", "checkout-errors")
    made = replace(
        incident(Shape(fails={"pay": 0.5}), alert=alert),
        metrics=metrics.cast({"window": pl.Int8}),
        services=("bank", "cart", "front", "machine", "pay"),
    )

    found = analyse(made)

    assert set(found.ranking) == {"bank", "cart", "front", "pay"}
    assert found.causes[0].service == "pay", told(found)
    signals = [each.signal for each in found.causes[0].evidence]
    assert signals[0] == "errors"
    assert signals[-1] == "metrics"
    assert "`threads` of pay (pay-1) is " in found.causes[0].evidence[-1].sentence
    assert replace(analyse(replace(made, metrics=bundle.empty(bundle.METRICS))), seconds=0).causes[
        0
    ].score == pytest.approx(found.causes[0].score)


def test_evidence_has_its_numbers_and_its_traces() -> None:
    found = analyse(incident(slower(pay=60)))

    first = found.causes[0].evidence[0]
    assert first.subject == "serve pay"
    assert first.baseline == pytest.approx(10, rel=0.1)
    assert first.incident == pytest.approx(60, rel=0.1)
    assert first.trace_ids
    assert all(each.startswith("t2000-") for each in first.trace_ids)
    assert " ms now, " in first.sentence
    assert " ms before (6" in first.sentence or " ms before (5" in first.sentence
    assert "serve pay" in first.query


def test_the_same_bundle_gives_the_same_answer() -> None:
    made = incident(farther(bank=80))

    assert replace(analyse(made), seconds=0) == replace(analyse(made), seconds=0)


def test_an_uninstrumented_dependency_is_named_from_the_calls_to_it() -> None:
    quiet = Shape(silent=frozenset({"bank"}))

    found = analyse(incident(replace(quiet, work=quiet.work | {"bank": 200}), quiet))

    first = found.causes[0]
    assert first.service == "bank", told(found)
    assert first.seen_by == ("pay",)
    assert "calls of pay to bank (`ask bank`) take 2" in (first.evidence[0].sentence)
    assert [each.seen_by for each in found.causes[1:]] == [(), (), ()]
    assert found.causes[0].path == ("front", "pay", "bank")


def test_a_callee_that_falls_silent_is_named() -> None:
    found = analyse(incident(Shape(silent=frozenset({"cart"}), fails={})))

    assert found.causes[0].service in {"cart", "front"}, told(found)


def test_nothing_is_named_where_nothing_is_wrong() -> None:
    found = analyse(incident(Shape()))

    assert found.abstained is not None
    assert found.abstained.reason == "no fault visible"
    assert found.confidence == 0


def test_more_load_alone_is_no_fault() -> None:
    busy = Shape(work={name: ms * 1.2 for name, ms in Shape().work.items()})

    found = analyse(incident(busy, count=100, count_after=400))

    assert found.abstained is not None
    assert found.abstained.reason in {"load only", "no fault visible"}


def test_more_load_is_no_reason_to_fail() -> None:
    found = analyse(incident(Shape(fails={"pay": 0.4}), count=100, count_after=400))

    assert found.abstained is None
    assert found.causes[0].service == "pay", told(found)


@pytest.mark.parametrize("skew_ms", [-400.0, 400.0])
def test_a_clock_that_is_wrong_changes_nothing(skew_ms: float) -> None:
    wrong = {"pay": skew_ms, "bank": -2 * skew_ms}

    found = analyse(incident(replace(slower(bank=90), skew_ms=wrong), Shape(skew_ms=wrong)))

    assert found.causes[0].service == "bank", told(found)


def test_a_fault_is_found_among_spans_that_are_missing() -> None:
    chosen = random.Random(3)

    found = analyse(incident(slower(bank=90), keep=lambda _row: chosen.random() < 0.7))

    assert found.causes[0].service == "bank", told(found)
    assert any("parents" in note for note in found.notes)


def test_a_fault_is_found_in_a_sample_of_the_traces() -> None:
    """One of ten is kept, of both times, as a head sampler does."""
    found = analyse(
        incident(slower(bank=90), count=400, keep=lambda row: row["trace_id"].endswith("7"))
    )

    assert found.causes[0].service == "bank", told(found)


def test_ten_thousand_operations() -> None:
    made = incident(slower(pay=60), count=2500)
    number = pl.int_range(pl.len()) % 2500
    many = made.spans.with_columns(pl.concat_str("name", pl.lit("/"), number).alias("name"))

    found = analyse(
        replace(
            made,
            spans=pl.concat(
                [
                    made.spans,
                    many.with_columns(pl.concat_str("trace_id", pl.lit("x")).alias("trace_id")),
                ]
            ),
        )
    )

    assert found.causes[0].service == "pay", told(found)


def test_without_a_healthy_time_it_says_so() -> None:
    made = incident(slower(pay=60))
    during = made.spans.filter(pl.col("window") == INCIDENT)

    found = analyse(replace(made, spans=during))

    assert found.abstained is not None
    assert found.abstained.reason == "no data"


def test_an_empty_bundle_says_so() -> None:
    found = analyse(Bundle(id="nothing", incident=DURING))

    assert found.abstained is not None
    assert found.abstained.reason == "no data"


def test_one_service_alone() -> None:
    found = analyse(incident(slower(front=60), keep=lambda row: row["service"] == "front"))

    assert found.causes[0].service == "front"


def test_the_minute_before_takes_the_place_of_a_baseline() -> None:
    made = incident(slower(pay=60))
    moved = pl.col("window").replace(BASELINE, LOCAL)

    found = analyse(
        replace(made, baseline=None, local=BEFORE, spans=made.spans.with_columns(moved))
    )

    assert found.causes[0].service == "pay"


def test_metrics_alone_lead_along_the_edges_to_the_cause() -> None:
    """The alert's own metric is followed; what a callee explains is no cause."""
    changes = {"front": (100.0, 180.0), "pay": (50.0, 130.0), "bank": (20.0, 100.0), "cart": (8, 8)}
    rows = [
        {"time_unix_s": at, "service": name, "instance": None, "metric": metric, "value": value}
        for name, (before, after) in changes.items()
        for metric, of_after in (("wait", after), ("other", before * 9))
        for at, base in (
            *((1000.0 + second, before) for second in range(60)),
            *((2000.0 + second, of_after) for second in range(10)),
        )
        for value in [base * (1 + 0.02 * ((at * 7) % 5 - 2))]
    ]
    table = pl.DataFrame(rows, schema=bundle.METRICS)
    placed = table.with_columns(
        pl.when(pl.col("time_unix_s") < 2000)
        .then(BASELINE)
        .otherwise(INCIDENT)
        .cast(pl.Int8)
        .alias("window")
    )
    edges = pl.DataFrame(
        [("front", "pay"), ("front", "cart"), ("pay", "bank")],
        schema=bundle.EDGES,
        orient="row",
    )

    found = analyse(
        Bundle(
            id="metrics",
            incident=DURING,
            baseline=BEFORE,
            alert=Alert("front", "latency", "wait"),
            metrics=placed,
            edges=edges,
        )
    )

    assert found.causes[0].service == "bank", told(found)
    assert found.causes[0].kind == "latency"
    assert found.causes[0].path == ("front", "pay", "bank")


def told(found: Analysis) -> list[tuple[str, float]]:
    return [(each.service, round(each.score, 3)) for each in found.causes[:4]]


def test_evidence_that_counts_alike_has_one_order() -> None:
    """However rows come, and whatever a sum of many parts has as its last digit."""
    alike = [
        {"op": 0, "kind": "child", "event": event, "after": -1, "healthy": 1.0, "rate": 0.7}
        for event in (1, 2, 3)
    ]

    def order(bits: list[float]) -> list[int]:
        rows = [row | {"bits": each} for row, each in zip(alike, bits, strict=True)]
        found = blame.of_events(pl.DataFrame(rows), ["pay"], {}, frozenset())
        return [row["event"] for row in found["pay"].rows]

    assert order([0.3, 0.3, 0.3]) == order([0.3, 0.1 + 0.2, 0.3]) == [1, 2, 3]
    assert order([0.2, 0.3, 0.4]) == [3, 2, 1]
