"""Spans and log records as one story in order of time."""

import json
import random

from hypothesis import given
from hypothesis import strategies as st

from prove import timeline
from prove.timeline import Trace
from prove.tracetree import WIDTH, Event, Link, Span

FIRST, SECOND = "0a" * 16, "0b" * 16
ROOT = Span("1", None, "order-service", "POST", 1_000_000, 5_000, trace_id=FIRST)
CHILD = Span(
    "2",
    "1",
    "payment-service",
    "charge",
    1_001_000,
    2_000,
    failed=True,
    message="refused",
    events=(
        Event(1_001_500, "declined", {"reason": "card\ndeclined"}),
        Event(1_001_600, "exception", {"exception.message": "refused"}),
    ),
    trace_id=FIRST,
)
RESUMED = Span(
    "3", None, "order-service", "resume", 1_003_000, 10, links=(Link(FIRST, "1"),), trace_id=SECOND
)


def logged(at: str, message: str, span_id: str = "", **fields: str) -> dict[str, str]:
    return {
        "_time": f"1970-01-01T00:00:{at}Z",
        "_msg": message,
        "severity": "WARN",
        "service.name": "payment-service",
        "span_id": span_id,
        **fields,
    }


def shown(*traces: Trace) -> list[str]:
    return [line.plain for line in timeline.lines(timeline.entries(traces))]


def test_a_story_in_order_of_time() -> None:
    records = [
        logged("01.001200999", "put off", "2", order_id="o-1", duration_ms="1.23456"),
        logged("01.004", "late", "unknown"),
    ]
    traces = (Trace(SECOND, [RESUMED], []), Trace(FIRST, [CHILD, ROOT], records))
    assert shown(*traces) == [
        " ms  service  level span (took), · event, log record",
        f"trace {FIRST}",
        "0.0  order          POST (5.0 ms)",
        "1.0  payment          ! charge (2.0 ms): refused",
        "1.2  payment  warn      put off duration_ms=1.2",
        "1.5  payment            · declined reason=card declined",
        f"trace {SECOND}",
        "3.0  order          resume (0.0 ms)",
        f"trace {FIRST}",
        "4.0  payment  warn  late",
    ]


def test_as_json_nothing_is_left_out() -> None:
    record = logged("01.001200", "put off", "2", order_id="o-1", duration_ms="1.23456")
    entries = timeline.entries([Trace(FIRST, [ROOT, CHILD], [record])])
    documents = [json.loads(json.dumps(timeline.document(entry))) for entry in entries]
    assert [(each["kind"], each["_time"]) for each in documents] == [
        ("span", "1970-01-01T00:00:01.000000Z"),
        ("span", "1970-01-01T00:00:01.001000Z"),
        ("log", "1970-01-01T00:00:01.001200Z"),
        ("event", "1970-01-01T00:00:01.001500Z"),
    ]
    assert documents[0]["self_us"] == 3_000
    assert documents[2] == record | {
        "_time": "1970-01-01T00:00:01.001200Z",
        "kind": "log",
        "trace_id": FIRST,
    }
    assert {each["service.name"] for each in documents} == {"order-service", "payment-service"}


def test_nothing_is_no_lines() -> None:
    assert timeline.lines(timeline.entries([Trace(FIRST, [], [])])) == []


@st.composite
def traces(draw: st.DrawFn) -> list[Trace]:
    rng = random.Random(draw(st.integers()))
    found = []
    for trace_id in (FIRST, SECOND):
        ids = [str(n) for n in range(draw(st.integers(0, 6)))]
        spans = [
            Span(
                span_id=span_id,
                parent_id=rng.choice([None, "gone", *ids]),
                service=rng.choice(["order-service", "a-service-with-a-long-name"]),
                name="long name " * rng.choice([1, 20]),
                start_us=rng.randrange(10**12),
                duration_us=rng.randrange(10**7),
                trace_id=trace_id,
            )
            for span_id in ids
        ]
        found.append(Trace(trace_id, spans, [logged("01.5", "x" * 200, rng.choice(["0", ""]))]))
    return found


@given(traces())
def test_any_story_fits_has_all_and_is_in_order(told: list[Trace]) -> None:
    entries = timeline.entries(told)
    assert len(entries) == sum(len(trace.spans) + len(trace.records) for trace in told)
    assert [entry.at_us for entry in entries] == sorted(entry.at_us for entry in entries)
    lines = [line.plain for line in timeline.lines(entries)]
    assert all(len(line) <= WIDTH for line in lines)
    assert len([line for line in lines if not line.startswith("trace ")]) == len(entries) + 1
