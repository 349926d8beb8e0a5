"""What a load test sends, and how its figures are read."""

import json
from collections import Counter
from itertools import islice

import pytest

from prove import units
from prove.errors import UserError
from prove.loadtest import (
    MAX_REQUESTS,
    WEIGHTS,
    Mix,
    Offer,
    Operation,
    payment_methods,
    requests,
    result,
)

OFFERS = [Offer(f"S{n}", f"BLUE MUG {n}", "kitchen ware") for n in range(30)]


@pytest.mark.parametrize("mix", Mix)
def test_a_mix_has_its_shares(mix: Mix) -> None:
    assert sum(WEIGHTS[mix].values()) == 100
    drawn = Counter(each.operation for each in requests(OFFERS, mix, 4_000, 1, 0.0))
    assert set(drawn) == set(WEIGHTS[mix])
    for operation, percent in WEIGHTS[mix].items():
        assert drawn[operation] / 40 == pytest.approx(percent, abs=3)


def test_the_same_seed_draws_the_same() -> None:
    def drawn(seed: int) -> list[object]:
        return list(requests(OFFERS, Mix.MIXED, 200, seed, 0.1))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_no_more_different_requests_than_are_of_use() -> None:
    assert len(requests(OFFERS, Mix.BROWSE, 10**9, 1, 0.0)) == MAX_REQUESTS
    assert len(requests(OFFERS, Mix.BROWSE, 0, 1, 0.0)) == 1


def test_baskets_and_paths_are_of_the_catalogue() -> None:
    skus = {offer.sku for offer in OFFERS}
    for request in requests(OFFERS, Mix.MIXED, 500, 1, 0.0):
        if request.operation is Operation.CHECKOUT:
            order = json.loads(request.body or "")
            bought = [line["sku"] for line in order["lines"]]
            assert 1 <= len(set(bought)) == len(bought) <= 5
            assert set(bought) <= skus
        elif request.operation is Operation.ITEM:
            assert request.path.removeprefix("/api/v1/products/") in skus
        else:
            assert request.path.startswith("/api/v1/products?limit=20&")
            assert " " not in request.path


def test_a_single_product_is_enough() -> None:
    assert len(requests(OFFERS[:1], Mix.CHECKOUT, 50, 1, 0.0)) == 50


def test_payments_are_declined_by_their_share() -> None:
    drawn = Counter(islice(payment_methods(1, 0.25), 4_000))
    assert drawn["tok_approve"] / 4_000 == pytest.approx(0.75, abs=0.03)
    assert set(drawn) == {"tok_approve", "tok_decline", "tok_decline_funds"}
    assert set(islice(payment_methods(1, 0.0), 100)) == {"tok_approve"}


def summary(**counts: float) -> dict[str, object]:
    metrics: dict[str, object] = {
        name: {"values": {"count": count}} for name, count in counts.items()
    }
    metrics["checkout_ms"] = {
        "values": {"count": 9, "med": 5.004, "p(95)": 9.0, "p(99)": 10, "max": 11}
    }
    return {"metrics": metrics, "duration_ms": 2_000}


def test_declined_and_short_orders_are_no_failures() -> None:
    got = result(
        summary(checkout_requests=9, outcome_confirmed=6, outcome_declined=2, outcome_short=1)
    )
    assert got.holds
    assert got.outcomes == {"confirmed": 6, "unsettled": 0, "declined": 2, "short": 1}
    assert (got.rate_per_s, got.operations["checkout"].p50_ms) == (4.5, 5.0)
    assert list(got.operations) == ["checkout"]


@pytest.mark.parametrize(
    "counts",
    [
        {"checkout_failures": 1, "failed_5xx": 1},
        {"dropped_iterations": 1},
        {"late": 1},
        {"checkout_requests": 0},
    ],
)
def test_what_makes_a_load_not_hold(counts: dict[str, int]) -> None:
    assert not result(summary(**{"checkout_requests": 9, **counts})).holds


def test_what_a_replay_did_not_send_is_dropped() -> None:
    assert result(summary(checkout_requests=9), planned=9).dropped == 0
    assert result(summary(checkout_requests=9), planned=12).dropped == 3


def test_failures_are_told_by_kind() -> None:
    got = result(
        summary(checkout_requests=9, checkout_failures=3, failed_5xx=2, failed_no_answer=1)
    )
    assert got.failed_by == {"no answer": 1, "5xx": 2}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("60s", 60), ("1m30s", 90), ("1.5h", 5_400), ("1h1m1s1ms", 3_661.001)],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration_s(text, "--x") == seconds


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(0, "span", "0 spans"), (1, "span", "1 span"), (1234, "process", "1,234 processes")],
)
def test_what_is_counted_is_one_or_many(number: int, noun: str, text: str) -> None:
    assert units.count(number, noun) == text


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "0s", "1s ", "1 s", "8d", "999h", "1e3s", "٣s"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UserError, match=r"^--x "):
        units.duration_s(text, "--x")


@pytest.mark.parametrize(
    ("text", "count", "period_s"),
    [("50/s", 50, 1), ("50", 50, 1), ("90/m", 3, 2), ("0.5/s", 1, 2), ("1/h", 1, 3600)],
)
def test_rates(text: str, count: int, period_s: int) -> None:
    assert units.rate(text, "--x") == units.Rate(count, period_s)


@pytest.mark.parametrize("text", ["", "0", "-1/s", "10001/s", "1/d", "a/s", "1//s"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(UserError, match=r"^--x "):
        units.rate(text, "--x")


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), ("2", 0.02), ("0", 0), ("100%", 1)])
def test_shares(text: str, share: float) -> None:
    assert units.share(text, "--x") == share


@pytest.mark.parametrize("text", ["", "-1%", "101%", "%", "two"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UserError, match=r"^--x "):
        units.share(text, "--x")


def test_money() -> None:
    assert units.money(123_405, "GBP") == "1,234.05 GBP"
