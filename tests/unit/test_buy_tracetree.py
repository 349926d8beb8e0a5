"""A trace as text."""

import random

from hypothesis import given
from hypothesis import strategies as st

from prove.tracetree import WIDTH, Span, render, self_time_us


def span(
    span_id: str,
    parent_id: str | None = None,
    start_us: int = 0,
    duration_us: int = 1_000,
    name: str = "",
    *,
    failed: bool = False,
) -> Span:
    return Span(span_id, parent_id, "shop", name or span_id, start_us, duration_us, failed=failed)


def names(spans: list[Span]) -> list[str]:
    """The first column, indentation and all."""
    return [line.split("  shop  ")[0].rstrip() for line in render(spans)[1:]]


def test_a_child_is_below_its_parent_in_order_of_time() -> None:
    spans = [span("late", "root", 20), span("early", "root", 10), span("root"), span("in", "late")]
    assert names(spans) == ["root", "  early", "  late", "    in"]


def test_a_span_whose_parent_is_missing_is_a_root() -> None:
    assert names([span("a", "nobody"), span("b", "a")]) == ["a", "  b"]


def test_many_alike_become_one_line() -> None:
    alike = [span(f"s{n}", "root", start_us=n, name="UPDATE") for n in range(5)]
    assert names([span("root"), *alike]) == ["root", "  UPDATE ×5"]  # noqa: RUF001
    assert names([span("root"), *alike[:3]]) == ["root", *["  UPDATE"] * 3]


def test_alike_with_children_stay_apart() -> None:
    alike = [span(f"s{n}", "root", start_us=n, name="CALL") for n in range(4)]
    leaves = [span(f"t{n}", f"s{n}", start_us=n, name="IN") for n in range(4)]
    assert len(render([span("root"), *alike, *leaves])) == 1 + 9


def test_a_failed_span_is_marked() -> None:
    assert names([span("a", failed=True)]) == ["! a"]


def test_durations_and_self_times_are_in_ms() -> None:
    parent = span("a", duration_us=12_340)
    line = render([parent, span("b", "a", 0, 2_340)])[1]
    assert line.split()[2:6] == ["12.3", "ms", "10.0", "ms"]


def test_self_time_counts_overlapping_children_once_and_only_inside() -> None:
    parent = span("a", start_us=100, duration_us=100)
    children = [span("b", "a", 110, 30), span("c", "a", 120, 40), span("d", "a", 190, 500)]
    assert self_time_us(parent, children) == 100 - 50 - 10


def test_nothing_is_no_lines() -> None:
    assert render([]) == []


@st.composite
def traces(draw: st.DrawFn) -> list[Span]:
    """Any spans at all: parents missing, their own, or in circles; clocks apart; long names."""
    ids = [str(n) for n in range(draw(st.integers(1, 12)))]
    rng = random.Random(draw(st.integers()))
    return [
        Span(
            span_id=span_id,
            parent_id=rng.choice([None, "gone", *ids]),
            service=rng.choice(["order-service", "product-service"]),
            name=rng.choice(["x", "long name " * 20, "POST /api/v1/orders"]),
            start_us=rng.randrange(10**6),
            duration_us=rng.choice([0, 1, rng.randrange(10**7)]),
        )
        for span_id in ids
    ]


@given(traces())
def test_any_trace_fits_and_shows_every_span(spans: list[Span]) -> None:
    lines = render(spans)
    assert all(len(line) <= WIDTH for line in lines)
    merged = sum(int(line.split("×")[1].split()[0]) - 1 for line in lines if "×" in line)  # noqa: RUF001
    assert len(lines) - 1 + merged == len(spans)
