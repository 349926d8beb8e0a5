"""The plan: wholly decided by its numbers and seed."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.errors import UserError
from prove.verify import plan
from prove.verify.plan import CRASH_POINTS, CrashPoint, Cut, Kill, Plan

SMALL = plan.make(2000, 30, 7, partitions=True)


def test_the_same_seed_is_the_same_plan() -> None:
    assert plan.make(2000, 30, 7, partitions=True) == SMALL
    other = plan.make(2000, 30, 8, partitions=True)
    assert other.purchases != SMALL.purchases
    assert other.faults != SMALL.faults
    assert other.products != SMALL.products


def test_more_kills_and_cuts_do_not_change_what_is_bought() -> None:
    calm = plan.make(2000, 0, 7)
    assert calm.faults == ()
    assert (calm.products, calm.purchases) == (SMALL.products, SMALL.purchases)
    without = plan.make(2000, 30, 7)
    assert without.faults == tuple(f for f in SMALL.faults if not isinstance(f, Cut))


def test_another_rate_changes_nothing_but_the_times() -> None:
    slow = plan.make(2000, 30, 7, partitions=True, rate_per_s=20)
    assert slow.faults == SMALL.faults
    for ours, theirs in zip(slow.purchases, SMALL.purchases, strict=True):
        assert replace(ours, offset_s=0) == replace(theirs, offset_s=0)
        assert ours.offset_s == pytest.approx(5 * theirs.offset_s, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    orders=st.integers(1, 300),
    kills=st.integers(0, 100),
    seed=st.integers(),
    partitions=st.booleans(),
)
def test_every_plan_is_sound(orders: int, kills: int, seed: int, partitions: bool) -> None:
    made = plan.make(orders, kills, seed, partitions=partitions)
    assert Plan.from_json(made.to_json()) == made
    assert [purchase.op for purchase in made.purchases] == list(range(orders))
    assert all(a.offset_s < b.offset_s for a, b in pairwise(made.purchases))
    assert len({purchase.key for purchase in made.purchases}) == orders
    skus = {product.sku for product in made.products}
    for purchase in made.purchases:
        bought = [sku for sku, _ in purchase.lines]
        assert bought
        assert skus >= set(bought)
        assert len(set(bought)) == len(bought)
    crashes = [fault for fault in made.faults if not isinstance(fault, Cut)]
    assert len(crashes) == kills
    assert len(made.faults) > kills or not partitions
    assert all(a.after_op <= b.after_op for a, b in pairwise(made.faults))
    assert all(0 <= fault.after_op < orders for fault in made.faults)


def test_customers_do_all_that_customers_do() -> None:
    count = len(SMALL.purchases)
    methods = Counter(purchase.method for purchase in SMALL.purchases)
    assert methods["tok_approve"] > 0.8 * count
    assert set(methods) == {
        "tok_approve",
        "tok_decline",
        "tok_decline_funds",
        "tok_unknown",
        "tok_slow",
    }
    impatient = [p for p in SMALL.purchases if p.timeout_s <= 0.05]
    assert all(p.timeout_s >= 0.001 for p in impatient)
    for some in (
        impatient,
        [p for p in SMALL.purchases if p.double],
        [p for p in SMALL.purchases if p.cancel_after_s is not None],
    ):
        assert 0.01 * count < len(some) < 0.2 * count


def test_a_few_products_run_short_and_most_do_not() -> None:
    wanted = Counter[str]()
    for purchase in SMALL.purchases:
        wanted.update(dict(purchase.lines))
    short = [product for product in SMALL.products if product.stock < wanted[product.sku]]
    assert len(short) == len(SMALL.products) // 10


def test_thirty_kills_visit_twenty_points_and_all_are_visited_in_turn() -> None:
    points = [fault for fault in SMALL.faults if isinstance(fault, CrashPoint)]
    assert len({point.file_name for point in points}) == len(points) == 20
    many = plan.make(2000, 1000, 7).faults
    visits = Counter(fault.file_name for fault in many if isinstance(fault, CrashPoint))
    assert set(visits) == {f"{s}.{point}" for s, points in CRASH_POINTS.items() for point in points}
    assert max(visits.values()) - min(visits.values()) <= 1
    targets = Counter((f.service, f.worker) for f in many if isinstance(f, Kill))
    assert set(targets) == {
        ("order", False),
        ("payment", False),
        ("product", False),
        ("product", True),
        ("acquirer", False),
    }
    assert targets.most_common(1)[0][0] == ("order", False)


def test_every_link_is_cut_in_every_way() -> None:
    many = plan.make(2000, 100, 7, partitions=True).faults
    cuts = [fault for fault in many if isinstance(fault, Cut)]
    kinds = {"latency", "reset", "black-hole", "half-open", "torn-answer"}
    links = {"order-product", "order-payment", "payment-acquirer"}
    assert {(cut.link, cut.name) for cut in cuts} == {(link, k) for link in links for k in kinds}
    assert all(0.5 <= cut.duration_s <= 4 for cut in cuts)


def test_what_is_no_plan_is_refused() -> None:
    for text in (b"", b"{}", SMALL.to_json().replace(b'"order-product"', b'"order-moon"')):
        with pytest.raises(UserError, match="that is no plan of a run: "):
            Plan.from_json(text)
